"""Weights of the convolutional frame trunks, drawn by their published names."""

from collections.abc import Callable

import activations
import jax
import numpy as np
from flax import nnx

from stattn_jax.models.trunks.registry import Published
from stattn_jax.weights import match


def tensor(name: str, *shape: int) -> np.ndarray:
    """As activations.drawn, with larger variances: through fifty layers of a ResNet, numbers stay near 1.

    EfficientNet's (whose names begin with _) are smaller, so that some numbers reach the 6 of its ReLU6.
    """
    factor = (3 if name.startswith('_') else 8) if name.endswith('running_var') else 1
    return activations.drawn(name, *shape) * np.float32(factor)


def filled(build: Callable[[], nnx.Module], published: Published) -> nnx.Module:
    """What `build` makes, with every parameter and statistic drawn."""
    graphdef, state = nnx.split(nnx.eval_shape(build))
    state = nnx.as_pure(state)
    empty = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), state)
    tensors = {name: tensor(name, *x.shape) for name, x in match.export(empty, published).items()}
    return nnx.merge(graphdef, match.fill(state, published, tensors, 'drawn')[0])
