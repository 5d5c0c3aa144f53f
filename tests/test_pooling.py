"""Tests masked softmax, mean and maximum against loops, and gradients where the mask leaves nothing."""

import jax
import numpy as np
import pytest
from toys import softmax

from stattn_jax.models import pooling

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 5, 3)).astype(np.float32)
AMONG = RNG.random((4, 5)) < 0.5
AMONG[0], AMONG[1] = False, True


def test_the_softmax_of_jax_is_zero_where_the_mask_leaves_nothing():
    # The models rely on this, and on its gradient below.
    found = np.asarray(jax.nn.softmax(X, axis=1, where=AMONG[..., None]))
    for b, d in np.ndindex(4, 3):
        expected = np.zeros(5)
        if AMONG[b].any():
            expected[AMONG[b]] = softmax(X[b, AMONG[b], d].astype(float))
        np.testing.assert_allclose(found[b, :, d], expected, rtol=1e-5, atol=1e-7)


def test_mean_among_is_the_mean_of_the_kept_rows():
    found = pooling.mean_among(X, AMONG, 1)
    expected = [x[kept].mean(0) if kept.any() else np.zeros(3) for x, kept in zip(X, AMONG)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    whole = X[AMONG].mean(0)
    np.testing.assert_allclose(pooling.mean_among(X, AMONG, (0, 1)), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_largest_is_the_maximum_and_its_gradient_goes_there_once(axis):
    x = np.concatenate([X, X], axis=axis)
    np.testing.assert_array_equal(pooling.largest(x, axis), x.max(axis))
    gradient = np.asarray(jax.grad(lambda x: pooling.largest(x, axis).sum())(x))
    np.testing.assert_array_equal(gradient.sum(axis), np.ones(x.max(axis).shape))
    assert set(np.unique(gradient)) == {0, 1} and (x[gradient == 1] >= x.max(axis).min()).all()


def test_gradients_are_finite_where_nothing_is_there():
    weighted = jax.grad(lambda x: (jax.nn.softmax(x, axis=1, where=AMONG[..., None]) * X).sum())(X)
    mean = jax.grad(lambda x: (pooling.mean_among(x, AMONG, 1) ** 2).sum())(X)
    for gradient in (weighted, mean):
        assert np.isfinite(gradient).all() and not np.asarray(gradient)[~AMONG].any()
        assert np.abs(np.asarray(gradient)[1]).min() > 0
