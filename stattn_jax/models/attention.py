"""Where and when: audio-guided attention over the cells and a null cell; attention over modality and segment per class.

Both run in float32 whatever the trunks' dtype (bfloat16 logits lose 3 % in the weights). Read next: models/stan.py.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.dense import Linear
from stattn_jax.models.pooling import softmax_among


class SpatialAttention(nnx.Module):
    """Softmax over the cells and one learned null cell of the sound's cosine match with each cell.

    The null cell takes the weight when nothing visible makes this sound; its value is zero. Ablations: `uniform` weighs
    all cells alike, without `guided` one learned query takes the place of the sound, without `null_cell` the cells
    share all the weight.
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
        """The keys of cells, of length 1: [b t s n e]. One set serves the sounds of many clips."""
        return _unit(self.key(v_btsd.astype(jnp.float32)).reshape(*v_btsd.shape[:3], *self.shape))

    def __call__(
        self, keys_btsne: jax.Array, a_btd: jax.Array, cell_mask_bts: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Returns alpha [b t n s] and null [b t n], which sum to 1; `cell_mask` is False for cells that training
        removed.

        Without a null cell null is 0, and alpha too where no cell is left.
        """
        b, t, s = keys_btsne.shape[:3]
        q = _unit(self._asked(a_btd.astype(jnp.float32)))
        logits = jnp.einsum('btne,btsne->btns', q, keys_btsne, precision='highest')
        keep = jnp.ones((b, t, s), bool) if cell_mask_bts is None else cell_mask_bts
        if self.null_key is not None:
            null = jnp.einsum('btne,ne->btn', q, _unit(self.null_key[...]), precision='highest')
            logits = jnp.concatenate([logits, null[..., None]], axis=-1)
            keep = jnp.concatenate([keep, jnp.ones((b, t, 1), bool)], axis=-1)
        logits = jnp.zeros_like(logits) if self.uniform else logits * jnp.exp(self.log_scale[...])[:, None]
        weights = softmax_among(logits, keep[:, :, None], axis=-1)
        return weights[..., :s], jnp.zeros((b, t, self.shape[0])) if self.null_key is None else weights[..., s]

    def _asked(self, a_btd):
        if self.query is None:
            return jnp.broadcast_to(self.own_query[...], (*a_btd.shape[:2], *self.shape))
        return self.query(a_btd).reshape(*a_btd.shape[:2], *self.shape)


class TemporalAttention(nnx.Module):
    """One softmax over (modality, segment) per class, scored by a small network of the segment's picture and sound and
    by their match.

    The match, the log-odds that something visible makes the sound, has a learned weight for each modality: a small
    network learns from few clips that a sound from outside the picture counts less, but not for clips that it has not
    seen (docs/log.md, 2026-11-27).
    Source: arXiv 2105.01517 (temporal attention pooling); one joint softmax so that the weights sum to 1, and the
      match, are ours.
    Ablations: `uniform` weighs all units alike, without `by_class` all classes share one softmax.
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
        """Returns beta [b m t c], which sums to 1 over (m, t) and is 0 where `valid` [b m t] is False; and share, alone
        [b m t c].

        `share` is beta within one segment, how a clip of that segment alone would be weighed; `alone` is beta within
        one modality, how a clip without the other would be. Both are 0 where nothing is valid.
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
        return beta, *(softmax_among(logits, valid_bmt[..., None], axis) for axis in (1, 2))


def _unit(x):
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)
