"""Tests models/layers/__init__.py: the form of a network's layers, and that all forms compute the same network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.models import layers
from stattn_jax.models.trunks import resnet


def network():
    return resnet.ResNet('resnet18', inputs=3, axis_name=None, dtype=jnp.float32, rngs=nnx.Rngs(0))


def forms(model):
    return {module.form for _, module in nnx.iter_modules(model) if hasattr(module, 'form')}


def test_layers_take_the_form_of_the_platform():
    assert [layers.form_of_platform(name) for name in ('cpu', 'gpu', 'cuda', 'tpu', 'x')] == [
        'cpu',
        'gpu',
        'gpu',
        'tpu',
        'plain',
    ]
    model = nnx.eval_shape(network)
    assert jax.default_backend() == 'cpu' and forms(model) == {'cpu'}
    layers.set_form(model, 'plain')
    assert forms(model) == {'plain'}
    layers.set_form(model, 'auto')
    assert forms(model) == {'cpu'}


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="model.layers is 'fast'; expected one of auto, plain, cpu, gpu"):
        layers.set_form(nnx.eval_shape(network), 'fast')


def test_all_forms_compute_the_same_network():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 40, 33, 3)), jnp.float32)
    model = network()
    found = {}
    for form in layers.FORMS:
        layers.set_form(model, form)
        graphdef, state = nnx.split(model)
        found[form] = jax.jit(lambda x: nnx.merge(graphdef, state)(x, train=False))(x)  # noqa: B023
    assert np.ptp(found['plain']) > 0.1
    for form in layers.FORMS:
        np.testing.assert_allclose(found[form], found['plain'], rtol=1e-4, atol=1e-4)
