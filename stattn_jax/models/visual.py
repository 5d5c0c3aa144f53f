"""Frame trunks: frames [b t H W 3] -> cells [b t h w d]. Read next: models/attention.py."""

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.conv import Conv
from stattn_jax.models.norm import make_norm
from stattn_jax.models.precomputed import Precomputed
from stattn_jax.models.resnet import ResNet

# ImageNet statistics, the convention of published weights.
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# (inputs, outputs, kernel, stride) of each convolution; the strides make 8 in all. The first stride of `tiny` halves the time of a
# training step on a CPU; where objects are small and cluttered, `small` points better (docs/log.md, 2026-11-22).
SIZES = {
    'tiny': ((3, 32, 7, 4), (32, 64, 3, 2), (64, 64, 3, 1)),
    'small': ((3, 16, 5, 2), (16, 32, 3, 2), (32, 64, 3, 2), (64, 96, 3, 1)),
}


class Convolutions(nnx.Module):
    """A few convolutions for small frames on a CPU: [b H W 3] -> [b H/8 W/8 width].

    The receptive field is 31 pixels (`tiny`) or 43 (`small`), so that a cell's evidence stays near the cell.
    """

    stride = 8

    def __init__(self, name: str, *, axis_name: str | None, dtype, rngs: nnx.Rngs):
        norm = make_norm(axis_name, dtype)
        self.width = SIZES[name][-1][1]
        self.convs = nnx.List([Conv(i, o, k, stride=s, dtype=dtype, rngs=rngs) for i, o, k, s in SIZES[name]])
        self.bns = nnx.List([norm(o, rngs=rngs) for _, o, _, _ in SIZES[name]])

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for conv, bn in zip(self.convs, self.bns):
            x = nnx.relu(bn(conv(x), use_running_average=not train))
        return x


def make_visual(name: str, *, inputs: int, width: int, axis_name: str | None, dtype, rngs: nnx.Rngs) -> nnx.Module:
    """The frame trunk called `name`: 'tiny', 'small', 'resnet18', 'resnet50', or 'precomputed' for features of `inputs` numbers a cell."""
    if name == 'precomputed':
        return Precomputed(inputs, width, axis_name=axis_name, dtype=dtype, rngs=rngs)
    if name in SIZES:
        return Convolutions(name, axis_name=axis_name, dtype=dtype, rngs=rngs)
    return ResNet(name, inputs=3, axis_name=axis_name, dtype=dtype, rngs=rngs)


def normalise(frames: jax.Array) -> jax.Array:
    """Frames in 0..1 to zero mean and unit deviation by ImageNet's statistics: [... 3] -> [... 3]."""
    return (frames - jnp.asarray(RGB_MEAN)) / jnp.asarray(RGB_STD)
