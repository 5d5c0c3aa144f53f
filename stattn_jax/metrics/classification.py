"""Classification metrics of whole splits in NumPy: top-k accuracy, average precision, ROC AUC, F1.

All functions take scores [n c] and multi-hot labels [n c] of real clips: the caller removes padding rows, so that every
clip counts once. A single label is a multi-hot row with one 1; a row of zeros is a clip without any of the classes.
"""

import math
import statistics

import numpy as np


def top_k(scores_nc: np.ndarray, labels_nc: np.ndarray, k: int = 1) -> float:
    """Returns the share of clips with at least one of their labels among the k best classes.

    With several labels and k = 1, a clip counts if the best class is one of them. Equal scores rank by class number, so
    that a rerun gives the same number.
    """
    best = np.argsort(-scores_nc, axis=1, kind='stable')[:, :k]
    return float(np.take_along_axis(labels_nc > 0, best, axis=1).any(axis=1).mean())


def most_frequent(labels_nc: np.ndarray) -> np.ndarray:
    """Returns scores [n c] of a constant predictor: for every clip, the number of clips that have the class."""
    return np.broadcast_to((labels_nc > 0).sum(axis=0, dtype=float), labels_nc.shape)


def average_precision(scores_n: np.ndarray, positive_n: np.ndarray) -> float:
    """Returns the average precision of one class, sum over distinct scores of (gain in recall) * precision.

    It is NaN without positives. Clips of equal score enter together, so that their order in the file cannot change the
    number (the step-wise, non-interpolated definition: Manning et al., Introduction to Information Retrieval, 2008,
    section 8.4).
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


def roc_auc(scores_n: np.ndarray, positive_n: np.ndarray) -> float:
    """Returns the area under the ROC curve of one class.

    It is the probability that a positive clip has a higher score than a negative one, where ties count half. It is
    computed from the sum of the positives' ranks, where equal scores share their mean rank (Hanley and McNeil,
    Radiology 143, 1982). NaN without positives or without negatives.
    """
    positive = positive_n > 0
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return float('nan')
    _, group_n, size = np.unique(scores_n, return_inverse=True, return_counts=True)
    rank_n = (np.cumsum(size) - (size - 1) / 2)[group_n]
    return float((rank_n[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def d_prime(auc: float) -> float:
    """Returns sqrt(2) times the normal quantile of an AUC: 0 at chance, infinite at 1 and minus infinite at 0.

    VGGSound and AudioSet report it for the *mean* AUC of the classes, not as a mean over the classes' d' (Hershey et
    al., arXiv 1609.09430).
    """
    return math.sqrt(2) * statistics.NormalDist().inv_cdf(auc) if 0 < auc < 1 else math.copysign(math.inf, auc - 0.5)


def f1(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Returns 2 TP / (2 TP + FP + FN) over all entries of two boolean arrays of one shape ("micro").

    It is 0 where both are empty.
    """
    count = int(predicted.sum()) + int(truth.sum())
    return float(2 * (predicted & truth).sum() / count) if count else 0.0


def macro(name: str, values_c: np.ndarray) -> dict[str, float | int]:
    """Returns the mean of the classes' values that are not NaN, and the number of NaN values as `name`_skipped.

    The mean, under `name`, is left out where all values are NaN.
    """
    seen = ~np.isnan(values_c)
    mean = {name: float(values_c[seen].mean())} if seen.any() else {}
    return mean | {f'{name}_skipped': int((~seen).sum())}


def mean_average_precision(scores_nc: np.ndarray, labels_nc: np.ndarray, prefix: str) -> dict[str, float | int]:
    """Returns `map`, `map_skipped` and `map_chance` under `prefix`.

    `map` is the average precision, mean over the classes with a positive clip, and `map_skipped` counts the other
    classes. `map_chance` is that of one score for all clips: the share of positives, mean over the same classes.
    """
    aps_c = np.array([average_precision(s, p) for s, p in zip(scores_nc.T, labels_nc.T, strict=True)])
    share_c = (labels_nc > 0).mean(axis=0)
    chance = {f'{prefix}map_chance': float(share_c[share_c > 0].mean())} if share_c.any() else {}
    return macro(f'{prefix}map', aps_c) | chance


def check_scores(scores_nc: np.ndarray) -> None:
    """Raises ValueError where there is no clip or a score is not finite."""
    if not len(scores_nc):
        raise ValueError('classification of 0 clips: expected at least one scored clip; check the split')
    if not np.isfinite(scores_nc).all():
        bad = int((~np.isfinite(scores_nc)).any(axis=1).sum())
        raise ValueError(f'{bad} of {len(scores_nc)} clips have a score that is not finite; try an older checkpoint')


def summary(scores_nc: np.ndarray, labels_nc: np.ndarray) -> dict[str, float | int]:
    """Returns the `classification/` block of eval_SPLIT.json: top1, top5, map, auc, dprime and n.

    `top5` is only there for more than five classes. `scores` are log-probabilities, since probabilities saturate at 1
    and make ties. The block also has predictors that ignore the clip: `top1_majority` always predicts the most frequent
    label of this split, and `map_chance` gives every clip one score (an AUC of 0.5).

    `unlabelled` counts the clips without any label: they are negatives in `map` and `auc`, and do not count in top-k.
    Classes without a positive clip have no average precision, and those without a positive or a negative one have no
    AUC; `map_skipped` and `auc_skipped` count them. A mean over nothing is left out, and so is `dprime` where it would
    be infinite, which JSON cannot represent. Raises ValueError on an empty split or a score that is not finite.
    """
    check_scores(scores_nc)
    labelled_n = (labels_nc > 0).any(axis=1)
    auc = macro('classification/auc', np.array([roc_auc(s, p) for s, p in zip(scores_nc.T, labels_nc.T, strict=True)]))
    if 0 < auc.get('classification/auc', 0) < 1:
        auc['classification/dprime'] = d_prime(auc['classification/auc'])
    return {
        **(_top_rates(scores_nc[labelled_n], labels_nc[labelled_n]) if labelled_n.any() else {}),
        **mean_average_precision(scores_nc, labels_nc, 'classification/'),
        **auc,
        'classification/n': len(scores_nc),
        'classification/unlabelled': int((~labelled_n).sum()),
    }


def _top_rates(scores_nc, labels_nc):
    top5 = {'classification/top5': top_k(scores_nc, labels_nc, 5)} if scores_nc.shape[1] > 5 else {}
    return {
        'classification/top1': top_k(scores_nc, labels_nc, 1),
        'classification/top1_majority': top_k(most_frequent(labels_nc), labels_nc, 1),
        **top5,
    }
