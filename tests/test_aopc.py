"""Tests exact AOPC against all orders of few units, masked softmax pooling, and games with a known best order."""

import itertools

import numpy as np
import pytest

from stattn_jax.metrics import aopc


def number(kept):
    return sum(1 << u for u in kept)


def order_aopc(scores, order):
    """Removes one unit after the other and returns the mean decrease of the score."""
    left = set(range(len(order)))
    path = [scores[-1]]
    for unit in order:
        left.remove(unit)
        path.append(scores[number(left)])
    return scores[-1] - np.mean(path)


def make_game(seed, units):
    scores = np.random.default_rng(seed).normal(size=2**units)
    scores.flags.writeable = False
    return scores


def test_subsets_are_numbered_by_their_bits():
    kept = aopc.subsets(4)
    assert [number(np.flatnonzero(row)) for row in kept] == [*range(16)]
    assert kept[5].tolist() == [True, False, True, False]
    for call in (lambda: aopc.subsets(21), lambda: aopc.pooled_scores(np.ones(21), np.ones(21))):
        with pytest.raises(ValueError, match='21 units have 2.21 subsets; expected at most 20'):
            call()


@pytest.mark.parametrize('units', [1, 5, 8])
def test_pooled_scores_are_the_softmax_over_kept_units(units):
    rng = np.random.default_rng(units)
    logits, scores = rng.normal(size=units) * 3, rng.normal(size=units)
    weight = np.exp(logits) / np.exp(logits).sum()
    found = aopc.pooled_scores(weight, weight * scores, bias=0.4)
    assert found[0] == 0.4
    for kept, got in zip(aopc.subsets(units)[1:], found[1:]):
        masked = np.exp(np.where(kept, logits, -np.inf))
        assert got == pytest.approx(0.4 + (masked / masked.sum()) @ scores, abs=1e-12)


def test_a_unit_may_be_a_segments_picture_and_sound():
    """Two modalities share one softmax; their sums over a segment are the values of the segment as one unit."""
    rng = np.random.default_rng(3)
    beta_mt = rng.dirichlet(np.ones(8)).reshape(2, 4)
    scores_mt = rng.normal(size=(2, 4))
    both = aopc.pooled_scores(beta_mt.ravel(), (beta_mt * scores_mt).ravel())
    joined = aopc.pooled_scores(beta_mt.sum(axis=0), (beta_mt * scores_mt).sum(axis=0))
    for kept in range(16):
        assert joined[kept] == pytest.approx(both[kept + 16 * kept], abs=1e-12)


def test_units_of_weight_zero_leave_the_score_unchanged():
    found = aopc.pooled_scores(np.array([1.0, 0.0]), np.array([2.0, 0.0]), bias=0.5)
    assert found.tolist() == [0.5, 2.5, 0.5, 2.5]


@pytest.mark.parametrize('units', [1, 2, 4, 6])
def test_bounds_are_those_of_every_order(units):
    scores = make_game(units, units)
    every = [order_aopc(scores, order) for order in itertools.permutations(range(units))]
    assert aopc.bounds(scores) == pytest.approx((min(every), max(every)), abs=1e-12)
    maps = np.random.default_rng(0).normal(size=(30, units))
    found = aopc.normalised(scores, maps)
    if units > 1:
        want = [(order_aopc(scores, np.argsort(-map_)) - min(every)) / (max(every) - min(every)) for map_ in maps]
        assert found == pytest.approx(want, abs=1e-12)
        assert aopc.chance(scores) == pytest.approx(
            (np.mean(every) - min(every)) / (max(every) - min(every)), abs=1e-12
        )
    else:
        assert np.isnan(found).all() and np.isnan(aopc.chance(scores))


@pytest.mark.parametrize('map_', [[1, 1, 1, 1, 1], [2, 1, 2, 1, 0], [0, 0, 3, 0, -1], [5, 4, 3, 2, 1]])
def test_ties_are_the_mean_over_the_orders_they_leave_open(map_):
    scores = make_game(7, 5)
    orders = [o for o in itertools.permutations(range(5)) if all(map_[a] >= map_[b] for a, b in zip(o, o[1:]))]
    assert aopc.aopc(scores, map_) == pytest.approx(np.mean([order_aopc(scores, o) for o in orders]), abs=1e-12)
    found = aopc.curve(scores, map_)
    for k in range(6):
        assert found[k] == pytest.approx(np.mean([scores[number(o[k:])] for o in orders]), abs=1e-12)


def test_the_best_order_of_a_sum_is_that_of_its_terms():
    terms = np.random.default_rng(4).normal(size=9)
    scores = aopc.subsets(9) @ terms
    maps = np.stack([terms, -terms, np.exp(terms), np.zeros(9)])
    assert aopc.normalised(scores, maps) == pytest.approx([1, 0, 1, 0.5], abs=1e-12)


def test_nothing_of_scale_and_zero_point_is_left():
    rng = np.random.default_rng(5)
    scores, maps = make_game(6, 6), rng.normal(size=(5, 6))
    assert aopc.normalised(7 * scores - 3, maps) == pytest.approx(aopc.normalised(scores, maps), abs=1e-12)
    # With the sign reversed, the worst order is the best one.
    assert aopc.normalised(-scores, maps) == pytest.approx(1 - aopc.normalised(scores, maps), abs=1e-12)
    assert np.isnan(aopc.normalised(np.full(64, 0.3), maps)).all()


def test_twenty_segments():
    rng = np.random.default_rng(6)
    weight, score = rng.dirichlet(np.ones(20)), rng.normal(size=20)
    scores = aopc.pooled_scores(weight, weight * score)
    worst, best = aopc.bounds(scores)
    found = [order_aopc(scores, rng.permutation(20)) for _ in range(300)]
    assert worst < min(found) < max(found) < best
    by_score, by_weight, blind = aopc.normalised(scores, [score, weight, np.zeros(20)])
    assert blind == pytest.approx(aopc.chance(scores), abs=1e-12)
    # The mean of 300 random orders agrees to three standard errors.
    width = 3 * np.std(found) / np.sqrt(300) / (best - worst)
    assert (np.mean(found) - worst) / (best - worst) == pytest.approx(blind, abs=width)
    assert by_score > 0.8 > by_weight


@pytest.mark.parametrize('map_', [np.zeros(4), np.zeros((1, 5)), np.array([0, 1, np.nan, 2, 3])])
def test_maps_of_other_units_are_refused(map_):
    with pytest.raises(ValueError, match='32 scores and a map of shape .*expected a finite value for each of u units'):
        aopc.curve(np.zeros(32), map_)
