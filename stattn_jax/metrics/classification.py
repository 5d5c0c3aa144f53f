"""Did the model name the event: top-k accuracy, average precision; NumPy on whole splits. Read next: localization.py.

Everything takes scores [n c] and multi-hot labels [n c] of real clips: padding rows are removed by the caller, so that
every clip counts once. A single label is a multi-hot row with one 1.
"""

import numpy as np


def top_k(scores_nc: np.ndarray, labels_nc: np.ndarray, k: int = 1) -> float:
    """Share of clips with at least one of their labels among the k best classes.

    With several labels, k = 1 asks whether the best class is one of them. Equal scores rank by class number, so that a
    rerun gives the same number.
    """
    best = np.argsort(-scores_nc, axis=1, kind='stable')[:, :k]
    return float(np.take_along_axis(labels_nc > 0, best, axis=1).any(axis=1).mean())


def average_precision(scores_n: np.ndarray, positive_n: np.ndarray) -> float:
    """Average precision of one class: sum over distinct scores of (gain in recall) * precision; NaN without positives.

    Clips of equal score enter together, so that their order in the file cannot change the number (the step-wise,
    non-interpolated definition: Manning et al., Introduction to Information Retrieval, 2008, section 8.4).
    """
    positive = positive_n > 0
    if not positive.any():
        return float('nan')
    order = np.argsort(-scores_n, kind='stable')
    scores, hits = scores_n[order], np.cumsum(positive[order])
    group_ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    precision = hits[group_ends] / (group_ends + 1)
    gain = np.diff(hits[group_ends], prepend=0) / hits[-1]
    return float(np.sum(gain * precision))


def summary(scores_nc: np.ndarray, labels_nc: np.ndarray) -> dict[str, float | int]:
    """The `classification/` block of eval_SPLIT.json: top1, top5 (of more than five classes), map, map_skipped, n.

    `scores` are log-probabilities rather than probabilities: those saturate at 1 and make ties. Classes without a
    positive clip have no average precision; `map` leaves them out and `map_skipped` counts them. Raises ValueError on
    an empty split, a score that is not finite, or a clip without a label.
    """
    if not len(scores_nc):
        raise ValueError('classification of 0 clips: expected at least one scored clip; check the split')
    if not np.isfinite(scores_nc).all():
        bad = int((~np.isfinite(scores_nc)).any(axis=1).sum())
        raise ValueError(f'{bad} of {len(scores_nc)} clips have a score that is not finite; try an older checkpoint')
    unlabelled = int((~(labels_nc > 0).any(axis=1)).sum())
    if unlabelled:
        raise ValueError(
            f'{unlabelled} of {len(labels_nc)} clips have no label; expected at least one; check the prepared data set'
        )
    aps = np.array([average_precision(s, p) for s, p in zip(scores_nc.T, labels_nc.T, strict=True)])
    seen = ~np.isnan(aps)
    top5 = {'classification/top5': top_k(scores_nc, labels_nc, 5)} if scores_nc.shape[1] > 5 else {}
    return {
        'classification/top1': top_k(scores_nc, labels_nc, 1),
        **top5,
        'classification/map': float(aps[seen].mean()),
        'classification/map_skipped': int((~seen).sum()),
        'classification/n': len(scores_nc),
    }
