"""Which event in which second, one event a clip (AVE): segment accuracy with background as a class, and event F1.

The field's number is the share of segments whose best of 28 events and background is the true one (Tian et al., arXiv
1803.08842), the same for supervised and weakly supervised models. Two thirds of AVE's clips are one event
from end to end, so that saying the right label everywhere, without any localization, reaches 82.2 % of the test split:
read `_partial`, the clips that are neither all event nor all background, and the F1 of the two. Read next: parsing.py.
"""

import numpy as np

from stattn_jax.metrics import classification

NO_EVENT = -1


def summary(predicted_nt: np.ndarray, truth_nt: np.ndarray, label_n: np.ndarray) -> dict[str, float | int]:
    """The `segments/` block of eval_SPLIT.json, from class numbers [n t] and the clips' labels [n]; -1 is no event.

    `accuracy` counts a segment when the class, or no event, is the true one. `event_f1` pools the segments with an
    event, a wrong class being both a false alarm and a miss; `background_f1` those without. `background` is the share
    of true segments without an event. Trivial predictors, under the same names with a suffix:
    `_true_label_everywhere` knows the clip's label and says it in every segment, `_background_everywhere` never says
    anything. Each also over the clips with both event and background segments (`_partial`), left out where there are
    none; `n`, `n_partial` count clips. Raises ValueError where the shapes differ or there is no clip.
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
    numbers = {'segments/n': len(truth_nt), 'segments/n_partial': int(partial_n.sum())}
    for subset, kept_n in (('', np.ones(len(truth_nt), bool)), ('_partial', partial_n)):
        if not kept_n.any():
            continue
        numbers[f'segments/background{subset}'] = float(background_nt[kept_n].mean())
        for row, said_nt in predictors.items():
            rates = _rates(said_nt[kept_n], truth_nt[kept_n])
            numbers |= {f'segments/{name}{subset}{row}': rate for name, rate in rates.items()}
    return numbers


def _rates(predicted_nt, truth_nt):
    right_nt = predicted_nt == truth_nt
    said_nt, true_nt = predicted_nt != NO_EVENT, truth_nt != NO_EVENT
    events = int(said_nt.sum()) + int(true_nt.sum())
    return {
        'accuracy': float(right_nt.mean()),
        'event_f1': float(2 * (right_nt & true_nt).sum() / events) if events else 0.0,
        'background_f1': classification.f1(~said_nt, ~true_nt),
    }
