"""Tests augmentation against PIL, its bounds, and that it changes nothing when switched off."""

import itertools

import jax
import numpy as np
import PIL.Image
import pytest
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.training import augment
from stattn_jax.training.augment import Augment

B, T, SIZE = 4, 2, 24
RNG = np.random.default_rng(0)
FRAMES = RNG.random((B, T, SIZE, SIZE, 3)).astype(np.float32)
MEL = RNG.normal(size=(64, T, 20, 12)).astype(np.float32)
KEY = jax.random.key(3)

augment_frames = jax.jit(augment.augment_frames, static_argnums=(2, 3))
resize_frames = jax.jit(augment.resize_frames, static_argnums=1)
mel_with_others = jax.jit(augment.augment_mel, static_argnums=(2, 4))
NATURAL = (1.0, 0.01)
mix = jax.jit(augment.mix, static_argnums=3)
resample = jax.jit(augment._resample, static_argnums=(2, 3))


def augment_mel(key, log_mel, aug, mel_log=NATURAL):
    return mel_with_others(key, log_mel, aug, np.roll(log_mel, 1, axis=0), mel_log)


def pil(plane, size, box=None):
    """Resizes a float plane by PIL's anti-aliased bilinear filter; box is (x0, y0, x1, y1) in pixels."""
    image = PIL.Image.fromarray(plane)
    return np.asarray(image.resize((size, size), PIL.Image.Resampling.BILINEAR, box=box))


def test_all_off_changes_nothing():
    np.testing.assert_array_equal(augment_frames(KEY, FRAMES, SIZE, Augment()), FRAMES)
    np.testing.assert_array_equal(augment_mel(KEY, MEL, Augment()), MEL)
    np.testing.assert_array_equal(resize_frames(FRAMES, SIZE), FRAMES)


@pytest.mark.parametrize('size', [16, 7, 40])
def test_resizing_is_that_of_pil(size):
    resized = np.asarray(resize_frames(FRAMES, size))
    assert resized.shape == (B, T, size, size, 3)
    for b, channel in [(0, 0), (3, 2)]:
        np.testing.assert_allclose(resized[b, 1, :, :, channel], pil(FRAMES[b, 1, :, :, channel], size), atol=1e-5)
    np.testing.assert_allclose(augment_frames(KEY, FRAMES, size, Augment()), resized, atol=1e-5)
    np.testing.assert_allclose(resize_frames(np.ones_like(FRAMES), size), 1, atol=1e-6)


def test_flip_mirrors_whole_clips_at_its_rate():
    np.testing.assert_allclose(augment_frames(KEY, FRAMES, SIZE, Augment(flip=1.0)), FRAMES[:, :, :, ::-1], atol=1e-5)
    clips = np.tile(FRAMES[:1, :, :2, :2], (400, 1, 1, 1, 1))
    out = np.asarray(augment_frames(KEY, clips, 2, Augment(flip=0.3)))
    same, mirrored = (np.isclose(out, x, atol=1e-5).all((1, 2, 3, 4)) for x in (clips, clips[:, :, :, ::-1]))
    assert (same ^ mirrored).all()
    assert mirrored.mean() == pytest.approx(0.3, abs=0.1)


def line(values):
    """Returns the slope and the value at 0 of a ramp, fitted to the inner samples, which its borders do not bend."""
    inner = np.arange(3, len(values) - 3)
    return np.polyfit(inner, values[inner], 1)


def test_a_crop_is_one_box_and_one_flip_a_clip():
    clips, larger, smaller = 12, 32, 8
    frames = np.random.default_rng(1).random((clips, 2, SIZE, SIZE, 3)).astype(np.float32)
    ramp = np.arange(SIZE, dtype=np.float32)
    frames[:, 0, :, :, 0], frames[:, 0, :, :, 1] = ramp, ramp[:, None]
    out = {
        size: np.asarray(augment_frames(KEY, frames, size, Augment(crop=0.5, flip=0.5))) for size in (larger, smaller)
    }
    sides, flips = [], []
    for b in range(clips):
        # Enlarging interpolates a ramp exactly, so the box can be computed from the ramps in the first segment.
        slope_x, first_x = line(out[larger][b, 0, larger // 2, :, 0])
        slope_y, first_y = line(out[larger][b, 0, :, larger // 2, 1])
        assert abs(slope_x) == pytest.approx(slope_y, rel=1e-4)
        # Sample i lies at the box's start + (i + 0.5) * side / larger, minus the half pixel of the ramp.
        side, y0 = slope_y * larger, first_y - 0.5 * slope_y + 0.5
        x0 = (first_x if slope_x > 0 else first_x + (larger - 1) * slope_x) - 0.5 * slope_y + 0.5
        box = np.clip([x0, y0, x0 + side, y0 + side], 0, SIZE)
        np.testing.assert_allclose(box, [x0, y0, x0 + side, y0 + side], atol=1e-3)
        for size, channel in itertools.product((larger, smaller), range(3)):
            expected = pil(frames[b, 1, :, :, channel], size, box)[:, :: int(np.sign(slope_x))]
            np.testing.assert_allclose(out[size][b, 1, :, :, channel], expected, atol=1e-3)
        sides.append(side / SIZE)
        flips.append(slope_x < 0)
    assert 0.5 <= min(sides) < 0.7 and 0.8 < max(sides) <= 1
    assert 0 < sum(flips) < clips


def test_rows_of_the_crop_matrices_sum_to_one():
    low, scale = RNG.random((2, 50)).astype(np.float32)
    for target in (5, 60):
        matrices = resample(low * (1 - scale), scale, SIZE, target)
        np.testing.assert_allclose(matrices.sum(-1), 1, atol=1e-5)
        assert matrices.shape == (50, target, SIZE) and matrices.min() >= 0


def test_colour_is_a_gain_a_clip_and_a_shift_a_channel_within_bounds():
    clips = 64
    frames = np.full((clips, T, 2, 2, 3), 0.4, np.float32)
    frames[:, :, 1] = 0.6
    out = np.asarray(augment_frames(KEY, frames, 2, Augment(colour=0.3)))
    np.testing.assert_array_equal(out, np.broadcast_to(out[:, :1, :, :1], out.shape))
    dark, light = out[:, 0, 0, 0], out[:, 0, 1, 0]
    gain = (light - dark) / 0.2
    np.testing.assert_allclose(gain, np.broadcast_to(gain[:, :1], gain.shape), atol=1e-5)
    shift = dark - 0.4 * gain
    assert 0.7 - 1e-5 <= gain.min() < 0.75 and 1.25 < gain.max() <= 1.3 + 1e-5
    assert -0.1 - 1e-5 <= shift.min() < -0.08 and 0.08 < shift.max() <= 0.1 + 1e-5
    assert np.ptp(shift, axis=1).min() > 0
    extreme = augment_frames(KEY, np.round(frames), 2, Augment(colour=0.9))
    assert float(extreme.min()) == 0 and float(extreme.max()) == 1


def test_spec_augment_masks_one_stripe_of_bands_and_one_of_frames_a_segment():
    out = np.asarray(augment_mel(KEY, MEL, Augment(mel_bands=4, mel_frames=6)))
    masked = out != MEL
    fill = np.broadcast_to(MEL.mean((1, 2, 3), keepdims=True), MEL.shape)
    np.testing.assert_allclose(out[masked], fill[masked], rtol=1e-5, atol=1e-6)
    bands, frames = masked.all(2), masked.all(3)
    np.testing.assert_array_equal(masked, bands[:, :, None, :] | frames[:, :, :, None])
    for stripes, widest in ((bands, 4), (frames, 6)):
        widths = stripes.sum(-1)
        assert set(np.unique(widths)) == set(range(widest + 1))
        edges = np.diff(stripes.astype(int), axis=-1, prepend=0, append=0)
        assert (np.abs(edges).sum(-1) == 2 * (widths > 0)).all()
        assert stripes.any((0, 1)).all()
    assert (bands[:, 0] != bands[:, 1]).any()


def test_each_mask_alone():
    for options in ({'mel_bands': 4}, {'mel_frames': 6}):
        masked = np.asarray(augment_mel(KEY, MEL, Augment(**options))) != MEL
        across = masked.any(2, keepdims=True) if 'mel_bands' in options else masked.any(3, keepdims=True)
        np.testing.assert_array_equal(masked, np.broadcast_to(across, masked.shape))
        assert masked.any() and not masked.all((2, 3)).any()


def test_mixup_blends_all_arrays_of_a_clip_by_one_share():
    labels = np.eye(3, dtype=np.float32)[RNG.integers(0, 3, 64)]
    arrays = {'labels': labels, 'log_mel': MEL}
    others = {name: np.roll(x, 1, axis=0) for name, x in arrays.items()}
    out = jax.tree.map(np.asarray, mix(KEY, arrays, others, 0.5))
    direction = MEL - others['log_mel']
    share = (direction * (out['log_mel'] - others['log_mel'])).sum((1, 2, 3)) / (direction**2).sum((1, 2, 3))
    assert -1e-5 < share.min() < 0.1 and 0.9 < share.max() < 1 + 1e-5
    assert np.mean((share > 0.2) & (share < 0.8)) == pytest.approx(0.41, abs=0.2)
    for name, x in arrays.items():
        share_x = share.reshape(-1, *[1] * (x.ndim - 1))
        np.testing.assert_allclose(out[name], share_x * x + (1 - share_x) * others[name], atol=1e-4)
    np.testing.assert_allclose(out['labels'].sum(1), 1, atol=1e-5)


def test_a_shift_is_cyclic_and_one_for_all_bands_of_a_segment():
    out = np.asarray(augment_mel(KEY, MEL, Augment(mel_shift=3)))
    rolled = np.stack([np.roll(MEL, shift, axis=2) for shift in range(-3, 4)])
    same = (rolled == out).all((3, 4))
    np.testing.assert_array_equal(same.sum(0), 1)
    assert same.any((1, 2)).all() and (same[:, :, 0] != same[:, :, 1]).any()


@pytest.mark.parametrize('mel_log', [NATURAL, (10 / np.log(10), 1e-10)])
def test_loudness_and_background_change_the_energy(mel_log):
    scale, offset = mel_log
    energy = RNG.gamma(1.0, 2.0, MEL.shape)
    log_mel = (scale * np.log(energy + offset)).astype(np.float32)
    out = np.exp(np.asarray(augment_mel(KEY, log_mel, Augment(mel_gain=0.5), mel_log)) / scale) - offset
    gain = (out / energy).mean((1, 2, 3))
    np.testing.assert_allclose(out, energy * gain[:, None, None, None], rtol=1e-2, atol=1e-3)
    assert np.exp(-0.5) <= gain.min() < 0.65 and 1.5 < gain.max() <= np.exp(0.5)
    mixed = np.exp(np.asarray(augment_mel(KEY, log_mel, Augment(mel_background=0.4), mel_log)) / scale) - offset
    share = ((mixed - energy) / np.roll(energy, 1, axis=0)).mean((2, 3))
    np.testing.assert_allclose(mixed, energy + share[..., None, None] * np.roll(energy, 1, 0), rtol=1e-2, atol=1e-2)
    assert 0 <= share.min() < 0.05 and 0.35 < share.max() <= 0.4 and np.ptp(share, axis=1).min() > 0


def test_feature_dropout_takes_the_same_channels_from_all_cells_of_a_frame():
    cells = np.ones((8, T, 3, 3, 50), np.float32)
    out = np.asarray(jax.jit(augment.augment_features, static_argnums=2)(KEY, cells, Augment(feature_dropout=0.2)))
    assert set(np.unique(out)) == {0.0, np.float32(1.25)}
    np.testing.assert_array_equal(out, np.broadcast_to(out[:, :, :1, :1], out.shape))
    assert (out == 0).mean() == pytest.approx(0.2, abs=0.05) and (out[0, 0] != out[0, 1]).any()
    assert augment.augment_features(KEY, cells, Augment()) is cells
