"""Counterfactual questions to the network: a cell is removed, the audio is silent, or the audio is shifted.

The audio is shifted by half a clip. Each question recomputes the attention on the trunks' outputs of the forward pass
that explained the clip, so the answers are exact and need no second pass of the clip through the trunks; only one
silent segment passes through the audio trunk. Removing whole segments of one modality has a closed form and needs no
network (ExplanationData.without_units). model.py compiles `compute`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from stattn_jax.attribution.arrays import rolled
from stattn_jax.metrics import events
from stattn_jax.models.stan import SpaceTimeAttention


def compute(
    model: SpaceTimeAttention,
    inputs: dict[str, jax.Array],
    classes_k: jax.Array,
    order_t: jax.Array,
    silence_fk: jax.Array,
) -> dict[str, jax.Array]:
    """Returns the outputs of the network for the counterfactuals of one clip.

    `inputs`: keys [t s n e], values [t s d] and audio [t d] of the model's `out`, valid [t] and modalities [m]; of a
    clip that lacks a modality, only `removed` has a meaning. `order_t`: segment t gets
    the audio of segment order_t[t]. `silence_fk`: log-mel of a silent segment.

    Returns:
      removed [k t s]: the change of the logits of `classes_k` without that cell; logits [3 c] and alpha [3 t s] (mean
      over heads) of the original clip, of the clip with silence and of the clip with shifted audio.
    """
    names = ('keys', 'values', 'audio', 'valid', 'modalities')
    keys, values, audio, valid, modalities = (inputs[name][None] for name in names)
    silent = jnp.broadcast_to(model.sound(silence_fk[None, None], train=False), audio.shape)
    audio_3td = jnp.concatenate([audio, silent, audio[:, order_t]])

    def score(audio_btd, cell_mask=None):
        keys_b, values_b = (jnp.broadcast_to(x, (len(audio_btd), *x.shape[1:])) for x in (keys, values))
        valid_bt, has_bm = (jnp.broadcast_to(x, (len(audio_btd), x.shape[1])) for x in (valid, modalities))
        out = model.attend_and_score(keys_b, values_b, audio_btd, valid_bt, cell_mask=cell_mask, modalities=has_bm)
        return model.bias[...] + jnp.sum(out['beta'] * out['segment_scores'], axis=(1, 2)), out

    logits, out = score(audio_3td)
    t, s = keys.shape[1:3]

    def without_cell(cell):
        return score(audio, cell_mask=(jnp.arange(t * s) != cell).reshape(1, t, s))[0][0, classes_k]

    # One segment at a time: all cells of a clip at once would need (cells of a clip) ** 2 weights in memory.
    removed_tsk = jax.lax.map(jax.vmap(without_cell), jnp.arange(t * s).reshape(t, s))
    # A cell of an invalid segment has no weight, so its removal changes the sum only by rounding, which is set to 0.
    removed = jnp.moveaxis(removed_tsk - logits[0, classes_k], -1, 0) * valid[0, :, None]
    return {'removed': removed, 'logits': logits, 'alpha': out['alpha'].mean(axis=2)}


def moved(valid_t: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the order of segments whose audio is rotated by half of the valid ones, and the size of the shift.

    Only valid segments take part, and the last ones continue at the first. The shift is in segments.
    """
    by = int(np.count_nonzero(valid_t)) // 2
    return rolled(valid_t, by), by


def trust(outputs: dict[str, np.ndarray], classes: Sequence[str], binary: bool, valid_t: np.ndarray, by: int) -> dict:
    """Returns ExplanationData.trust of one clip from the outputs of `compute`; `by` is the shift in segments."""
    probabilities = events.probabilities(outputs['logits'].astype(float), binary=binary)
    best = int(outputs['logits'][0].argmax())
    rows = [
        {
            'label': classes[int(outputs['logits'][i].argmax())],
            'probability': float(probabilities[i, best]),
            'map_correlation': correlation(outputs['alpha'][0, valid_t], outputs['alpha'][i, valid_t]),
        }
        for i in (1, 2)
    ]
    return {'silence': rows[0], 'shifted_sound': rows[1] | {'by_segments': by}}


def correlation(map_ts: np.ndarray, other_ts: np.ndarray) -> float | None:
    """Returns Pearson's correlation of two maps, or None where one is constant; equal maps always give 1."""
    if np.array_equal(map_ts, other_ts):
        return 1.0
    if np.ptp(map_ts) == 0 or np.ptp(other_ts) == 0:
        return None
    return float(np.corrcoef(map_ts.ravel(), other_ts.ravel())[0, 1])
