"""The order in which a map removes a clip's segments, between the worst and the best order there are: exactly.

The mean drop of the score along an order (AOPC) depends on how far a model's score can fall at all, so that two models
cannot be compared by it (Edin et al., arXiv 2408.08137). With up to 20 segments every subset can be scored, in closed
form where scores are pooled by a softmax; the best and the worst of all orders then follow by dynamic programming over
subsets, as does the mean over the orders that ties leave open. So 0 is the worst order, 1 the best, `chance` the blind
one. Subset i keeps the segments whose bits are set in i; all arithmetic is float64. Read next: bootstrap.py.
"""

import functools

import numpy as np

MOST = 20


def subsets(units: int) -> np.ndarray:
    """bool [2^u u]: which units each subset keeps, in the order in which scores of subsets are expected.

    Raises ValueError for more than 20 units, of whose subsets there are over a million.
    """
    _check_units(units)
    return (np.arange(2**units)[:, None] >> np.arange(units) & 1).astype(bool)


def pooled_scores(weight_u: np.ndarray, term_u: np.ndarray, bias: float = 0.0) -> np.ndarray:
    """float64 [2^u]: bias + sum of terms / sum of weights over the units kept, of every subset; where these weigh 0,
    the bias.

    `weight` is the softmax over the units, `term` the weight times the unit's score: a softmax over what is left of its
    units is its own renormalised. A unit may be several (a segment's picture and sound): its weight and its term are
    their sums. Exact as long as no unit's score or logit depends on another unit. Raises ValueError as `subsets`.
    """
    _check_units(len(weight_u))
    weight, term = _sums(np.asarray(weight_u, float)), _sums(np.asarray(term_u, float))
    return bias + np.divide(term, weight, out=np.zeros_like(term), where=weight > 0)


def _check_units(units):
    if units > MOST:
        raise ValueError(f'{units} units have 2^{units} subsets; expected at most {MOST}; join neighbouring segments')


def _sums(values_u):
    """[2^u]: the sum of the values of each subset."""
    sums = np.zeros(1, values_u.dtype)
    for value in values_u:
        sums = np.concatenate([sums, sums + value])
    return sums


def curve(scores: np.ndarray, map_u: np.ndarray) -> np.ndarray:
    """float64 [u + 1]: the score with 0 to u units removed, strongest first, as the mean over all orders of tied
    units.
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
    """How far the score falls below that of the whole clip, mean over 0 to u units removed in the map's order."""
    return float(scores[-1] - curve(scores, map_u).mean())


def bounds(scores: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest `aopc` that any order reaches, by dynamic programming over the subsets [2^u]."""
    lowest, highest = np.array(scores, float), np.array(scores, float)
    for level, (members, without) in enumerate(_levels(len(scores).bit_length() - 1)):
        if level:
            lowest[members] += lowest[without].min(axis=0)
            highest[members] += highest[without].max(axis=0)
    steps = len(scores).bit_length()
    return float(scores[-1] - highest[-1] / steps), float(scores[-1] - lowest[-1] / steps)


@functools.lru_cache(maxsize=2)
def _levels(units):
    """Of each number of units kept, the subsets [s] and what they are without each of their units in turn [kept s]."""
    kept = subsets(units)
    size = kept.sum(axis=1)
    levels = []
    for count in range(units + 1):
        members = np.flatnonzero(size == count)
        bit = np.nonzero(kept[members])[1].reshape(members.size, count)
        levels.append((members, (members[:, None] ^ (1 << bit)).T))
    return levels


def normalised(scores: np.ndarray, maps_ku: np.ndarray, least: float = 1e-9) -> np.ndarray:
    """float64 [k]: where the `aopc` of each map lies from the worst order (0) to the best (1).

    NaN where these two are less than `least` apart: the order of such a clip says nothing, and the caller counts it.
    """
    worst, best = bounds(scores)
    found = np.array([aopc(scores, map_u) for map_u in maps_ku])
    return (found - worst) / (best - worst) if best - worst >= least else np.full(len(found), np.nan)


def chance(scores: np.ndarray, least: float = 1e-9) -> float:
    """The normalised `aopc` of a blind order, in expectation; NaN as in `normalised`."""
    return float(normalised(scores, np.zeros((1, len(scores).bit_length() - 1)), least)[0])


def _check(scores, map_u):
    if map_u.ndim != 1 or len(scores) != 2**map_u.size or not np.isfinite(map_u).all():
        raise ValueError(
            f'{len(scores)} scores and a map of shape {map_u.shape}: expected a finite value for each of u units and a '
            'score for each of their 2^u subsets; give only the units there are'
        )
