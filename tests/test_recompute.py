"""Tests models/layers/recompute.py: with `remat`, numbers stay the same and inner results are computed again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.models.layers import recompute
from stattn_jax.models.layers.norm import make_norm
from stattn_jax.models.trunks import ast, cnn14, efficientnet_lite, resnet, vit


class Stack(nnx.Module):
    """Two residual blocks with batch normalisation."""

    remat = False

    def __init__(self):
        options = {'stride': 1, 'expansion': 1, 'norm': make_norm(None, jnp.float32), 'dtype': jnp.float32}
        self.blocks = nnx.List([resnet.Block(4, 4, **options, rngs=nnx.Rngs(i)) for i in range(2)])

    def __call__(self, x):
        for block in self.blocks:
            x = recompute.run_block(block, x, self.remat, train=True)
        return x


def compiled(remat, x):
    network = Stack()
    recompute.set_remat(network, remat)
    graphdef, params, rest = nnx.split(network, nnx.Param, ...)

    def total(params):
        merged = nnx.merge(graphdef, params, jax.tree.map(jnp.array, rest))
        return jnp.square(merged(x)).sum(), nnx.as_pure(nnx.state(merged, nnx.Not(nnx.Param)))

    made = jax.grad(total, has_aux=True)
    return jax.jit(made)(params), str(jax.make_jaxpr(made)(params))


def test_gradients_and_running_averages_stay_and_convolutions_run_twice():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6, 5, 4)), jnp.float32)
    (kept, text), (again, other_text) = compiled(False, x), compiled(True, x)
    for one, other in zip(jax.tree.leaves(kept), jax.tree.leaves(again), strict=True):
        assert np.ptp(one) > 0
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    # Each block's first convolution again, and the second one for the ReLU after it.
    assert other_text.count('conv_general_dilated') >= text.count('conv_general_dilated') + 2


@pytest.mark.parametrize(
    'trunk',
    [resnet.ResNet, cnn14.Cnn14, efficientnet_lite.EfficientNetLite, vit.ViT, ast.AST],
    ids=lambda x: x.__name__,
)
def test_every_trunk_with_blocks_has_the_attribute(trunk):
    assert trunk.remat is False
