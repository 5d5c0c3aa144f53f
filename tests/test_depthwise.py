"""Tests models/depthwise.py against XLA's grouped convolution: values, gradients and the form compiled per platform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.models import depthwise

CHANNELS = 3


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def by_xla(x, kernel, stride):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=CHANNELS
    )


# The sides are even and odd; one is smaller than the kernel, and one is a multiple of the stride.
@pytest.mark.parametrize('height, width', [(8, 7), (9, 12), (2, 1)])
@pytest.mark.parametrize('size', [3, 5])
@pytest.mark.parametrize('stride', [1, 2])
def test_numbers_and_gradients_are_those_of_the_grouped_convolution(size, stride, height, width):
    x, kernel = normal(2, height, width, CHANNELS), normal(size, size, 1, CHANNELS, seed=1)
    found, expected = depthwise.convolve(x, kernel, stride), by_xla(x, kernel, stride)
    assert found.shape == (2, -(-height // stride), -(-width // stride), CHANNELS)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    weight = normal(*expected.shape, seed=2)

    def gradients(form):
        return jax.grad(lambda x, kernel: (form(x, kernel, stride) * weight).sum(), argnums=(0, 1))(x, kernel)

    ours, theirs = gradients(depthwise.convolve), gradients(by_xla)
    for mine, other in zip(ours, theirs, strict=True):
        assert np.ptp(other) > 0.1
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


def test_a_layer_has_the_kernel_of_flax_and_computes_in_its_dtype():
    layer = tiny.filled(lambda: depthwise.DepthwiseConv(CHANNELS, 3, stride=2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    x, kernel = normal(2, 6, 5, CHANNELS), layer.kernel[...]
    assert kernel.shape == (3, 3, 1, CHANNELS) and kernel.dtype == jnp.float32
    out = layer(x)
    assert out.shape == (2, 3, 3, CHANNELS) and out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(np.float32), by_xla(x, jnp.asarray(kernel), 2), rtol=0.05, atol=0.05)


@pytest.mark.parametrize('platform, convolutions', [('cpu', 0), ('cuda', 1), ('tpu', 1)])
def test_only_a_cpu_gets_the_sum(platform, convolutions):
    traced = jax.jit(lambda x, kernel: depthwise.convolve(x, kernel, 1)).trace(normal(2, 6, 5, 3), normal(3, 3, 1, 3))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count('stablehlo.convolution') == convolutions
