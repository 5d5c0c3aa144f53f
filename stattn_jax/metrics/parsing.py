"""Audio-visual video parsing (LLP): segment- and event-level F of audible and visible events.

The numbers are those of the published evaluator. Arrays are bool [n m t c], modality m 0 visual and 1 audio. Per clip,
each class with a prediction or a true event has F = 2 TP / (2 TP + FP + FN); the clip's score is the mean over these
classes, and 1 where there are none; the split's is the mean over clips (Tian, Li and Xu, arXiv 2007.10558, and the
evaluator that came with it). Because of that 1, predicting no events at all scores 14.5 % for audio-visual events of
LLP's test split; `summary` reports such trivial predictors beside the model.
"""

import numpy as np

TIOU = 0.5
KINDS = ('audio', 'visual', 'av', 'type', 'event')


def segment_counts(predicted_ntc: np.ndarray, truth_ntc: np.ndarray) -> np.ndarray:
    """Returns TP, FP, FN [3 n c] over the segments of each clip."""
    parts = predicted_ntc & truth_ntc, predicted_ntc & ~truth_ntc, ~predicted_ntc & truth_ntc
    return np.stack([part.sum(axis=1) for part in parts])


def event_counts(predicted_ntc: np.ndarray, truth_ntc: np.ndarray) -> np.ndarray:
    """Returns TP, FP, FN [3 n c] over the events of each clip, which are unbroken runs of segments.

    A predicted event is right if its temporal intersection over union with a true one of its class is at least 0.5.
    Runs of one class are separated by gaps, so that no event can be right twice and matching needs no assignment.
    """
    n, _, c = truth_ntc.shape
    place_p, start_p, end_p = _runs(predicted_ntc)
    place_g, start_g, end_g = _runs(truth_ntc)
    # Pairs of a predicted and a true event of the same clip and class; both lists are in order of `place`.
    first, last = np.searchsorted(place_g, place_p, 'left'), np.searchsorted(place_g, place_p, 'right')
    p = np.repeat(np.arange(len(place_p)), last - first)
    g = np.arange(len(p)) - np.repeat(np.cumsum(last - first) - last, last - first)
    # The overlap is negative for disjoint events, which then fail for any union.
    both = np.minimum(end_p[p], end_g[g]) - np.maximum(start_p[p], start_g[g])
    union = (end_p - start_p)[p] + (end_g - start_g)[g] - both
    right = place_p[p[both >= TIOU * union]]
    tp, predicted, true = (np.bincount(place, minlength=n * c).reshape(n, c) for place in (right, place_p, place_g))
    return np.stack([tp, predicted - tp, true - tp])


def _runs(there_ntc):
    """Returns the runs of True along t, ordered by clip and class.

    Their columns are clip * c + class, the first segment, and the first segment after the run.
    """
    n, t, c = there_ntc.shape
    edges = np.diff(there_ntc.transpose(0, 2, 1).reshape(n * c, t).astype(np.int8), axis=1, prepend=0, append=0)
    place, start = np.nonzero(edges == 1)
    return place, start, np.nonzero(edges == -1)[1]


def f_score(counts_3nc: np.ndarray) -> float:
    """Returns F per class that occurs in a clip, mean over these classes (1 where there are none), then over clips."""
    tp_nc, fp_nc, fn_nc = counts_3nc
    total_nc = 2 * tp_nc + fp_nc + fn_nc
    f_nc = 2 * tp_nc / np.maximum(total_nc, 1)
    classes_n = (total_nc > 0).sum(axis=1)
    return float(np.where(classes_n > 0, f_nc.sum(axis=1) / np.maximum(classes_n, 1), 1.0).mean())


def scores(predicted_nmtc: np.ndarray, truth_nmtc: np.ndarray) -> dict[str, float]:
    """Returns the ten numbers: `segment_` and `event_` before `audio`, `visual`, `av`, `type` and `event`.

    `av` (audio-visual) requires both modalities at the same segment. `type` is the mean of `audio`, `visual` and `av`.
    `event` (Event@AV) adds the counts of audio and visual before F is computed.
    """
    numbers: dict[str, float] = {}
    for level, count in (('segment', segment_counts), ('event', event_counts)):
        visual, audio = (count(predicted_nmtc[:, m], truth_nmtc[:, m]) for m in (0, 1))
        av = count(np.all(predicted_nmtc, axis=1), np.all(truth_nmtc, axis=1))
        three = [f_score(counts) for counts in (audio, visual, av)]
        values = (*three, float(np.mean(three)), f_score(audio + visual))
        numbers |= {f'{level}_{kind}': value for kind, value in zip(KINDS, values, strict=True)}
    return numbers


def summary(predicted_nmtc: np.ndarray, truth_nmtc: np.ndarray, labels_nc: np.ndarray) -> dict[str, float | int]:
    """Returns the `parsing/` block of eval_SPLIT.json and those of trivial predictors, each with the ten `scores`.

    `parsing_nothing/` never predicts an event; `parsing_most_frequent/` predicts, in the audio of every segment, the
    class that is audible in the most clips; `parsing_labels/` predicts the clip's true labels [n c] in every segment of
    both modalities; `parsing_modality_labels/` predicts the true labels of each modality in every segment.

    The published row of LLP's true video labels has the labels of its weak label file, not the union of its dense ones,
    which differs in 53 of the 1,200 test clips. Raises ValueError where shapes differ or there is no clip.
    """
    n, _, _, c = truth_nmtc.shape
    if predicted_nmtc.shape != truth_nmtc.shape or labels_nc.shape != (n, c) or not n:
        raise ValueError(
            f'events predicted {predicted_nmtc.shape}, true {truth_nmtc.shape}, labels {labels_nc.shape}: '
            'expected [n m t c], [n m t c] and [n c] with at least one clip'
        )
    there_nmc = np.any(truth_nmtc, axis=2)
    speech = np.zeros_like(truth_nmtc)
    speech[:, 1, :, there_nmc[:, 1].sum(axis=0).argmax()] = True
    rows = {
        'parsing': predicted_nmtc,
        'parsing_nothing': np.zeros_like(truth_nmtc),
        'parsing_most_frequent': speech,
        'parsing_labels': np.broadcast_to(labels_nc[:, None, None] > 0, truth_nmtc.shape),
        'parsing_modality_labels': np.broadcast_to(there_nmc[:, :, None], truth_nmtc.shape),
    }
    numbers = {f'{row}/{name}': x for row, values in rows.items() for name, x in scores(values, truth_nmtc).items()}
    return numbers | {'parsing/n': n}
