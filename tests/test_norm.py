"""models/layers/norm.py is tested, in both forms, against nnx.BatchNorm, on one device and over several.

Outputs, running averages and gradients are compared.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from stattn_jax.models.layers import FORMS, cpu, gpu, norm, tpu


def clips(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(2, 3, shape), jnp.float32)


def make(kind, width, form=None, **options):
    layer = kind(width, momentum=0.9, epsilon=1e-5, rngs=nnx.Rngs(0), **options)
    if form:
        layer.form = form
    layer.scale[...], layer.bias[...] = 1 + jnp.arange(width) / 4, jnp.arange(width) / 3
    return layer


def gradients(layer, x, weight):
    graphdef, params, rest = nnx.split(layer, nnx.Param, ...)

    def total(x, params):
        # The state is copied because Flax allows running averages to change only at the trace level that created them.
        copy = jax.tree.map(jnp.array, rest)
        return (nnx.merge(graphdef, params, copy)(x, use_running_average=False) * weight).sum()

    return jax.tree.leaves(jax.grad(total, argnums=(0, 1))(x, params))


@pytest.mark.parametrize('shape', [(5, 3), (2, 3, 7, 4), (4, 8, 6, 2)])
@pytest.mark.parametrize('form', FORMS)
def test_numbers_averages_and_gradients_are_those_of_flax(shape, form):
    ours = make(norm.BatchNorm, shape[-1], form)
    theirs = make(nnx.BatchNorm, shape[-1], use_fast_variance=False)
    x, weight = clips(*shape), clips(*shape, seed=1)
    for mine, other in zip(gradients(ours, x, weight), gradients(theirs, x, weight), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)
    for _ in range(2):
        ys = [layer(x, use_running_average=False) for layer in (ours, theirs)]
        np.testing.assert_allclose(*ys, rtol=1e-5, atol=1e-5)
    for mine, other in ((ours.mean, theirs.mean), (ours.var, theirs.var)):
        np.testing.assert_allclose(mine[...], other[...], rtol=1e-5)
    np.testing.assert_allclose(*(layer(x, use_running_average=True) for layer in (ours, theirs)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('mapped', ['shard_map', 'pmap'])
@pytest.mark.parametrize('form', [cpu, gpu, tpu])
def test_over_devices_it_is_one_batch(mapped, form):
    x, weight, scale, bias = clips(8, 5, 3), clips(8, 5, 3, seed=1), jnp.asarray([1.0, 2, 3]), jnp.asarray([0.0, 1, 2])

    def total(x, scale, bias, weight, axis):
        y, mean, var = form.normalise(x, scale, bias, 1e-5, axis)
        return (y * weight).sum(), (mean, var)

    def run(x, weight, axis=None):
        grads, statistics = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(x, scale, bias, weight, axis)
        # Each device has its share of the gradients of the parameters that all devices share.
        shares = jax.lax.psum(grads[1:], axis) if axis else grads[1:]
        return grads[0], (shares, statistics)

    if mapped == 'pmap':
        rows = (x.reshape(4, 2, 5, 3), weight.reshape(4, 2, 5, 3))
        on_x, shared = jax.pmap(lambda *rows: run(*rows, 'data'), axis_name='data', out_axes=(0, None))(*rows)
        on_x = on_x.reshape(x.shape)
    else:
        mesh, split = Mesh(np.array(jax.devices()[:4]), ('data',)), PartitionSpec('data')
        specs = {'in_specs': (split, split), 'out_specs': (split, PartitionSpec())}
        on_x, shared = jax.shard_map(lambda *rows: run(*rows, 'data'), mesh=mesh, check_vma=False, **specs)(x, weight)
    for mine, other in zip(jax.tree.leaves((on_x, shared)), jax.tree.leaves(run(x, weight)), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


def test_the_gradient_is_that_of_differences():
    x, weight = clips(4, 3, 2), clips(4, 3, 2, seed=1)
    scale, bias = jnp.asarray([1.5, -0.5]), jnp.asarray([0.0, 1.0])
    with jax.enable_x64(True):
        x, weight, scale, bias = (jnp.asarray(a, jnp.float64) for a in (x, weight, scale, bias))

        def fn(x):
            return (cpu.normalise(x, scale, bias, 1e-5, None)[0] * weight).sum()

        direction = jnp.asarray(np.random.default_rng(2).normal(size=x.shape))
        # The sums are in float32 whatever the type of x, so the step is large.
        slope = (fn(x + 1e-2 * direction) - fn(x - 1e-2 * direction)) / 2e-2
        np.testing.assert_allclose((jax.grad(fn)(x) * direction).sum(), slope, rtol=2e-3)


@pytest.mark.parametrize('form', FORMS)
def test_half_precision_keeps_statistics_in_float32(form):
    layer = make(norm.BatchNorm, 2, form, dtype=jnp.bfloat16)
    x = 100 + clips(4096, 2)
    y = layer(x, use_running_average=False)
    assert y.dtype == jnp.bfloat16 and layer.mean[...].dtype == layer.var[...].dtype == jnp.float32
    seen = np.asarray(x.astype(jnp.bfloat16), np.float64)
    np.testing.assert_allclose(layer.mean[...], 0.1 * seen.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.var[...], 0.9 + 0.1 * seen.var(0), rtol=1e-4)


@pytest.mark.parametrize('form', FORMS)
def test_batch_norm_keeps_small_deviations_of_large_means(form):
    model = norm.make_norm(None, np.float32)(1, rngs=nnx.Rngs(0))
    model.form = form
    x = 50 + 0.01 * np.random.default_rng(0).normal(size=(4096, 1)).astype(np.float32)
    y = np.asarray(model(x, use_running_average=False))
    np.testing.assert_allclose([y.mean(), y.std()], [0, (1 + 1e-5 / x.var()) ** -0.5], atol=2e-3)
    np.testing.assert_allclose([model.mean[0], model.var[0]], [0.1 * 50, 0.9 + 0.1 * x.var()], rtol=1e-4)
