"""Tests removal at the input: audio against waveforms edited by hand, visual against loops and toy cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.attribution import ClipArrays, removal
from stattn_jax.data.mel import MEL_PRESETS, log_mel

MEL = MEL_PRESETS['vggish']
RATE, SEGMENTS = MEL.rate, 4
T, H, W, GRID = 5, 16, 24, (2, 3)


@pytest.fixture(scope='module')
def waveform():
    """Four seconds of loud tones over noise; the third second has no tone and quieter noise."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.02, SEGMENTS * RATE)
    tone = 0.3 * np.sin(2 * np.pi * 700 * np.arange(SEGMENTS * RATE) / RATE)
    noise[2 * RATE : 3 * RATE] *= 0.25
    tone[2 * RATE : 3 * RATE] = 0
    wave = (noise + tone).astype(np.float32)
    wave.flags.writeable = False
    return wave


@pytest.fixture(scope='module')
def absent(waveform):
    mean = np.random.default_rng(1).normal(size=(96, 64)).astype(np.float32)
    return removal.sound_absent(waveform, MEL, SEGMENTS, 1.0, mean, seed=3) | {'patch': mean}


def mel_of(waveform):
    return log_mel(waveform, MEL, SEGMENTS, 1.0)


def test_shapes_and_the_mean_patch(absent):
    for name in ('mute', 'noise', 'mean'):
        assert absent[name].shape == (SEGMENTS, 96, 64) and absent[name].dtype == np.float32
    np.testing.assert_array_equal(absent['mean'], np.broadcast_to(absent['patch'], (SEGMENTS, 96, 64)))


@pytest.mark.parametrize('segment', range(SEGMENTS))
def test_muting_one_segment_alone_gives_its_patch_and_no_other(waveform, absent, segment):
    muted = waveform.astype(float)
    first, last = segment * RATE, (segment + 1) * RATE - 1
    for i in range(first, last + 1):
        inside = min(i - first, last - i) + 0.5
        muted[i] *= (1 + np.cos(np.pi * inside / (0.015 * RATE))) / 2 if inside < 0.015 * RATE else 0
    expected = mel_of(waveform)
    assert np.abs(expected[segment] - absent['mute'][segment]).max() > 1
    expected[segment] = absent['mute'][segment]
    np.testing.assert_allclose(mel_of(muted), expected, atol=1e-5)
    # After the fade, which two windows overlap, there is silence.
    np.testing.assert_allclose(absent['mute'][:, 2:], np.log(0.01), atol=1e-5)


def test_a_fade_does_not_click(waveform, absent):
    """A hard cut of the tone would be audible at frequencies where the tone has no energy."""
    hard = waveform.copy()
    hard[RATE:] = 0
    click = np.pad(hard, (200, 0))[: SEGMENTS * RATE]  # the cut lies in the middle of the second segment's first window
    assert absent['mute'][1, 0, 50:].max() < mel_of(click)[1, 0, 50:].max() - 0.2


def test_the_quiet_spectrum_is_that_of_the_quietest_tenth(waveform):
    """The quiet spectrum equals that of SciPy, whose density per Hz is ours divided by the rate.

    White noise of variance 1 has 1 everywhere.
    """
    options = {'nperseg': MEL.window, 'noverlap': MEL.window - MEL.hop, 'nfft': MEL.fft, 'boundary': None}
    stft = scipy.signal.stft(waveform, RATE, 'hann', padded=False, scaling='psd', **options)[2]
    power = RATE * np.abs(stft.T) ** 2
    tenth = np.argsort(power.sum(1))[: round(0.1 * len(power))]
    np.testing.assert_allclose(removal.quiet_spectrum(waveform, MEL), power[tenth].mean(0), rtol=1e-3)
    flat = removal.quiet_spectrum(np.random.default_rng(0).normal(size=20 * RATE), MEL)
    assert flat.mean() == pytest.approx(0.85, abs=0.05) and flat[5:-5].std() < 0.1


def test_noise_is_as_loud_as_the_quietest_second(waveform, absent):
    """The noise has the level of white noise of 0.005 in every band and segment, far below the tones."""
    quiet = removal.quiet_spectrum(waveform, MEL)
    assert quiet.mean() == pytest.approx(0.005**2, rel=0.15)
    white = mel_of(np.random.default_rng(9).normal(0, np.sqrt(quiet.mean()), SEGMENTS * RATE))
    np.testing.assert_allclose(absent['noise'].mean((0, 1)), white.mean((0, 1)), atol=0.12)
    np.testing.assert_allclose(absent['noise'].mean((1, 2)), white.mean(), atol=0.03)
    other = removal.sound_absent(waveform, MEL, SEGMENTS, 1.0, absent['patch'], seed=4)['noise']
    same = removal.sound_absent(waveform, MEL, SEGMENTS, 1.0, absent['patch'], seed=3)['noise']
    assert np.abs(other - absent['noise']).max() > 0.1
    np.testing.assert_array_equal(same, absent['noise'])


def test_noise_has_the_colour_of_the_quiet():
    """For filtered noise, the spectrum of the replacement is the filter's squared magnitude."""
    rng = np.random.default_rng(5)
    wave = scipy.signal.lfilter([1, 0.9], [1], rng.normal(0, 0.2, 8 * RATE)).astype(np.float32)
    mean = np.zeros((96, 64), np.float32)
    white = log_mel(rng.normal(0, 0.2, 8 * RATE), MEL, 8, 1.0).mean((0, 1))
    expected = log_mel(wave, MEL, 8, 1.0).mean((0, 1))
    found = removal.sound_absent(wave, MEL, 8, 1.0, mean)['noise'].mean((0, 1)) - expected
    # The quietest tenth of a stationary sound is a little quieter than the sound.
    assert -0.35 < found.mean() < 0 and np.abs(found - found.mean()).max() < 0.2
    assert np.ptp(white - expected) > 1.5


def test_a_short_waveform_ends_in_silence(waveform):
    mean = np.zeros((96, 64), np.float32)
    short = removal.sound_absent(waveform[: RATE + 100], MEL, SEGMENTS, 1.0, mean)
    whole = removal.sound_absent(np.pad(waveform[: RATE + 100], (0, 3 * RATE - 100)), MEL, SEGMENTS, 1.0, mean)
    np.testing.assert_array_equal(short['mute'], whole['mute'])
    # The added silence is not part of the clip's audio and does not count as its quietest part.
    assert short['noise'].mean() > whole['noise'].mean() + 0.1


@pytest.fixture(scope='module')
def frames():
    x = np.random.default_rng(0).random((T, H, W, 3)).astype(np.float32)
    x.flags.writeable = False
    return x


@pytest.fixture(scope='module')
def mean_picture():
    x = np.random.default_rng(1).random((H, W, 3)).astype(np.float32)
    x.flags.writeable = False
    return x


def keeps(seed, share=0.5):
    return np.random.default_rng(seed).random((T, *GRID)) < share


def picture(operator, *args):
    return np.asarray(jax.jit(removal.picture_without, static_argnums=0)(operator, *args))


def blurred(frames):
    """SciPy's Gaussian blur, divided by its blur of ones, so that weights inside the frame sum to 1.

    Outside the frame there are zeros.
    """
    options = {'sigma': (0, H / 8, W / 8, 0), 'mode': 'constant', 'truncate': 12}
    return scipy.ndimage.gaussian_filter(frames.astype(float), **options) / scipy.ndimage.gaussian_filter(
        np.ones(frames.shape), **options
    )


@pytest.mark.parametrize('operator', ['blur', 'mean'])
def test_pixels_of_removed_cells_are_replaced(frames, mean_picture, operator):
    keep = keeps(0)
    other = blurred(frames) if operator == 'blur' else np.broadcast_to(mean_picture, frames.shape)
    pixels = keep.repeat(H // 2, 1).repeat(W // 3, 2)[..., None]
    found = picture(operator, frames, keep, mean_picture)
    np.testing.assert_allclose(found, np.where(pixels, frames, other), atol=1e-5)
    np.testing.assert_array_equal(np.where(pixels, found, 0), np.where(pixels, frames, 0))


def test_freeze_shows_the_nearest_that_is_kept(frames, mean_picture):
    """Removed cells show the segments written by hand per place: segments 0..4, or the mean picture (5)."""
    kept_and_shown = {
        (0, 0): ([1, 1, 1, 1, 1], [0, 1, 2, 3, 4]),
        (0, 1): ([0, 0, 0, 0, 0], [5, 5, 5, 5, 5]),
        (0, 2): ([1, 0, 1, 0, 0], [0, 0, 2, 2, 2]),
        (1, 0): ([0, 0, 0, 0, 1], [4, 4, 4, 4, 4]),
        (1, 1): ([1, 0, 0, 0, 1], [0, 0, 0, 4, 4]),
        (1, 2): ([0, 1, 0, 1, 0], [1, 1, 1, 3, 3]),
    }
    keep, everything = np.zeros((T, *GRID), bool), np.concatenate([frames, mean_picture[None]])
    expected = np.empty_like(frames)
    for (h, w), (kept, shown) in kept_and_shown.items():
        keep[:, h, w] = kept
        place = (slice(h * 8, h * 8 + 8), slice(w * 8, w * 8 + 8))
        expected[:, *place] = everything[shown][:, *place]
    np.testing.assert_array_equal(picture('freeze', frames, keep, mean_picture), expected)


@pytest.mark.parametrize('operator', ['blur', 'mean', 'freeze'])
def test_nothing_and_everything_removed(frames, mean_picture, operator):
    whole, none = np.ones((T, *GRID), bool), np.zeros((T, *GRID), bool)
    np.testing.assert_array_equal(picture(operator, frames, whole, mean_picture), frames)
    other = blurred(frames) if operator == 'blur' else np.broadcast_to(mean_picture, frames.shape)
    np.testing.assert_allclose(picture(operator, frames, none, mean_picture), other, atol=1e-5)


@pytest.mark.parametrize('operator', ['blur', 'mean', 'freeze'])
def test_without_maps_over_clips_and_keeps(frames, mean_picture, absent, operator):
    clips = ClipArrays(
        np.stack([frames, frames[::-1]]),
        np.random.default_rng(2).normal(size=(2, T, 6, 4)).astype(np.float32),
        np.array([[True] * 5, [True] * 4 + [False]]),
    )
    gone = np.full((2, T, 6, 4), -4.6, np.float32)
    cells, sounds = np.stack([keeps(i) for i in range(3)]), np.random.default_rng(3).random((3, T)) < 0.5

    def one(clip, gone, cells, sounds):
        return removal.without(clip, gone, cells, sounds, operator, jnp.asarray(mean_picture))

    found = jax.jit(jax.vmap(jax.vmap(one, (None, None, 0, 0)), (0, 0, None, None)))(clips, gone, cells, sounds)
    assert found.frames.shape == (2, 3, T, H, W, 3)
    for b, k in np.ndindex(2, 3):
        # An invalid segment is never shown in place of another one.
        keep = cells[k] & clips.valid[b][:, None, None]
        np.testing.assert_allclose(
            found.frames[b, k], picture(operator, clips.frames[b], keep, mean_picture), atol=1e-6
        )
        np.testing.assert_array_equal(
            found.log_mel[b, k], np.where(sounds[k][:, None, None], clips.log_mel[b], np.float32(-4.6))
        )
        np.testing.assert_array_equal(found.valid[b, k], clips.valid[b])
