"""Sanity checks: whether an explanation depends on the trained parameters, the sound, the class, place and time.

An explanation function is `explain(variables, clip, class_) -> Map` of one clip, in pure JAX; it is compiled once if
the same object is passed again. `variables` are passed to it as they are, for instance a network's parameters; an
explainer of explainers.py becomes such a function by building its `Classifier` from `variables`. Only `randomisation`
looks into `variables`: it expects Flax's form, {collection: {name: ...}}.

The results are NumPy arrays [n], one number per clip, independent of `batch`. Maps are compared by their ranks
(metrics/maps.py), over valid segments alone; NaN where a map is constant, such as one of zeros for a modality that a
method does not explain.
"""

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stattn_jax.attribution.arrays import Array, ClipArrays, Map, rolled
from stattn_jax.metrics import maps

Variables = Any
Explain = Callable[[Variables, ClipArrays, jax.Array], Map]
# Runs have small seeds; a re-initialised network must not have the initial parameters of the trained one.
FIRST_SEED = 10_000


# ---------------------------------------------------------------------------------------------------------------------
# The parameters
# ---------------------------------------------------------------------------------------------------------------------


def redrawn(variables: Variables, new: Variables, names: Collection[str]) -> Variables:
    """Returns the variables with those of the given names taken from `new`, a tree of the same structure.

    The names are the keys of the second level, below Flax's collections: {collection: {name: ...}}.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, old, drawn: drawn if path[1].key in names else old, variables, new
    )


def randomisation(
    explain: Explain,
    variables: Variables,
    clips: ClipArrays,
    classes_n: np.ndarray,
    *,
    fresh: Callable[[int], Variables],
    groups: Mapping[str, Collection[str]],
    grid: tuple[int, int],
    seeds: int = 5,
    batch: int = 16,
) -> dict[str, dict[str, np.ndarray]]:
    """Compares the trained network's maps with maps after re-initialising its groups one after another, heads first.

    `fresh(seed)` returns the variables of a newly built network; `groups` holds the names of each group of parameters
    (see `redrawn`), from the logits to the pixels. Returns, for each group (all groups down to it are re-initialised),
    the entries of `similarity`, [n], averaged over seeds; the trained network itself is in no mean. This is the cascade
    of Adebayo et al., arXiv 1810.03292.
    """
    maps_of = functools.partial(_maps, explain, clips=clips, classes_n=classes_n, batch=batch)
    trained = maps_of(variables)
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        new, mixed = fresh(seed), variables
        for group, names in groups.items():
            mixed = redrawn(mixed, new, names)
            found.setdefault(group, []).append(similarity(trained, maps_of(mixed), clips.valid, grid))
    return {group: over_seeds(rows) for group, rows in found.items()}


def similarity(map_: Map, other: Map, valid: Array, grid: tuple[int, int]) -> dict[str, np.ndarray]:
    """Computes, for n pairs of maps, rank correlations of values and of magnitudes, and `visual_ssim`; each [n].

    SSIM is averaged over frames. For SSIM each map is first divided by its largest magnitude, since re-initialised
    parameters have another scale, and shifted into 0..1 with its zero at 1/2: a signed map with its sign flipped
    differs in level and in pattern, and SSIM, the product of both, would rate the two as similar.
    """
    rows = []
    for valid_t, *visual_and_audio in zip(valid, *map_, *other, strict=True):
        visual, audio, other_visual, other_audio = (x[valid_t] for x in visual_and_audio)
        pairs = {'visual': (visual, other_visual), 'audio': (audio, other_audio)}
        row = {name: maps.rank_correlation(*pair) for name, pair in pairs.items()}
        row |= {f'{name}_magnitude': maps.rank_correlation(*pair, magnitude=True) for name, pair in pairs.items()}
        frames = [0.5 + 0.5 * x.reshape(-1, *grid) / (np.abs(x).max(initial=0) or 1) for x in pairs['visual']]
        rows.append(row | {'visual_ssim': _mean_defined(maps.ssim(*frames))})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


# ---------------------------------------------------------------------------------------------------------------------
# The sound, the class, place and time
# ---------------------------------------------------------------------------------------------------------------------


def other_sounds(
    explain: Explain,
    variables: Variables,
    clips: ClipArrays,
    classes_n: np.ndarray,
    *,
    silence: float = float(np.log(0.01)),
    batch: int = 16,
) -> dict[str, np.ndarray]:
    """Tests whether the visual map depends on the sound, by rank correlation with the map of the true sound.

    `other`: the sound of the next clip of another class (mismatched audio); `silent`; `moved`: the clip's own sound,
    half its valid segments later. A map that hardly changes is visual saliency. `silence`: the log-mel of silence
    (data/media.py, ClipSpec.silence). Raises ValueError if all clips have the same class.
    """
    orders = np.stack([rolled(valid, int(valid.sum()) // 2) for valid in clips.valid])
    sounds = {
        'other': clips.log_mel[_partners(classes_n)],
        'silent': np.full_like(clips.log_mel, silence),
        'moved': _ordered(clips.log_mel, orders),
    }
    maps_of = functools.partial(_maps, explain, variables, classes_n=classes_n, batch=batch)
    own = maps_of(clips=clips).visual
    return {
        name: correlations(own, maps_of(clips=clips._replace(log_mel=log_mel)).visual, clips.valid)
        for name, log_mel in sounds.items()
    }


def _partners(classes_n):
    n = len(classes_n)
    if len(np.unique(classes_n)) < 2:
        raise ValueError(
            f'all {n} clips are explained for one class; expected clips of two or more, to exchange sounds'
        )
    return np.array([next(j % n for j in range(i + 1, i + n) if classes_n[j % n] != classes_n[i]) for i in range(n)])


def other_class(
    explain: Explain,
    variables: Variables,
    clips: ClipArrays,
    classes_n: np.ndarray,
    *,
    classes: int,
    seed: int = 0,
    batch: int = 16,
) -> dict[str, np.ndarray]:
    """Computes rank correlations, `visual` and `audio`, of the maps of each clip's class and of another class.

    The other class is sampled at random among the remaining ones of the network's `classes`.
    """
    drawn = (classes_n + np.random.default_rng(seed).integers(1, classes, len(classes_n))) % classes
    own, other = (_maps(explain, variables, clips, numbers, batch) for numbers in (classes_n, drawn))
    return _both(own, other, clips.valid)


def equivariance(
    explain: Explain,
    variables: Variables,
    clips: ClipArrays,
    classes_n: np.ndarray,
    *,
    grid: tuple[int, int],
    by: int = 3,
    batch: int = 16,
) -> dict[str, np.ndarray]:
    """Tests whether the maps follow the clip: rank correlation after undoing a change, 1 for maps that follow.

    `mirror_visual`, `mirror_audio`: the frames are mirrored left to right. `roll_visual`, `roll_audio`: the valid
    segments, with picture and sound, come `by` segments later, the last ones first.
    """
    maps_of = functools.partial(_maps, explain, variables, classes_n=classes_n, batch=batch)
    own = maps_of(clips=clips)
    mirrored = maps_of(clips=clips._replace(frames=clips.frames[..., ::-1, :]))
    n, t, s = mirrored.visual.shape
    mirrored = mirrored._replace(visual=mirrored.visual.reshape(n, t, *grid)[..., ::-1].reshape(n, t, s))
    orders = np.stack([rolled(valid, by) for valid in clips.valid])
    moved = {'frames': _ordered(clips.frames, orders), 'log_mel': _ordered(clips.log_mel, orders)}
    later = maps_of(clips=clips._replace(**moved))
    expected = Map(*(_ordered(x, orders) for x in own))
    found = {'mirror': _both(own, mirrored, clips.valid), 'roll': _both(expected, later, clips.valid)}
    return {f'{name}_{part}': x for name, parts in found.items() for part, x in parts.items()}


def _ordered(x, orders_nt):
    return x[np.arange(len(x))[:, None], orders_nt]


# ---------------------------------------------------------------------------------------------------------------------
# Running in batches, comparing clip by clip
# ---------------------------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def _explained(explain, variables, clips, classes_b):
    return jax.vmap(lambda clip, class_: explain(variables, clip, class_))(clips, classes_b)


def _maps(explain, variables, clips, classes_n, batch) -> Map:
    return in_batches(functools.partial(_explained, explain), variables, clips, classes_n, batch)


def in_batches(function: Callable, variables: Variables, clips: ClipArrays, classes_n: np.ndarray, batch: int):
    """Runs function(variables, clips, classes), which returns a tree of [b ...], on n clips: NumPy arrays [n ...]."""
    n = len(classes_n)
    variables = jax.tree.map(jnp.asarray, jax.device_get(variables))
    parts = []
    for start in range(0, n, batch):
        # A batch beyond the last clip repeats it, so that one compiled program serves every batch.
        rows = np.minimum(np.arange(start, start + min(batch, n)), n - 1)
        clips_b = ClipArrays(*(np.asarray(x)[rows] for x in clips))
        parts.append(jax.device_get(function(variables, clips_b, np.asarray(classes_n)[rows])))
    return jax.tree.map(lambda *x: np.concatenate(x)[:n], *parts)


def _both(map_, other, valid):
    return {name: correlations(getattr(map_, name), getattr(other, name), valid) for name in Map._fields}


def correlations(x_nt: Array, other_nt: Array, valid: Array) -> np.ndarray:
    """Computes the rank correlation of n pairs of maps [n t ...] over their valid segments [n t]: [n]."""
    arrays = zip(*(np.asarray(x) for x in (x_nt, other_nt, valid)))
    return np.array([maps.rank_correlation(x[there], other[there]) for x, other, there in arrays])


def over_seeds(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the mean of each number [n] over the rows, ignoring NaN; NaN where all rows are NaN."""
    return {name: _mean_defined(np.stack([row[name] for row in rows])) for name in rows[0]}


def _mean_defined(x):
    """Returns the mean over the first axis, ignoring NaN; NaN where all values are NaN."""
    defined = ~np.isnan(x)
    count = defined.sum(axis=0)
    return np.where(count > 0, np.nansum(x, axis=0) / np.maximum(count, 1), np.nan)
