"""Tests the encoders that precede every network: shapes, the order of layers, and halves that are omitted."""

import numpy as np
import pytest
import tiny
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.models import encoders
from stattn_jax.models.trunks.trunk import RGB_MEAN, RGB_STD

RNG = np.random.default_rng(0)
FRAMES = RNG.random((2, 3, 16, 24, 3)).astype(np.float32)
LOG_MEL = RNG.normal(-2, 1, (2, 3, *tiny.MEL)).astype(np.float32)


@pytest.fixture(scope='module')
def model():
    return tiny.filled(lambda: encoders.Encoders(width=16, rngs=nnx.Rngs(0)))


def test_cells_are_those_of_each_frame_row_by_row(model):
    cells = np.asarray(model.cells(FRAMES, train=False))
    rows, columns = model.grid(16, 24)
    assert cells.shape == (2, 3, rows * columns, model.visual.width) and (rows, columns) == (2, 3)
    alone = np.asarray(model.visual((FRAMES[1, 2:] - RGB_MEAN) / RGB_STD, train=False))[0]
    np.testing.assert_allclose(cells[1, 2].reshape(rows, columns, -1), alone, rtol=1e-4, atol=1e-5)


def test_sound_is_that_of_each_segment_scaled_to_the_range_of_log_mel(model):
    sound = np.asarray(model.sound(LOG_MEL, train=False))
    alone = model.audio_out(model.audio((LOG_MEL[1, 2:] + 3) / 2, train=False))
    assert sound.shape == (2, 3, 16)
    np.testing.assert_allclose(sound[1, 2], alone[0], rtol=1e-4, atol=1e-5)


def test_features_are_not_scaled():
    options = {'visual': 'precomputed', 'audio': 'precomputed', 'channels': (3, tiny.MEL[1]), 'width': 16}
    model = tiny.filled(lambda: encoders.Encoders(**options, rngs=nnx.Rngs(0)))
    cells = np.asarray(model.cells(FRAMES, train=False)).reshape(*FRAMES.shape[:4], 16)
    np.testing.assert_allclose(cells, model.visual(FRAMES, train=False), rtol=1e-5, atol=1e-6)
    sound = model.audio_out(model.audio(LOG_MEL.reshape(6, *tiny.MEL), train=False)).reshape(2, 3, 16)
    np.testing.assert_allclose(model.sound(LOG_MEL, train=False), sound, rtol=1e-5, atol=1e-6)


def test_a_frozen_trunk_has_no_parameters_of_its_own_to_train():
    options = {'visual_frozen': True, 'audio_frozen': True, 'width': 16}
    model = tiny.filled(lambda: encoders.Encoders(**options, rngs=nnx.Rngs(0)))
    trained = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert set(trained) == {'visual_layer', 'audio_layer', 'value', 'audio_out'}
    before = np.asarray(model.visual.bns[0].mean[...])
    model.cells(FRAMES, train=True)
    np.testing.assert_array_equal(model.visual.bns[0].mean[...], before)


def test_the_saved_output_of_a_frozen_trunk_replaces_its_input():
    options = {'visual_frozen': True, 'audio_frozen': True, 'width': 16}
    model = tiny.filled(lambda: encoders.Encoders(**options, rngs=nnx.Rngs(0)))
    behind = tiny.filled(lambda: encoders.Encoders(**options, extracted=(True, True), rngs=nnx.Rngs(0)))
    seen = model.visual_features(FRAMES.reshape(6, 16, 24, 3), train=False).reshape(2, 3, 2, 3, -1)
    heard = model.audio_features(LOG_MEL.reshape(6, *tiny.MEL), train=False).reshape(2, 3, 1, -1)
    np.testing.assert_allclose(behind.cells(seen, train=False), model.cells(FRAMES, train=False), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        behind.sound(heard, train=False), model.sound(LOG_MEL, train=False), rtol=1e-5, atol=1e-6
    )
    assert behind.grid(2, 3) == model.grid(16, 24) == (2, 3)
