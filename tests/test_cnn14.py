"""Tests the Cnn14 trunks against layers of the published code, which test_parity_audio.py writes, and their layout."""

import pathlib

import activations
import jax
import numpy as np
import pytest
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.data.mel import MEL_PRESETS
from stattn_jax.models.pooling import largest
from stattn_jax.models.trunks import cnn14, registry
from stattn_jax.weights import match

GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'cnn14.json'
CHANNELS = 4
TRUNK = registry.find('audio', 'cnn14_32k')


def layout(channels=64):
    """Returns the tensors of panns_inference 0.1.1's Cnn14 that precede its classifier: {name: shape}."""
    shapes = dict.fromkeys([f'bn0.{leaf}' for leaf in ('weight', 'bias', 'running_mean', 'running_var')], (64,))
    inputs = 1
    for block in range(1, 7):
        for i in (1, 2):
            shapes[f'conv_block{block}.conv{i}.weight'] = (channels, inputs, 3, 3)
            for leaf in ('weight', 'bias', 'running_mean', 'running_var'):
                shapes[f'conv_block{block}.bn{i}.{leaf}'] = (channels,)
            inputs = channels
        channels *= 2
    return shapes | {'fc1.weight': (inputs, inputs), 'fc1.bias': (inputs,)}


def build(channels=64):
    return cnn14.Cnn14(channels=channels, axis_name=None, dtype=np.float32, rngs=nnx.Rngs(0))


def thin():
    return activations.filled(lambda: build(CHANNELS), TRUNK.published)


def layers(model, x):
    """Returns the output of each block, and the embedding both computed step by step and as the trunk returns it."""
    found = {'embedding': model(x, train=False)}
    x = model.bn0(x, use_running_average=True)[..., None]
    for i, block in enumerate(model.blocks, 1):
        found[f'block{i}'] = x = block(x, train=False)
    x = x.mean(2)
    return found | {'fc1': nnx.relu(model.fc1(largest(x, 1) + x.mean(1)))}


def inputs(frames=101):
    return 4 * activations.drawn('cnn14', 2, frames, 64)


def test_layers_are_those_of_the_published_code():
    found = jax.jit(layers)(thin(), inputs())
    activations.check(found, GOLDEN)


@pytest.mark.parametrize('name', ['cnn14_16k', 'cnn14_32k'])
def test_tensors_are_those_of_the_published_layout(name):
    trunk = registry.find('audio', name)
    state = match.abstract_state(trunk)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    found = {}
    for path, leaf in leaves:
        published = trunk.published.name('/'.join(str(part.key) for part in path))
        found[published] = leaf.shape[::-1] if leaf.ndim < 4 else leaf.shape[:1:-1] + leaf.shape[:2]
    assert found == layout() and len(leaves) == len(layout())
    assert match.width(trunk) == 2048


def test_front_end_and_classifier_in_a_checkpoint_are_dropped():
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), nnx.as_pure(nnx.state(nnx.eval_shape(lambda: build(2)))))
    names = ('spectrogram_extractor.stft.conv_real.weight', 'logmel_extractor.melW', 'fc_audioset.bias')
    more = {name: np.zeros(3, np.float32) for name in names}
    tensors = match.export(state, TRUNK.published) | more | {'bn0.num_batches_tracked': np.array(7)}
    _, report = match.fill(state, TRUNK.published, {f'model.{name}': x for name, x in tensors.items()}, 'file')
    assert set(names) <= set(report.dropped) and report.used == len(layout())


def shape(frames, bands=64):
    x = jax.ShapeDtypeStruct((3, frames, bands), np.float32)
    return nnx.eval_shape(lambda model, x: model(x, train=True), nnx.eval_shape(lambda: build(CHANNELS)), x).shape


@pytest.mark.parametrize('mel', ['panns_16k', 'panns_32k'])
def test_it_reads_segments_of_a_third_of_a_second_and_longer(mel):
    for seconds in (0.32, 1.0, 2.5):
        assert shape(MEL_PRESETS[mel].frames_in(seconds)) == (3, 32 * CHANNELS)
    with pytest.raises(ValueError, match='segments here have 31 of 64; expected segments of at least 0.32 seconds'):
        shape(MEL_PRESETS[mel].frames_in(0.3))
    with pytest.raises(ValueError, match='segments here have 98 of 128.*panns_16k or panns_32k'):
        shape(98, 128)


def test_an_odd_last_row_is_left_out_by_the_pooling():
    whole, halved = thin().blocks[0], thin().blocks[0]
    whole.halves = False
    x = activations.drawn('odd', 2, 7, 6, 1)
    cells = np.asarray(whole(x, train=False))
    wanted = [[cells[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2)) for j in range(3)] for i in range(3)]
    found = halved(x, train=False)
    assert found.shape == (2, 3, 3, CHANNELS)
    np.testing.assert_allclose(found, np.moveaxis(np.array(wanted), 2, 0), rtol=1e-5, atol=1e-6)
