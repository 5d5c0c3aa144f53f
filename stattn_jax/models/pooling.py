"""Masked softmax and mean, which are 0 where the mask leaves nothing, and a maximum with a reliable gradient."""

import jax
import jax.numpy as jnp


def softmax_among(x: jax.Array, among: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    """Returns the softmax of x over `axis` where the mask `among` (it broadcasts to x) is True, and 0 elsewhere."""
    some = among.any(axis=axis, keepdims=True)
    # The zero keeps the gradient finite where `among` is False everywhere: 0 * NaN would be NaN.
    x = jnp.where(some, jnp.where(among, x, -jnp.inf), 0.0)
    return jax.nn.softmax(x, axis=axis) * among


def mean_among(x: jax.Array, among: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    """Returns the mean of x [... d] over `axis` where the mask `among` [...] is True; 0 where it is nowhere True."""
    count = among.sum(axis=axis)
    return jnp.sum(jnp.where(among[..., None], x, 0.0), axis=axis) / jnp.maximum(count, 1)[..., None]


def largest(x: jax.Array, axis: int) -> jax.Array:
    """Returns the maximum over one axis; its gradient goes only to the first of equal values.

    x.max is not used, because its gradient finds the maximum by equality, which fails where XLA computes x twice and
    rounds differently (jax 0.10.2 on CPU: gradients 15 % off, NaN with few optimisations; tests/test_audio.py).
    """
    return jnp.take_along_axis(x, x.argmax(axis, keepdims=True), axis=axis).squeeze(axis)
