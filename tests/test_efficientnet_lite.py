"""Tests EfficientNet-Lite0 against its published size and layout, and against outputs of the PyTorch port.

tests/test_parity_convolutional.py writes tests/golden/trunk_efficientnet_lite0.json.
"""

import functools
import pathlib

import activations
import drawn_frames
import jax
import numpy as np
import pytest
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.models.trunks import efficientnet_lite, registry
from stattn_jax.weights import match

GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'trunk_efficientnet_lite0.json'
LAYERS = [f'stage{i}' for i in range(7)] + ['head']
WHOLE = ((7,), 32)
# Parameter counts of the whole network (timm's table of tf_efficientnet_lite0) and of its classifier of 1000 classes.
PARAMETERS, CLASSIFIER = 4_652_008, 1_281_000


def make(outputs, stride, dtype=np.float32):
    return efficientnet_lite.EfficientNetLite(outputs, stride, axis_name=None, dtype=dtype, rngs=nnx.Rngs(0))


@functools.cache
def abstract(outputs, stride):
    return nnx.eval_shape(lambda: make(outputs, stride))


def filled(outputs, stride):
    """Returns the network with random weights derived from their names."""
    return drawn_frames.filled(lambda: make(outputs, stride), efficientnet_lite.published(outputs))


def layout():
    """Returns the tensors of the published file without the classifier: {name: shape}."""
    shapes = {'_conv_stem.weight': (32, 3, 3, 3), '_conv_head.weight': (1280, 320, 1, 1)}
    norms = {'_bn0': 32, '_bn1': 1280}
    widths = [16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192, 320]
    kernels = [3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 3]
    for i, (inputs, outputs, kernel) in enumerate(zip([32, *widths], widths, kernels)):
        block, middle = f'_blocks.{i}.', 6 * inputs if i else inputs
        if i:
            shapes[f'{block}_expand_conv.weight'] = (middle, inputs, 1, 1)
            norms[f'{block}_bn0'] = middle
        shapes[f'{block}_depthwise_conv.weight'] = (middle, 1, kernel, kernel)
        shapes[f'{block}_project_conv.weight'] = (outputs, middle, 1, 1)
        norms |= {f'{block}_bn1': middle, f'{block}_bn2': outputs}
    for name, width in norms.items():
        shapes |= {f'{name}.{leaf}': (width,) for leaf in ('weight', 'bias', 'running_mean', 'running_var')}
    return shapes


def exported(model, published):
    state = jax.tree.map(lambda x: np.empty(x.shape), nnx.as_pure(nnx.state(model)))
    return {name: x.shape for name, x in match.export(state, published).items()}


@functools.partial(jax.jit, static_argnums=0)
def run(graphdef, state, x):
    model = nnx.merge(graphdef, state)
    return model.stages(x, train=False), model(x, train=False)


def stages_and_output(model, x):
    graphdef, state = nnx.split(model)
    return run(graphdef, nnx.as_pure(state), x)


def golden_frames():
    return activations.drawn('efficientnet_lite0', 2, 64, 96, 3)


@pytest.fixture(scope='module')
def whole():
    return stages_and_output(filled(*WHOLE), golden_frames())


def test_size_and_layout_are_the_published_ones():
    model = abstract(*WHOLE)
    assert sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param))) == PARAMETERS - CLASSIFIER
    assert exported(model, efficientnet_lite.published((7,))) == layout()


@pytest.mark.parametrize('name', ['efficientnet_lite0', 'efficientnet_lite0_multi'])
def test_every_published_tensor_is_used_or_dropped_by_rule(name):
    trunk = registry.find('visual', name)
    used = exported(
        nnx.eval_shape(lambda: trunk.build(axis_name=None, dtype=np.float32, rngs=nnx.Rngs(0))), trunk.published
    )
    file = layout() | {'_fc.weight': (1000, 1280), '_fc.bias': (1000,)}
    assert used.items() <= file.items()
    for tensor in file:
        assert trunk.published.is_dropped(tensor) != (tensor in used), tensor
    assert {int(tensor.split('.')[1]) for tensor in used if tensor.startswith('_blocks')} == set(range(11))


def test_stages_are_those_of_the_port(whole):
    stages, output = whole
    activations.check(dict(zip(LAYERS, stages, strict=True)), GOLDEN)
    np.testing.assert_array_equal(output, stages[-1])
    for stage, x in enumerate(stages):
        stride, width = efficientnet_lite.STRIDES[stage], efficientnet_lite.WIDTHS[stage]
        assert x.shape == (2, 64 // stride, 96 // stride, width)


def output_of(name, stages, monkeypatch):
    """Returns the output that a trunk computes from stages that were computed before."""
    trunk = registry.find('visual', name)
    outputs, stride = trunk.build.args
    model = abstract(outputs, stride)
    wanted = stages[: max(outputs) + 1]
    monkeypatch.setattr(efficientnet_lite.EfficientNetLite, 'stages', lambda self, x, *, train: wanted)
    output = model(golden_frames(), train=False)
    assert output.shape == (2, 64 // trunk.stride, 96 // trunk.stride, model.width)
    return np.asarray(output)


def test_the_trunk_of_one_stage_is_that_stage(whole, monkeypatch):
    output = output_of('efficientnet_lite0', whole[0], monkeypatch)
    assert output.shape[-1] == 112
    np.testing.assert_array_equal(output, whole[0][4])


def test_the_trunk_of_several_stages_puts_them_on_one_grid(whole, monkeypatch):
    stages = [np.asarray(x) for x in whole[0]]
    output = output_of('efficientnet_lite0_multi', stages, monkeypatch)
    assert output.shape[-1] == 352
    for row in range(4):
        for column in range(6):
            fine = [stages[2][:, 2 * row + i, 2 * column + j] for i in range(2) for j in range(2)]
            same = [stages[stage][:, row, column] for stage in (3, 4)]
            cell = np.concatenate([*fine, *same], axis=-1)
            np.testing.assert_array_equal(output[:, row, column], cell)


@pytest.mark.parametrize(
    ('outputs', 'stride', 'width'), [((1, 2), 8, 24 * 4 + 40), ((2, 7), 32, 40 * 16 + 1280), ((0,), 2, 16)]
)
def test_other_stages_and_strides(outputs, stride, width):
    model = abstract(outputs, stride)
    x = jax.ShapeDtypeStruct((2, 64, 32, 3), np.float32)
    out = nnx.eval_shape(lambda model, x: model(x, train=True), model, x)
    assert out.shape == (2, 64 // stride, 32 // stride, width) and model.width == width


def test_sides_of_one_stage_are_rounded_up_and_of_several_must_fit():
    x = jax.ShapeDtypeStruct((1, 33, 49, 3), np.float32)
    out = nnx.eval_shape(lambda model, x: model(x, train=False), abstract((4,), 16), x)
    assert out.shape == (1, 3, 4, 112)
    with pytest.raises(ValueError, match='frames of 33 x 49 pixels: .* multiples of 32: choose such a frame_size'):
        nnx.eval_shape(lambda model, x: model(x, train=False), abstract((2, 6), 16), x)


def test_batch_normalisation_has_the_epsilon_of_the_published_weights():
    model = abstract(*WHOLE)
    norms = [module for _, module in nnx.iter_modules(model) if isinstance(module, nnx.BatchNorm)]
    assert len(norms) == 49 and {norm.epsilon for norm in norms} == {1e-3}


def test_it_computes_in_its_dtype():
    model = nnx.eval_shape(lambda: make((4,), 16, dtype=jax.numpy.bfloat16))
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jax.numpy.bfloat16)
    assert nnx.eval_shape(lambda model, x: model(x, train=False), model, x).dtype == jax.numpy.bfloat16
