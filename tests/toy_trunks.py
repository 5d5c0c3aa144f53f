"""Trunks of one layer with published weights, for the tests of extraction in this process and in workers."""

import time
import types

import jax
import numpy as np
from flax import nnx

from data_prep import extract
from stattn_jax.models.layers.conv import Conv
from stattn_jax.models.layers.dense import Linear
from stattn_jax.models.layers.norm import make_norm
from stattn_jax.models.trunks import registry
from stattn_jax.models.trunks.trunk import Published, Trunk
from stattn_jax.weights import formats, match

STRIDE, CELLS, SOUND = 8, 6, 5
_EXTRACT = extract.make_record


class Picture(nnx.Module):
    """Maps patches of 8 pixels to 6 values each by a convolution, batch normalisation and ReLU."""

    def __init__(self, *, axis_name, dtype, rngs):
        self.width = CELLS
        self.conv = Conv(3, CELLS, STRIDE, stride=STRIDE, padding=0, dtype=dtype, rngs=rngs)
        self.bn = make_norm(axis_name, dtype)(CELLS, rngs=rngs)

    def __call__(self, x, *, train):
        return nnx.relu(self.bn(self.conv(x), use_running_average=not train))


class Sound(nnx.Module):
    """Maps the mean over mel frames to 5 values."""

    def __init__(self, bands, *, axis_name, dtype, rngs):
        self.width = SOUND
        self.layer = Linear(bands, SOUND, rngs=rngs)

    def __call__(self, x, *, train):
        return self.layer(x.mean(1))


def _name(path):
    last = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
    layer, leaf = path.split('/')
    return f'{layer}.{last.get(leaf, leaf)}'


PUBLISHED = Published(_name, (), 'toys', 'CC0-1.0')


def _sound(bands, mel):
    def build(**options):
        return Sound(bands, **options)

    return Trunk('audio', build, mean=(-3.0,), std=(2.0,), mel=mel, published=PUBLISHED)


TRUNKS = {
    'visual': {'toy': Trunk('visual', Picture, stride=STRIDE, multiple=16, published=PUBLISHED)},
    'audio': {'toy': _sound(64, 'vggish'), 'toy_panns': _sound(64, 'panns_32k')},
}


def register(patch=setattr):
    """Adds the toy trunks to the registry; `patch` sets an attribute, as setattr and monkeypatch.setattr do."""
    modules = registry._modules()
    toys = types.SimpleNamespace(TRUNKS=TRUNKS)
    if not any(getattr(module, 'TRUNKS', None) is TRUNKS for module in modules):
        patch(registry, '_modules', lambda: (*modules, toys))


def write_weights(path, modality, seed=0):
    """Writes weights of a toy trunk in the published format; returns them by this package's names."""
    state = nnx.state(nnx.eval_shape(lambda: _built(modality)))
    rng = np.random.default_rng(seed)

    def draw(path, x):
        if path[-1].key in ('scale', 'var'):
            return rng.uniform(0.5, 1.5, x.shape).astype(x.dtype)
        return rng.normal(0, np.prod(x.shape[:-1]) ** -0.5, x.shape).astype(x.dtype)

    state = jax.tree_util.tree_map_with_path(draw, nnx.as_pure(state))
    save(path, state)
    return state


def save(path, state):
    """Writes the state of a toy trunk in the published format."""
    formats.write_safetensors(path, match.export(state, PUBLISHED), {})


def _built(modality):
    return TRUNKS[modality]['toy'].build(axis_name=None, dtype=np.float32, rngs=nnx.Rngs(0))


def slow_record(data, job, spec):
    """Runs extract.make_record at no more than twenty clips a second, in a worker with the toy trunks registered."""
    register()
    time.sleep(0.05)
    return _EXTRACT(data, job, spec)


def main():
    """Runs `data_prep.extract` slowly and with the toy trunks, as a program of its own."""
    from data_prep import cli

    register()
    extract.make_record = slow_record
    cli.run(extract.main, extract.FLAGS, '')
