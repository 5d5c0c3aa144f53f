"""Percentile bootstrap intervals of a mean over clips, and of the difference between two models on the same clips.

Clips are resampled, never frames, since the frames of a clip are not independent. With several training seeds, a seed
is sampled for each model too, so that the interval includes the variation between trainings; with three seeds that is a
rough estimate, too narrow rather than too wide. The same n, draws and seed give the same resampled clips, so that all
rows of a table share them. Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A number over `n` clips with its confidence interval; `skipped` clips had no value."""

    value: float
    low: float
    high: float
    n: int
    skipped: int


def mean(values: np.ndarray, *, draws: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """Returns the mean, with its interval, of values [n] of clips, or [s n] of training seeds and clips.

    Clips with a NaN for any seed are left out and counted. The result is NaN where no clip is left.
    """
    rows = np.atleast_2d(np.asarray(values, float))
    return _over_clips([rows], draws, level, seed)


def difference(
    ours: np.ndarray, theirs: np.ndarray, *, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Returns the mean of ours less the mean of theirs, with its interval, on the same resampled clips.

    Both are [n] or [s n] of the same clips in the same order. The seeds of the two models are not paired: their numbers
    may differ, and they are sampled independently. Clips with a NaN on either side are left out and counted. Raises
    ValueError where the numbers of clips differ.
    """
    sides = [np.atleast_2d(np.asarray(side, float)) for side in (ours, theirs)]
    if sides[0].shape[1] != sides[1].shape[1]:
        raise ValueError(
            f'{sides[0].shape[1]} clips against {sides[1].shape[1]}; expected the same clips on both sides'
        )
    return _over_clips(sides, draws, level, seed)


def statistic(
    function: Callable[[np.ndarray], float], n: int, *, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Returns any statistic of `n` clips, such as mean average precision, with its interval.

    `function` takes clip numbers, int [n], some of which repeat. It may also return a difference of two statistics.
    Resamples where it is NaN (no positive clip in the sample) are left out of the interval.
    """
    found = np.array([function(clips) for clips in drawn(n, draws, seed)])
    low, high = _ends(found[~np.isnan(found)], level)
    return Interval(float(function(np.arange(n))), low, high, n, 0)


def drawn(n: int, draws: int, seed: int = 0) -> np.ndarray:
    """Returns int [d n]: clip numbers sampled with replacement."""
    return np.random.default_rng(seed).integers(0, n, (draws, n))


def _over_clips(sides, draws, level, seed):
    """Returns the interval of the first side's mean, less that of the second where there is one."""
    whole_n = ~np.isnan(np.concatenate(sides)).any(axis=0)
    n, skipped = int(whole_n.sum()), int((~whole_n).sum())
    if not n:
        return Interval(np.nan, np.nan, np.nan, 0, skipped)
    clips_dn = drawn(n, draws, seed)
    # A separate generator, so that the sampled clips do not depend on the number of training seeds.
    rng = np.random.default_rng((seed, 1))
    value, found_d = 0.0, np.zeros(draws)
    for sign, side in zip((1, -1), sides):
        rows = side[:, whole_n]
        means_sd = np.stack([row[clips_dn].mean(axis=1) for row in rows])
        value += sign * rows.mean()
        found_d += sign * means_sd[rng.integers(0, len(rows), (len(rows), draws)), np.arange(draws)].mean(axis=0)
    low, high = _ends(found_d, level)
    return Interval(float(value), low, high, n, skipped)


def _ends(found, level):
    if not len(found):
        return np.nan, np.nan
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
