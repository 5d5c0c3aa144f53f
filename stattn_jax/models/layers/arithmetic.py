"""Slices, edges and scaling of feature maps, and a gradient, which the forms for several platforms share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

NHWC = ('NHWC', 'HWIO', 'NHWC')


def tap(x, row, column, stride, out):
    """Returns the cells [b h' w' i] that one entry of a kernel is multiplied with; `out` is (h', w')."""
    rows, columns = ((first, first + stride * (count - 1) + 1) for first, count in zip((row, column), out))
    return x[:, slice(*rows, stride), slice(*columns, stride)]


def padded(x: jax.Array, axis: int, low: int, high: int, value: float) -> jax.Array:
    """Returns x with `low` and `high` more entries at the ends of an axis; negative numbers cut entries off."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (low, high, 0)
    return jax.lax.pad(x, jnp.asarray(value, x.dtype), edges)


def scaled(x, mean, inverse, scale, bias) -> jax.Array:
    """Returns x [... d] with `mean` [d] subtracted, times `inverse` and `scale` [d], plus `bias` [d]."""
    return (x - mean) * (inverse * scale) + bias


def normalise_backward(axis_name: str | None, kept, grad: jax.Array, sums: Callable) -> tuple[jax.Array, ...]:
    """Returns the gradients of batch normalisation with respect to x [... d], scale and bias [d].

    kept: x, its mean, one over its deviation, and scale; grad: the gradient of the result; sums: a function that sums
    a float32 array [... d] over all axes but the last.
    """
    x, mean, inverse, scale = kept
    grad = grad.astype(jnp.float32)
    unit = (x - mean) * inverse
    on_bias, on_scale = sums(grad), sums(grad * unit)
    ahead = jnp.stack([on_bias, on_scale]) / (x.size // x.shape[-1])
    if axis_name:
        ahead = jax.lax.pmean(ahead, axis_name)
    on_x = scale * inverse * (grad - ahead[0] - unit * ahead[1])
    return on_x.astype(x.dtype), on_scale, on_bias
