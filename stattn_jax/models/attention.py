"""Audio-guided spatial attention over the cells and a null cell, and temporal attention per class.

The temporal attention weighs (modality, segment) units. Both run in float32 whatever the trunks' dtype is, because
bfloat16 logits change the weights by 3 %.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.layers.dense import Linear


class SpatialAttention(nnx.Module):
    """Softmax, over the cells and one learned null cell, of the scaled cosine between the audio and each cell.

    The null cell takes the attention when nothing visible matches the sound; its value is zero.
    Ablations: `uniform` gives all cells the same weight; without `guided` a learned query replaces the audio; without
    `null_cell` the cells share all the weight.
    Source: arXiv 2105.01517 (audio-guided spatial attention); the null cell and the cosine are ours (docs/design.md).
    """

    def __init__(
        self,
        visual: int,
        audio: int,
        *,
        heads: int,
        head_width: int,
        uniform: bool = False,
        guided: bool = True,
        null_cell: bool = True,
        rngs: nnx.Rngs,
    ):
        self.shape = (heads, head_width)
        self.uniform = uniform

        def vectors():
            return nnx.Param(jax.random.normal(rngs.params(), self.shape))

        self.query = Linear(audio, heads * head_width, rngs=rngs) if guided else None
        self.own_query = None if guided else vectors()
        self.key = Linear(visual, heads * head_width, rngs=rngs)
        self.null_key = vectors() if null_cell else None
        self.log_scale = nnx.Param(jnp.full((heads,), jnp.log(8.0)))

    def keys(self, v_btsd: jax.Array) -> jax.Array:
        """Returns the keys of the cells, of length 1: [b t s n e]. They can be matched with the audio of many clips."""
        return _unit(self.key(v_btsd.astype(jnp.float32)).reshape(*v_btsd.shape[:3], *self.shape))

    def __call__(
        self,
        keys_btsne: jax.Array,
        a_btd: jax.Array,
        cell_mask_bts: jax.Array | None,
        paired_b: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the attention weights alpha [b t n s] and null [b t n], which together sum to 1.

        `cell_mask_bts` is False for removed cells, whose weight is 0. Without a null cell null is 0, and alpha is 0
        too where no cell is left. `paired_b` is False for clips that lack a modality: nothing selects among their
        cells, so that these have equal weights, and the null cell has none.
        """
        b, t, s = keys_btsne.shape[:3]
        q = _unit(self._query_of(a_btd.astype(jnp.float32)))
        logits = jnp.einsum('btne,btsne->btns', q, keys_btsne, precision='highest')
        keep = jnp.ones((b, t, s), bool) if cell_mask_bts is None else cell_mask_bts
        if self.null_key is not None:
            null = jnp.einsum('btne,ne->btn', q, _unit(self.null_key[...]), precision='highest')
            logits = jnp.concatenate([logits, null[..., None]], axis=-1)
            competes = jnp.ones((b, 1, 1), bool) if paired_b is None else paired_b[:, None, None]
            keep = jnp.concatenate([keep, jnp.broadcast_to(competes, (b, t, 1))], axis=-1)
        logits = jnp.zeros_like(logits) if self.uniform else logits * jnp.exp(self.log_scale[...])[:, None]
        if paired_b is not None:
            logits = jnp.where(paired_b[:, None, None, None], logits, 0.0)
        weights = jax.nn.softmax(logits, axis=-1, where=keep[:, :, None])
        return weights[..., :s], jnp.zeros((b, t, self.shape[0])) if self.null_key is None else weights[..., s]

    def _query_of(self, a_btd):
        if self.query is None:
            return jnp.broadcast_to(self.own_query[...], (*a_btd.shape[:2], *self.shape))
        return self.query(a_btd).reshape(*a_btd.shape[:2], *self.shape)


class TemporalAttention(nnx.Module):
    """One softmax over (modality, segment) per class, scored by a small network and by the audio-visual match.

    The small network reads the segment's pooled visual vector and its audio vector. The match is the log-odds that
    something visible makes the sound, and has a learned weight for each modality. It is a separate term because the
    network alone, trained on few clips, learns that audio from outside the frame counts less, but not for unseen clips
    (docs/log.md, 2026-11-27).
    Source: arXiv 2105.01517 (temporal attention pooling); the match, and one joint softmax so that the weights sum to
      1, are ours.
    Ablations: `uniform` gives all units the same weight; without `by_class` all classes share one softmax.
    """

    def __init__(
        self,
        visual: int,
        audio: int,
        classes: int,
        *,
        hidden: int,
        uniform: bool = False,
        by_class: bool = True,
        rngs: nnx.Rngs,
    ):
        self.classes, self.uniform = classes, uniform
        self.norm = nnx.LayerNorm(visual + audio, rngs=rngs)
        self.hidden = Linear(visual + audio, hidden, rngs=rngs)
        scores = 2 * (classes if by_class else 1)
        self.score = Linear(hidden, scores, kernel_init=nnx.initializers.normal(0.01), rngs=rngs)
        self.match_weight = nnx.Param(jnp.full((2,), 0.5))

    def __call__(
        self, v_btd: jax.Array, a_btd: jax.Array, match_bt: jax.Array, valid_bmt: jax.Array
    ) -> tuple[jax.Array, ...]:
        """Returns the attention weights beta, beta_per_segment and beta_per_modality, each [b m t c].

        beta sums to 1 over (m, t) and is 0 where `valid_bmt` is False. `beta_per_segment` is the softmax within one
        segment: the weights in a clip of that segment alone. `beta_per_modality` is the softmax within one modality:
        the weights in a clip without the other modality. Both are 0 where nothing is valid.
        """
        x = self.norm(jnp.concatenate([v_btd, a_btd], axis=-1).astype(jnp.float32))
        logits = self.score(nnx.gelu(self.hidden(x)))
        b, t, _ = logits.shape
        logits = logits.reshape(b, t, 2, -1).transpose(0, 2, 1, 3)
        logits += self.match_weight[...][:, None, None] * match_bt[:, None, :, None]
        if self.uniform:
            logits = jnp.zeros_like(logits)
        logits = jnp.broadcast_to(logits, (b, 2, t, self.classes))
        logits = jnp.where(valid_bmt[..., None], logits, -jnp.inf)
        beta = jax.nn.softmax(logits.reshape(b, 2 * t, -1), axis=1).reshape(logits.shape)
        return beta, *(jax.nn.softmax(logits, axis=axis, where=valid_bmt[..., None]) for axis in (1, 2))


def _unit(x):
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)
