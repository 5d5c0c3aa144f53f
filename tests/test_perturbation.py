"""Tests perturbation curves against loops, closed forms of linear scores, and the exact expectation over ties."""

import itertools

import numpy as np
import pytest

from stattn_jax.metrics import aopc, perturbation


def frozen(array):
    """Returns the array made read-only, so that every test also shows that inputs are not changed."""
    array = np.asarray(array)
    array.flags.writeable = False
    return array


@pytest.fixture
def linear():
    """A map [3 2 4] of the terms of a sum, and a function that gives the sum's score of what is left."""
    terms = frozen(np.random.default_rng(0).normal(size=(3, 2, 4)))
    return terms, lambda removed: 0.3 + ((1 - removed) * terms).sum(axis=(1, 2, 3))


def test_order_is_stable_and_random_only_among_equal_values():
    map_ = frozen([[2, 0, 2], [5, 0, 2]])
    assert perturbation.order(map_).tolist() == [3, 0, 2, 5, 1, 4]
    assert perturbation.order(np.array([True, False, True])).tolist() == [0, 2, 1]
    # Sorts of few values are stable by accident.
    assert perturbation.order(np.tile([0, 1], 3000)).tolist() == [*range(1, 6000, 2), *range(0, 6000, 2)]
    drawn = [perturbation.order(map_, np.random.default_rng(i)) for i in range(200)]
    assert {row[0] for row in drawn} == {3} and {row[4] for row in drawn} == {1, 4}
    assert {tuple(row[1:4]) for row in drawn} == set(itertools.permutations((0, 2, 5)))
    with pytest.raises(ValueError, match='2 of 3 values of the map are not finite; give only the units there are'):
        perturbation.order([1, np.nan, -np.inf])


def test_counts_are_true_and_hold_both_ends():
    assert perturbation.counts(10).tolist() == [0, 0, 0, 0, 1, 2, 3, 5, 7, 10]
    assert perturbation.counts(490).tolist() == [0, 5, 10, 24, 49, 98, 147, 245, 343, 490]
    for fractions in ((0.1, 1), (0, 0.9), (0, 0.5, 0.2, 1)):
        with pytest.raises(ValueError, match='expected them to rise from 0 to 1, both included'):
            perturbation.counts(10, fractions)


def test_deletion_and_insertion_match_a_loop(linear):
    terms, score = linear
    ranked = sorted(np.ndindex(terms.shape), key=lambda i: -terms[i])
    found = perturbation.curves(terms, score, (0, 0.1, 0.3, 0.35, 0.8, 1))
    counts = [0, 2, 7, 8, 19, 24]
    assert found.fraction == pytest.approx(np.array(counts) / 24)
    assert found.deletion == pytest.approx([0.3 + sum(terms[i] for i in ranked[k:]) for k in counts], abs=1e-12)
    assert found.insertion == pytest.approx([0.3 + sum(terms[i] for i in ranked[:k]) for k in counts], abs=1e-12)
    area = sum((b - a) / 24 * (x + y) / 2 for a, b, x, y in zip(counts, counts[1:], found.deletion, found.deletion[1:]))
    assert found.summary()['deletion'] == pytest.approx(area, abs=1e-12)
    assert found.summary()['aopc_morf'] == pytest.approx(found.deletion[0] - area, abs=1e-12)


def test_a_sum_is_symmetric(linear):
    """The two curves of a sum mirror each other, since the removed and the remaining terms add up to one sum."""
    terms, score = linear
    fractions = np.arange(25) / 24
    one, other = perturbation.curves(terms, score, fractions), perturbation.curves(-terms, score, fractions)
    assert one.deletion + one.insertion == pytest.approx(np.full(25, 0.6 + terms.sum()), abs=1e-12)
    # Removing weakest first has the order of the negated map, and is insertion run backwards.
    assert other.deletion == pytest.approx(one.insertion[::-1], abs=1e-12)
    a, b = one.summary(), other.summary()
    assert a['difference'] == pytest.approx(-b['difference'], abs=1e-12) and a['difference'] > 0
    assert a['aopc_lerf'] == pytest.approx(b['aopc_morf'], abs=1e-12)
    assert a['difference'] == pytest.approx(a['aopc_morf'] - a['aopc_lerf'], abs=1e-12)
    # For a sum, no order of the units scores better than the order of its terms.
    for i in range(1, 51):
        random = perturbation.curves(np.random.default_rng(i).normal(size=terms.shape), score, fractions).summary()
        assert a['deletion'] < random['deletion'] and a['insertion'] > random['insertion']


@pytest.mark.parametrize('units', [7, 10, 24])
def test_the_axis_is_true_where_steps_are_uneven(units):
    """With equal terms the curve is a straight line; the area under it is 1/2 for any division of the axis."""
    found = perturbation.curves(np.arange(units), lambda removed: 1 - removed.mean(axis=1), (0, 0.3, 0.31, 0.9, 1))
    assert found.summary()['deletion'] == pytest.approx(0.5, abs=1e-12)
    assert found.deletion == pytest.approx(1 - found.fraction, abs=1e-12)


def test_ties_are_in_expectation_the_mean_over_their_orders():
    """With order-dependent scores and two ties in the map, sampled orders approach the exact mean over orders."""
    scores = np.random.default_rng(1).normal(size=64)
    map_ = frozen([1, 3, 1, 3, 1, 2])

    def score(removed):
        return scores[(~removed) @ (1 << np.arange(6))]

    exact = aopc.curve(scores, map_)
    sixths = np.arange(7) / 6
    found = perturbation.curves(map_, score, sixths, draws=4000)
    assert found.deletion == pytest.approx(exact, abs=0.08)
    assert found.insertion[::-1] == pytest.approx(aopc.curve(scores, -map_), abs=0.08)
    first, row_order = perturbation.removals(map_, sixths, draws=4000), perturbation.order(map_)
    assert first.shape == (4000, 7, 6) and first[:, 1].mean(axis=0)[[1, 3]] == pytest.approx(0.5, abs=0.05)
    assert row_order.tolist() == [1, 3, 5, 0, 2, 4]
    again = perturbation.curves(map_, score, sixths, draws=4000)
    assert np.array_equal(again.deletion, found.deletion)
    assert perturbation.removals(np.arange(6), sixths).shape == (1, 7, 6)


def test_neither_the_batch_nor_other_scores_beside_it_change_a_curve(linear):
    terms, score = linear

    def chunked(removed):
        return np.concatenate([score(removed[i : i + 7]) for i in range(0, len(removed), 7)])

    def both(removed):
        logit = score(removed)
        return np.stack([logit, 1 / (1 + np.exp(-logit))], axis=1)

    map_ = frozen(np.round(terms))
    one = perturbation.curves(map_, score)
    assert np.array_equal(perturbation.curves(map_, chunked).deletion, one.deletion)
    two = perturbation.curves(map_, both)
    assert two.deletion.shape == (10, 2) and np.array_equal(two.deletion[:, 0], one.deletion)
    assert two.summary()['difference'][0] == one.summary()['difference']
    assert two.summary()['insertion'].shape == (2,)


def test_normalised_runs_between_the_empty_and_the_whole_clip(linear):
    terms, score = linear
    found = perturbation.curves(terms, score)
    scaled = perturbation.curves(terms, lambda removed: 5 - 3 * score(removed)).normalised()
    assert found.normalised().deletion == pytest.approx(scaled.deletion, abs=1e-12)
    assert (scaled.deletion[0], scaled.deletion[-1], scaled.insertion[0], scaled.insertion[-1]) == (1, 0, 0, 1)
    flat = perturbation.curves(terms, lambda removed: removed.any(axis=(1, 2, 3)) * ~removed.all(axis=(1, 2, 3)) * 1.0)
    assert flat.deletion.max() == 1 and np.isnan(flat.normalised().deletion).all()


def test_the_surface_of_two_independent_modalities_is_their_curves():
    rng = np.random.default_rng(2)
    picture, sound = frozen(rng.normal(size=(4, 3, 2))), frozen(rng.normal(size=5))

    def score(no_picture, no_sound):
        return ((1 - no_picture) * picture).sum(axis=(1, 2, 3)) + ((1 - no_sound) * sound**2).sum(axis=1)

    found = perturbation.surface(picture, sound, score)
    seen = perturbation.curves(picture, lambda removed: ((1 - removed) * picture).sum(axis=(1, 2, 3)))
    heard = perturbation.curves(sound, lambda removed: ((1 - removed) * sound**2).sum(axis=1))
    assert found.scores == pytest.approx(seen.deletion[:, None] + heard.deletion, abs=1e-12)
    assert found.volume() == pytest.approx(seen.summary()['deletion'] + heard.summary()['deletion'], abs=1e-12)
    assert np.array_equal(found.visual_fraction, seen.fraction)
    assert found.audio_fraction.tolist() == [0, 0, 0, 0, 0, 0.2, 0.4, 0.4, 0.8, 1]
    product = perturbation.surface(
        picture, sound, lambda v, a: (1 - v.mean(axis=(1, 2, 3))) * (1 - a.mean(axis=1)), (0, 0.25, 1)
    )
    assert product.volume() == pytest.approx(0.25, abs=1e-12)
    assert product.scores[:, 0] == pytest.approx(1 - product.visual_fraction)


def test_ties_of_the_two_modalities_are_drawn_apart():
    """One tied pair per modality: with one of each pair removed, the four combinations are equally frequent."""
    fractions, tied = (0, 0.5, 1), np.zeros(2)
    seen = []

    def score(no_picture, no_sound):
        seen.append((no_picture, no_sound))
        return np.zeros(len(no_sound))

    perturbation.surface(tied, tied, score, fractions, draws=2000)
    (no_picture, no_sound), *_ = seen
    half = (no_picture.sum(axis=1) == 1) & (no_sound.sum(axis=1) == 1)
    pairs = 2 * no_picture[half, 0] + no_sound[half, 0]
    assert np.bincount(pairs) / 2000 == pytest.approx(np.full(4, 0.25), abs=0.03)


def test_shifts_keep_the_shape_and_move_the_place():
    map_ = frozen(np.arange(24.0).reshape(2, 3, 4))
    rolled = perturbation.shifted(map_)
    assert rolled.shape == (20, 2, 3, 4) and len({row.tobytes() for row in rolled} - {map_.tobytes()}) == 20
    for row in rolled:
        t, y, x = (int(i) for i in np.argwhere(row == 0)[0])
        assert np.array_equal(np.roll(map_, (t, y, x), (0, 1, 2)), row)
    every = perturbation.shifted(np.arange(10))
    assert sorted(row[0] for row in every) == [*range(1, 10)]
    with pytest.raises(ValueError, match='a map of shape .1,. has no other place'):
        perturbation.shifted(np.zeros(1))
