"""The log-mel front ends are tested against direct DFTs with separate triangles, librosa and published values.

The cache of the filter bank is tested too.
"""

import json
import os
import pathlib
import subprocess
import sys

import librosa
import numpy as np
import pytest

from stattn_jax.data import mel

VGGISH = mel.MEL_PRESETS['vggish']
# Values of torchvggish, torchlibrosa and torchaudio for `mixture`; tests/test_parity_audio.py writes the file.
GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'mel.json'


def sweep(seconds=10):
    """Two tones and a chirp from 100 to 7000 Hz, float32."""
    t = np.arange(seconds * 16000) / 16000
    chirp = np.sin(2 * np.pi * (100 * t + (7000 - 100) / (2 * seconds) * t**2))
    return (0.3 * np.sin(2 * np.pi * 440 * t) + 0.2 * np.sin(2 * np.pi * 3000 * t) + 0.25 * chirp).astype(np.float32)


def mixture(rate):
    """Four seconds of noise, a tone and a constant, each second louder than the one before, float32."""
    t = np.arange(4 * rate) / rate
    sound = 0.1 * np.random.default_rng(0).standard_normal(len(t)) + 0.3 * np.sin(2 * np.pi * 440 * t) + 0.05
    return (sound * (1 + np.floor(t)) / 4).astype(np.float32)


def own_triangles():
    """HTK mel triangles from their definition: mel = 2595 log10(1 + f / 700), sides straight in Hz, peak 1."""
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
    """Computes one log-mel frame with a direct DFT in float64."""
    n = np.arange(400)
    windowed = waveform[start : start + 400].astype(np.float64) * (0.5 - 0.5 * np.cos(2 * np.pi * n / 400))
    dft = np.exp(-2j * np.pi * np.outer(np.arange(257), n) / 512)
    return np.log(own_triangles() @ np.abs(dft @ windowed) + 0.01)


def test_golden_values():
    """The values of VGGish's front end stay the same; if they change, every prepared data set changes."""
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
    """A click at the same place of each segment gives the same patch bit for bit, up to the tenth segment."""
    waveform = np.zeros(160000, np.float32)
    waveform[np.arange(10) * 16000 + 5000] = 1
    patches = mel.log_mel(waveform, VGGISH, 10, 1.0)
    assert np.ptp(patches[0]) > 1
    for patch in patches[1:]:
        np.testing.assert_array_equal(patch, patches[0])


@pytest.mark.parametrize('seconds,frames', [(1.0, 96), (2.0, 192), (0.5, 48), (0.1, 8), (1 / 3, 31)])
def test_no_window_reaches_into_the_next_segment(seconds, frames):
    """Audio in the second segment alone leaves the first one silent."""
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


@pytest.mark.parametrize('name', json.loads(GOLDEN.read_text()))
def test_published_front_ends_give_the_values_of_the_published_code(name):
    spec = mel.MEL_PRESETS[name]
    patches = mel.log_mel(mixture(spec.rate), spec, 4, 1.0)
    for t, f, k, value in json.loads(GOLDEN.read_text())[name]:
        assert patches[t, f, k] == pytest.approx(value, abs=2e-3), (t, f, k)


@pytest.mark.parametrize('name', ['panns_16k', 'panns_32k'])
def test_panns_is_librosas_mel_spectrogram_of_each_segment(name):
    spec = mel.MEL_PRESETS[name]
    sound = mixture(spec.rate)
    found = mel.log_mel(sound, spec, 4, 1.0)
    for t, second in enumerate(sound.reshape(4, -1)):
        spectrum = librosa.stft(second, n_fft=spec.fft, hop_length=spec.hop, pad_mode='reflect')
        bank = librosa.filters.mel(sr=spec.rate, n_fft=spec.fft, n_mels=64, fmin=50, fmax=spec.fmax)
        wanted = librosa.power_to_db(bank @ np.abs(spectrum) ** 2, amin=1e-10, top_db=None).T
        np.testing.assert_allclose(found[t], wanted, rtol=0, atol=1e-3)


def triangles_straight_in_mel(spec):
    """Triangles whose sides are straight over 1127 ln(1 + f / 700), computed with a loop."""
    low, high = (1127 * np.log(1 + f / 700) for f in (spec.fmin, spec.fmax))
    step = (high - low) / (spec.bands + 1)
    bank = np.zeros((spec.bands, spec.fft // 2 + 1))
    for band in range(spec.bands):
        for i in range(bank.shape[1]):
            place = (1127 * np.log(1 + i * spec.rate / spec.fft / 700) - low) / step - band
            bank[band, i] = max(0, min(place, 2 - place))
    return bank


@pytest.mark.parametrize('name', ['vggish_published', 'ast'])
def test_triangles_straight_in_mel_are_those_of_a_loop(name):
    spec = mel.MEL_PRESETS[name]
    np.testing.assert_allclose(mel.mel_bank(spec), triangles_straight_in_mel(spec), atol=1e-6)


@pytest.mark.parametrize('t,f', [(0, 0), (1, 50), (3, 97)])
def test_a_frame_of_ast_against_a_direct_dft(t, f):
    spec = mel.MEL_PRESETS['ast']
    sound = mixture(spec.rate)
    start, n = t * spec.rate + f * spec.hop, np.arange(400)
    window = sound[start : start + 400].astype(float)
    window -= window.mean()
    window = window - 0.97 * np.r_[window[0], window[:-1]]
    dft = np.exp(-2j * np.pi * np.outer(np.arange(257), n) / 512) @ (window * np.hanning(400))
    wanted = np.log(np.maximum(triangles_straight_in_mel(spec) @ np.abs(dft) ** 2, 2**-23))
    np.testing.assert_allclose(mel.log_mel(sound, spec, 4, 1.0)[t, f], wanted, atol=1e-3)


@pytest.mark.parametrize('name', mel.MEL_PRESETS)
def test_silence_is_the_value_of_a_front_end_for_zeros_and_fits_into_16_bits(name):
    spec = mel.MEL_PRESETS[name]
    patches = mel.log_mel(np.zeros(100, np.float32), spec, 2, 0.5)
    np.testing.assert_allclose(patches, spec.silence, rtol=1e-6)
    loudest = mel.log_mel(np.sign(mixture(spec.rate)), spec, 4, 1.0)
    assert loudest.max() > spec.silence + 5
    # At the largest of these values, float16 has a step of one sixteenth.
    for x in (patches, loudest):
        np.testing.assert_allclose(x.astype(np.float16), x, rtol=0, atol=1 / 32)


@pytest.mark.parametrize('name', mel.MEL_PRESETS)
@pytest.mark.parametrize('seconds', [1.0, 0.1, 1 / 3, 2.5])
def test_a_segment_is_a_clip_of_its_own(name, seconds):
    spec = mel.MEL_PRESETS[name]
    sound = mixture(spec.rate)
    patches = mel.log_mel(sound, spec, 3, seconds)
    assert patches.shape == (3, spec.frames_in(seconds), spec.bands)
    for t in range(3):
        start = round(t * seconds * spec.rate)
        alone = mel.log_mel(sound[start : start + int(seconds * spec.rate)], spec, 1, seconds)
        np.testing.assert_allclose(alone[0], patches[t], rtol=0, atol=1e-3)


def test_frames_of_a_second_are_the_published_ones():
    assert {name: spec.frames_in(1.0) for name, spec in mel.MEL_PRESETS.items()} == {
        'vggish': 96,
        'vggish_published': 96,
        'panns_16k': 101,
        'panns_32k': 101,
        'ast': 98,
    }


@pytest.mark.parametrize('name', mel.MEL_PRESETS)
def test_the_logarithm_is_a_scale_and_an_offset(name):
    preset, bands = mel.MEL_PRESETS[name], np.array([0.0, 1e-3, 2.0, 50.0])
    scale, offset = preset.logarithm
    np.testing.assert_allclose(scale * np.log(bands + offset), preset.compress(bands), rtol=1e-4, atol=1e-3)
