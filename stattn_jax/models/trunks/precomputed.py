"""The trunk for precomputed visual or audio features: cells or segments [b ... k] -> [b ... width]."""

import jax
from flax import nnx

from stattn_jax.models.layers.dense import Linear
from stattn_jax.models.layers.norm import make_norm


class Precomputed(nnx.Module):
    """Standardises each feature, then applies one dense layer with ReLU, the same for every cell.

    In evaluation, the output of a cell depends on that cell alone, and not on its position.
    """

    def __init__(self, inputs: int, width: int, *, axis_name: str | None, dtype, rngs: nnx.Rngs):
        self.width = width
        self.norm = make_norm(axis_name, dtype)(inputs, rngs=rngs)
        self.layer = Linear(inputs, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return nnx.relu(self.layer(self.norm(x, use_running_average=not train)))


class FeatureAudio(nnx.Module):
    """Applies `Precomputed` to a segment's audio features and averages over its frames: [b f k] -> [b width]."""

    def __init__(self, inputs: int, width: int, *, axis_name: str | None, dtype, rngs: nnx.Rngs):
        self.net = Precomputed(inputs, width, axis_name=axis_name, dtype=dtype, rngs=rngs)
        self.width = width

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.net(x, train=train).mean(1)
