"""What a map is like, how like another, and whether its values mean what they say: sparseness, stability, agreement
with removal.

None of them is quality by itself: attention at temperature zero has the highest sparseness there is. All take arrays of
any shape, on the map's own grid, since up-sampling changes the number of cells and so the numbers; all are NaN where
they are not defined. Give only the units there are, as `map[valid]`. Read next: perturbation.py.
"""

from collections.abc import Sequence

import numpy as np


def gini(map_: np.ndarray) -> float:
    """Sparseness, the Gini index of |values|: 0 for a constant map, 1 - 1/n where one of n values is all; NaN for
    zeros.

    sum_i (2i - n - 1) |x|_(i) / (n sum |x|), |x|_(1) the smallest (Hurley and Rickard, arXiv 0811.4706).
    """
    size = np.sort(np.abs(np.asarray(map_, float)), axis=None)
    n = size.size
    return float((2 * np.arange(1, n + 1) - n - 1) @ size / (n * size.sum())) if size.any() else float('nan')


def entropy(map_: np.ndarray) -> float:
    """Complexity, -sum p ln p / ln n with p = |values| / their sum: 1 for a constant map, 0 for one value (Bhatt et
    al., arXiv 2005.00631, there without the division). NaN for zeros and for a map of one unit.
    """
    size = np.abs(np.asarray(map_, float)).ravel()
    if not size.any() or size.size < 2:
        return float('nan')
    share = size[size > 0] / size.sum()
    return float(-(share * np.log(share)).sum() / np.log(size.size))


def max_sensitivity(map_: np.ndarray, disturbed: Sequence[np.ndarray]) -> float:
    """The largest distance from the map to those of disturbed inputs [k ...], over the map's own size (Frobenius
    norms).

    Yeh et al., arXiv 1901.09392. It grows with the disturbance and with k: state both beside it. NaN for a map of
    zeros.
    """
    size = np.linalg.norm(map_)
    return float(max(np.linalg.norm(other - map_) for other in disturbed) / size) if size else float('nan')


def infidelity(map_: np.ndarray, removed_k: np.ndarray, drop_k: np.ndarray, *, scaled: bool = False) -> float:
    """Mean squared gap between what the map says that a removal costs and what it cost.

    Yeh et al., arXiv 1901.09392: mean_k (sum(removed_k * map) - drop_k)^2. For terms of a sum, `removed` is 1 for the
    units taken away in trial k, [k *map.shape], and `drop` [k] the fall of the score; for a gradient, `removed` is what
    was subtracted from the input. `scaled` first multiplies the map by the factor that suits these trials best, for
    maps whose unit is not the score's.
    """
    said_k = np.asarray(removed_k, float).reshape(len(drop_k), -1) @ np.asarray(map_, float).ravel()
    if scaled and said_k.any():
        said_k = said_k * (said_k @ drop_k) / (said_k @ said_k)
    return float(np.mean((said_k - drop_k) ** 2))


def sign_agreement(map_: np.ndarray, drop: np.ndarray, least: float = 0.0) -> float:
    """Share of units whose value has the sign of the score's fall when the unit alone is removed; NaN where none
    counts.

    A unit counts where its value is not 0 and its removal moves the score by more than `least`. One that does not agree
    is a violation of faithfulness (Liu et al., arXiv 2201.12114): called support, its absence helps. Half is chance;
    attention has no negative values and scores the share of positive falls.
    """
    map_, drop = np.asarray(map_), np.asarray(drop)
    counts = (map_ != 0) & (np.abs(drop) > least)
    return float((np.sign(map_) == np.sign(drop))[counts].mean()) if counts.any() else float('nan')


def rank_correlation(map_: np.ndarray, other: np.ndarray, magnitude: bool = False) -> float:
    """Spearman's correlation of two maps' values, or of their `magnitude`s: Pearson's of the ranks, tied values sharing
    their mean rank. NaN where one is constant or holds a NaN.
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
    """Structural similarity of frames [... h w], each by itself: [...], 1 for equal ones; NaN where both are one
    constant.

    Wang et al. 2004 (IEEE Trans. Image Processing 13(4)), K = 0.01 and 0.03. Their Gaussian window of 11 x 11 pixels
    does not
    fit a map of 8 x 8 cells: here it is uniform, `window` cells wide or the frame where that is smaller, at every place
    where it fits, with plain means as variances. The dynamic range is that of the two frames together, largest less
    smallest value.
    Give values of one sign: a pattern turned around at a level turned around counts as alike.
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
