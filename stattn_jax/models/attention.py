"""Where and when: audio-guided attention over the cells and a null cell; attention over modality and segment per class.

Both run in float32 whatever the trunks' dtype (bfloat16 logits lose 3 % in the weights). Read next: models/stan.py.
"""

import jax
import jax.numpy as jnp
from flax import nnx


class SpatialAttention(nnx.Module):
    """Softmax over the cells and one learned null cell of the sound's cosine match with each cell.

    The null cell takes the weight when nothing visible makes this sound; its value is zero. `uniform` ignores the sound.
    Source: arXiv 2105.01517 (audio-guided spatial attention); the null cell and the cosine are ours (docs/design.md).
    """

    def __init__(self, visual: int, audio: int, *, heads: int, head_width: int, uniform: bool, rngs: nnx.Rngs):
        self.shape = (heads, head_width)
        self.uniform = uniform
        self.query = nnx.Linear(audio, heads * head_width, rngs=rngs)
        self.key = nnx.Linear(visual, heads * head_width, rngs=rngs)
        self.null_key = nnx.Param(jax.random.normal(rngs.params(), (heads, head_width)))
        self.log_scale = nnx.Param(jnp.full((heads,), jnp.log(8.0)))

    def __call__(
        self, v_btsd: jax.Array, a_btd: jax.Array, cell_mask_bts: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Returns alpha [b t n s] and null [b t n], which sum to 1; `cell_mask` is False for cells that training removed."""
        b, t, s, _ = v_btsd.shape
        q = _unit(self.query(a_btd.astype(jnp.float32)).reshape(b, t, *self.shape))
        k = _unit(self.key(v_btsd.astype(jnp.float32)).reshape(b, t, s, *self.shape))
        logits = jnp.einsum('btne,btsne->btns', q, k, precision='highest')
        null = jnp.einsum('btne,ne->btn', q, _unit(self.null_key[...]), precision='highest')
        logits = jnp.concatenate([logits, null[..., None]], axis=-1) * jnp.exp(self.log_scale[...])[:, None]
        if self.uniform:
            logits = jnp.zeros_like(logits)
        if cell_mask_bts is not None:
            keep = jnp.concatenate([cell_mask_bts, jnp.ones((b, t, 1), bool)], axis=-1)
            logits = jnp.where(keep[:, :, None], logits, -jnp.inf)
        weights = jax.nn.softmax(logits, axis=-1)
        return weights[..., :-1], weights[..., -1]


class TemporalAttention(nnx.Module):
    """One softmax over (modality, segment) per class, scored by a small network of the segment's picture and sound.

    Source: arXiv 2105.01517 (temporal attention pooling); one joint softmax so that the weights sum to 1.
    """

    def __init__(self, visual: int, audio: int, classes: int, *, hidden: int, uniform: bool, rngs: nnx.Rngs):
        self.classes, self.uniform = classes, uniform
        self.norm = nnx.LayerNorm(visual + audio, rngs=rngs)
        self.hidden = nnx.Linear(visual + audio, hidden, rngs=rngs)
        self.score = nnx.Linear(hidden, 2 * classes, kernel_init=nnx.initializers.normal(0.01), rngs=rngs)

    def __call__(self, v_btd: jax.Array, a_btd: jax.Array, valid_bmt: jax.Array) -> tuple[jax.Array, ...]:
        """Returns beta [b m t c], which sums to 1 over (m, t) and is 0 where `valid` [b m t] is False; and share, alone [b m t c].

        `share` is beta within one segment, how a clip of that segment alone would be weighed; `alone` is beta within one modality,
        how a clip without the other would be. Both are 0 where nothing is valid.
        """
        x = self.norm(jnp.concatenate([v_btd, a_btd], axis=-1).astype(jnp.float32))
        logits = self.score(nnx.gelu(self.hidden(x)))
        if self.uniform:
            logits = jnp.zeros_like(logits)
        b, t, _ = logits.shape
        logits = logits.reshape(b, t, 2, self.classes).transpose(0, 2, 1, 3)
        logits = jnp.where(valid_bmt[..., None], logits, -jnp.inf)
        beta = jax.nn.softmax(logits.reshape(b, 2 * t, -1), axis=1).reshape(logits.shape)
        return beta, *(_within(logits, valid_bmt[..., None], axis) for axis in (1, 2))


def _within(logits, valid, axis):
    """Softmax over one axis among what is valid, 0 where nothing is."""
    some = valid.any(axis=axis, keepdims=True)
    return jax.nn.softmax(jnp.where(some, logits, 0.0), axis=axis) * valid


def _unit(x):
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)
