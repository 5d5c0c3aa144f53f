"""Tests values and gradients of models/conv.py against nnx.Conv and nnx.max_pool."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stattn_jax.models import conv


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
def test_a_convolution_is_that_of_flax(size, stride, side, same):
    padding = 'SAME' if same else size // 2
    ours = conv.Conv(4, 6, size, stride=stride, padding=padding, dtype=jnp.float32, rngs=nnx.Rngs(3))
    theirs = nnx.Conv(4, 6, (size, size), strides=stride, padding=padding, use_bias=False, rngs=nnx.Rngs(3))
    x = normal(2, *side, 4)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)

    graphdef, state = nnx.split(theirs)

    def of_flax(x, kernel):
        return nnx.merge(graphdef, {'kernel': nnx.Param(kernel)})(x)

    kernel = state['kernel'][...]
    found = gradients(lambda x, kernel: conv.convolve(x, kernel, stride, padding), x, kernel)
    for mine, other in zip(found, gradients(of_flax, x, kernel), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('padding', [0, 'SAME'])
def test_a_strided_kernel_of_one_cell_meets_a_picture_that_was_cut_first(padding):
    # With the stride inside the convolution, its gradient takes ten times as long on a CPU.
    made = jax.make_jaxpr(lambda x, kernel: conv.convolve(x, kernel, 2, padding))(
        normal(2, 5, 6, 4), normal(1, 1, 4, 6)
    )
    (found,) = [eqn for eqn in made.eqns if eqn.primitive.name == 'conv_general_dilated']
    assert found.params['window_strides'] == (1, 1) and found.invars[0].aval.shape == (2, 3, 3, 4)


def test_a_convolution_computes_in_its_dtype():
    layer = conv.Conv(4, 6, 3, padding=1, dtype=jnp.bfloat16, rngs=nnx.Rngs(3))
    assert layer(normal(2, 8, 8, 4)).dtype == layer(normal(2, 2, 2, 4)).dtype == jnp.bfloat16
    assert layer.kernel[...].dtype == jnp.float32


def flax_pool(x):
    return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


@pytest.mark.parametrize('side', [(8, 7), (5, 6), (1, 2)])
@pytest.mark.parametrize('ties', [False, True])
def test_a_max_pool_and_its_gradient_are_those_of_flax(side, ties):
    x = normal(2, *side, 3)
    x = jnp.round(x) if ties else x
    np.testing.assert_array_equal(conv.max_pool(x), flax_pool(x))
    for mine, other in zip(gradients(conv.max_pool, x), gradients(flax_pool, x)):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-6)
