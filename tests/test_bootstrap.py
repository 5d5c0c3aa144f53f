"""Tests bootstrap intervals against all resamples of few clips, against SciPy and against closed forms."""

import itertools

import numpy as np
import pytest
import scipy.stats

from stattn_jax.metrics import bootstrap


def test_the_interval_of_few_clips_is_that_of_all_resamples():
    values = np.array([0.1, 0.9, 0.35, 0.6])
    every = [np.mean(row) for row in itertools.product(values, repeat=4)]
    found = bootstrap.mean(values, draws=100_000)
    assert found.value == pytest.approx(values.mean()) and (found.n, found.skipped) == (4, 0)
    assert (found.low, found.high) == pytest.approx(np.quantile(every, [0.025, 0.975]), abs=0.01)
    narrow = bootstrap.mean(values, draws=100_000, level=0.5)
    assert (narrow.low, narrow.high) == pytest.approx(np.quantile(every, [0.25, 0.75]), abs=0.01)


def test_a_paired_difference_matches_scipy():
    rng = np.random.default_rng(0)
    ours, theirs = rng.random((2, 80))
    theirs = 0.8 * ours + 0.2 * theirs
    found = bootstrap.difference(ours, theirs, draws=20_000)
    want = scipy.stats.bootstrap(
        (ours, theirs), lambda a, b, axis: (a - b).mean(axis=axis), paired=True, method='percentile',
         n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == pytest.approx((want.low, want.high), abs=2e-3)
    assert found.value == pytest.approx((ours - theirs).mean())


def test_pairs_are_drawn_together():
    """A difference that is the same in every clip has an interval of width zero, however much the clips differ."""
    clips = np.random.default_rng(1).normal(size=50) * 10
    found = bootstrap.difference(clips + 0.25, clips)
    assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25), abs=1e-12)
    alone = bootstrap.mean(clips)
    assert alone.high - alone.low > 3
    swapped = bootstrap.difference(clips, clips**2)
    back = bootstrap.difference(clips**2, clips)
    assert (swapped.low, swapped.high) == pytest.approx((-back.high, -back.low), abs=1e-12)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(2)
    held = []
    for i in range(300):
        found = bootstrap.mean(rng.normal(size=100), draws=500, level=0.8, seed=i)
        held.append(found.low <= 0 <= found.high)
    assert 0.72 < np.mean(held) < 0.87


def test_seeds_of_training_are_drawn_too():
    """Verifies the interval of three trainings that score 0, 1 and 2 in every clip.

    Of the 27 samples of three trainings, one has the mean 0 and one the mean 2.
    """
    trainings = np.repeat([[0.0], [1.0], [2.0]], 20, axis=1)
    found = bootstrap.mean(trainings, draws=20_000)
    assert (found.value, found.low, found.high, found.n) == (1, 0, 2, 20)
    every = [np.mean(row) for row in itertools.product((0, 1, 2), repeat=3)]
    narrow = bootstrap.mean(trainings, draws=20_000, level=0.8)
    assert (narrow.low, narrow.high) == pytest.approx(np.quantile(every, [0.1, 0.9]))
    # Against two trainings of another model, each of the 27 samples is paired with each of their four.
    gaps = [a - np.mean(b) for a in every for b in itertools.product((5, 7), repeat=2)]
    apart = bootstrap.difference(trainings, np.repeat([[5.0], [7.0]], 20, axis=1), draws=20_000)
    assert (apart.value, apart.low, apart.high) == pytest.approx((-5, *np.quantile(gaps, [0.025, 0.975])))


def test_one_training_is_not_changed_by_the_drawing_of_seeds():
    values = np.random.default_rng(3).random(30)
    assert bootstrap.mean(values) == bootstrap.mean(values[None])
    assert bootstrap.mean(np.stack([values] * 3)) == pytest.approx(bootstrap.mean(values), abs=1e-12)


def test_clips_without_a_value_are_left_out_on_both_sides_and_counted():
    rng = np.random.default_rng(4)
    ours, theirs = rng.random((3, 12)), rng.random((1, 12))
    ours[1, 2] = theirs[0, 7] = np.nan
    kept = np.delete(np.arange(12), [2, 7])
    found = bootstrap.difference(ours, theirs)
    assert (found.n, found.skipped) == (10, 2)
    assert found[:3] == bootstrap.difference(ours[:, kept], theirs[:, kept])[:3]
    none = bootstrap.mean(np.full(3, np.nan))
    assert np.isnan(none[:3]).all() and none[3:] == (0, 3)
    with pytest.raises(ValueError, match='12 clips against 11; expected the same clips on both sides'):
        bootstrap.difference(ours, theirs[:, :11])


def test_any_statistic_is_of_the_same_draws():
    values = np.random.default_rng(5).random(40)
    assert bootstrap.statistic(lambda clips: values[clips].mean(), 40) == bootstrap.mean(values)
    other = bootstrap.statistic(lambda clips: values[clips].mean(), 40, seed=1)
    assert other.value == bootstrap.mean(values).value and other.low != bootstrap.mean(values).low
    found = bootstrap.statistic(lambda clips: np.median(values[clips]), 40, draws=5000)
    want = scipy.stats.bootstrap(
        (values,), np.median, method='percentile', n_resamples=5000, rng=np.random.default_rng(0)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((want.low, want.high), abs=0.03)


def test_draws_without_a_number_are_left_out():
    positive = np.array([True, False, False])
    found = bootstrap.statistic(lambda clips: 1.0 if positive[clips].any() else float('nan'), 3)
    assert found[:3] == (1, 1, 1)
    nothing = bootstrap.statistic(lambda clips: float('nan'), 3)
    assert np.isnan(nothing[:3]).all()
