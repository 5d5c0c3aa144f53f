"""The log-mel front-end against a direct DFT with own triangles, pinned values, segments, the cached filter bank."""

import os
import subprocess
import sys

import librosa
import numpy as np
import pytest

from stattn_jax.data import mel

VGGISH = mel.MEL_PRESETS['vggish']


def sweep(seconds=10):
    """Two tones and a chirp from 100 to 7000 Hz, float32."""
    t = np.arange(seconds * 16000) / 16000
    chirp = np.sin(2 * np.pi * (100 * t + (7000 - 100) / (2 * seconds) * t**2))
    return (0.3 * np.sin(2 * np.pi * 440 * t) + 0.2 * np.sin(2 * np.pi * 3000 * t) + 0.25 * chirp).astype(np.float32)


def own_triangles():
    """HTK mel triangles from their definition: mel = 2595 log10(1 + f / 700), straight in Hz, peak 1."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (125, 7500))
    corners = 700 * (10 ** (np.linspace(low, high, 66) / 2595) - 1)
    triangles = np.zeros((64, 257))
    for band in range(64):
        left, peak, right = corners[band : band + 3]
        for i in range(257):
            f = i * 16000 / 512
            triangles[band, i] = max(0, min((f - left) / (peak - left), (right - f) / (right - peak)))
    return triangles


def own_frame(waveform, start):
    """One log-mel frame by a direct DFT in float64."""
    n = np.arange(400)
    windowed = waveform[start : start + 400].astype(np.float64) * (0.5 - 0.5 * np.cos(2 * np.pi * n / 400))
    dft = np.exp(-2j * np.pi * np.outer(np.arange(257), n) / 512)
    return np.log(own_triangles() @ np.abs(dft @ windowed) + 0.01)


def test_golden_values():
    """VGGish's front-end, printed once; a change of these digits changes every prepared data set."""
    patches = mel.log_mel(sweep(), VGGISH, 10, 1.0)
    assert patches.shape == (10, 96, 64) and patches.dtype == np.float32
    golden = {
        (0, 0, 0): 2.1514,
        (0, 0, 9): 3.1323,
        (0, 95, 31): -4.5352,
        (1, 40, 13): -2.2714,
        (2, 10, 40): -1.1182,
        (3, 50, 30): -4.3883,
        (4, 0, 42): 3.2255,
        (5, 95, 9): 3.1322,
        (7, 33, 55): 3.5377,
        (9, 95, 63): 2.1930,
        (9, 48, 62): 0.2935,
    }
    for (t, f, k), value in golden.items():
        assert patches[t, f, k] == pytest.approx(value, abs=2e-4), (t, f, k)


@pytest.mark.parametrize('t,f', [(0, 0), (0, 95), (3, 17), (9, 95)])
def test_against_a_direct_dft(t, f):
    waveform = sweep()
    patches = mel.log_mel(waveform, VGGISH, 10, 1.0)
    np.testing.assert_allclose(patches[t, f], own_frame(waveform, t * 16000 + f * 160), atol=1e-3)


def test_segments_do_not_drift():
    """A click in each segment at the same place gives the same patch, to the last bit of the tenth."""
    waveform = np.zeros(160000, np.float32)
    waveform[np.arange(10) * 16000 + 5000] = 1
    patches = mel.log_mel(waveform, VGGISH, 10, 1.0)
    assert np.ptp(patches[0]) > 1
    for patch in patches[1:]:
        np.testing.assert_array_equal(patch, patches[0])


@pytest.mark.parametrize('seconds,frames', [(1.0, 96), (2.0, 192), (0.5, 48), (0.1, 8), (1 / 3, 31)])
def test_no_window_reaches_into_the_next_segment(seconds, frames):
    """Sound in the second segment alone leaves the first one silent."""
    assert VGGISH.frames_in(seconds) == frames
    waveform = np.random.default_rng(0).standard_normal(round(2 * seconds * 16000)).astype(np.float32)
    waveform[: round(seconds * 16000)] = 0
    patches = mel.log_mel(waveform, VGGISH, 2, seconds)
    assert patches.shape == (2, frames, 64)
    np.testing.assert_allclose(patches[0], np.log(0.01), atol=1e-6)
    assert patches[1].max() > 0


def test_silence_follows_a_short_waveform():
    padded = np.pad(sweep(2), (0, 16000))
    np.testing.assert_array_equal(mel.log_mel(sweep(2), VGGISH, 3, 1.0), mel.log_mel(padded, VGGISH, 3, 1.0))


def run_with_cache(cache):
    code = (
        'import sys\nimport numpy as np\nfrom stattn_jax.data import mel\n'
        f'np.save({str(cache / "seen.npy")!r}, mel.mel_bank(mel.MEL_PRESETS["vggish"]))\n'
        'print("librosa" in sys.modules)'
    )
    environment = {**os.environ, 'XDG_CACHE_HOME': str(cache)}
    return subprocess.run([sys.executable, '-c', code], env=environment, check=True, capture_output=True, text=True)


def test_the_bank_is_librosas_and_a_warm_cache_does_without_it(tmp_path):
    mel.mel_bank.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path))
        made = mel.mel_bank(VGGISH)
    mel.mel_bank.cache_clear()
    wanted = librosa.filters.mel(sr=16000, n_fft=512, n_mels=64, fmin=125, fmax=7500, htk=True, norm=None)
    np.testing.assert_array_equal(made, wanted)
    np.testing.assert_allclose(made, own_triangles(), atol=1e-5)
    assert [path.suffix for path in (tmp_path / 'stattn_jax').iterdir()] == ['.npy']
    assert run_with_cache(tmp_path).stdout.strip() == 'False'
    np.testing.assert_array_equal(np.load(tmp_path / 'seen.npy'), wanted)


def test_a_broken_or_unwritable_cache_is_reported_and_costs_only_time(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    wanted = mel.mel_bank.__wrapped__(VGGISH)
    (cached,) = (tmp_path / 'stattn_jax').iterdir()
    cached.write_bytes(cached.read_bytes()[:1000])
    with pytest.warns(UserWarning, match='cannot be read'):
        np.testing.assert_array_equal(mel.mel_bank.__wrapped__(VGGISH), wanted)
    np.testing.assert_array_equal(np.load(cached), wanted)
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file' / 'below'))
    with pytest.warns(UserWarning, match='XDG_CACHE_HOME'):
        np.testing.assert_array_equal(mel.mel_bank.__wrapped__(VGGISH), wanted)
