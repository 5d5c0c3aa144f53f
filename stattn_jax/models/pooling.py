"""A masked mean, which is 0 where the mask leaves nothing, and a maximum with a reliable gradient."""

import jax
import jax.numpy as jnp


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
