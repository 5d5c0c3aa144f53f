"""Convolution and max pooling with the results of nnx.Conv and nnx.max_pool, in forms that are fast on a CPU.

On a CPU, XLA swaps image and kernel where the kernel is larger, and has no fast code for the swapped convolution. It
also has no fast code for the gradients of strided 1x1 kernels and of max pooling. The times are in docs/log.md
(2026-11-23, the CPU). On accelerators these forms have not been timed.
"""

import jax
import jax.numpy as jnp
from flax import nnx

_NHWC = ('NHWC', 'HWIO', 'NHWC')


class Conv(nnx.Conv):
    """nnx.Conv with a square kernel, one stride and, by default, no bias: [b h w i] -> [b h' w' o].

    padding: the number of zeros on every side, or 'SAME'.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        padding: int | str = 'SAME',
        use_bias: bool = False,
        dtype,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            inputs, outputs, (size, size), strides=stride, padding=padding, use_bias=use_bias, dtype=dtype, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        x = jax.lax.platform_dependent(x.astype(self.dtype), kernel, cpu=_kept, default=lambda x, _: x)
        y = convolve(x, kernel.astype(self.dtype), self.strides, self.padding)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)


def _kept(x, kernel):
    """Returns x divided by a one that XLA cannot simplify, so that x is stored and not computed again.

    XLA repeats cheap computations where their results are used, here in the transposed order of the kernel's gradient,
    which takes ten times as long as reading the stored results. It never repeats a division.
    """
    return x / (1 + 0 * jax.lax.stop_gradient(kernel[0, 0, 0, 0]).astype(x.dtype))


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int | str) -> jax.Array:
    """Convolves x [b h w i] with a kernel [n n i o], with `padding` zeros on every side or 'SAME': [b h' w' o]."""
    n = kernel.shape[0]
    pads = [(padding, padding)] * 2
    if padding == 'SAME':
        pads = jax.lax.padtype_to_pads(x.shape[1:3], (n, n), (stride, stride), padding)
    height, width = ((side + sum(pad) - n) // stride + 1 for side, pad in zip(x.shape[1:3], pads))
    if n == 1 and not any(map(sum, pads)):
        x, stride = x[:, ::stride, ::stride], 1
    elif height * width < n * n:
        return _as_product(x, kernel, stride, pads, (height, width))
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_NHWC)


def _as_product(x, kernel, stride, pads, out):
    """Convolves by one matrix product over the stacked positions of the kernel, for images smaller than the kernel."""
    n = kernel.shape[0]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    taps = [_tap(x, row, column, stride, out) for row in range(n) for column in range(n)]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def _tap(x, row, column, stride, out):
    """Returns the cells [b h' w' i] that one entry of a kernel is multiplied with."""
    rows, columns = ((first, first + stride * (count - 1) + 1) for first, count in zip((row, column), out))
    return x[:, slice(*rows, stride), slice(*columns, stride)]


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Takes the maximum over 3x3 cells with stride 2 and padding 1: [b h w c] -> [b h' w' c].

    The gradient is defined in reverse mode only, and goes to the first of equal cells.
    """
    return jax.lax.platform_dependent(x, cpu=_by_axis, default=lambda x: _pool(x, (1, 2)))


def _by_axis(x):
    return _pool(_pool(x, (2,)), (1,))


def _pool(x, axes):
    window, strides, padding = (
        [value if axis in axes else other for axis in range(x.ndim)]
        for value, other in ((3, 1), (2, 1), ((1, 1), (0, 0)))
    )
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)


def _forward(x):
    return max_pool(x), x


def _backward(x, grad):
    # The largest cell is searched again, by row and column. Comparing x with the result would find no cell where XLA
    # computes x twice and rounds differently.
    columns, which_column = _largest_of_three(x, 2)
    _, which_row = _largest_of_three(columns, 1)
    grad = _to_the_largest(grad, which_row, x.shape[1], 1)
    return (_to_the_largest(grad, which_column, x.shape[2], 2),)


max_pool.defvjp(_forward, _backward)


def _largest_of_three(x, axis):
    """Returns the maximum of three neighbours at every other position along an axis, and its first index, 0 to 2."""
    x = _padded(x, axis, 0, x.shape[axis] % 2, -jnp.inf)
    # The axis is split into pairs, because XLA does not vectorise a stride of two.
    pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    middle, after = (jax.lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in range(2))
    before = _padded(after, axis, 1, -1, -jnp.inf)
    early = jnp.maximum(before, middle)
    which = jnp.where(after > early, 2, jnp.where(middle > before, 1, 0)).astype(jnp.int8)
    return jnp.maximum(early, after), which


def _to_the_largest(grad, which, size, axis):
    """Returns the gradient with respect to the input of `_largest_of_three`, which has length `size` along the axis."""
    before, middle, after = (jnp.where(which == i, grad, 0) for i in range(3))
    after += _padded(before, axis, -1, 1, 0)
    first = jnp.arange(2).reshape(2, *[1] * (grad.ndim - axis - 1)) == 0
    pairs = jnp.where(first, jnp.expand_dims(middle, axis + 1), jnp.expand_dims(after, axis + 1))
    return jax.lax.slice_in_dim(pairs.reshape(*grad.shape[:axis], -1, *grad.shape[axis + 1 :]), 0, size, axis=axis)


def _padded(x, axis, low, high, value):
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (low, high, 0)
    return jax.lax.pad(x, jnp.asarray(value, x.dtype), edges)
