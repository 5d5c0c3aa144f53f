"""Blocks of layers whose inner results are computed again for the gradient, instead of being kept."""

from collections.abc import Callable

import jax
from flax import nnx


def run_block(block: Callable, x: jax.Array, remat: bool, **options) -> jax.Array:
    """Returns block(x, **options); with `remat`, its gradient keeps only x and computes the rest again."""
    if not remat:
        return block(x, **options)
    return nnx.remat(lambda block, x: block(x, **options))(block, x)


def set_remat(network: nnx.Module, remat: bool) -> None:
    """Sets whether the trunks of a network compute the inner results of their blocks again, in place."""
    for _, module in nnx.iter_modules(network):
        if hasattr(module, 'remat'):
            module.remat = remat
