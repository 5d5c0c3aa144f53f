"""Small trunks for small frames and log-mel on a CPU, trained from scratch: 'tiny' and 'small'."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.layers.conv import Conv
from stattn_jax.models.layers.norm import make_norm
from stattn_jax.models.pooling import largest
from stattn_jax.models.trunks.trunk import MEL_MEAN, MEL_STD, Trunk

# (inputs, outputs, kernel, stride) of each convolution; the product of the strides is 8. The first stride of `tiny`
# halves the time of a training step on a CPU; where objects are small and cluttered, `small` localises better
# (docs/log.md, 2026-11-22).
SIZES = {
    'tiny': ((3, 32, 7, 4), (32, 64, 3, 2), (64, 64, 3, 1)),
    'small': ((3, 16, 5, 2), (16, 32, 3, 2), (32, 64, 3, 2), (64, 96, 3, 1)),
}


class Convolutions(nnx.Module):
    """A few convolutions for small frames: [b H W 3] -> [b H/8 W/8 width].

    The receptive field is 31 pixels (`tiny`) or 43 (`small`), so that the evidence of a cell comes from pixels near it.
    """

    def __init__(self, name: str, *, axis_name: str | None, dtype, rngs: nnx.Rngs):
        norm = make_norm(axis_name, dtype)
        self.width = SIZES[name][-1][1]
        self.convs = nnx.List([Conv(i, o, k, stride=s, dtype=dtype, rngs=rngs) for i, o, k, s in SIZES[name]])
        self.bns = nnx.List([norm(o, rngs=rngs) for _, o, _, _ in SIZES[name]])

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for conv, bn in zip(self.convs, self.bns):
            x = nnx.relu(bn(conv(x), use_running_average=not train))
        return x


class TinyAudio(nnx.Module):
    """Three strided convolutions, then the mean and the maximum over all cells: [b f k] -> [b 192]."""

    width = 192

    def __init__(self, *, axis_name: str | None, dtype, rngs: nnx.Rngs):
        norm = make_norm(axis_name, dtype)
        sizes = [(1, 24, 8, 4), (24, 48, 3, 2), (48, 96, 3, 2)]
        self.convs = nnx.List([Conv(i, o, k, stride=s, dtype=dtype, rngs=rngs) for i, o, k, s in sizes])
        self.bns = nnx.List([norm(o, rngs=rngs) for _, o, _, _ in sizes])

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = x[..., None]
        for conv, bn in zip(self.convs, self.bns):
            x = nnx.relu(bn(conv(x), use_running_average=not train))
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        return jnp.concatenate([x.mean(1), largest(x, 1)], axis=-1)


TRUNKS = {
    'visual': {name: Trunk('visual', functools.partial(Convolutions, name), stride=8) for name in SIZES},
    'audio': {'tiny': Trunk('audio', TinyAudio, mean=MEL_MEAN, std=MEL_STD)},
}
