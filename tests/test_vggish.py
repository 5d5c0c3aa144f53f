"""Tests the trunk VGGish against its layout and layers of the published code, which test_parity_audio.py writes."""

import pathlib

import activations
import jax
import numpy as np
import pytest
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.data.mel import MEL_PRESETS
from stattn_jax.models.layers.conv import Conv
from stattn_jax.models.trunks import registry, vggish
from stattn_jax.weights import match

GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'vggish.json'
THIN = {'widths': (4, 6, 8, 10), 'hidden': 24}
TRUNK = registry.find('audio', 'vggish')

# torchvggish 0.2, vggish.py: the tensors of a VGG.
LAYOUT = {
    f'{layer}.{leaf}': shape[: len(shape) if leaf == 'weight' else 1]
    for layer, shape in {
        'features.0': (64, 1, 3, 3),
        'features.3': (128, 64, 3, 3),
        'features.6': (256, 128, 3, 3),
        'features.8': (256, 256, 3, 3),
        'features.11': (512, 256, 3, 3),
        'features.13': (512, 512, 3, 3),
        'embeddings.0': (4096, 512 * 4 * 6),
        'embeddings.2': (4096, 4096),
        'embeddings.4': (128, 4096),
    }.items()
    for leaf in ('weight', 'bias')
}


def build(**options):
    return vggish.VGGish(**options, axis_name=None, dtype=np.float32, rngs=nnx.Rngs(0))


def layers(model, x):
    """The cells after each pooling, the output of each dense layer, and the embedding that the trunk returns."""
    found = {'embedding': model(x, train=False)}
    x = x[..., None]
    for i, convs in enumerate(model.stages):
        found[f'stage{i}'] = x = vggish.pooled(convs, x)
    x = x.reshape(len(x), -1)
    for i, layer in enumerate(model.dense):
        found[f'dense{i}'] = x = nnx.relu(layer(x))
    return found


def inputs(clips=2):
    return 4 * activations.drawn('vggish', clips, 96, 64) - 3


def test_layers_are_those_of_the_published_code():
    model = activations.filled(lambda: build(**THIN), TRUNK.published)
    found = jax.jit(layers)(model, inputs())
    activations.check(found, GOLDEN)


def test_tensors_are_those_of_the_published_layout():
    state = nnx.as_pure(nnx.state(nnx.eval_shape(build)))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    found = {}
    for path, leaf in leaves:
        name = TRUNK.published.name('/'.join(str(part.key) for part in path))
        found[name] = leaf.shape[::-1] if leaf.ndim < 4 else leaf.shape[:1:-1] + leaf.shape[:2]
    assert found == LAYOUT and len(leaves) == len(LAYOUT)
    assert sum(leaf.size for _, leaf in leaves) == 72_141_184


def test_post_processing_and_a_classifier_are_dropped():
    model = nnx.eval_shape(lambda: build(**THIN))
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), nnx.as_pure(nnx.state(model)))
    tensors = match.export(state, TRUNK.published)
    more = {name: np.zeros(3, np.float32) for name in ('pproc.pca_means', 'classifier.2.weight')}
    _, report = match.fill(state, TRUNK.published, tensors | more, 'file')
    assert set(report.dropped) == set(more) and report.used == len(LAYOUT)


def test_it_reads_a_second_of_its_own_front_end_alone():
    mel = MEL_PRESETS[TRUNK.mel]
    model = nnx.eval_shape(build)

    def shape(seconds):
        x = jax.ShapeDtypeStruct((3, mel.frames_in(seconds), mel.bands), np.float32)
        return nnx.eval_shape(lambda model, x: model(x, train=False), model, x).shape

    assert shape(1.0) == (3, 128)
    with pytest.raises(
        ValueError, match="segments here have 192 of 64; expected segments of one second.*'vggish_published'"
    ):
        shape(2.0)


def test_a_convolution_with_bias_is_that_of_flax():
    options = {'padding': 1, 'dtype': np.float32}
    ours = Conv(3, 4, 3, use_bias=True, rngs=nnx.Rngs(1), **options)
    theirs = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(2), **options)
    theirs.kernel[...] = ours.kernel[...]
    ours.bias[...] = theirs.bias[...] = activations.drawn('bias', 4)
    x = activations.drawn('conv', 2, 5, 7, 3)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
