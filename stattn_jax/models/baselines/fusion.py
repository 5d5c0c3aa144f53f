"""Fusion models: one vector per segment from its visual and audio features, the mean over segments, a linear layer.

The visual feature is the mean of the cells. Fusing each segment before the mean keeps the pairing of frames and sounds,
which the mean over a clip would lose. These models provide no maps. Formulas: FiLM arXiv 1709.07871, GMU 1702.01992,
LMF 1806.00064.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.baselines.compared import Compared, Evidence, Out, Sizes
from stattn_jax.models.layers.dense import Linear
from stattn_jax.models.pooling import mean_among

RANK = 4


class Fusion(Compared):
    """Averages `fuse` over segments, then applies a linear layer."""

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, **trunks):
        super().__init__(sizes, rngs=rngs, **trunks)
        self.head = Linear(sizes.width, sizes.classes, rngs=rngs)

    def classify(self, evidence: Evidence) -> tuple[jax.Array, Out]:
        return self.head(mean_among(self.fuse(evidence), self.pooled(evidence), axis=1)), {}

    def fuse(self, evidence: Evidence) -> jax.Array:
        """Returns one vector per segment, [b t d]."""
        raise NotImplementedError

    def pooled(self, evidence: Evidence) -> jax.Array:
        """Returns which segments enter the mean, bool [b t]."""
        return evidence.segments


class AudioOnly(Fusion):
    """Uses only the audio."""

    uses_video = False

    def fuse(self, evidence: Evidence) -> jax.Array:
        return evidence.audio

    def pooled(self, evidence: Evidence) -> jax.Array:
        return evidence.units[:, 1]


class VisualOnly(Fusion):
    """Uses only the frames."""

    uses_audio = False

    def fuse(self, evidence: Evidence) -> jax.Array:
        return evidence.picture

    def pooled(self, evidence: Evidence) -> jax.Array:
        return evidence.units[:, 0]


class LateSum(Compared):
    """Late fusion: the sum of visual logits and audio logits."""

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, **trunks):
        super().__init__(sizes, rngs=rngs, **trunks)
        self.visual_head = Linear(sizes.width, sizes.classes, use_bias=False, rngs=rngs)
        self.audio_head = Linear(sizes.width, sizes.classes, rngs=rngs)

    def classify(self, evidence: Evidence) -> tuple[jax.Array, Out]:
        seen = mean_among(evidence.picture, evidence.units[:, 0], axis=1)
        heard = mean_among(evidence.audio, evidence.units[:, 1], axis=1)
        return self.visual_head(seen) + self.audio_head(heard), {}


class Concat(Fusion):
    """relu(W [picture; sound]). Without this layer, concatenation would be the same as `LateSum`."""

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, **trunks):
        super().__init__(sizes, rngs=rngs, **trunks)
        self.joint = Linear(2 * sizes.width, sizes.width, rngs=rngs)

    def fuse(self, evidence: Evidence) -> jax.Array:
        return nnx.relu(self.joint(jnp.concatenate([evidence.picture, evidence.audio], axis=-1)))


class Film(Fusion):
    """gamma(sound) * picture + beta(sound)."""

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, **trunks):
        super().__init__(sizes, rngs=rngs, **trunks)
        self.gamma = Linear(sizes.width, sizes.width, bias_init=nnx.initializers.ones, rngs=rngs)
        self.beta = Linear(sizes.width, sizes.width, rngs=rngs)

    def fuse(self, evidence: Evidence) -> jax.Array:
        return self.gamma(evidence.audio) * evidence.picture + self.beta(evidence.audio)


class Gmu(Fusion):
    """z tanh(W_v picture) + (1 - z) tanh(W_a sound), with the gate z = sigmoid(W [picture; sound])."""

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, **trunks):
        super().__init__(sizes, rngs=rngs, **trunks)
        self.seen = Linear(sizes.width, sizes.width, rngs=rngs)
        self.heard = Linear(sizes.width, sizes.width, rngs=rngs)
        self.gate = Linear(2 * sizes.width, sizes.width, rngs=rngs)

    def fuse(self, evidence: Evidence) -> jax.Array:
        gate = nnx.sigmoid(self.gate(jnp.concatenate([evidence.picture, evidence.audio], axis=-1)))
        return gate * jnp.tanh(self.seen(evidence.picture)) + (1 - gate) * jnp.tanh(self.heard(evidence.audio))


class Lmf(Fusion):
    """Low-rank bilinear: sum_r w_r (W_v^r [picture; 1]) * (W_a^r [sound; 1]) + b, of rank 4."""

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, **trunks):
        super().__init__(sizes, rngs=rngs, **trunks)
        init, shape = nnx.initializers.xavier_normal(batch_axis=0), (RANK, sizes.width + 1, sizes.width)
        self.seen = nnx.Param(init(rngs.params(), shape))
        self.heard = nnx.Param(init(rngs.params(), shape))
        self.ranks = nnx.Param(nnx.initializers.xavier_normal()(rngs.params(), (1, RANK)))
        self.shift = nnx.Param(jnp.zeros((sizes.width,)))

    def fuse(self, evidence: Evidence) -> jax.Array:
        factors = [
            jnp.einsum('bti,rij->btrj', jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1), weights[...])
            for x, weights in ((evidence.picture, self.seen), (evidence.audio, self.heard))
        ]
        return jnp.einsum('btrj,r->btj', factors[0] * factors[1], self.ranks[0]) + self.shift[...]
