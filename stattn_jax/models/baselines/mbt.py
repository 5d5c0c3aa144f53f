"""A small bottleneck transformer (MBT, arXiv 2107.00135): one layer per modality, then two with bottleneck tokens.

It is smaller than the published model (12 layers on raw patches of 8 frames). The tokens are the trunk's cells and the
segment's audio. Each segment is processed alone, like a view in the published model, and the logits of segments are
averaged. In frames of more than 49 cells with even rows and columns, each 2 x 2 cells make one token, so that this
model's part of a training step on a CPU takes a quarter of the time. There is no position embedding, because no model
here encodes the position of a cell. Each modality updates its own copy of the four bottleneck tokens, and the copies
are averaged. One shared layer maps the class tokens of both modalities to logits, which are also averaged. Both are as
in google-research/scenic (projects/av_mae/mbt.py).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.baselines.compared import Compared, Evidence, Out, Sizes
from stattn_jax.models.layers.dense import Linear
from stattn_jax.models.pooling import mean_among

BOTTLENECK, HEADS, FUSED = 4, 4, 2
MOST_CELLS = 49


class Layer(nnx.Module):
    """A pre-norm transformer layer: x [b n d], kept bool [b n] -> [b n d]."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(HEADS, width, decode=False, keep_rngs=False, rngs=rngs)
        self.wide = Linear(width, 2 * width, rngs=rngs)
        self.narrow = Linear(2 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array, kept: jax.Array) -> jax.Array:
        x = x + self.attention(self.norms[0](x), mask=kept[:, None, None])
        return x + self.narrow(nnx.gelu(self.wide(self.norms[1](x))))


class Mbt(Compared):
    """A transformer per modality; the modalities exchange information only through `BOTTLENECK` tokens.

    The width is `hidden`, a multiple of 4.
    """

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, **trunks):
        super().__init__(sizes, rngs=rngs, **trunks)
        d = sizes.hidden
        self.rows_columns = self.grid(*sizes.frame)
        self.embed = nnx.List([Linear(sizes.width, d, rngs=rngs) for _ in range(2)])
        init = nnx.initializers.normal(0.02)
        self.class_tokens = nnx.Param(init(rngs.params(), (2, 1, d)))
        self.bottleneck = nnx.Param(init(rngs.params(), (BOTTLENECK, d)))
        self.layers = nnx.List(
            [nnx.List([Layer(d, rngs=rngs) for _ in range(2)]) for _ in range(1 + FUSED)]  # pairs: visual, audio
        )
        self.norm = nnx.LayerNorm(d, rngs=rngs)
        self.head = Linear(d, sizes.classes, rngs=rngs)

    def classify(self, evidence: Evidence) -> tuple[jax.Array, Out]:
        b, t = evidence.units.shape[0], evidence.units.shape[2]
        values, cells = self._patches(evidence)
        tokens = [values.reshape(b * t, -1, values.shape[-1]), evidence.audio.reshape(b * t, 1, -1)]
        kept = [cells.reshape(b * t, -1), evidence.units[:, 1].reshape(b * t, 1)]
        # Class and bottleneck tokens are never masked.
        own = [jnp.pad(k, ((0, 0), (1, 0)), constant_values=True) for k in kept]
        met = [jnp.pad(k, ((0, 0), (0, BOTTLENECK)), constant_values=True) for k in own]
        xs = [
            jnp.concatenate([jnp.broadcast_to(first, (b * t, *first.shape)), embed(x)], axis=1)
            for first, embed, x in zip(self.class_tokens[...], self.embed, tokens)
        ]
        xs = [layer(x, k) for layer, x, k in zip(self.layers[0], xs, own)]
        shared = jnp.broadcast_to(self.bottleneck[...], (b * t, *self.bottleneck.shape))
        for pair in self.layers[1:]:
            both = [layer(jnp.concatenate([x, shared], axis=1), k) for layer, x, k in zip(pair, xs, met)]
            xs = [x[:, :-BOTTLENECK] for x in both]
            shared = (both[0][:, -BOTTLENECK:] + both[1][:, -BOTTLENECK:]) / 2
        logits = jnp.stack([self.head(self.norm(x[:, 0])).reshape(b, t, -1) for x in xs], axis=1)
        return mean_among(logits, evidence.units, axis=(1, 2)), {}

    def _patches(self, evidence: Evidence) -> tuple[jax.Array, jax.Array]:
        """Returns the visual tokens [b t p d], which are cells or means of 2 x 2 cells, and their mask bool [b t p]."""
        rows, columns = self.rows_columns
        if rows * columns <= MOST_CELLS or rows % 2 or columns % 2:
            return evidence.values, evidence.cells
        b, t, _, d = evidence.values.shape
        blocks = (b, t, rows // 2, 2, columns // 2, 2)
        cells = evidence.cells.reshape(blocks).swapaxes(3, 4).reshape(b, t, -1, 4)
        values = evidence.values.reshape(*blocks, d).swapaxes(3, 4).reshape(b, t, -1, 4, d)
        return mean_among(values, cells, axis=3), cells.any(axis=-1)
