"""Sparseness, complexity, sensitivity, infidelity and sign agreement: closed forms and loops."""

import math

import numpy as np
import pytest

from stattn_jax.metrics import maps


def loop_gini(values):
    """Half the mean absolute difference of all pairs, over the mean."""
    n = len(values)
    return sum(abs(abs(a) - abs(b)) for a in values for b in values) / (2 * n * n) / (sum(map(abs, values)) / n)


def test_gini_closed_forms_and_a_loop():
    assert maps.gini(np.full((3, 4), -2.0)) == pytest.approx(0, abs=1e-12)
    one = np.zeros((112, 112))
    one[5, 7] = 3
    assert maps.gini(one) == pytest.approx(1 - 1 / 12544, abs=1e-12)
    # Half of the cells share everything.
    assert maps.gini([0, 1, 0, 1]) == pytest.approx(0.5, abs=1e-12)
    values = np.random.default_rng(0).normal(size=30)
    values.flags.writeable = False
    assert maps.gini(values) == pytest.approx(loop_gini(values), abs=1e-12)
    assert maps.gini(-7 * values.reshape(2, 3, 5)) == pytest.approx(maps.gini(values), abs=1e-12)
    assert math.isnan(maps.gini(np.zeros(4)))


def test_entropy_closed_forms():
    assert maps.entropy(np.full((2, 5), -0.3)) == pytest.approx(1, abs=1e-12)
    assert maps.entropy(np.eye(4)[1]) == 0
    # k equal values among n: ln k / ln n.
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
    # The best factor, found by trying; terms in another unit are as good as the terms.
    tried = min(maps.infidelity(factor * wrong, removed, drop) for factor in np.linspace(-2, 2, 4001))
    assert maps.infidelity(wrong, removed, drop, scaled=True) == pytest.approx(tried, abs=1e-5)
    assert maps.infidelity(1000 * terms, removed, drop, scaled=True) == pytest.approx(0, abs=1e-9)
    assert maps.infidelity(0 * terms, removed, drop, scaled=True) == pytest.approx(np.mean(drop**2), abs=1e-12)


def test_sign_agreement_counts_units_that_say_and_do_something():
    map_ = np.array([2.0, -1.0, 3.0, 0.0, -4.0, 1.0])
    drop = np.array([0.5, -0.2, -0.1, 9.0, 0.3, 0.0])
    # Two of four: the fourth unit says nothing, the last does nothing.
    assert maps.sign_agreement(map_, drop) == 0.5
    assert maps.sign_agreement(map_, drop, least=0.15) == pytest.approx(2 / 3)
    assert maps.sign_agreement(drop.reshape(2, 3), drop.reshape(2, 3)) == 1
    # Weights say "for" everywhere.
    assert maps.sign_agreement(np.full(6, 0.2), drop) == 3 / 5
    assert math.isnan(maps.sign_agreement(map_, np.zeros(6)))
