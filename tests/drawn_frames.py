"""Random weights of the convolutional visual trunks, derived from their published names."""

from collections.abc import Callable

import activations
import numpy as np
from flax import nnx

from stattn_jax.models.trunks.trunk import Published


def tensor(name: str, *shape: int) -> np.ndarray:
    """Returns activations.drawn with larger variances, which keep values near 1 through fifty layers of a ResNet.

    The variances of EfficientNet (whose names begin with _) are smaller, so that some values reach the 6 of its ReLU6.
    """
    factor = (3 if name.startswith('_') else 8) if name.endswith('running_var') else 1
    return activations.drawn(name, *shape) * np.float32(factor)


def filled(build: Callable[[], nnx.Module], published: Published) -> nnx.Module:
    """Returns the module that `build` makes, with random parameters and statistics."""
    return activations.filled(build, published, tensor)
