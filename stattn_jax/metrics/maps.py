"""Properties of attribution maps: sparseness, complexity, stability, similarity and agreement with removal.

None of them measures quality by itself: attention at temperature zero has the highest possible sparseness. All
functions take arrays of any shape on the map's own grid, since up-sampling changes the number of cells and so the
values; all return NaN where they are not defined. Pass only units that exist, as `map[valid]`.
"""

from collections.abc import Sequence

import numpy as np


def gini(map_: np.ndarray) -> float:
    """Returns the sparseness, the Gini index of |values|: 0 for a constant map, 1 - 1/n if one of n values is all.

    sum_i (2i - n - 1) |x|_(i) / (n sum |x|), |x|_(1) the smallest (Hurley and Rickard, arXiv 0811.4706). NaN for zeros.
    """
    size = np.sort(np.abs(np.asarray(map_, float)), axis=None)
    n = size.size
    return float((2 * np.arange(1, n + 1) - n - 1) @ size / (n * size.sum())) if size.any() else float('nan')


def entropy(map_: np.ndarray) -> float:
    """Returns the complexity, -sum p ln p / ln n with p = |values| / their sum.

    It is 1 for a constant map and 0 for one value. Bhatt et al., arXiv 2005.00631, define it without the division. NaN
    for zeros and for a map of one unit.
    """
    size = np.abs(np.asarray(map_, float)).ravel()
    if not size.any() or size.size < 2:
        return float('nan')
    share = size[size > 0] / size.sum()
    return float(-(share * np.log(share)).sum() / np.log(size.size))


def max_sensitivity(map_: np.ndarray, disturbed: Sequence[np.ndarray]) -> float:
    """Returns the largest distance from the map to those of disturbed inputs [k ...], divided by the map's norm.

    The norms are Frobenius norms (Yeh et al., arXiv 1901.09392). The value grows with the disturbance and with k, so
    report both with it. NaN for a map of zeros.
    """
    size = np.linalg.norm(map_)
    return float(max(np.linalg.norm(other - map_) for other in disturbed) / size) if size else float('nan')


def infidelity(map_: np.ndarray, removed_k: np.ndarray, drop_k: np.ndarray, *, scaled: bool = False) -> float:
    """Returns the mean squared gap between the drop that the map predicts for a removal and the measured drop.

    Yeh et al., arXiv 1901.09392: mean_k (sum(removed_k * map) - drop_k)^2. For contributions, `removed` is 1 for the
    units removed in trial k, [k *map.shape], and `drop` [k] is the fall of the score; for a gradient, `removed` is what
    was subtracted from the input. `scaled` first multiplies the map by the factor that fits these trials best, for maps
    whose unit is not the score's.
    """
    predicted_k = np.asarray(removed_k, float).reshape(len(drop_k), -1) @ np.asarray(map_, float).ravel()
    if scaled and predicted_k.any():
        predicted_k = predicted_k * (predicted_k @ drop_k) / (predicted_k @ predicted_k)
    return float(np.mean((predicted_k - drop_k) ** 2))


def sign_agreement(map_: np.ndarray, drop: np.ndarray, least: float = 0.0) -> float:
    """Returns the share of units whose value has the sign of the score's fall when that unit alone is removed.

    A unit counts if its value is not 0 and its removal moves the score by more than `least`; NaN where none counts.
    Disagreement violates faithfulness (Liu et al., arXiv 2201.12114): the map calls the unit support, but the score
    rises without it. Chance level is 1/2; attention has no negative values and scores the share of positive falls.
    """
    map_, drop = np.asarray(map_), np.asarray(drop)
    counts = (map_ != 0) & (np.abs(drop) > least)
    return float((np.sign(map_) == np.sign(drop))[counts].mean()) if counts.any() else float('nan')


def rank_correlation(map_: np.ndarray, other: np.ndarray, magnitude: bool = False) -> float:
    """Returns Spearman's correlation of two maps' values, or of their absolute values (`magnitude`).

    It is Pearson's correlation of the ranks, where tied values share their mean rank. NaN where one map is constant or
    holds a NaN.
    """
    maps = [np.abs(x) if magnitude else np.asarray(x) for x in (map_, other)]
    if any(np.isnan(x).any() for x in maps):
        return float('nan')
    a, b = (ranks - ranks.mean() for ranks in map(_ranks, maps))
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size else float('nan')


def _ranks(values):
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place.ravel()]


def ssim(map_hw: np.ndarray, other_hw: np.ndarray, window: int = 5) -> np.ndarray:
    """Returns the structural similarity of frames [... h w], one by one: [...], 1 for equal frames.

    It is NaN where both are one constant. Wang et al. 2004 (IEEE Trans. Image Processing 13(4)), K = 0.01 and 0.03.
    Their Gaussian window of 11 x 11 pixels does not fit a map of 8 x 8 cells: here the window is uniform, `window`
    cells wide or the frame's size where that is smaller, at every place where it fits, and variances are plain means.
    The dynamic range is the largest less the smallest value of the two frames together. Give values of one sign: if the
    pattern and the mean level both change sign, the frames count as similar.
    """
    x, y = np.asarray(map_hw, float), np.asarray(other_hw, float)
    both = np.stack([x, y])
    span = both.max(axis=(0, -2, -1)) - both.min(axis=(0, -2, -1))
    c1, c2 = (np.square(k * np.where(span, span, np.nan))[..., None, None] for k in (0.01, 0.03))
    size = tuple(min(window, n) for n in x.shape[-2:])
    x, y = (np.lib.stride_tricks.sliding_window_view(z, size, axis=(-2, -1)) for z in (x, y))
    mean_x, mean_y = x.mean(axis=(-2, -1)), y.mean(axis=(-2, -1))
    x, y = x - mean_x[..., None, None], y - mean_y[..., None, None]
    level = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    shape = (2 * (x * y).mean((-2, -1)) + c2) / ((x * x).mean((-2, -1)) + (y * y).mean((-2, -1)) + c2)
    return (level * shape).mean(axis=(-2, -1))
