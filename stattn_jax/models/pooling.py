"""Softmax, mean and maximum among what is there; where nothing is there they are 0. Read next: attention.py."""

import jax
import jax.numpy as jnp


def softmax_among(x: jax.Array, among: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    """Softmax of x over `axis` among the True of `among`, which broadcasts to x; 0 elsewhere."""
    some = among.any(axis=axis, keepdims=True)
    # The inner zero keeps the gradient finite where nothing is there: 0 * NaN would be NaN.
    x = jnp.where(some, jnp.where(among, x, -jnp.inf), 0.0)
    return jax.nn.softmax(x, axis=axis) * among


def mean_among(x: jax.Array, among: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    """Mean of x [... d] over `axis` among the True of `among` [...]."""
    count = among.sum(axis=axis)
    return jnp.sum(jnp.where(among[..., None], x, 0.0), axis=axis) / jnp.maximum(count, 1)[..., None]


def largest(x: jax.Array, axis: int) -> jax.Array:
    """The maximum over one axis, whose gradient goes to the first of equal values alone.

    Not x.max: its gradient looks for the maximum by equality, which fails where XLA computes x twice and rounds
    differently (jax 0.10.2 on CPU: gradients 15 % off, NaN with few optimisations; tests/test_audio.py).
    """
    return jnp.take_along_axis(x, x.argmax(axis, keepdims=True), axis=axis).squeeze(axis)
