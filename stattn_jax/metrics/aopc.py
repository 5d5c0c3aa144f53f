"""Area over the perturbation curve (AOPC) of an order of segments, normalised exactly by the worst and best order.

AOPC is the mean drop of the score while a map's order removes a clip's segments. It depends on how far a model's score
can fall at all, so that it cannot compare two models (Edin et al., arXiv 2408.08137). With up to 20 segments every
subset can be scored, in closed form where scores are pooled by a softmax. Dynamic programming over the subsets then
gives the best and the worst of all orders, and the mean over the orders that ties leave open is exact as well. So 0 is
the worst order, 1 the best, and `chance` gives the expectation of a random order. Subset i keeps the segments whose
bits are set in i; all arithmetic is float64.
"""

import functools

import numpy as np

MOST = 20


def subsets(units: int) -> np.ndarray:
    """Returns bool [2^u u]: the units that each subset keeps, in the order in which scores of subsets are expected.

    Raises ValueError for more than 20 units, which have over a million subsets.
    """
    _check_units(units)
    return (np.arange(2**units)[:, None] >> np.arange(units) & 1).astype(bool)


def pooled_scores(weight_u: np.ndarray, term_u: np.ndarray, bias: float = 0.0) -> np.ndarray:
    """Returns float64 [2^u]: bias + sum of terms / sum of weights over the kept units, for every subset.

    Where the weights sum to 0, the score is the bias. `weight` is the softmax over the units, and `term` is the weight
    times the unit's score: a softmax over the remaining units is the original one renormalised. A unit may combine
    several (a segment's visual and audio unit): its weight and its term are their sums. The result is exact as long as
    no unit's score or logit depends on another unit. Raises ValueError like `subsets`.
    """
    _check_units(len(weight_u))
    weight, term = _sums(np.asarray(weight_u, float)), _sums(np.asarray(term_u, float))
    return bias + np.divide(term, weight, out=np.zeros_like(term), where=weight > 0)


def _check_units(units):
    if units > MOST:
        raise ValueError(f'{units} units have 2^{units} subsets; expected at most {MOST}; join neighbouring segments')


def _sums(values_u):
    """Returns [2^u]: the sum of the values of each subset."""
    sums = np.zeros(1, values_u.dtype)
    for value in values_u:
        sums = np.concatenate([sums, sums + value])
    return sums


def curve(scores: np.ndarray, map_u: np.ndarray) -> np.ndarray:
    """Returns float64 [u + 1]: the score with 0 to u units removed, strongest first.

    The score is the mean over all orders of tied units.
    """
    map_u = np.asarray(map_u)
    _check(scores, map_u)
    found, kept, gone = np.empty(map_u.size + 1), len(scores) - 1, 0
    for value in np.unique(map_u)[::-1]:
        tied = np.flatnonzero(map_u == value)
        removed, size = _sums(1 << tied), _sums(np.ones_like(tied))
        found[gone : gone + tied.size + 1] = np.bincount(size, scores[kept - removed]) / np.bincount(size)
        kept, gone = kept - removed[-1], gone + tied.size
    return found


def aopc(scores: np.ndarray, map_u: np.ndarray) -> float:
    """Returns the mean drop of the score from the whole clip's, over 0 to u units removed in the map's order."""
    return float(scores[-1] - curve(scores, map_u).mean())


def bounds(scores: np.ndarray) -> tuple[float, float]:
    """Returns the lowest and the highest `aopc` of all orders, by dynamic programming over the subsets [2^u]."""
    lowest, highest = np.array(scores, float), np.array(scores, float)
    for level, (members, without) in enumerate(_levels(len(scores).bit_length() - 1)):
        if level:
            lowest[members] += lowest[without].min(axis=0)
            highest[members] += highest[without].max(axis=0)
    steps = len(scores).bit_length()
    return float(scores[-1] - highest[-1] / steps), float(scores[-1] - lowest[-1] / steps)


@functools.lru_cache(maxsize=2)
def _levels(units):
    """Returns, for each number of kept units, its subsets [s] and each subset without each of its units [kept s]."""
    kept = subsets(units)
    size = kept.sum(axis=1)
    levels = []
    for count in range(units + 1):
        members = np.flatnonzero(size == count)
        bit = np.nonzero(kept[members])[1].reshape(members.size, count)
        levels.append((members, (members[:, None] ^ (1 << bit)).T))
    return levels


def normalised(scores: np.ndarray, maps_ku: np.ndarray, least: float = 1e-9) -> np.ndarray:
    """Returns float64 [k]: the `aopc` of each map, scaled so that the worst order is 0 and the best is 1.

    It is NaN where these two differ by less than `least`: then the order does not matter for this clip, and the caller
    counts it.
    """
    worst, best = bounds(scores)
    found = np.array([aopc(scores, map_u) for map_u in maps_ku])
    return (found - worst) / (best - worst) if best - worst >= least else np.full(len(found), np.nan)


def chance(scores: np.ndarray, least: float = 1e-9) -> float:
    """Returns the expected normalised `aopc` of a random order; NaN as in `normalised`."""
    return float(normalised(scores, np.zeros((1, len(scores).bit_length() - 1)), least)[0])


def _check(scores, map_u):
    if map_u.ndim != 1 or len(scores) != 2**map_u.size or not np.isfinite(map_u).all():
        raise ValueError(
            f'{len(scores)} scores and a map of shape {map_u.shape}: expected a finite value for each of u units and a '
            'score for each of their 2^u subsets; give only the units there are'
        )
