"""A convolution and a max pool that are nnx.Conv's and nnx.max_pool's in numbers, in forms that XLA is fast at on a CPU. Read next: resnet.py.

On a CPU XLA exchanges picture and kernel where the kernel is larger, and has no fast code for the result, nor for the gradients of strided
1x1 kernels and of a max pool; the times are in docs/log.md (2026-11-23, the CPU). On accelerators the forms have not been timed.
"""

import jax
import jax.numpy as jnp
from flax import nnx

_NHWC = ('NHWC', 'HWIO', 'NHWC')


class Conv(nnx.Conv):
    """nnx.Conv with a square kernel, one stride, one padding on all sides and no bias: [b h w i] -> [b h' w' o]."""

    def __init__(
        self, inputs: int, outputs: int, size: int, *, stride: int = 1, padding: int = 0, dtype, rngs: nnx.Rngs
    ):
        super().__init__(
            inputs, outputs, (size, size), strides=stride, padding=padding, use_bias=False, dtype=dtype, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return convolve(x.astype(self.dtype), self.kernel[...].astype(self.dtype), self.strides, self.padding)


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """x [b h w i] with a kernel [n n i o], `padding` zeros on every side: [b h' w' o]."""
    n = kernel.shape[0]
    height, width = ((side + 2 * padding - n) // stride + 1 for side in x.shape[1:3])
    if n == 1 and not padding:
        x, stride = x[:, ::stride, ::stride], 1
    elif height * width < n * n:
        return _as_product(x, kernel, stride, padding, (height, width))
    sides = ((padding, padding), (padding, padding))
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), sides, dimension_numbers=_NHWC)


def _as_product(x, kernel, stride, padding, out):
    """Every place of the kernel cut out, and one product: for pictures smaller than the kernel."""
    n = kernel.shape[0]
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    taps = [_tap(x, row, column, stride, out) for row in range(n) for column in range(n)]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def _tap(x, row, column, stride, out):
    """The cells [b h' w' i] that one entry of a kernel meets."""
    rows, columns = ((first, first + stride * (count - 1) + 1) for first, count in zip((row, column), out))
    return x[:, slice(*rows, stride), slice(*columns, stride)]


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """The largest of 3x3 cells, stride 2, padding 1: [b h w c] -> [b h' w' c]; the gradient, in reverse mode alone, goes to the first of equal ones."""
    return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


def _forward(x):
    return max_pool(x), x


def _backward(x, grad):
    # Which is largest is found anew, by row and column: where XLA computes x twice, comparing x to the result finds nothing.
    columns, which_column = _largest_of_three(x, 2)
    _, which_row = _largest_of_three(columns, 1)
    grad = _to_the_largest(grad, which_row, x.shape[1], 1)
    return (_to_the_largest(grad, which_column, x.shape[2], 2),)


max_pool.defvjp(_forward, _backward)


def _largest_of_three(x, axis):
    """The first largest of every other three neighbours along an axis, and which it is, 0 to 2."""
    count = (x.shape[axis] + 1) // 2
    edge = [(0, 0)] * x.ndim
    edge[axis] = (1, 1)
    padded = jnp.pad(x, edge, constant_values=-jnp.inf)
    first, *others = (jax.lax.slice_in_dim(padded, i, i + 2 * count - 1, 2, axis) for i in range(3))
    largest, which = first, jnp.zeros(first.shape, jnp.int8)
    for i, other in enumerate(others, 1):
        which = jnp.where(other > largest, jnp.int8(i), which)
        largest = jnp.maximum(largest, other)
    return largest, which


def _to_the_largest(grad, which, size, axis):
    """The gradient of `_largest_of_three`'s input, `size` long."""
    total = 0
    for i in range(3):
        edges = [(0, 0, 0)] * grad.ndim
        edges[axis] = (i - 1, size - i - 2 * (grad.shape[axis] - 1), 1)
        total += jax.lax.pad(jnp.where(which == i, grad, 0), jnp.zeros((), grad.dtype), edges)
    return total
