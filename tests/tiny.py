"""A tiny network, batches for it and a fixture for quick compilation, for the tests of models/ and training/."""

import os
from collections.abc import Callable

import jax
import numpy as np
import pytest
from flax import nnx

from stattn_jax import models

CLASSES, SIZE, SEGMENTS, MEL = 3, 16, 3, (16, 8)


@pytest.fixture(autouse=True, scope='module')
def quick_compile():
    """Compiles in a third of the time, in the files that import this; rounding may differ, the collectives do not.

    With $STATTN_OPTIMISED it changes nothing: one leg of CI tests the programs as users compile them.
    """
    jax.config.update('jax_disable_most_optimizations', 'STATTN_OPTIMISED' not in os.environ)
    yield
    jax.config.update('jax_disable_most_optimizations', False)


def filled(build: Callable[[], nnx.Module]) -> nnx.Module:
    """Returns the module that `build` makes, with random NumPy values in each parameter and statistic.

    JAX would compile an initialiser for every shape.
    """
    graphdef, state = nnx.split(nnx.eval_shape(build))
    rng = np.random.default_rng(0)

    def draw(path, x):
        if path[-1].key in ('scale', 'var'):
            return rng.uniform(0.5, 1.5, x.shape).astype(x.dtype)
        return (rng.normal(size=x.shape) / np.sqrt(np.prod(x.shape[:-1]))).astype(x.dtype)

    return nnx.merge(graphdef, jax.tree_util.tree_map_with_path(draw, nnx.as_pure(state)))


def make_model(**options) -> models.SpaceTimeAttention:
    """Returns a network of width 16 on a 2 x 2 grid of cells."""
    options = {'width': 16, 'heads': 2, 'hidden': 8, **options}
    return filled(lambda: models.build(CLASSES, axis_name=None, rngs=nnx.Rngs(0), **options))


def make_batch(seed: int, clips: int, multi_label: bool = False) -> dict[str, np.ndarray]:
    """Returns a batch as data/pipeline.py makes it, without the fields for the host.

    The last segment of every third clip is padding.
    """
    rng = np.random.default_rng(seed)
    valid = np.ones((clips, SEGMENTS), bool)
    valid[::3, -1] = False
    one = np.eye(CLASSES)[rng.integers(0, CLASSES, clips)]
    return {
        'frames': rng.integers(0, 256, (clips, SEGMENTS, SIZE, SIZE, 3), np.uint8),
        'log_mel': rng.normal(-2, 1, (clips, SEGMENTS, *MEL)).astype(np.float16),
        'valid': valid,
        'labels': (rng.random((clips, CLASSES)) < 0.4 if multi_label else one).astype(np.float32),
    }
