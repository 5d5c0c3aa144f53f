"""The ResNet trunks against published sizes, the standard ImageNet layout and a NumPy forward pass."""

import functools

import jax
import numpy as np
import pytest
import tiny
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.models.norm import make_norm
from stattn_jax.models.trunks import resnet

# torchvision.models, docs: parameters of the whole network, less the 1000-class classifier (width * 1000 + 1000).
PUBLISHED = {'resnet18': 11_689_512 - 513_000, 'resnet50': 25_557_032 - 2_049_000}


def make_resnet(name, inputs=3):
    return resnet.ResNet(name, inputs=inputs, axis_name=None, dtype=np.float32, rngs=nnx.Rngs(0))


def abstract(name):
    return nnx.eval_shape(lambda: make_resnet(name))


def standard_layout(name):
    """Weights as torchvision.models.resnet names and shapes them: {name: shape (out, in, height, width) or (out,)}."""
    shapes = {'conv1': (64, 3, 7, 7), 'bn1': (64,)}
    inputs, expansion = 64, 1 if name == 'resnet18' else 4
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


def standard_name(path):
    """('layers', 0, 1, 'convs', 0, 'kernel') to 'layer1.1.conv1'."""
    if path[0] != 'layers':
        return path[0]
    _, stage, block, part, number = path[:5]
    name = {'convs': f'conv{number + 1}', 'bns': f'bn{number + 1}', 'downsample': f'downsample.{number}'}[part]
    return f'layer{stage + 1}.{block}.{name}'


@pytest.mark.parametrize('name', PUBLISHED)
def test_sizes_are_the_published_ones(name):
    state = nnx.state(abstract(name), nnx.Param)
    assert sum(x.size for x in jax.tree.leaves(state)) == PUBLISHED[name]


@pytest.mark.parametrize('name', PUBLISHED)
def test_layers_are_those_of_the_standard_layout(name):
    found = {}
    for path, variable in nnx.to_flat_state(nnx.state(abstract(name))):
        shape = variable.get_value().shape
        found.setdefault(standard_name(path), {})[path[-1]] = shape[:-3:-1] + shape[:-2] if len(shape) == 4 else shape
    expected = {
        layer: {'kernel': shape} if len(shape) == 4 else dict.fromkeys(('scale', 'bias', 'mean', 'var'), shape)
        for layer, shape in standard_layout(name).items()
    }
    assert found == expected


@pytest.mark.parametrize(('name', 'width'), [('resnet18', 512), ('resnet50', 2048)])
def test_grid_is_a_thirty_second_rounded_up(name, width):
    for size, grid in [((224, 224), (7, 7)), ((225, 33), (8, 2))]:
        frames = jax.ShapeDtypeStruct((2, *size, 3), np.float32)
        out = nnx.eval_shape(lambda model, x: model(x, train=False), abstract(name), frames)
        assert out.shape == (2, *grid, width)


def conv(x, kernel, stride):
    """As torch: zeros on both sides alike, k // 2 of them."""
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
