"""Tests the ResNet trunks against published sizes, the standard layout, a NumPy forward pass and torchvision.

tests/test_parity_convolutional.py writes tests/golden/trunk_resnet*.json.
"""

import functools
import pathlib

import activations
import drawn_frames
import jax
import numpy as np
import pytest
import tiny
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.models.layers.norm import make_norm
from stattn_jax.models.trunks import registry, resnet

# torchvision.models, docs: parameters of the whole network, less the 1000-class classifier (width * 1000 + 1000).
PUBLISHED = {
    'resnet18': 11_689_512 - 513_000,
    'resnet34': 21_797_672 - 513_000,
    'resnet50': 25_557_032 - 2_049_000,
}


def golden_file(name):
    return pathlib.Path(__file__).parent / 'golden' / f'trunk_{name}.json'


def make_resnet(name, inputs=3, last_stride=2):
    options = {'axis_name': None, 'dtype': np.float32, 'rngs': nnx.Rngs(0)}
    return resnet.ResNet(name, inputs=inputs, last_stride=last_stride, **options)


@functools.cache
def abstract(name, last_stride=2):
    return nnx.eval_shape(lambda: make_resnet(name, last_stride=last_stride))


def standard_layout(name):
    """Layers with torchvision.models.resnet's names and shapes: {name: shape (out, in, height, width) or (out,)}."""
    shapes = {'conv1': (64, 3, 7, 7), 'bn1': (64,)}
    inputs, expansion = 64, 4 if name == 'resnet50' else 1
    for stage, depth in enumerate([2, 2, 2, 2] if name == 'resnet18' else [3, 4, 6, 3]):
        width = 64 * 2**stage
        outputs = width * expansion
        for block in range(depth):
            kernels = [(inputs, width, 3), (width, outputs, 3)]
            if expansion == 4:
                kernels = [(inputs, width, 1), (width, width, 3), (width, outputs, 1)]
            prefix = f'layer{stage + 1}.{block}.'
            for i, (fan_in, fan_out, size) in enumerate(kernels, 1):
                shapes |= {f'{prefix}conv{i}': (fan_out, fan_in, size, size), f'{prefix}bn{i}': (fan_out,)}
            if inputs != outputs:
                shapes |= {f'{prefix}downsample.0': (outputs, inputs, 1, 1), f'{prefix}downsample.1': (outputs,)}
            inputs = outputs
    return shapes


@pytest.mark.parametrize('name', PUBLISHED)
def test_sizes_are_the_published_ones(name):
    state = nnx.state(abstract(name), nnx.Param)
    assert sum(x.size for x in jax.tree.leaves(state)) == PUBLISHED[name]


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_names_and_shapes_are_those_of_the_standard_layout(name):
    expected = {}
    for layer, shape in standard_layout(name).items():
        leaves = ['weight'] if len(shape) == 4 else ['weight', 'bias', 'running_mean', 'running_var']
        expected |= {f'{layer}.{leaf}': shape for leaf in leaves}
    assert published_shapes(name) == expected


def published_shapes(name, last_stride=2):
    found = {}
    for path, x in jax.tree_util.tree_leaves_with_path(nnx.as_pure(nnx.state(abstract(name, last_stride)))):
        shape = (*x.shape[:1:-1], *x.shape[:2]) if len(x.shape) == 4 else x.shape
        found[resnet.published_name('/'.join(str(key.key) for key in path))] = shape
    return found


def test_the_classifier_is_dropped_and_nothing_that_is_used():
    for name in ('resnet18', 'resnet18_stride16'):
        published = registry.find('visual', name).published
        assert published.is_dropped('fc.weight') and published.is_dropped('fc.bias')
        assert not any(published.is_dropped(tensor) for tensor in published_shapes('resnet18'))


@pytest.mark.parametrize(('name', 'width'), [('resnet18', 512), ('resnet50', 2048)])
def test_grid_is_a_thirty_second_or_a_sixteenth_rounded_up(name, width):
    for last_stride, size, grid in [(2, (224, 224), (7, 7)), (2, (225, 33), (8, 2)), (1, (224, 33), (14, 3))]:
        frames = jax.ShapeDtypeStruct((2, *size, 3), np.float32)
        out = nnx.eval_shape(lambda model, x: model(x, train=False), abstract(name, last_stride), frames)
        assert out.shape == (2, *grid, width)


def golden_frames():
    return activations.drawn('resnet', 1, 64, 96, 3)


@pytest.mark.parametrize('name', PUBLISHED)
def test_layers_are_those_of_torchvision(name):
    """Layers of both trunks, which share weights; `stride16` holds the last stage of the one with stride 16."""
    graph, state = nnx.split(drawn_frames.filled(lambda: make_resnet(name), registry.find('visual', name).published))
    graph_16, _ = nnx.split(abstract(name, last_stride=1))

    @jax.jit
    def layers(state, x):
        found = dict(
            zip(['stem', 'layer1', 'layer2', 'layer3', 'layer4'], nnx.merge(graph, state).stages(x, train=False))
        )
        return found | {'stride16': nnx.merge(graph_16, state)(x, train=False)}

    activations.check(layers(nnx.as_pure(state), golden_frames()), golden_file(name))


def conv(x, kernel, stride):
    """Convolution as in torch: k // 2 zeros on every side."""
    size = kernel.shape[0]
    side = size // 2
    x = np.pad(x, ((0, 0), (side, side), (side, side), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum('bhwiyx,yxio->bhwo', windows, kernel, optimize=True)


def norm(x, bn):
    mean, var, scale, bias = (np.asarray(p[...], np.float64) for p in (bn.mean, bn.var, bn.scale, bn.bias))
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def residual(x, block, strides):
    y = x
    for i, (layer, bn, stride) in enumerate(zip(block.convs, block.bns, strides, strict=True)):
        y = norm(conv(y, layer.kernel[...], stride), bn)
        y = np.maximum(y, 0) if i < len(strides) - 1 else y
    if block.downsample is not None:
        x = norm(conv(x, block.downsample[0].kernel[...], max(strides)), block.downsample[1])
    return np.maximum(x + y, 0)


@functools.partial(jax.jit, static_argnums=0)
def call(graphdef, state, x):
    return nnx.merge(graphdef, state)(x, train=False)


def forward(model, x):
    graphdef, state = nnx.split(model)
    return np.asarray(call(graphdef, nnx.as_pure(state), x))


def test_resnet18_is_its_numpy_forward_pass():
    model = tiny.filled(lambda: make_resnet('resnet18', inputs=1))
    frames = np.random.default_rng(0).normal(size=(2, 47, 30, 1)).astype(np.float32)
    x = np.maximum(norm(conv(frames.astype(np.float64), model.conv1.kernel[...], 2), model.bn1), 0)
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2].max((-1, -2))
    for stage, blocks in enumerate(model.layers):
        for i, block in enumerate(blocks):
            x = residual(x, block, (2 if stage and not i else 1, 1))
    out = forward(model, frames)
    assert x.shape == (2, 2, 1, 512) and np.ptp(x) > 0.1
    np.testing.assert_allclose(out, x, rtol=1e-4, atol=1e-4 * np.abs(x).max())


def test_bottleneck_strides_in_its_three_by_three():
    options = {'stride': 2, 'expansion': 4, 'norm': make_norm(None, np.float32), 'dtype': np.float32}
    block = tiny.filled(lambda: resnet.Block(8, 4, rngs=nnx.Rngs(0), **options))
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 8)).astype(np.float32)
    np.testing.assert_allclose(
        forward(block, x), residual(x.astype(np.float64), block, (1, 2, 1)), rtol=1e-4, atol=1e-4
    )
