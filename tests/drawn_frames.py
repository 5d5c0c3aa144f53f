"""Weights of the convolutional frame trunks, drawn by their published names."""

from collections.abc import Callable

import activations
import numpy as np
from flax import nnx

from stattn_jax.models.trunks.registry import Published


def tensor(name: str, *shape: int) -> np.ndarray:
    """As activations.drawn, with larger variances: through fifty layers of a ResNet, numbers stay near 1.

    EfficientNet's (whose names begin with _) are smaller, so that some numbers reach the 6 of its ReLU6.
    """
    factor = (3 if name.startswith('_') else 8) if name.endswith('running_var') else 1
    return activations.drawn(name, *shape) * np.float32(factor)


def filled(build: Callable[[], nnx.Module], published: Published) -> nnx.Module:
    """What `build` makes, with every parameter and statistic drawn."""
    return activations.filled(build, published, tensor)
