"""Sums over cells and a dense layer, in forms that XLA compiles to fast code on a CPU.

For a plain sum over cells, XLA on a CPU uses windows that it processes channel by channel: the mean and variance of 16
frames of 56x56x64 take 4.8 ms, and 0.5 ms here. For a plain dense layer, it copies the operands of the kernel's
gradient if they have several axes before the last: 8,192 rows of 64 and 128 numbers take 3.1 ms, and 0.5 ms here
(docs/log.md, 2026-11-23, sums on the CPU).
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

# The rows are split into at most this many stretches, which are added elementwise before the product, so that one pass
# over the input is enough.
_STRETCHES = 8


def sums(x: jax.Array) -> jax.Array:
    """Returns the sum of x [... d] over all axes but the last, in float32: [d]."""
    x_nd = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    return jax.lax.platform_dependent(x_nd, cpu=_sums_by_product, default=functools.partial(jnp.sum, axis=0))


def _sums_by_product(x_nd):
    count = max(k for k in range(1, _STRETCHES + 1) if x_nd.shape[0] % k == 0)
    length = x_nd.shape[0] // count
    stretch = sum(x_nd[i * length : (i + 1) * length] for i in range(count))
    return (jnp.ones((1, length)) @ stretch)[0]


class Linear(nnx.Linear):
    """nnx.Linear, [... d] -> [... e], whose bias has no forward-mode derivative."""

    def __call__(self, x: jax.Array) -> jax.Array:
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = self.promote_dtype((x, self.kernel[...], bias), dtype=self.dtype)
        rows = x.reshape(-1, x.shape[-1]) @ kernel
        rows = rows if bias is None else _plus(rows, bias)
        return rows.reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def _plus(rows, bias):
    return rows + bias


_plus.defvjp(lambda rows, bias: (rows + bias, None), lambda _, grad: (grad, sums(grad).astype(grad.dtype)))
