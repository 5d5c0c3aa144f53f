"""Sparseness, complexity, sensitivity, infidelity, sign agreement and similarity of maps are tested.

References are closed forms, loops and scipy.
"""

import math

import numpy as np
import pytest
from scipy import stats

from stattn_jax.metrics import maps


def loop_gini(values):
    """Gini index of the absolute values: half the mean absolute difference of all pairs, divided by the mean."""
    n = len(values)
    return sum(abs(abs(a) - abs(b)) for a in values for b in values) / (2 * n * n) / (sum(map(abs, values)) / n)


def test_gini_closed_forms_and_a_loop():
    assert maps.gini(np.full((3, 4), -2.0)) == pytest.approx(0, abs=1e-12)
    one = np.zeros((112, 112))
    one[5, 7] = 3
    assert maps.gini(one) == pytest.approx(1 - 1 / 12544, abs=1e-12)
    # Half of the cells have equal shares of everything.
    assert maps.gini([0, 1, 0, 1]) == pytest.approx(0.5, abs=1e-12)
    values = np.random.default_rng(0).normal(size=30)
    values.flags.writeable = False
    assert maps.gini(values) == pytest.approx(loop_gini(values), abs=1e-12)
    assert maps.gini(-7 * values.reshape(2, 3, 5)) == pytest.approx(maps.gini(values), abs=1e-12)
    assert math.isnan(maps.gini(np.zeros(4)))


def test_entropy_closed_forms():
    assert maps.entropy(np.full((2, 5), -0.3)) == pytest.approx(1, abs=1e-12)
    assert maps.entropy(np.eye(4)[1]) == 0
    # For k equal values among n, the entropy is ln k / ln n.
    assert maps.entropy(np.array([1, -1, 0, 1, 0, 0, 0, 0])) == pytest.approx(math.log(3) / math.log(8), abs=1e-12)
    assert maps.entropy(np.array([3.0, 1.0])) == pytest.approx(
        -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)), abs=1e-12
    )
    for map_ in (np.zeros(4), np.ones(1)):
        assert math.isnan(maps.entropy(map_))


def test_max_sensitivity_is_the_farthest_of_the_disturbed_maps():
    map_ = np.array([[3.0, 0.0], [0.0, 4.0]])
    other = np.stack([map_, map_ + [[0, 1], [0, 0]], map_ + [[0, 0], [-2, 0]]])
    assert maps.max_sensitivity(map_, other) == pytest.approx(2 / 5, abs=1e-12)
    assert maps.max_sensitivity(10 * map_, 10 * other) == pytest.approx(2 / 5, abs=1e-12)
    assert maps.max_sensitivity(map_, other[:1]) == 0
    assert math.isnan(maps.max_sensitivity(0 * map_, other))


def test_infidelity_of_a_sum_is_zero_and_of_another_map_that_of_a_loop():
    rng = np.random.default_rng(1)
    terms, wrong = rng.normal(size=(2, 3, 4))
    removed = rng.random((50, 3, 4)) < 0.3
    drop = np.array([terms[row].sum() for row in removed])
    assert maps.infidelity(terms, removed, drop) == pytest.approx(0, abs=1e-12)
    want = np.mean([(wrong[row].sum() - fall) ** 2 for row, fall in zip(removed, drop)])
    assert maps.infidelity(wrong, removed, drop) == pytest.approx(want, abs=1e-12)
    # The best factor is found by search. Scaled terms score as well as the terms themselves.
    tried = min(maps.infidelity(factor * wrong, removed, drop) for factor in np.linspace(-2, 2, 4001))
    assert maps.infidelity(wrong, removed, drop, scaled=True) == pytest.approx(tried, abs=1e-5)
    assert maps.infidelity(1000 * terms, removed, drop, scaled=True) == pytest.approx(0, abs=1e-9)
    assert maps.infidelity(0 * terms, removed, drop, scaled=True) == pytest.approx(np.mean(drop**2), abs=1e-12)


def test_sign_agreement_counts_units_with_a_value_and_an_effect():
    map_ = np.array([2.0, -1.0, 3.0, 0.0, -4.0, 1.0])
    drop = np.array([0.5, -0.2, -0.1, 9.0, 0.3, 0.0])
    # Two of four agree: the fourth unit has no value in the map, and removing the last one has no effect.
    assert maps.sign_agreement(map_, drop) == 0.5
    assert maps.sign_agreement(map_, drop, least=0.15) == pytest.approx(2 / 3)
    assert maps.sign_agreement(drop.reshape(2, 3), drop.reshape(2, 3)) == 1
    # Attention weights are never negative, so they count as positive evidence everywhere.
    assert maps.sign_agreement(np.full(6, 0.2), drop) == 3 / 5
    assert math.isnan(maps.sign_agreement(map_, np.zeros(6)))


def test_rank_correlation_is_scipys_with_and_without_ties():
    rng = np.random.default_rng(2)
    for high in (3, 10**6):
        a, b = rng.integers(-high, high, (2, 4, 5))
        assert maps.rank_correlation(a, b) == pytest.approx(stats.spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-12)
        want = stats.spearmanr(np.abs(a).ravel(), np.abs(b).ravel()).statistic
        assert maps.rank_correlation(a, b, magnitude=True) == pytest.approx(want, abs=1e-12)
        assert maps.rank_correlation(a, a) == 1 and maps.rank_correlation(a, -a) == pytest.approx(-1, abs=1e-12)
        assert maps.rank_correlation(a, -a, magnitude=True) == 1
        assert maps.rank_correlation(a, np.exp(a / high)) == 1
    assert math.isnan(maps.rank_correlation(a, np.ones_like(a)))
    assert math.isnan(maps.rank_correlation(a, np.where(a == a.max(), np.nan, a)))


def loop_ssim(x, y, window):
    """SSIM by the formula of Wang et al. 2004, place by place, with uniform weights."""
    span = max(x.max(), y.max()) - min(x.min(), y.min())
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    rows, columns = min(window, x.shape[0]), min(window, x.shape[1])
    found = []
    for i in range(x.shape[0] - rows + 1):
        for j in range(x.shape[1] - columns + 1):
            a, b = (z[i : i + rows, j : j + columns].ravel() for z in (x, y))
            covariance = np.mean(a * b) - a.mean() * b.mean()
            level = (2 * a.mean() * b.mean() + c1) / (a.mean() ** 2 + b.mean() ** 2 + c1)
            found.append(level * (2 * covariance + c2) / (a.var() + b.var() + c2))
    return np.mean(found)


@pytest.mark.parametrize('shape, window', [((8, 8), 5), ((8, 8), 7), ((6, 9), 3), ((2, 2), 5), ((3, 8), 5)])
def test_ssim_is_that_of_a_loop(shape, window):
    x, y = np.random.default_rng(3).normal(0.5, 1, (2, 4, *shape))
    found = maps.ssim(x, y, window)
    np.testing.assert_allclose(found, [loop_ssim(a, b, window) for a, b in zip(x, y)], atol=1e-12)
    # Neither the scale, the order of the two maps, nor the other frames of the clip change the result.
    np.testing.assert_allclose(maps.ssim(7 * y, 7 * x, window), found, atol=1e-12)
    np.testing.assert_array_equal(maps.ssim(x[1], y[1], window), found[1])
    assert (maps.ssim(x, x, window) == 1).all() and (found < 0.9).all()


def test_ssim_of_two_flat_frames_is_that_of_their_levels():
    c1 = 0.01**2 * 4
    assert maps.ssim(np.full((8, 8), 1.0), np.full((8, 8), 3.0)) == pytest.approx((6 + c1) / (10 + c1), abs=1e-12)
    assert np.isnan(maps.ssim(np.ones((8, 8)), np.ones((8, 8))))
