"""Scores a network while units are removed in the order of a map: curves, surfaces, and the order among all orders.

metrics/perturbation.py and metrics/aopc.py define the masks and the areas; this module applies them to a `Classifier`
and a removal. A score is a function of one clip and many removals; `Scorer` makes it from a network, and the functions
after it take any score. Encoders process segments one by one, so each distinct picture among all these removals is
encoded once, and the rest of the network runs on the encoded features: the numbers are those of running the whole
network on each removal.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stattn_jax.attribution import removal
from stattn_jax.attribution.arrays import ClipArrays, Map
from stattn_jax.attribution.classifier import Classifier
from stattn_jax.metrics import aopc, perturbation

FRACTIONS = (0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1)
SURFACE_FRACTIONS = (0, 0.1, 0.3, 0.6, 1)
PROBABILITY, LOGIT = 0, 1

# Maps the kept cells, bool [n t s], and sounds, bool [n t], to probability and logit of the class, float64 [n 2].
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Scorer:
    """The scores of one network, compiled once for all its clips, removals and settings.

    classifier: the network, or a function that returns it for `variables`, which are then arguments of the compiled
      programs; arrays that a function closes over are constants in them, which compile slowly if they are large.
    binary: whether a class's probability is a sigmoid instead of a softmax.
    mean_hw3: the training set's mean picture.
    chunk: how many pictures, or removals, go through the network at a time.
    """

    def __init__(
        self,
        classifier: Classifier | Callable[[Any], Classifier],
        variables: Any = None,
        *,
        binary: bool,
        mean_hw3: np.ndarray,
        chunk: int = 16,
    ):
        self._variables, self._chunk, self._mean = variables, chunk, jnp.asarray(mean_hw3)
        self._network = classifier if isinstance(classifier, Classifier) else classifier(variables)

        def compiled(function):
            def call(variables, *inputs):
                network = classifier if isinstance(classifier, Classifier) else classifier(variables)
                return function(network, *inputs)

            return jax.jit(call)

        self._bank = jax.jit(removal.bank)
        self._sources = jax.jit(jax.vmap(removal.sources, (None, 0)), static_argnums=0)
        self._frames, self._sound, self._pictures = map(compiled, (_encode_frames, _encode_sound, _encode_pictures))
        self._masked = compiled(lambda *inputs: _masked(*inputs, binary=binary))
        self._joined = compiled(lambda *inputs: _joined(*inputs, binary=binary))

    def score(
        self,
        clip: ClipArrays,
        class_: int,
        setting: str | tuple[str, str] = 'feature',
        absent_log_mel: np.ndarray | None = None,
    ) -> Score:
        """Returns the score function of one class of one clip in a setting of removal.SETTINGS.

        Everything that does not depend on the removal is computed here. `absent_log_mel` [t f k]: the output of
        `removal.sound_absent` for the second operator of an input-level pair. The score of 'feature' removes cells with
        the network's masks, and a picture together with its last cell. Where nothing at all is kept, the sound is zero
        and there is no cell, for which a sum of terms gives the bias. Raises ValueError for 'feature' if the network
        takes no masks.
        """
        if setting == 'feature' and not self._network.masks:
            raise ValueError("the setting 'feature' needs a network that takes masks; expected a pair of removal.PAIRS")
        uses_video, uses_audio = self._network.uses_video, self._network.uses_audio
        clip = ClipArrays(*(np.asarray(x) for x in clip))
        sound = self._sound(self._variables, clip.log_mel) if uses_audio else None
        if setting == 'feature':
            cells = self._frames(self._variables, clip.frames) if uses_video else None
            return lambda keep_nts, keep_nt: self._score_masked((cells, sound, clip.valid, class_), keep_nts, keep_nt)
        silence = self._sound(self._variables, absent_log_mel) if uses_audio else None
        pictures = self._bank(clip.frames, self._mean) if uses_video else None
        sounds = None if sound is None else np.stack([silence, sound])

        def score(keep_nts, keep_nt):
            t, n = np.arange(keep_nt.shape[1]), len(keep_nt)
            sound_nt = None if sounds is None else sounds[keep_nt.astype(int), t]
            if pictures is None:
                return self._score_joined(None, np.zeros((n, len(t)), int), sound_nt, clip.valid, class_)
            keep_nthw = (keep_nts & clip.valid[:, None]).reshape(n, len(t), *self._network.grid)
            sources, index = self._distinct(setting[0], keep_nthw)
            return self._score_joined(self._encode(pictures, sources), index, sound_nt, clip.valid, class_)

        return score

    def _distinct(self, operator, keep_nthw):
        """Returns the distinct pictures [u h w] that removal.sources gives for the kept cells, and indices [n t]."""
        parts = [self._sources(operator, keep) for (keep,) in self._chunks(keep_nthw)]
        source = np.concatenate(parts)[: len(keep_nthw)]
        distinct, index = np.unique(source.reshape(-1, source[0, 0].size), axis=0, return_inverse=True)
        return distinct.reshape(-1, *self._network.grid), index.reshape(source.shape[:2])

    def _encode(self, pictures, source_uhw):
        """Returns the cells [u s d'] of the pictures that are assembled from `source_uhw`."""
        parts = [
            np.asarray(self._pictures(self._variables, pictures, source)) for (source,) in self._chunks(source_uhw)
        ]
        return np.concatenate(parts)[: len(source_uhw)]

    def _score_masked(self, encoded, keep_nts, keep_nt):
        parts = [self._masked(self._variables, *encoded, *kept) for kept in self._chunks(keep_nts, keep_nt)]
        return np.concatenate(parts)[: len(keep_nt)].astype(float)

    def _score_joined(self, cells_u, index_nt, sound_nt, valid, class_):
        parts = []
        for index, *sound in self._chunks(*(x for x in (index_nt, sound_nt) if x is not None)):
            cells = None if cells_u is None else cells_u[index]
            parts.append(self._joined(self._variables, cells, sound[0] if sound else None, valid, class_))
        return np.concatenate(parts)[: len(index_nt)].astype(float)

    def _chunks(self, *arrays):
        """Yields `chunk` rows of all arrays at a time; the last chunk is padded with its last row."""
        for start in range(0, len(arrays[0]), self._chunk):
            rows = [x[start : start + self._chunk] for x in arrays]
            yield [np.concatenate([x, np.repeat(x[-1:], self._chunk - len(x), axis=0)]) for x in rows]


def _encode_frames(network, frames):
    return network.encode_frames(frames[None])[0]


def _encode_sound(network, log_mel):
    return network.encode_audio(log_mel[None])[0]


def _encode_pictures(network, pictures, source_nhw):
    return _encode_frames(network, removal.assemble(pictures, source_nhw))


def _masked(network, cells, sound, valid, class_, keep_nts, keep_nt, *, binary):
    """Scores one clip from the encoders' results, [t s d'] and [t d], with masks."""

    def logits_of(keep_ts, keep_t):
        units = jnp.stack([keep_ts.any(axis=-1), keep_t]) & valid
        nothing = ~units.any()
        logits = network.head(
            None if cells is None else cells[None],
            None if sound is None else jnp.where(nothing, 0.0, sound)[None],
            valid[None],
            cell_mask=keep_ts[None],
            unit_mask=(units | nothing)[None],
        )
        return logits[0]

    return _probability_and_logit(jax.vmap(logits_of)(keep_nts, keep_nt), class_, binary)


def _joined(network, cells, sound, valid, class_, *, binary):
    """Scores clips with different results of the encoders, [n t ...] each."""
    n = len(sound if cells is None else cells)
    logits = network.head(cells, sound, jnp.broadcast_to(valid, (n, *valid.shape)))
    return _probability_and_logit(logits, class_, binary)


def _probability_and_logit(logits_nc, class_, binary):
    probabilities = jax.nn.sigmoid(logits_nc) if binary else jax.nn.softmax(logits_nc, axis=-1)
    return jnp.stack([probabilities[:, class_], logits_nc[:, class_]], axis=-1)


# ---------------------------------------------------------------------------------------------------------------------
# Orders
# ---------------------------------------------------------------------------------------------------------------------


def curves(
    score: Score,
    valid: np.ndarray,
    maps: Sequence[Map],
    fractions: Sequence[float] = FRACTIONS,
    *,
    draws: int = 4,
    seed: int = 0,
) -> list[perturbation.Curves]:
    """Computes deletion and insertion curves of each map, with scores [k 2].

    The same fraction of cells and of sounds is removed together, each in its own order. The cells of all `valid`
    segments [t] have one order; segments that are not valid hold no units. `Curves.fraction` is the mean of the true
    shares of cells and of sounds. Maps scored in one call share the pictures that are the same.
    """
    removed = [_diagonal(map_, valid, fractions, draws, seed) for map_ in maps]
    masks = [(np.stack([cells, ~cells]), np.stack([sounds, ~sounds])) for cells, sounds in removed]
    flat = [[x.reshape(-1, *x.shape[3:]) for x in pair] for pair in masks]
    all_cells, all_sounds = map(np.concatenate, zip(*flat))
    scores = score(*_kept(all_cells, all_sounds, valid))
    ends = np.cumsum([len(sounds) for _, sounds in flat])
    found = []
    for (_, sounds), part in zip(masks, np.split(scores, ends[:-1])):
        deletion, insertion = part.reshape(*sounds.shape[:3], 2).mean(axis=1)
        found.append(perturbation.Curves(_shares(maps[0], valid, fractions), deletion, insertion))
    return found


def _diagonal(map_, valid, fractions, draws, seed):
    """Returns the removed cells, bool [d k v s], and the removed sounds, [d k v], of the v valid segments."""
    parts = [
        perturbation.removals(np.asarray(values)[valid], fractions, draws=draws, seed=(seed, i))
        for i, values in enumerate(map_)
    ]
    d = max(map(len, parts))
    return [np.broadcast_to(part, (d, *part.shape[1:])) for part in parts]


def _shares(map_, valid, fractions):
    sizes = [np.asarray(values)[valid].size for values in map_]
    return np.mean([perturbation.counts(size, fractions) / size for size in sizes], axis=0)


def _kept(removed_nvs, removed_nv, valid):
    """Returns the kept cells [n t s] and sounds [n t], given those that are removed of the valid segments."""
    kept = []
    for removed in (removed_nvs, removed_nv):
        whole = np.ones((len(removed), len(valid), *removed.shape[2:]), bool)
        whole[:, valid] = ~removed
        kept.append(whole & valid.reshape(-1, *(1,) * (removed.ndim - 2)))
    return kept


def surface(
    score: Score,
    valid: np.ndarray,
    map_: Map,
    fractions: Sequence[float] = SURFACE_FRACTIONS,
    *,
    draws: int = 4,
    seed: int = 0,
) -> perturbation.Surface:
    """Computes the scores [i j 2] over (share of the cells removed, share of the sounds removed)."""
    visual, audio = (np.asarray(values)[valid] for values in map_)
    return perturbation.surface(
        visual, audio, lambda cells, sounds: score(*_kept(cells, sounds, valid)), fractions, draws=draws, seed=seed
    )


def segment_scores(score: Score, valid: np.ndarray, cells: int) -> np.ndarray:
    """Computes the class's logit with every subset of the valid segments kept: float64 [2^v].

    A segment's picture, of `cells` cells, and its sound are kept or removed together.
    """
    kept_nv = aopc.subsets(int(valid.sum()))
    kept_nt = np.zeros((len(kept_nv), len(valid)), bool)
    kept_nt[:, valid] = kept_nv
    return score(np.broadcast_to(kept_nt[..., None], (*kept_nt.shape, cells)), kept_nt)[:, LOGIT]


def segment_aopc(scores: np.ndarray, valid: np.ndarray, maps_kt: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the normalised AOPC of each map, [k], and of a blind order, from `segment_scores`.

    The order of a map lies between the worst (0) and the best (1) of all orders. NaN where the order makes no
    difference.
    """
    return aopc.normalised(scores, np.asarray(maps_kt)[:, valid]), aopc.chance(scores)
