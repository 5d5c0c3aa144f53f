"""Deletion and insertion: removes or inserts units in the order of a map and measures the score.

A faithful map ranks high the units on which the score depends. The functions make masks of removed units and take
scores: the caller chooses what removal does to a clip and which score is measured (a logit, a probability, or both side
by side), so that one operator serves every compared method. A unit is a value of the map: a cell or a segment. Areas
are over the true share of units removed, 0 and 1 included: the original code of Petsiuk et al., arXiv 1806.07421,
counts a shorter last step like the others. Where values tie, the curve is the mean over `draws` random orders of the
tied units, since row order would itself be a map; a constant map therefore has the random order. Areas of two models
are not comparable (Edin et al., arXiv 2408.08137); aopc.py normalises them.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

FRACTIONS = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1)


def order(map_: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Returns int [u]: the map's units, numbered row by row, from its largest value to its smallest.

    Equal values stay in row order, or come in a random order from `rng`. Raises ValueError where a value is not finite,
    since a cell that does not exist is not a unit.
    """
    values = np.asarray(map_, float).ravel()
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise ValueError(
            f'{bad} of {values.size} values of the map are not finite; give only the units there are, as map[valid]'
        )
    drawn = np.arange(values.size) if rng is None else rng.permutation(values.size)
    return drawn[np.argsort(-values[drawn], kind='stable')]


def counts(units: int, fractions: Sequence[float] = FRACTIONS) -> np.ndarray:
    """Returns int [k]: the number of units for each fraction, rounded.

    A count that occurs twice makes a step without width, so that the number of steps is the same for every clip. Raises
    ValueError where the fractions do not rise from 0 to 1.
    """
    steps = np.asarray(fractions, float)
    if steps[0] != 0 or steps[-1] != 1 or (np.diff(steps) < 0).any():
        raise ValueError(f'fractions {tuple(fractions)}: expected them to rise from 0 to 1, both included')
    return np.rint(steps * units).astype(int)


def removals(
    map_: np.ndarray, fractions: Sequence[float] = FRACTIONS, *, draws: int = 10, seed: int | tuple[int, int] = 0
) -> np.ndarray:
    """Returns bool [d k ...]: True where a unit of the map is removed, strongest first.

    d is `draws` where values tie, and else 1.
    """
    map_ = np.asarray(map_)
    ties = np.unique(map_).size < map_.size
    rngs = np.random.default_rng(seed).spawn(draws) if ties else [None]
    rank_du = np.argsort([order(map_, rng) for rng in rngs], axis=1)
    removed_dku = rank_du[:, None] < counts(map_.size, fractions)[:, None]
    return removed_dku.reshape(*removed_dku.shape[:2], *map_.shape)


def area(scores_k: np.ndarray, fraction_k: np.ndarray) -> np.ndarray:
    """Returns the trapezoid area under scores [k ...] over fractions [k], which is the mean score of the curve."""
    return np.trapezoid(scores_k, fraction_k, axis=0)


@dataclasses.dataclass(frozen=True)
class Curves:
    """The score during deletion and insertion.

    Attributes:
      fraction: float [k], the true share of units removed (deletion) or present (insertion).
      deletion: float [k ...], the strongest units removed first.
      insertion: float [k ...], the strongest units inserted first into an empty clip. In reverse it is the removal of
        the weakest first (LeRF).
    """

    fraction: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray

    def summary(self) -> dict[str, np.ndarray]:
        """Returns areas and mean drops.

        Areas: `deletion` (small is good), `insertion` (large is good), `difference` = insertion - deletion. Mean drops:
        `aopc_morf` and `aopc_lerf` are how far the score falls on average below that of the whole clip while the
        strongest or the weakest units are removed first (Samek et al., arXiv 1509.06321).
        """
        deletion, insertion = area(self.deletion, self.fraction), area(self.insertion, self.fraction)
        return {
            'deletion': deletion,
            'insertion': insertion,
            'difference': insertion - deletion,
            'aopc_morf': self.deletion[0] - deletion,
            'aopc_lerf': self.insertion[-1] - insertion,
        }

    def normalised(self, least: float = 1e-6) -> 'Curves':
        """Returns the curves scaled to 0 for the empty clip and 1 for the whole one.

        They are NaN where these two scores differ by less than `least`.
        """
        return Curves(
            self.fraction,
            _between(self.deletion, self.deletion[-1], self.deletion[0], least),
            _between(self.insertion, self.insertion[0], self.insertion[-1], least),
        )


def _between(scores_k, empty, full, least):
    span = np.asarray(full - empty, float)
    return (scores_k - empty) / np.where(np.abs(span) < least, np.nan, span)


def curves(
    map_: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
    fractions: Sequence[float] = FRACTIONS,
    *,
    draws: int = 10,
    seed: int = 0,
) -> Curves:
    """Computes deletion and insertion in the map's order.

    `score` takes the removed units, bool [n *map.shape], and returns [n ...].
    """
    removed = removals(map_, fractions, draws=draws, seed=seed)
    d, k, *shape = removed.shape
    scores = np.asarray(score(np.concatenate([removed, ~removed]).reshape(-1, *shape)), float)
    deletion, insertion = scores.reshape(2, d, k, *scores.shape[1:]).mean(axis=1)
    return Curves(counts(np.size(map_), fractions) / np.size(map_), deletion, insertion)


# ---------------------------------------------------------------------------------------------------------------------
# Visual and audio units
# ---------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Surface:
    """The score over (share of visual units removed, share of audio units removed), in the order of each map.

    The shares are separate, because the hundreds of visual cells and the ten audio segments cannot share one.

    Attributes:
      visual_fraction, audio_fraction: float [i] and [j], the true shares.
      scores: float [i j ...]. `scores[:, 0]` removes visual units alone, `scores[0]` audio units alone.
    """

    visual_fraction: np.ndarray
    audio_fraction: np.ndarray
    scores: np.ndarray

    def volume(self) -> np.ndarray:
        """Returns the mean score over the unit square, by trapezoids in both directions."""
        return area(area(self.scores, self.visual_fraction), self.audio_fraction)


def surface(
    visual: np.ndarray,
    audio: np.ndarray,
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    fractions: Sequence[float] = FRACTIONS,
    *,
    draws: int = 10,
    seed: int = 0,
) -> Surface:
    """Computes the score for every pair of visual and audio shares removed.

    `score` takes the removed units, bool [n *visual.shape] and [n *audio.shape], and returns [n ...].
    """
    visual_dk, audio_dk = (
        removals(map_, fractions, draws=draws, seed=(seed, i)) for i, map_ in enumerate((visual, audio))
    )
    d, k = max(len(visual_dk), len(audio_dk)), len(fractions)
    visual_dk, audio_dk = (np.broadcast_to(r, (d, *r.shape[1:])) for r in (visual_dk, audio_dk))
    scores = np.asarray(
        score(
            np.repeat(visual_dk, k, axis=1).reshape(-1, *np.shape(visual)),
            np.tile(audio_dk, (1, k) + (1,) * np.ndim(audio)).reshape(-1, *np.shape(audio)),
        ),
        float,
    )
    visual_fraction, audio_fraction = (counts(np.size(m), fractions) / np.size(m) for m in (visual, audio))
    return Surface(visual_fraction, audio_fraction, scores.reshape(d, k, k, *scores.shape[1:]).mean(axis=0))


# ---------------------------------------------------------------------------------------------------------------------
# The matched-shape control
# ---------------------------------------------------------------------------------------------------------------------


def shifted(map_: np.ndarray, draws: int = 20, seed: int = 0) -> np.ndarray:
    """Returns [d ...]: the map rolled cyclically along all its axes, by `draws` different random shifts.

    If there are fewer shifts than `draws`, all are used. A rolled map keeps the map's blur, sparseness and clusters,
    and loses only the location. Raises ValueError for a map of one unit.
    """
    map_ = np.asarray(map_)
    if map_.size < 2:
        raise ValueError(f'a map of shape {map_.shape} has no other place to be rolled to; expected two units or more')
    drawn = np.random.default_rng(seed).choice(map_.size - 1, min(draws, map_.size - 1), replace=False) + 1
    axes = tuple(range(map_.ndim))
    return np.stack([np.roll(map_, np.unravel_index(i, map_.shape), axes) for i in drawn])
