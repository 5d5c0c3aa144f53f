"""The layers in forms that are fast on a GPU, with the results of the plain layers up to rounding.

Measured on an H200 with two ResNet-18 in bfloat16, a step of 640 frames (docs/log.md, 2026-11-27): a first convolution
of three channels and its gradient take 7.2 of 47 ms, because cuDNN pads three channels to eight; the plain max pool and
its gradient take 6.4 ms, because XLA finds the largest cells by a search with indices and scatters the gradient; and
each pass over the activations for the statistics of batch normalisation takes 0.2 ms for the largest layer.
`python -m benchmarks.layers` measures the forms again. Max pooling has no forward-mode derivative.
"""

import jax
import jax.numpy as jnp

from stattn_jax.models.layers.arithmetic import NHWC, padded, scaled, tap

# Channels of the rearranged input are filled up to a multiple of this with zeros, as tensor cores need.
_ALIGNMENT = 8
# Convolutions of at most this many channels are rearranged.
FEW_CHANNELS = 4


def convolve_by_blocks(x: jax.Array, kernel: jax.Array, pads: list[tuple[int, int]]) -> jax.Array:
    """Convolves x [b h w i] with a kernel [n n i o] at stride 2: [b h' w' o].

    Blocks of 2x2 pixels become one cell of 4i channels, and the kernel is rearranged likewise (space to depth), so that
    a convolution of few channels becomes one of stride 1 and more channels.

    pads: the zeros before and after the rows, and before and after the columns.
    """
    n = kernel.shape[0]
    for axis, (low, high) in enumerate(pads):
        side = x.shape[axis + 1]
        # An even number of zeros goes before the first pixel, so that blocks begin at even entries of the kernel.
        before = low % 2
        taps = n + before + (n + before) % 2
        count = (side + low + high - n) // 2 + 1
        kernel = padded(kernel, axis, before, taps - n - before, 0)
        x = padded(x, axis + 1, low + before, 2 * count + taps - 2 - side - low - before, 0)
    x, kernel = _blocks(x, 1), _blocks(kernel, 0)
    more = -x.shape[-1] % _ALIGNMENT
    x, kernel = padded(x, 3, 0, more, 0), padded(kernel, 2, 0, more, 0)
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), 'VALID', dimension_numbers=NHWC)


def _blocks(x, axis):
    """Moves the four pixels of each 2x2 block, on `axis` and the next one, into the axis after them."""
    head, (h, w, d), tail = x.shape[:axis], x.shape[axis : axis + 3], x.shape[axis + 3 :]
    x = x.reshape(*head, h // 2, 2, w // 2, 2, d, *tail)
    order = [*range(axis), axis, axis + 2, axis + 1, axis + 3, *range(axis + 4, x.ndim)]
    return x.transpose(order).reshape(*head, h // 2, w // 2, 4 * d, *tail)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Takes the maximum over 3x3 cells with stride 2 and padding 1: [b h w c] -> [b h' w' c].

    The gradient is defined in reverse mode only, and goes to the first of equal cells.
    """
    return _pool(x)[0]


def _pool(x):
    """Returns the maximum and the number, 0 to 8, of the first cell of the 3x3 that has it."""
    out = ((x.shape[1] + 1) // 2, (x.shape[2] + 1) // 2)
    for axis, count in enumerate(out, 1):
        x = padded(x, axis, 1, 2 * count - x.shape[axis], -jnp.inf)
    taps = [tap(x, row, column, 2, out) for row in range(3) for column in range(3)]
    largest, which = taps[0], jnp.zeros(taps[0].shape, jnp.int8)
    for number, cells in enumerate(taps[1:], 1):
        which = jnp.where(cells > largest, jnp.int8(number), which)
        largest = jnp.maximum(largest, cells)
    return largest, which


def _max_pool_forward(x):
    y, which = _pool(x)
    return y, (which, x[:0])  # an array of no rows keeps the shape


def _max_pool_backward(kept, grad):
    which, empty = kept

    def taken(row, column):
        """Returns the gradient that windows send to their cell in this row and column of the 3x3."""
        return jnp.where(which == 3 * row + column, grad, 0)

    # An even row is the middle one of its window; an odd one is the last of its window and the first of the next.
    def rows(column):
        return taken(1, column), taken(2, column) + _next(taken(0, column), 1)

    middle, last, first = rows(1), rows(2), rows(0)
    even, odd = (jnp.stack([middle[parity], last[parity] + _next(first[parity], 2)], axis=3) for parity in range(2))
    b, h, w, c = grad.shape
    pixels = jnp.stack([even, odd], axis=2).reshape(b, 2 * h, 2 * w, c)
    return (pixels[:, : empty.shape[1], : empty.shape[2]],)


def _next(x, axis):
    """Returns the values of the next row or column, zeros after the last."""
    return padded(x, axis, -1, 1, 0)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def normalise(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis_name: str | None):
    """Normalises x [... d] by its own mean and variance [d]; returns both too (float32).

    Both are computed in one pass over x, around the values of its first row, so that a mean far from zero costs no
    precision. The statistics are those of all devices of `axis_name`, if given.
    """
    rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    around = jax.lax.stop_gradient(rows[0])
    apart = rows - around
    offset = apart.mean(0)
    mean, var = around + offset, jnp.square(apart).mean(0) - jnp.square(offset)
    if axis_name:
        own, mean = mean, jax.lax.pmean(mean, axis_name)
        var = jax.lax.pmean(var + jnp.square(own - mean), axis_name)
    y = scaled(x, mean, jax.lax.rsqrt(var + epsilon), scale, bias)
    return y.astype(x.dtype), jax.lax.stop_gradient(mean), jax.lax.stop_gradient(var)
