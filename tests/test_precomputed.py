"""Tests the trunk for precomputed features.

A cell's output depends on that cell alone, wherever it lies, and the network on top still adds up.
"""

import numpy as np
import tiny
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax import models
from stattn_jax.models.trunks import precomputed

RNG = np.random.default_rng(0)
CELLS = RNG.gamma(1.0, 5.0, (3, 4, 4, 6)).astype(np.float32)


def make(build=precomputed.Precomputed, **options):
    return tiny.filled(lambda: build(6, 5, axis_name=None, dtype=np.float32, rngs=nnx.Rngs(0), **options))


def test_trunk_is_the_formula():
    trunk = make()
    norm, layer = trunk.norm, trunk.layer
    x = (CELLS - np.asarray(norm.mean[...])) / np.sqrt(np.asarray(norm.var[...]) + 1e-5)
    x = x * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])
    expected = np.maximum(x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...]), 0)
    np.testing.assert_allclose(trunk(CELLS, train=False), expected, rtol=1e-4, atol=1e-4)
    assert (expected == 0).any() and (expected > 0).any()


def test_training_standardises_each_feature_over_cells():
    trunk = make()
    trunk.norm.scale[...], trunk.norm.bias[...] = np.ones(6, np.float32), np.zeros(6, np.float32)
    scaled = trunk(CELLS * np.array([1, 10, 100, 1, 1, 1], np.float32), train=True)
    np.testing.assert_allclose(scaled, trunk(CELLS, train=True), rtol=1e-3, atol=1e-3)


def test_sound_is_the_mean_of_its_frames():
    trunk = make(precomputed.FeatureAudio)
    frames = CELLS[:, 0]
    expected = np.stack([trunk.net(frames[:, f], train=False) for f in range(4)]).mean(0)
    np.testing.assert_allclose(trunk(frames, train=False), expected, rtol=1e-5, atol=1e-6)


def test_moved_cells_move_the_attention_and_leave_the_logits():
    options = {'visual': 'precomputed', 'audio': 'precomputed', 'width': 16, 'hidden': 8}
    model = tiny.filled(lambda: models.build(3, channels=(6, 7), axis_name=None, rngs=nnx.Rngs(0), **options))
    frames = RNG.gamma(1.0, 5.0, (2, 3, 2, 4, 6)).astype(np.float32)
    sound = RNG.normal(size=(2, 3, 1, 7)).astype(np.float32)
    valid = np.ones((2, 3), bool)
    order = np.random.default_rng(1).permutation(8)
    moved = frames.reshape(2, 3, 8, 6)[:, :, order].reshape(frames.shape)
    (logits, out), (moved_logits, moved_out) = (model(x, sound, valid, train=False) for x in (frames, moved))
    np.testing.assert_allclose(moved_out['alpha'], np.asarray(out['alpha'])[..., order], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moved_logits, logits, rtol=1e-4, atol=1e-5)
    total = out['bias'] + np.einsum('bmtc,bmtc->bc', out['beta'], out['segment_scores'])
    np.testing.assert_allclose(logits, total, rtol=1e-5, atol=1e-5)
    assert model.grid(2, 4) == (2, 4)
