"""Batch normalisation in the form for a TPU; the other layers are plain there.

Nothing of this was run on a TPU. libtpu compiles it, counts bytes and estimates cycles (docs/benchmarks.md).
"""

import functools

import jax

from stattn_jax.models.layers import gpu
from stattn_jax.models.layers.arithmetic import normalise_backward


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalise(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis_name: str | None):
    """Normalises x [... d] by its own mean and variance [d]; returns both too (float32, without gradient).

    It equals gpu.normalise, with the gradient of Ioffe and Szegedy (arXiv 1502.03167) written out. At effort -1, libtpu
    estimates a fifth of the cycles for a block; at its default effort, the same.
    """
    return gpu.normalise(x, scale, bias, epsilon, axis_name)


def _normalise_forward(x, scale, bias, epsilon, axis_name):
    y, mean, var = gpu.normalise(x, scale, bias, epsilon, axis_name)
    return (y, mean, var), (x, mean, jax.lax.rsqrt(var + epsilon), scale)


def _normalise_backward(epsilon, axis_name, kept, gradients):
    del epsilon
    return normalise_backward(axis_name, kept, gradients[0], lambda x: x.sum(range(x.ndim - 1)))


normalise.defvjp(_normalise_forward, _normalise_backward)
