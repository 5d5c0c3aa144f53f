"""Sanity checks: whether an explanation depends on the trained parameters, the sound, the class, place and time.

An explanation function is `explain(model, clip, class_) -> Map` of one clip, in pure JAX; it is compiled once if the
same object is passed again. `state` holds 'params' and 'rest', and may hold more, as a training state does. The results
are NumPy arrays [n], one number per clip, independent of `batch`. Maps are compared by their ranks (metrics/maps.py),
over valid segments alone; NaN where a map is constant, such as one of zeros for a modality that a method does not
explain. Checks that apply to STAN only are in inside.py.
"""

import functools
from collections.abc import Callable, Collection, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from stattn_jax.explain import counterfactuals
from stattn_jax.metrics import maps
from stattn_jax.study.clips import Clip, Map

State = dict[str, Any]
Explain = Callable[[nnx.Module, Clip, jax.Array], Map]
# Runs have small seeds; a re-initialised network must not have the initial parameters of the trained one.
FIRST_SEED = 10_000
HEADS, PROJECTIONS, TRUNKS = ('head', 'visual_head', 'audio_head', 'bias'), ('value', 'audio_out'), ('visual', 'audio')
# Names between heads and projections in the kinds of models/, from the logits to the pixels; a line holds names of
# equal depth.
BETWEEN = (
    ('joint', 'ranks', 'shift', 'norm', 'prototypes'),
    ('lstms', 'layers', 'unit'),
    ('class_tokens', 'bottleneck'),
    ('time', 'modality', 'score'),
    ('space', 'hybrid', 'of_seen', 'of_heard', 'gate', 'content', 'gamma', 'beta'),
    ('seen', 'heard', 'embed', 'narrow'),
)


# ---------------------------------------------------------------------------------------------------------------------
# The parameters
# ---------------------------------------------------------------------------------------------------------------------


def groups(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Returns the top-level names of a network's parameters by group, from the logits to the pixels.

    The groups are heads, the levels between (named after their parts), projections and trunks. Raises ValueError for a
    name of no known depth.
    """
    names = set(names)
    levels = [('heads', HEADS), *(('', level) for level in BETWEEN), ('projections', PROJECTIONS), ('trunks', TRUNKS)]
    unknown = names - {name for _, level in levels for name in level}
    if unknown:
        raise ValueError(
            f'parameters {", ".join(sorted(unknown))}: at no known depth; name them in study/sanity.py, BETWEEN'
        )
    found = [(label, tuple(name for name in level if name in names)) for label, level in levels]
    return {label or '+'.join(level): level for label, level in found if level}


def redrawn(state: State, new: State, names: Collection[str]) -> State:
    """Returns the state with the parameters and statistics of the given top-level names taken from `new`.

    `new` is a state of the same structure.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, old, drawn: drawn if path[1].key in names else old, _only_model(state), _only_model(new)
    )


def randomisation(
    graphdef: nnx.GraphDef,
    state: State,
    explain: Explain,
    clips: Clip,
    classes_n: np.ndarray,
    *,
    fresh: Callable[[int], State],
    grid: tuple[int, int],
    seeds: int = 5,
    batch: int = 16,
) -> dict[str, dict[str, np.ndarray]]:
    """Compares the trained network's maps with maps after re-initialising its groups one after another, heads first.

    `fresh(seed)` returns the state of a newly built network. Returns, for each group (all groups down to it are
    re-initialised), the entries of `similarity`, [n], averaged over seeds; the trained network itself is in no mean.
    This is the cascade of Adebayo et al., arXiv 1810.03292.
    """
    ask = functools.partial(_maps, graphdef, explain=explain, clips=clips, classes_n=classes_n, batch=batch)
    trained = ask(state)
    found = {}
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        new, mixed = fresh(seed), state
        for group, names in groups(state['params']).items():
            mixed = redrawn(mixed, new, names)
            found.setdefault(group, []).append(similarity(trained, ask(mixed), clips.valid, grid))
    return {group: over_seeds(rows) for group, rows in found.items()}


def similarity(map_: Map, other: Map, valid: np.ndarray, grid: tuple[int, int]) -> dict[str, np.ndarray]:
    """Computes, for n pairs of maps, rank correlations of values and of magnitudes, and `visual_ssim`; each [n].

    SSIM is averaged over frames. For SSIM each map is first divided by its largest magnitude, since re-initialised
    parameters have another scale, and shifted into 0..1 with its zero at 1/2: a signed map with its sign flipped
    differs in level and in pattern, and SSIM, the product of both, would rate the two as similar.
    """
    rows = []
    for there, seen, heard, other_seen, other_heard in zip(valid, *map_, *other, strict=True):
        pairs = {'visual': (seen[there], other_seen[there]), 'audio': (heard[there], other_heard[there])}
        row = {name: maps.rank_correlation(*pair) for name, pair in pairs.items()}
        row |= {f'{name}_magnitude': maps.rank_correlation(*pair, magnitude=True) for name, pair in pairs.items()}
        frames = [0.5 + 0.5 * x.reshape(-1, *grid) / (np.abs(x).max(initial=0) or 1) for x in pairs['visual']]
        rows.append(row | {'visual_ssim': _mean_defined(maps.ssim(*frames))})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


# ---------------------------------------------------------------------------------------------------------------------
# The sound, the class, place and time
# ---------------------------------------------------------------------------------------------------------------------


def heard(
    graphdef: nnx.GraphDef,
    state: State,
    explain: Explain,
    clips: Clip,
    classes_n: np.ndarray,
    *,
    silence: float = float(np.log(0.01)),
    batch: int = 16,
) -> dict[str, np.ndarray]:
    """Tests whether the visual map depends on the sound, by rank correlation with the map of the true sound.

    `other`, `silent`, `moved` are the rank correlations; `other_same`, ... whether the predicted class stays, bool [n].
    The other sound is that of the next clip of another class (mismatched audio); the moved one is the clip's own, half
    its valid segments later. A map that hardly changes is visual saliency. `silence`: the log-mel of silence
    (data/media.py, ClipSpec.silence). Raises ValueError if all clips have the same class.
    """
    orders = np.array([counterfactuals.moved(valid)[0] for valid in clips.valid])
    sounds = {
        'other': clips.log_mel[_partners(classes_n)],
        'silent': np.full_like(clips.log_mel, silence),
        'moved': _ordered(clips.log_mel, orders),
    }
    ask = functools.partial(_maps, graphdef, state, explain, classes_n=classes_n, batch=batch)
    say = functools.partial(in_batches, functools.partial(_said, graphdef), state, classes_n=classes_n, batch=batch)
    own, predicted = ask(clips=clips), say(clips=clips)
    found = {}
    for name, log_mel in sounds.items():
        other = clips._replace(log_mel=log_mel)
        found[name] = correlations(own.visual, ask(clips=other).visual, clips.valid)
        found[f'{name}_same'] = say(clips=other) == predicted
    return found


def _partners(classes_n):
    n = len(classes_n)
    if len(np.unique(classes_n)) < 2:
        raise ValueError(
            f'all {n} clips are explained for one class; expected clips of two or more, to exchange sounds'
        )
    return np.array([next(j % n for j in range(i + 1, i + n) if classes_n[j % n] != classes_n[i]) for i in range(n)])


def other_class(
    graphdef: nnx.GraphDef,
    state: State,
    explain: Explain,
    clips: Clip,
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
    own, other = (_maps(graphdef, state, explain, clips, asked, batch) for asked in (classes_n, drawn))
    return _both(own, other, clips.valid)


def equivariance(
    graphdef: nnx.GraphDef,
    state: State,
    explain: Explain,
    clips: Clip,
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
    ask = functools.partial(_maps, graphdef, state, explain, classes_n=classes_n, batch=batch)
    own = ask(clips=clips)
    mirrored = ask(clips=clips._replace(frames=clips.frames[..., ::-1, :]))
    n, t, s = mirrored.visual.shape
    mirrored = mirrored._replace(visual=mirrored.visual.reshape(n, t, *grid)[..., ::-1].reshape(n, t, s))
    orders = np.tile(np.arange(t), (n, 1))
    for order, valid in zip(orders, clips.valid, strict=True):
        order[valid] = np.roll(order[valid], by)
    moved = {'frames': _ordered(clips.frames, orders), 'log_mel': _ordered(clips.log_mel, orders)}
    rolled = ask(clips=clips._replace(**moved))
    expected = Map(*(_ordered(x, orders) for x in own))
    found = {'mirror': _both(own, mirrored, clips.valid), 'roll': _both(expected, rolled, clips.valid)}
    return {f'{name}_{part}': x for name, parts in found.items() for part, x in parts.items()}


def _ordered(x, orders_nt):
    return x[np.arange(len(x))[:, None], orders_nt]


# ---------------------------------------------------------------------------------------------------------------------
# Asking in batches, comparing clip by clip
# ---------------------------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 1))
def _explained(graphdef, explain, state, clips, classes_b):
    model = nnx.merge(graphdef, state['params'], state['rest'])
    return jax.vmap(lambda clip, class_: explain(model, clip, class_))(clips, classes_b)


@functools.partial(jax.jit, static_argnums=0)
def _said(graphdef, state, clips, classes_b):
    del classes_b
    return nnx.merge(graphdef, state['params'], state['rest'])(*clips, train=False)[0].argmax(axis=1)


def _maps(graphdef, state, explain, clips, classes_n, batch) -> Map:
    return in_batches(functools.partial(_explained, graphdef, explain), state, clips, classes_n, batch)


def in_batches(ask: Callable, state: State, clips: Clip, classes_n: np.ndarray, batch: int):
    """Runs ask(state, clips, classes), which returns a tree of [b ...], on n clips: NumPy arrays [n ...]."""
    n = len(classes_n)
    state = jax.tree.map(jnp.asarray, jax.device_get(_only_model(state)))
    parts = []
    for start in range(0, n, batch):
        # A batch beyond the last clip repeats it, so that one compiled program serves every batch.
        rows = np.minimum(np.arange(start, start + min(batch, n)), n - 1)
        clips_b = Clip(*(np.asarray(x)[rows] for x in clips))
        parts.append(jax.device_get(ask(state, clips_b, np.asarray(classes_n)[rows])))
    return jax.tree.map(lambda *x: np.concatenate(x)[:n], *parts)


def _only_model(state):
    return {'params': state['params'], 'rest': state['rest']}


def _both(map_, other, valid):
    return {name: correlations(getattr(map_, name), getattr(other, name), valid) for name in Map._fields}


def correlations(x_nt: np.ndarray, other_nt: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Computes the rank correlation of n pairs of maps [n t ...] over their valid segments [n t]: [n]."""
    return np.array([maps.rank_correlation(x[there], other[there]) for x, other, there in zip(x_nt, other_nt, valid)])


def over_seeds(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the mean of each number [n] over the rows, ignoring NaN; NaN where all rows are NaN."""
    return {name: _mean_defined(np.stack([row[name] for row in rows])) for name in rows[0]}


def _mean_defined(x):
    """Returns the mean over the first axis, ignoring NaN; NaN where all values are NaN."""
    defined = ~np.isnan(x)
    count = defined.sum(axis=0)
    return np.where(count > 0, np.nansum(x, axis=0) / np.maximum(count, 1), np.nan)
