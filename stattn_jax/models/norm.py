"""Batch normalisation with an explicit gradient, which uses the fast sums of dense.py."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.dense import sums


class BatchNorm(nnx.BatchNorm):
    """nnx.BatchNorm over all axes but the last, computed in float32.

    Forward-mode derivatives are not defined in training.
    """

    def __call__(self, x: jax.Array, use_running_average: bool) -> jax.Array:
        scale, bias = self.scale[...], self.bias[...]
        if use_running_average:
            y = _normalise(x, self.mean[...], jax.lax.rsqrt(self.var[...] + self.epsilon), scale, bias)
            return y.astype(self.dtype)
        y, mean, var = normalise(x.astype(self.dtype), scale, bias, self.epsilon, self.axis_name)
        for running, now in ((self.mean, mean), (self.var, var)):
            running[...] = self.momentum * running[...] + (1 - self.momentum) * now
        return y


def make_norm(axis_name: str | None, dtype, epsilon: float = 1e-5):
    """Returns a constructor, called with the width, of batch normalisation over all devices of `axis_name`."""
    return functools.partial(BatchNorm, momentum=0.9, epsilon=epsilon, axis_name=axis_name, dtype=dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalise(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis_name: str | None):
    """Normalises x [... d] by its own mean and variance [d]; returns both too (float32, without gradient).

    The variance is computed in a second pass, because log-mel has mean >> deviation. The statistics are those of all
    devices of `axis_name`, if given.
    Source: Ioffe and Szegedy, arXiv 1502.03167, whose gradient needs two sums over all cells.
    """
    return _forward(x, scale, bias, epsilon, axis_name)[0]


def _forward(x, scale, bias, epsilon, axis_name):
    mean = _mean(x, axis_name)
    var = _mean(jnp.square(x - mean), axis_name)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = _normalise(x, mean, inverse, scale, bias).astype(x.dtype)
    return (y, mean, var), (x, mean, inverse, scale)


def _backward(epsilon, axis_name, kept, gradients):
    x, mean, inverse, scale = kept
    grad = gradients[0].astype(jnp.float32)
    unit = (x - mean) * inverse
    on_bias, on_scale = sums(grad), sums(grad * unit)
    ahead = jnp.stack([on_bias, on_scale]) / (x.size // x.shape[-1])
    if axis_name:
        ahead = jax.lax.pmean(ahead, axis_name)
    on_x = scale * inverse * (grad - ahead[0] - unit * ahead[1])
    return on_x.astype(x.dtype), on_scale, on_bias


normalise.defvjp(_forward, _backward)


def _normalise(x, mean, inverse, scale, bias):
    return (x - mean) * (inverse * scale) + bias


def _mean(x, axis_name):
    mean = sums(x) / (x.size // x.shape[-1])
    return jax.lax.pmean(mean, axis_name) if axis_name else mean
