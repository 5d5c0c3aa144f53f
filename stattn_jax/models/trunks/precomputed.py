"""The trunk of precomputed features, for picture or sound: cells or segments [b ... k] -> [b ... width]."""

import jax
from flax import nnx

from stattn_jax.models.dense import Linear
from stattn_jax.models.norm import make_norm


class Precomputed(nnx.Module):
    """Standardises each feature and maps it by one layer; a cell's output depends on that cell alone, wherever it
    lies.
    """

    def __init__(self, inputs: int, width: int, *, axis_name: str | None, dtype, rngs: nnx.Rngs):
        self.width = width
        self.norm = make_norm(axis_name, dtype)(inputs, rngs=rngs)
        self.layer = Linear(inputs, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return nnx.relu(self.layer(self.norm(x, use_running_average=not train)))


class FeatureAudio(nnx.Module):
    """Precomputed features of a segment's sound, averaged over its frames: [b f k] -> [b width]."""

    def __init__(self, inputs: int, width: int, *, axis_name: str | None, dtype, rngs: nnx.Rngs):
        self.net = Precomputed(inputs, width, axis_name=axis_name, dtype=dtype, rngs=rngs)
        self.width = width

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.net(x, train=train).mean(1)
