"""What the network would say if: a cell were not there, the clip were silent, its sound came half a clip later.

Everything is asked of the attention anew, on the trunks' outputs of the one forward pass that explained the clip: the
answers are exact and cost no second pass through the trunks. Questions about whole segments of one modality have a
closed
form and need no network: explanation.py, without_units. Read next: model.py, which compiles `ask`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from stattn_jax.metrics import events
from stattn_jax.models.stan import Stan

Kept = dict[str, jax.Array]


def ask(
    model: Stan, kept: Kept, classes_k: jax.Array, order_t: jax.Array, silence_fk: jax.Array
) -> dict[str, jax.Array]:
    """One clip's answers.

    `kept`: keys [t s n e] and values [t s d], audio [t d] from the model's `out`, valid [t]. `order_t`: segment t hears
    what segment order_t[t] heard. `silence_fk`: log-mel of a segment of silence.

    Returns:
      removed [k t s]: the change of the logits of `classes_k` without that cell; logits [3 c] and alpha [3 t s] (mean
      over heads) of the clip as it is, with silence and with moved sound.
    """
    keys, values, audio, valid = (kept[name][None] for name in ('keys', 'values', 'audio', 'valid'))
    silent = jnp.broadcast_to(model.sound(silence_fk[None, None], train=False), audio.shape)
    audio_3td = jnp.concatenate([audio, silent, audio[:, order_t]])

    def answer(audio_btd, cell_mask=None):
        repeated = (jnp.broadcast_to(x, (len(audio_btd), *x.shape[1:])) for x in (keys, values))
        out = model.attend(*repeated, audio_btd, jnp.broadcast_to(valid, audio_btd.shape[:2]), cell_mask=cell_mask)
        return model.bias[...] + jnp.sum(out['beta'] * out['segment_scores'], axis=(1, 2)), out

    logits, out = answer(audio_3td)
    t, s = keys.shape[1:3]

    def without_cell(cell):
        return answer(audio, cell_mask=(jnp.arange(t * s) != cell).reshape(1, t, s))[0][0, classes_k]

    # Segment by segment: all cells of a clip at once would hold (cells of a clip) ** 2 weights.
    removed_tsk = jax.lax.map(jax.vmap(without_cell), jnp.arange(t * s).reshape(t, s))
    # Nothing is lost with a cell that has no weight; what the two sums differ by there is rounding.
    removed = jnp.moveaxis(removed_tsk - logits[0, classes_k], -1, 0) * valid[0, :, None]
    return {'removed': removed, 'logits': logits, 'alpha': out['alpha'].mean(axis=2)}


def moved(valid_t: np.ndarray) -> tuple[np.ndarray, int]:
    """The order in which valid segments hear the sound moved by half of them, around the end; and by how many
    segments.
    """
    order, segments = np.arange(len(valid_t)), np.flatnonzero(valid_t)
    by = len(segments) // 2
    order[segments] = np.roll(segments, by)
    return order, by


def trust(answers: dict[str, np.ndarray], classes: Sequence[str], binary: bool, valid_t: np.ndarray, by: int) -> dict:
    """What Explanation.trust holds, from the answers of one clip whose sound was moved by `by` segments."""
    probabilities = events.probabilities(answers['logits'].astype(float), binary=binary)
    best = int(answers['logits'][0].argmax())
    rows = [
        {
            'label': classes[int(answers['logits'][i].argmax())],
            'probability': float(probabilities[i, best]),
            'map_correlation': correlation(answers['alpha'][0, valid_t], answers['alpha'][i, valid_t]),
        }
        for i in (1, 2)
    ]
    return {'silence': rows[0], 'shifted_sound': rows[1] | {'by_segments': by}}


def correlation(map_ts: np.ndarray, other_ts: np.ndarray) -> float | None:
    """Pearson's correlation of two maps; None where one is constant, but a map correlates fully with itself."""
    if np.array_equal(map_ts, other_ts):
        return 1.0
    if np.ptp(map_ts) == 0 or np.ptp(other_ts) == 0:
        return None
    return float(np.corrcoef(map_ts.ravel(), other_ts.ravel())[0, 1])
