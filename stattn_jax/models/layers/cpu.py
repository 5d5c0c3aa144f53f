"""The layers in forms that XLA compiles to fast code on a CPU, with the results of the plain layers up to rounding.

On a CPU, XLA swaps image and kernel where the kernel is larger, and has no fast code for the swapped convolution. It
also has no fast code for the gradients of strided 1x1 kernels and of max pooling. For a plain sum over cells it uses
windows that it processes channel by channel: the mean and variance of 16 frames of 56x56x64 take 4.8 ms, and 0.5 ms
here. For a plain dense layer it copies the operands of the kernel's gradient if they have several axes before the last:
8,192 rows of 64 and 128 numbers take 3.1 ms, and 0.5 ms here. The times are in docs/log.md (2026-11-23);
`python -m benchmarks.layers` measures them again. Max pooling and batch normalisation have no forward-mode derivatives.
"""

import functools

import jax
import jax.numpy as jnp

from stattn_jax.models.layers.arithmetic import NHWC, normalise_backward, padded, scaled, tap

# The rows are split into at most this many stretches, which are added elementwise before the product, so that one pass
# over the input is enough.
_STRETCHES = 8


def stored(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns x divided by a one that XLA cannot simplify, so that x is stored and not computed again.

    XLA repeats cheap computations where their results are used, here in the transposed order of the kernel's gradient,
    which takes ten times as long as reading the stored results. It never repeats a division.
    """
    return x / (1 + 0 * jax.lax.stop_gradient(kernel[0, 0, 0, 0]).astype(x.dtype))


def convolve(x: jax.Array, kernel: jax.Array, stride: int, pads: list[tuple[int, int]]) -> jax.Array:
    """Convolves x [b h w i] with a kernel [n n i o]: [b h' w' o].

    pads: the zeros before and after the rows, and before and after the columns.
    """
    n = kernel.shape[0]
    height, width = ((side + sum(pad) - n) // stride + 1 for side, pad in zip(x.shape[1:3], pads))
    if n == 1 and not any(map(sum, pads)):
        x, stride = x[:, ::stride, ::stride], 1
    elif height * width < n * n:
        return _as_product(x, kernel, stride, pads, (height, width))
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=NHWC)


def _as_product(x, kernel, stride, pads, out):
    """Convolves by one matrix product over the stacked positions of the kernel, for images smaller than the kernel."""
    n = kernel.shape[0]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    taps = [tap(x, row, column, stride, out) for row in range(n) for column in range(n)]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def convolve_depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves each channel of x [b h w c] with its kernel of [n n 1 c], with SAME padding: [b h' w' c].

    It is a sum over the kernel's positions of shifted cells times one number per channel. XLA's own code for as many
    groups as channels takes ten to forty times as long on a CPU, and its gradients take longer too.
    """
    n = kernel.shape[0]
    out = [-(-side // stride) for side in x.shape[1:3]]
    pads = jax.lax.padtype_to_pads(x.shape[1:3], (n, n), (stride, stride), 'SAME')
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    places = ((row, column) for row in range(n) for column in range(n))
    return sum(tap(x, *place, stride, out) * kernel[(*place, 0)] for place in places)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Takes the maximum over 3x3 cells with stride 2 and padding 1: [b h w c] -> [b h' w' c].

    The gradient is defined in reverse mode only, and goes to the first of equal cells.
    """
    return _pool(_pool(x, (2,)), (1,))


def _pool(x, axes):
    pooled = [axis in axes for axis in range(x.ndim)]
    window, strides = [3 if one else 1 for one in pooled], [2 if one else 1 for one in pooled]
    padding = [(1, 1) if one else (0, 0) for one in pooled]
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)


def _max_pool_forward(x):
    return max_pool(x), x


def _max_pool_backward(x, grad):
    # The largest cell is searched again, by row and column. Comparing x with the result would find no cell where XLA
    # computes x twice and rounds differently.
    columns, which_column = _largest_of_three(x, 2)
    _, which_row = _largest_of_three(columns, 1)
    grad = _to_the_largest(grad, which_row, x.shape[1], 1)
    return (_to_the_largest(grad, which_column, x.shape[2], 2),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _largest_of_three(x, axis):
    """Returns the maximum of three neighbours at every other position along an axis, and its first index, 0 to 2."""
    x = padded(x, axis, 0, x.shape[axis] % 2, -jnp.inf)
    # The axis is split into pairs, because XLA does not vectorise a stride of two.
    pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    middle, after = (jax.lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in range(2))
    before = padded(after, axis, 1, -1, -jnp.inf)
    early = jnp.maximum(before, middle)
    which = jnp.where(after > early, 2, jnp.where(middle > before, 1, 0)).astype(jnp.int8)
    return jnp.maximum(early, after), which


def _to_the_largest(grad, which, size, axis):
    """Returns the gradient with respect to the input of `_largest_of_three`, which has length `size` along the axis."""
    before, middle, after = (jnp.where(which == i, grad, 0) for i in range(3))
    after += padded(before, axis, -1, 1, 0)
    first = jnp.arange(2).reshape(2, *[1] * (grad.ndim - axis - 1)) == 0
    pairs = jnp.where(first, jnp.expand_dims(middle, axis + 1), jnp.expand_dims(after, axis + 1))
    return jax.lax.slice_in_dim(pairs.reshape(*grad.shape[:axis], -1, *grad.shape[axis + 1 :]), 0, size, axis=axis)


def sums(x: jax.Array) -> jax.Array:
    """Returns the sum of x [... d] over all axes but the last, in float32: [d]."""
    x_nd = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    count = max(k for k in range(1, _STRETCHES + 1) if x_nd.shape[0] % k == 0)
    length = x_nd.shape[0] // count
    stretch = sum(x_nd[i * length : (i + 1) * length] for i in range(count))
    return (jnp.ones((1, length)) @ stretch)[0]


def dense(x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Returns x [... d] times kernel [d e], plus bias [e] if there is one: [... e]."""
    rows = x.reshape(-1, x.shape[-1]) @ kernel
    # The gradient of this product is the fast sum over rows.
    rows = rows if bias is None else rows + jnp.ones((len(rows), 1), rows.dtype) @ bias[None]
    return rows.reshape(*x.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalise(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis_name: str | None):
    """Normalises x [... d] by its own mean and variance [d]; returns both too (float32, without gradient).

    The variance is computed in a second pass, because log-mel has mean >> deviation. The statistics are those of all
    devices of `axis_name`, if given.
    Source: Ioffe and Szegedy, arXiv 1502.03167, whose gradient needs two sums over all cells.
    """
    return _normalise_forward(x, scale, bias, epsilon, axis_name)[0]


def _normalise_forward(x, scale, bias, epsilon, axis_name):
    mean = _mean(x, axis_name)
    var = _mean(jnp.square(x - mean), axis_name)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = scaled(x, mean, inverse, scale, bias).astype(x.dtype)
    return (y, mean, var), (x, mean, inverse, scale)


def _normalise_backward(epsilon, axis_name, kept, gradients):
    del epsilon
    return normalise_backward(axis_name, kept, gradients[0], sums)


normalise.defvjp(_normalise_forward, _normalise_backward)


def _mean(x, axis_name):
    mean = sums(x) / (x.size // x.shape[-1])
    return jax.lax.pmean(mean, axis_name) if axis_name else mean
