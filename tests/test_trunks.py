"""What stands before every network: shapes, the order of layers, and halves that are left out."""

import numpy as np
import pytest
import tiny
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.models import trunks, visual

RNG = np.random.default_rng(0)
FRAMES = RNG.random((2, 3, 16, 24, 3)).astype(np.float32)
LOG_MEL = RNG.normal(-2, 1, (2, 3, *tiny.MEL)).astype(np.float32)


@pytest.fixture(scope='module')
def model():
    return tiny.filled(lambda: trunks.Trunks(width=16, rngs=nnx.Rngs(0)))


def test_cells_are_those_of_each_frame_row_by_row(model):
    cells = np.asarray(model.cells(FRAMES, train=False))
    rows, columns = model.grid(16, 24)
    assert cells.shape == (2, 3, rows * columns, model.visual.width) and (rows, columns) == (2, 3)
    alone = np.asarray(model.visual(visual.normalise(FRAMES[1, 2:]), train=False))[0]
    np.testing.assert_allclose(cells[1, 2].reshape(rows, columns, -1), alone, rtol=1e-4, atol=1e-5)


def test_sound_is_that_of_each_segment_scaled_to_the_range_of_log_mel(model):
    sound = np.asarray(model.sound(LOG_MEL, train=False))
    alone = model.audio_out(model.audio((LOG_MEL[1, 2:] + 3) / 2, train=False))
    assert sound.shape == (2, 3, 16)
    np.testing.assert_allclose(sound[1, 2], alone[0], rtol=1e-4, atol=1e-5)


def test_features_are_not_scaled():
    options = {'visual': 'precomputed', 'audio': 'precomputed', 'channels': (3, tiny.MEL[1]), 'width': 16}
    model = tiny.filled(lambda: trunks.Trunks(**options, rngs=nnx.Rngs(0)))
    cells = np.asarray(model.cells(FRAMES, train=False)).reshape(*FRAMES.shape[:4], 16)
    np.testing.assert_allclose(cells, model.visual(FRAMES, train=False), rtol=1e-5, atol=1e-6)
    sound = model.audio_out(model.audio(LOG_MEL.reshape(6, *tiny.MEL), train=False)).reshape(2, 3, 16)
    np.testing.assert_allclose(model.sound(LOG_MEL, train=False), sound, rtol=1e-5, atol=1e-6)
