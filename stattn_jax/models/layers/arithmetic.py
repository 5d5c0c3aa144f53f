"""Slices, edges and scaling of feature maps, which the forms for a CPU and for a GPU share."""

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
