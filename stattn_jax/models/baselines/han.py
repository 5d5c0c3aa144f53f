"""HAN with attentive MMIL pooling (Tian et al., arXiv 2007.10558): video parsing from labels of whole clips.

One hybrid layer is applied to both modalities, with the same weights and their roles swapped, as in the released code
(github.com/YapengTian/AVVP-ECCV20, nets/net_audiovisual.py): x <- norm(x + self(x) + cross(x, y)), then a feed-forward
layer. Then, per class,

    p = sum_tm W_time W_modality sigmoid(score),   W_time a softmax over time, W_modality a softmax over the modalities

Both softmaxes are as published, although their product does not sum to 1 and p is clamped to (0, 1). The logits are
log(p / (1 - p)), so that a sigmoid gives p. The paper's dropout and its losses on the p of each modality are left out,
because all models here share one training step.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.baselines.compared import Compared, Evidence, Maps, Out, Sizes, of_class
from stattn_jax.models.layers.dense import Linear

# The released code clamps to [1e-7, 1 - 1e-7]. In float32 there is no number between 1 - 6e-8 and 1, and the gradient
# of log(1 - p) needs a larger distance from 1.
CLAMP = 1e-6


class Hybrid(nnx.Module):
    """Self- and cross-attention of x [b t d] on x and y [b t d]; the masks there and other_there are bool [b t]."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.own = nnx.MultiHeadAttention(1, width, decode=False, keep_rngs=False, rngs=rngs)
        self.cross = nnx.MultiHeadAttention(1, width, decode=False, keep_rngs=False, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.wide = Linear(width, width, rngs=rngs)
        self.narrow = Linear(width, width, rngs=rngs)

    def __call__(self, x: jax.Array, y: jax.Array, there: jax.Array, other_there: jax.Array) -> jax.Array:
        own = self.own(x, mask=there[:, None, None]) * there.any(axis=1)[:, None, None]
        cross = self.cross(x, y, mask=other_there[:, None, None]) * other_there.any(axis=1)[:, None, None]
        x = self.norms[0](x + cross + own)
        return self.norms[1](x + self.narrow(nnx.relu(self.wide(x))))


class Han(Compared):
    """Pools the probabilities of each segment and modality by the product of two attention weights."""

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, **trunks):
        super().__init__(sizes, rngs=rngs, **trunks)
        self.hybrid = Hybrid(sizes.width, rngs=rngs)
        self.score = Linear(sizes.width, sizes.classes, rngs=rngs)
        # There is no bias: it would be the same for all segments and both modalities, and so not change the softmax.
        self.time = Linear(sizes.width, sizes.classes, use_bias=False, rngs=rngs)
        self.modality = Linear(sizes.width, sizes.classes, use_bias=False, rngs=rngs)

    def classify(self, evidence: Evidence) -> tuple[jax.Array, Out]:
        seen, heard = evidence.picture, evidence.audio
        there, other = evidence.units[:, 0], evidence.units[:, 1]
        both = jnp.stack([self.hybrid(seen, heard, there, other), self.hybrid(heard, seen, other, there)], axis=1)
        among = evidence.units[..., None]
        time = jax.nn.softmax(self.time(both), axis=2, where=among)
        modality = jax.nn.softmax(self.modality(both), axis=1, where=among)
        unit_scores = time * modality * nnx.sigmoid(self.score(both))
        p = jnp.clip(unit_scores.sum(axis=(1, 2)), CLAMP, 1 - CLAMP)
        return jnp.log(p) - jnp.log1p(-p), {'unit_scores': unit_scores}

    def maps(self, out: Out, classes_b: jax.Array) -> Maps:
        """Returns what each segment (both modalities) adds to p; no spatial map, because a frame is one vector."""
        return None, of_class(out['unit_scores'].sum(axis=1), classes_b)
