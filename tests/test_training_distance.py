"""Tests of the distance from the training clips: against its closed form, and the rate at which clips exceed it."""

import numpy as np
import pytest

from stattn_jax.metrics import training_distance
from stattn_jax.metrics.training_distance import TrainingDistance

T, D = 5, 4
SCALES = np.array([1.0, 3.0, 0.1, 10.0])


def clips(n, seed=0, t=T):
    return np.random.default_rng(seed).normal(size=(n, t, D)) * SCALES + 7, np.ones((n, t), bool)


def test_the_distance_is_that_of_the_whitened_features():
    fitted = TrainingDistance.fit(*clips(4000), 0.01)
    away = np.full((2, T, D), 7.0)
    away[1, :, 1] += 2 * SCALES[1]
    # Shrinkage adds a thousandth of the mean variance to each direction.
    variances = SCALES**2 + training_distance.SHRINKAGE * np.mean(SCALES**2)
    expected = [0, 2 * SCALES[1] / np.sqrt(variances[1] * D)]
    np.testing.assert_allclose(fitted(away, np.ones((2, T), bool)), expected, atol=0.05)


def test_segments_without_data_count_in_no_way():
    features, valid = clips(200)
    valid[:, -1] = False
    spoiled = np.where(valid[..., None], features, 1e6)
    fitted, same = (TrainingDistance.fit(x, valid, 0.05) for x in (features, spoiled))
    assert fitted.threshold == same.threshold
    np.testing.assert_array_equal(fitted(features, valid), same(spoiled, valid))


@pytest.mark.parametrize('held_out, rate', [(200, 0.05), (20, 0.01)])
def test_new_clips_exceed_the_threshold_at_most_at_the_stated_rate(held_out, rate):
    """The share, averaged over many fits, is that of split conformal prediction; few clips allow no lower one."""
    shares = []
    for seed in range(60):
        fitted = TrainingDistance.fit(*clips(2 * held_out, seed, t=20), rate)
        shares.append(np.mean(fitted(*clips(300, 1000 + seed, t=20)) > fitted.threshold))
    stated = training_distance.exceeded(rate, held_out)
    assert stated == max(rate, 1 / (held_out + 1))
    assert 0.6 * stated < np.mean(shares) < 1.4 * stated


def test_a_constant_feature_is_no_obstacle():
    features, valid = clips(100)
    features[..., 2] = 0
    fitted = TrainingDistance.fit(features, valid, 0.05)
    assert np.isfinite(fitted(features, valid)).all()
    features[0, :, 2] = 1e3
    assert fitted(features[:1], valid[:1]) > fitted.threshold


def test_features_without_any_variance_are_saved_and_every_other_clip_is_far(tmp_path):
    features, valid = np.full((12, T, D), 2.0), np.ones((12, T), bool)
    path = tmp_path / 'training_distance.npz'
    training_distance.save(path, {'visual': features, 'audio': 0 * features, 'valid': valid}, 0.01, 5, 'p')
    found = training_distance.load(path, 5, 'p')
    for name, same in (('visual', features), ('audio', 0 * features)):
        assert found[name](same, valid).max() <= found[name].threshold < found[name](same + 1e-3, valid).min() < np.inf


def test_a_file_belongs_to_the_parameters_with_which_it_was_saved(tmp_path, capsys):
    features, valid = clips(401)
    rows = {'visual': features, 'audio': features[..., :2] - 3, 'valid': valid}
    path = tmp_path / 'distance.npz'
    assert training_distance.load(path, 5, 'p') == {}
    training_distance.save(path, rows, 0.01, 5, 'p')
    assert capsys.readouterr().err == ''
    assert training_distance.load(path, 5, 'q') == {}
    (notice,) = capsys.readouterr().err.splitlines()
    assert notice.startswith(f'notice: {path} belongs to other parameters (step 5)') and '--mode=eval' in notice
    found = training_distance.load(path, 5, 'p')
    assert (found['held_out'], found['rate']) == (201, pytest.approx(0.01))
    for name in ('visual', 'audio'):
        fitted = TrainingDistance.fit(rows[name], valid, 0.005)
        np.testing.assert_allclose(found[name](rows[name], valid), fitted(rows[name], valid), rtol=1e-4)
        assert found[name].threshold == pytest.approx(fitted.threshold, rel=1e-6)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r'distance.npz cannot be read .*; remove it, or evaluate the run again'):
        training_distance.load(path, 5, 'p')
    training_distance.save(path, {name: x[:40] for name, x in rows.items()}, 0.01, 5, 'p')
    assert training_distance.load(path, 5, 'p')['rate'] == pytest.approx(2 / 21)


def test_a_file_without_a_hash_counts_for_its_step(tmp_path, capsys):
    features, valid = clips(40)
    path = tmp_path / 'distance.npz'
    training_distance.save(path, {'visual': features, 'audio': features, 'valid': valid}, 0.01, 5, 'p')
    with open(path, 'rb') as file:
        arrays = dict(np.load(file))
    del arrays['parameters']
    np.savez(path, **arrays)
    assert training_distance.load(path, 5, 'q')['held_out'] == 20
    assert training_distance.load(path, 4, 'p') == {} and capsys.readouterr().err.count('notice: ') == 1
