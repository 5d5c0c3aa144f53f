"""Random NumPy weights derived from published names, so that a trunk and its external reference get the same ones."""

import json
import pathlib
import zlib

import jax
import numpy as np
from flax import nnx

from stattn_jax.models.trunks.trunk import Trunk
from stattn_jax.weights import match

# Heights and widths of the frames for which the golden numbers were computed.
FRAMES = {'vit_s16': (48, 80), 'dinov2_s14': (42, 70), 'dinov2_s14_registers': (42, 70)}
GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'transformers.json'


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the random values of a published tensor of this name, seeded by the name.

    They are scaled to keep activations near 1 and have no symmetry.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 1 and not name.endswith('bias'):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    size = np.prod(shape[1:]) ** -0.5 if name.endswith('weight') else 0.5
    return (size * rng.normal(size=shape)).astype(np.float32)


def tensors(trunk: Trunk, **options) -> dict[str, np.ndarray]:
    """Returns the tensors that a published file for a trunk would hold."""
    state = nnx.as_pure(nnx.state(nnx.eval_shape(lambda: _built(trunk, **options))))
    empty = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), state)
    return {name: tensor(name, x.shape) for name, x in match.export(empty, trunk.published).items()}


def filled(trunk: Trunk, file: dict[str, np.ndarray] | None = None, **options) -> nnx.Module:
    """Returns a trunk filled with the tensors of `file`, or of `tensors` if that is None."""
    graphdef, state = nnx.split(nnx.eval_shape(lambda: _built(trunk, **options)))
    file = tensors(trunk, **options) if file is None else file
    return nnx.merge(graphdef, match.fill(nnx.as_pure(state), trunk.published, file, 'drawn')[0])


def _built(trunk, **options):
    return trunk.build(**{'axis_name': None, 'dtype': np.float32, 'rngs': nnx.Rngs(0), **options})


def numbers(name: str, *shape: int) -> np.ndarray:
    """Returns a normally distributed test input, seeded by its name."""
    return np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32)


def sample(x: np.ndarray, count: int = 12) -> np.ndarray:
    """Returns a few values, evenly spaced over an array."""
    x = np.asarray(x, np.float64).reshape(-1)
    return x[np.linspace(0, x.size - 1, count).astype(int)]


def golden(name: str) -> np.ndarray:
    """Returns `sample` of the reference's output for this trunk, as tests/test_parity_transformers.py wrote it."""
    return np.asarray(json.loads(GOLDEN.read_text())[name])
