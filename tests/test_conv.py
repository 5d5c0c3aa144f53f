"""Tests values and gradients of models/layers/conv.py in both forms, against nnx.Conv and nnx.max_pool."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.models.layers import FORMS, conv, cpu

CHANNELS = 3  # of depthwise convolutions


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def gradients(fn, *args):
    """Returns the gradients of a randomly weighted sum, so that every element of the result counts differently."""
    y = fn(*args)
    return jax.grad(lambda args: (fn(*args) * normal(*y.shape, seed=9)).sum())(args)


# In the last three cases the output has fewer cells than the kernel, so XLA would exchange input and kernel.
@pytest.mark.parametrize(
    'size, stride, side',
    [(7, 2, (13, 16)), (3, 1, (8, 5)), (3, 2, (9, 10)), (1, 1, (4, 3)), (1, 2, (5, 6)), (3, 1, (3, 2)), (3, 2, (6, 4)),
     (3, 2, (1, 1))],
)  # fmt: skip
@pytest.mark.parametrize('same', [False, True])
@pytest.mark.parametrize('form', FORMS)
def test_a_convolution_is_that_of_flax(size, stride, side, same, form):
    padding = 'SAME' if same else size // 2
    ours = conv.Conv(4, 6, size, stride=stride, padding=padding, dtype=jnp.float32, rngs=nnx.Rngs(3))
    ours.form = form
    theirs = nnx.Conv(4, 6, (size, size), strides=stride, padding=padding, use_bias=False, rngs=nnx.Rngs(3))
    x = normal(2, *side, 4)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)

    graphdef, state = nnx.split(theirs)

    def of_flax(x, kernel):
        return nnx.merge(graphdef, {'kernel': nnx.Param(kernel)})(x)

    kernel = state['kernel'][...]
    ours_graphdef, _ = nnx.split(ours)

    def of_ours(x, kernel):
        return nnx.merge(ours_graphdef, {'kernel': nnx.Param(kernel)})(x)

    found = gradients(of_ours, x, kernel)
    for mine, other in zip(found, gradients(of_flax, x, kernel), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


def test_a_strided_kernel_of_one_cell_meets_a_picture_that_was_cut_first():
    # With the stride inside the convolution, its gradient takes ten times as long on a CPU.
    made = jax.make_jaxpr(lambda x, kernel: cpu.convolve(x, kernel, 2, [(0, 0), (0, 0)]))(
        normal(2, 5, 6, 4), normal(1, 1, 4, 6)
    )
    (found,) = [eqn for eqn in made.eqns if eqn.primitive.name == 'conv_general_dilated']
    assert found.params['window_strides'] == (1, 1) and found.invars[0].aval.shape == (2, 3, 3, 4)


def test_few_channels_are_gathered_in_blocks_on_a_gpu():
    layer = conv.Conv(3, 6, 7, stride=2, padding=3, dtype=jnp.float32, rngs=nnx.Rngs(3))
    layer.form = 'gpu'
    made = jax.make_jaxpr(layer)(normal(2, 20, 18, 3))
    (found,) = [eqn for eqn in made.eqns if eqn.primitive.name == 'conv_general_dilated']
    assert found.params['window_strides'] == (1, 1) and found.invars[1].aval.shape == (4, 4, 16, 6)


@pytest.mark.parametrize('form', FORMS)
def test_a_convolution_computes_in_its_dtype(form):
    layer = conv.Conv(4, 6, 3, padding=1, dtype=jnp.bfloat16, rngs=nnx.Rngs(3))
    layer.form = form
    assert layer(normal(2, 8, 8, 4)).dtype == layer(normal(2, 2, 2, 4)).dtype == jnp.bfloat16
    assert layer.kernel[...].dtype == jnp.float32


def flax_pool(x):
    return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


@pytest.mark.parametrize('side', [(8, 7), (5, 6), (1, 2)])
@pytest.mark.parametrize('ties', [False, True])
def test_a_max_pool_and_its_gradient_are_those_of_flax(side, ties):
    x = normal(2, *side, 3)
    x = jnp.round(x) if ties else x
    layer = conv.MaxPool()
    for layer.form in FORMS:
        np.testing.assert_array_equal(layer(x), flax_pool(x))
    for layer.form in FORMS:
        for mine, other in zip(gradients(layer, x), gradients(flax_pool, x)):
            np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-6)


def grouped(x, kernel, stride):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=CHANNELS
    )


# The sides are even and odd; one is smaller than the kernel, and one is a multiple of the stride.
@pytest.mark.parametrize('height, width', [(8, 7), (9, 12), (2, 1)])
@pytest.mark.parametrize('size', [3, 5])
@pytest.mark.parametrize('stride', [1, 2])
def test_a_depthwise_convolution_is_the_grouped_convolution(size, stride, height, width):
    x, kernel = normal(2, height, width, CHANNELS), normal(size, size, 1, CHANNELS, seed=1)
    found, expected = cpu.convolve_depthwise(x, kernel, stride), grouped(x, kernel, stride)
    assert found.shape == (2, -(-height // stride), -(-width // stride), CHANNELS)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    weight = normal(*expected.shape, seed=2)

    def gradients(form):
        return jax.grad(lambda x, kernel: (form(x, kernel, stride) * weight).sum(), argnums=(0, 1))(x, kernel)

    ours, theirs = gradients(cpu.convolve_depthwise), gradients(grouped)
    for mine, other in zip(ours, theirs, strict=True):
        assert np.ptp(other) > 0.1
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('form', FORMS)
def test_a_depthwise_layer_has_the_kernel_of_flax_and_computes_in_its_dtype(form):
    layer = tiny.filled(lambda: conv.DepthwiseConv(CHANNELS, 3, stride=2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    layer.form = form
    x, kernel = normal(2, 6, 5, CHANNELS), layer.kernel[...]
    assert kernel.shape == (3, 3, 1, CHANNELS) and kernel.dtype == jnp.float32
    out = layer(x)
    assert out.shape == (2, 3, 3, CHANNELS) and out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(np.float32), grouped(x, jnp.asarray(kernel), 2), rtol=0.05, atol=0.05)


@pytest.mark.parametrize('form, convolutions', [('cpu', 0), ('plain', 1), ('gpu', 1)])
def test_only_the_form_for_a_cpu_sums(form, convolutions):
    layer = conv.DepthwiseConv(CHANNELS, 3, dtype=jnp.float32, rngs=nnx.Rngs(0))
    layer.form = form
    assert str(jax.make_jaxpr(layer)(normal(2, 6, 5, CHANNELS))).count('conv_general_dilated[') == convolutions
