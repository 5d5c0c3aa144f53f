"""Audio trunks with random weights derived from their published names, and golden files of each layer's output."""

import json
import pathlib
import zlib
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

from stattn_jax.models.trunks.trunk import Published
from stattn_jax.weights import match


def drawn(name: str, *shape: int) -> np.ndarray:
    """Returns the random values of a published tensor (or an input) of this name, seeded by the name.

    They are scaled so that the last layer still depends on the input.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith('running_var'):
        return rng.uniform(0.1, 0.4, shape).astype(np.float32)
    if name.endswith('weight') and len(shape) == 1:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    size = np.prod(shape[1:]) ** -0.5 if name.endswith('weight') else 0.3
    return (size * rng.normal(size=shape)).astype(np.float32)


def filled(build: Callable[[], nnx.Module], published: Published, tensor: Callable = drawn) -> nnx.Module:
    """Returns the module that `build` makes, with every tensor filled by `tensor(name, *shape)`."""
    graphdef, state = nnx.split(nnx.eval_shape(build))
    state = nnx.as_pure(state)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state)
    tensors = {name: tensor(name, *x.shape) for name, x in match.export(zeros, published).items()}
    return nnx.merge(graphdef, match.fill(state, published, tensors, 'drawn')[0])


def picked(x: np.ndarray) -> np.ndarray:
    """Returns forty evenly spaced values of an array."""
    flat = np.asarray(x).ravel()
    return flat[np.linspace(0, flat.size - 1, 40).astype(int)]


def write(path: pathlib.Path, layers: dict[str, np.ndarray]) -> None:
    """Writes the golden file of layers [b ...]."""
    content = {
        name: {'shape': x.shape, 'values': [float(f'{value:.7g}') for value in picked(x)]} for name, x in layers.items()
    }
    lines = ',\n'.join(f'"{name}": {json.dumps(value)}' for name, value in content.items())
    path.write_text(f'{{\n{lines}\n}}\n')


def check(layers: dict[str, np.ndarray], path: pathlib.Path) -> None:
    """Asserts that layers equal those of a golden file, within 1e-4 of the largest value of each."""
    golden = json.loads(path.read_text())
    assert set(golden) == set(layers)
    for name, wanted in golden.items():
        assert list(layers[name].shape) == wanted['shape'], name
        values, expected = picked(layers[name]), np.array(wanted['values'])
        assert np.ptp(expected) > 0.05, name
        np.testing.assert_allclose(values, expected, atol=1e-4 * np.abs(expected).max(), rtol=0, err_msg=name)
