"""Tests of the difference between two models on the same clips, several trainings of each, and Holm's correction.

A value is that of a model, plus effects of the clip and of the training, plus noise. Clips and trainings are both
random, so the variance of the difference of two means is the sum of three: that of the clips' differences (averaged
over trainings) over the number of clips, and, for each model, that of the trainings' means over the number of
trainings. The degrees of freedom are those of Welch and Satterthwaite. With one training of each, this is the paired t
test over clips; without variation between clips, it is Welch's t test of the trainings' means. The noise is counted in
all three variances, so that the test errs on the side of no difference. With three trainings whose means differ, few
degrees of freedom are left, and the interval is wide.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Paired(NamedTuple):
    """A difference of means, ours less theirs, with its interval, p-value, degrees of freedom, and numbers of clips.

    `skipped` clips had no value on one side.
    """

    value: float
    low: float
    high: float
    p: float
    freedom: float
    n: int
    skipped: int


def compare(ours: np.ndarray, theirs: np.ndarray, *, level: float = 0.95) -> Paired:
    """Tests whether the mean of ours equals that of theirs, two-sided.

    Both are [n] or [s n], of trainings and the same clips in the same order; the numbers of trainings may differ. Clips
    with a NaN on either side are left out. With fewer than two clips, everything but the value is NaN. With one
    training on a side, its variation is unknown and not part of the test. Raises ValueError where the numbers of clips
    differ.
    """
    sides = [np.atleast_2d(np.asarray(side, float)) for side in (ours, theirs)]
    if sides[0].shape[1] != sides[1].shape[1]:
        raise ValueError(
            f'{sides[0].shape[1]} clips against {sides[1].shape[1]}; expected the same clips on both sides'
        )
    whole_n = ~np.isnan(np.concatenate(sides)).any(axis=0)
    n, (first, second) = int(whole_n.sum()), (side[:, whole_n] for side in sides)
    if n < 2:
        value = float((first.mean(axis=0) - second.mean(axis=0)).mean()) if n else np.nan
        return Paired(value, np.nan, np.nan, np.nan, np.nan, n, len(whole_n) - n)
    differences_n = first.mean(axis=0) - second.mean(axis=0)
    samples = [differences_n, *(side.mean(axis=1) for side in (first, second) if len(side) > 1)]
    variances = np.array([sample.var(ddof=1) / len(sample) for sample in samples])
    freedoms = np.array([len(sample) - 1 for sample in samples])
    value, error = float(differences_n.mean()), float(np.sqrt(variances.sum()))
    # Rounding leaves a variance of equal differences a little above 0.
    if error <= 1e-12 * max(1.0, abs(value)):
        return Paired(value, value, value, float(abs(value) <= 1e-12), n - 1, n, len(whole_n) - n)
    freedom = float(variances.sum() ** 2 / (variances**2 / freedoms).sum())
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(value) / error, freedom))
    return Paired(value, value - half, value + half, p, freedom, n, len(whole_n) - n)


def holm(values: Sequence[float]) -> np.ndarray:
    """Returns p-values adjusted for their number by Holm's step-down method; NaN is no test and stays NaN.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    found = np.array(values, float)
    order = np.argsort(found)[: int((~np.isnan(found)).sum())]
    factors = np.arange(len(order), 0, -1)
    found[order] = np.minimum(1, np.maximum.accumulate(found[order] * factors))
    return found
