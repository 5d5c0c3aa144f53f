"""Event localization with one event per clip (AVE): segment accuracy with background as a class, and event F1.

The published number is the share of segments whose best of 28 events and background is the true one (Tian et al., arXiv
1803.08842), the same for supervised and weakly supervised models. Two thirds of AVE's clips are one event from end to
end, so that predicting the right label everywhere, without any localization, reaches 82.2 % of the test split. The
informative numbers are therefore `_partial`, on the clips that are neither all event nor all background, and the two
F1.
"""

import numpy as np

from stattn_jax.metrics import classification

NO_EVENT = -1


def summary(predicted_nt: np.ndarray, truth_nt: np.ndarray, label_n: np.ndarray) -> dict[str, float | int]:
    """Returns the `segments/` block of eval_SPLIT.json, from class numbers [n t] and the clips' labels [n].

    Class number -1 is no event. `accuracy` counts a segment if the class, or no event, is the true one. `event_f1`
    pools the segments with an event, where a wrong class is both a false alarm and a miss; `background_f1` pools those
    without. `background` is the share of true segments without an event. Trivial predictors have the same names with a
    suffix: `_true_label_everywhere` predicts the clip's true label in every segment, `_background_everywhere` never
    predicts an event. Each number is also given for the clips with both event and background segments (`_partial`), and
    left out where there are none; `n`, `n_partial` count clips. Raises ValueError where the shapes differ or there is
    no clip.
    """
    if predicted_nt.shape != truth_nt.shape or label_n.shape != truth_nt.shape[:1] or not truth_nt.size:
        raise ValueError(
            f'segments predicted {predicted_nt.shape}, true {truth_nt.shape}, labels {label_n.shape}: '
            'expected [n t], [n t] and [n] with at least one clip'
        )
    background_nt = truth_nt == NO_EVENT
    partial_n = background_nt.any(axis=1) & ~background_nt.all(axis=1)
    predictors = {
        '': predicted_nt,
        '_true_label_everywhere': np.broadcast_to(label_n[:, None], truth_nt.shape),
        '_background_everywhere': np.full_like(truth_nt, NO_EVENT),
    }
    numbers: dict[str, float | int] = {'segments/n': len(truth_nt), 'segments/n_partial': int(partial_n.sum())}
    for subset, kept_n in (('', np.ones(len(truth_nt), bool)), ('_partial', partial_n)):
        if not kept_n.any():
            continue
        numbers[f'segments/background{subset}'] = float(background_nt[kept_n].mean())
        for row, found_nt in predictors.items():
            rates = _rates(found_nt[kept_n], truth_nt[kept_n])
            numbers |= {f'segments/{name}{subset}{row}': rate for name, rate in rates.items()}
    return numbers


def _rates(predicted_nt, truth_nt):
    right_nt = predicted_nt == truth_nt
    event_nt, true_nt = predicted_nt != NO_EVENT, truth_nt != NO_EVENT
    events = int(event_nt.sum()) + int(true_nt.sum())
    return {
        'accuracy': float(right_nt.mean()),
        'event_f1': float(2 * (right_nt & true_nt).sum() / events) if events else 0.0,
        'background_f1': classification.f1(~event_nt, ~true_nt),
    }
