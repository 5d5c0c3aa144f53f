"""Intrinsically interpretable networks: class activation maps (CAM), gated attention MIL and a prototype head."""

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.baselines.compared import Compared, Evidence, Maps, Out, Sizes, of_class
from stattn_jax.models.layers.dense import Linear
from stattn_jax.models.pooling import largest, mean_among

PROTOTYPES = 10
EPSILON = 1e-4


class Cam(Compared):
    """Class activation maps (arXiv 1512.04150): each cell joined with the segment's audio, mean, linear layer.

    Averaging is linear, so the map of a class plus the bias sums exactly to its logit. A segment whose visual unit is
    masked out has empty cells.
    """

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, **trunks):
        super().__init__(sizes, rngs=rngs, **trunks)
        self.seen = Linear(sizes.width, sizes.width, rngs=rngs)
        self.heard = Linear(sizes.width, sizes.width, use_bias=False, rngs=rngs)
        self.head = Linear(sizes.width, sizes.classes, rngs=rngs)

    def classify(self, evidence: Evidence) -> tuple[jax.Array, Out]:
        joined = nnx.relu(self.seen(evidence.values) + self.heard(evidence.audio)[:, :, None])
        empty = (evidence.segments & ~evidence.units[:, 0])[..., None]
        pooled = evidence.cells | empty
        logits = self.head(mean_among(joined, pooled, axis=(1, 2)))
        unit_scores = jnp.where(pooled[..., None], joined @ self.head.kernel[...], 0.0)
        return logits, {'unit_scores': unit_scores / jnp.maximum(pooled.sum((1, 2)), 1)[:, None, None, None]}

    def maps(self, out: Out, classes_b: jax.Array) -> Maps:
        """Returns what each cell, and each segment, adds to the logit; each map plus the bias sums to the logit."""
        where = of_class(out['unit_scores'], classes_b)
        return where, where.sum(axis=-1)


class Mil(Compared):
    """Gated attention MIL (Ilse et al., arXiv 1802.04712): a clip is a bag of its cells and its audio segments.

    a_k = softmax of w . (tanh(V h_k) * sigmoid(U h_k)) over the bag, logits = W sum_k a_k h_k.
    """

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, **trunks):
        super().__init__(sizes, rngs=rngs, **trunks)
        self.content = Linear(sizes.width, sizes.hidden, rngs=rngs)
        self.gate = Linear(sizes.width, sizes.hidden, rngs=rngs)
        # There is no bias, because a constant does not change a softmax.
        self.score = Linear(sizes.hidden, 1, use_bias=False, rngs=rngs)
        self.head = Linear(sizes.width, sizes.classes, rngs=rngs)

    def classify(self, evidence: Evidence) -> tuple[jax.Array, Out]:
        b, t, s, d = evidence.values.shape
        bag = jnp.concatenate([evidence.values.reshape(b, t * s, d), evidence.audio], axis=1)
        there = jnp.concatenate([evidence.cells.reshape(b, t * s), evidence.units[:, 1]], axis=1)
        scores = self.score(jnp.tanh(self.content(bag)) * nnx.sigmoid(self.gate(bag)))[..., 0]
        weights = jax.nn.softmax(scores, axis=1, where=there)
        logits = self.head(jnp.einsum('bk,bkd->bd', weights, bag, precision='highest'))
        return logits, {'cells': weights[:, : t * s].reshape(b, t, s), 'sound': weights[:, t * s :]}

    def maps(self, out: Out, classes_b: jax.Array) -> Maps:
        """Returns the attention, the same for all classes: of each cell, and of each segment (cells and audio)."""
        return out['cells'], out['cells'].sum(axis=-1) + out['sound']


class Proto(Compared):
    """Prototypes (ProtoPNet, arXiv 1806.10574): ten per class and modality, best match in the clip, linear layer.

    The match of a cell or an audio segment at squared distance d is log((d + 1) / (d + 1e-4)), and the best match is
    that of the closest one. Training uses the classification loss alone, without cluster and separation losses, and
    without projection onto training patches.
    """

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, **trunks):
        super().__init__(sizes, rngs=rngs, **trunks)
        self.classes = sizes.classes
        self.narrow = nnx.List([Linear(sizes.width, sizes.hidden, rngs=rngs) for _ in range(2)])
        self.unit = nnx.List([Linear(sizes.hidden, sizes.hidden, rngs=rngs) for _ in range(2)])
        shape = (2, sizes.classes * PROTOTYPES, sizes.hidden)
        self.prototypes = nnx.Param(jax.random.uniform(rngs.params(), shape))
        own = jnp.repeat(jnp.eye(sizes.classes), PROTOTYPES, axis=0)
        self.head = nnx.Param(jnp.stack([1.5 * own - 0.5] * 2))  # 1 for the prototype's own class, -0.5 for others

    def classify(self, evidence: Evidence) -> tuple[jax.Array, Out]:
        b, t, s, _ = evidence.values.shape
        # A match is above 0, so a masked cell or segment, with 0, is the maximum only if nothing remains.
        seen = self._match(evidence.values, 0) * evidence.cells[..., None]
        heard = self._match(evidence.audio, 1) * evidence.units[:, 1, :, None]
        best = jnp.stack([largest(seen.reshape(b, t * s, -1), 1), largest(heard, 1)], axis=1)
        logits = jnp.einsum('bmp,mpc->bc', best, self.head[...], precision='highest')
        weights = self.head[...].reshape(2, self.classes, PROTOTYPES, self.classes)
        own = jnp.einsum('mckc->mck', weights)
        out = {}
        for name, match, weight in (('cells', seen, own[0]), ('sound', heard, own[1])):
            out[name] = jnp.einsum('...ck,ck->...c', match.reshape(*match.shape[:-1], self.classes, PROTOTYPES), weight)
        shown = seen.reshape(b, t, s, self.classes, PROTOTYPES)
        out['picture'] = jnp.einsum('btck,ck->btc', largest(shown, 2), own[0])
        return logits, out

    def maps(self, out: Out, classes_b: jax.Array) -> Maps:
        """Returns the matches with the class's own prototypes, weighted as in its logit.

        They are those of each cell, and for each segment the sum of those of its best cell and of its audio.
        """
        return of_class(out['cells'], classes_b), of_class(out['picture'] + out['sound'], classes_b)

    def _match(self, x, modality):
        x = nnx.sigmoid(self.unit[modality](nnx.relu(self.narrow[modality](x))))
        p = self.prototypes[modality]
        distance = jnp.sum(x * x, axis=-1, keepdims=True) - 2 * jnp.einsum('...d,pd->...p', x, p, precision='highest')
        distance = nnx.relu(distance + jnp.sum(p * p, axis=-1))
        return jnp.log((distance + 1) / (distance + EPSILON))
