"""Tests counted operations against closed forms and against the published count of a ResNet-18."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from stattn_jax.benchmark import flops
from stattn_jax.models.trunks import resnet

F32 = jnp.float32


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, F32)


def convolve(x, w, stride=1, groups=1):
    return jax.lax.conv_general_dilated(
        x, w, (stride, stride), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=groups
    )


def test_a_product_is_two_operations_for_each_of_its_terms():
    assert flops.count(jnp.matmul, shape(3, 5), shape(5, 7)) == 2 * 3 * 5 * 7
    assert (
        flops.count(lambda a, b: jnp.einsum('bik,bkj->bij', a, b), shape(4, 3, 5), shape(4, 5, 7)) == 4 * 2 * 3 * 5 * 7
    )
    assert flops.count(lambda a: a * 2 + 1, shape(9)) == 0


@pytest.mark.parametrize('stride, groups', [(1, 1), (2, 1), (4, 1), (1, 2)])
def test_a_convolution_is_its_taps_and_its_gradients_cost_the_same(stride, groups):
    x, w = shape(2, 16, 16, 4), shape(3, 3, 4 // groups, 8)
    forward = 2 * (2 * (16 // stride) ** 2 * 8) * (3 * 3 * 4 // groups)
    assert flops.count(lambda x, w: convolve(x, w, stride, groups), x, w) == forward
    loss = jax.grad(lambda x, w: jnp.sum(convolve(x, w, stride, groups) ** 2), argnums=(0, 1))
    assert flops.count(loss, x, w) == 3 * forward


def test_loops_count_every_step_and_branches_the_largest():
    def scanned(x):
        return jax.lax.scan(lambda carry, _: (carry @ x, None), x, length=6)[0]

    assert flops.count(scanned, shape(4, 4)) == 6 * 2 * 4**3
    assert flops.count(jax.jit(jax.checkpoint(scanned)), shape(4, 4)) == 6 * 2 * 4**3
    branch = lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x, x)  # noqa: E731
    assert flops.count(branch, shape(4, 4)) == 2 * 4**3


def test_resnet18_has_its_published_count():
    """1.8 GMAC at 224 pixels (He et al., arXiv 1512.03385, table 1) with a head of 1000 classes, 0.5 M of them."""
    build = lambda: resnet.ResNet('resnet18', inputs=3, axis_name=None, dtype=F32, rngs=nnx.Rngs(0))  # noqa: E731
    graphdef, state = nnx.split(nnx.eval_shape(build))
    counted = flops.count(lambda state, x: nnx.merge(graphdef, state)(x, train=False), state, shape(1, 224, 224, 3))
    by_hand = 2 * 112**2 * 64 * 147
    for stage, (width, side) in enumerate(((64, 56), (128, 28), (256, 14), (512, 7))):
        inputs = 64 if stage == 0 else width // 2
        by_hand += 2 * side**2 * width * 9 * (inputs + 3 * width) + (2 * side**2 * width * inputs if stage else 0)
    assert counted == by_hand
    assert by_hand / 2 == pytest.approx(1.8e9, rel=0.02)
