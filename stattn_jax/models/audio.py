"""Log-mel trunks: log_mel [b f k] (one segment a row) -> [b d]. Read next: models/attention.py."""

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.conv import Conv
from stattn_jax.models.norm import make_norm
from stattn_jax.models.pooling import largest
from stattn_jax.models.precomputed import Precomputed
from stattn_jax.models.resnet import ResNet


class TinyAudio(nnx.Module):
    """Three strided convolutions, then the mean and the maximum over the patch: [b f k] -> [b 192]."""

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
        x = x.reshape(len(x), -1, x.shape[-1])
        return jnp.concatenate([x.mean(1), largest(x, 1)], axis=-1)


class ResNetAudio(nnx.Module):
    """A ResNet on the log-mel patch as a one-channel picture, averaged over the patch: [b f k] -> [b width]."""

    def __init__(self, name: str, *, axis_name: str | None, dtype, rngs: nnx.Rngs):
        self.net = ResNet(name, inputs=1, axis_name=axis_name, dtype=dtype, rngs=rngs)
        self.width = self.net.width

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.net(x[..., None], train=train).mean((1, 2))


class FeatureAudio(nnx.Module):
    """Precomputed features of a segment's sound, averaged over its frames: [b f k] -> [b width]."""

    def __init__(self, inputs: int, width: int, *, axis_name: str | None, dtype, rngs: nnx.Rngs):
        self.net = Precomputed(inputs, width, axis_name=axis_name, dtype=dtype, rngs=rngs)
        self.width = width

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.net(x, train=train).mean(1)


def make_audio(name: str, *, inputs: int, width: int, axis_name: str | None, dtype, rngs: nnx.Rngs) -> nnx.Module:
    """The sound trunk called `name`: 'tiny' or 'resnet18' for log-mel, or 'precomputed' for features of `inputs` numbers."""
    if name == 'precomputed':
        return FeatureAudio(inputs, width, axis_name=axis_name, dtype=dtype, rngs=rngs)
    if name == 'tiny':
        return TinyAudio(axis_name=axis_name, dtype=dtype, rngs=rngs)
    return ResNetAudio(name, axis_name=axis_name, dtype=dtype, rngs=rngs)
