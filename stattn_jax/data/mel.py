"""Waveform to log-mel patches, one per segment, each aligned to its segment's first sample. `media.py` feeds it.

The numbers of a front-end are a named `MelSpec`; `tests/test_mel.py` pins the values it gives. librosa makes the filter
bank, once per machine: its first call compiles for seconds (measured with librosa 0.11: 13 s on a fresh machine, 1.3 s
in each later process), so the bank is kept in the user's cache folder and librosa imported only where that has none.
"""

import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import tempfile
import warnings

import numpy as np


@dataclasses.dataclass(frozen=True)
class MelSpec:
    """A log-mel front-end: samples per second, window, hop and FFT in samples, bands between fmin and fmax in Hz.

    `frames` is how many hops of a segment of one second are kept, `offset` what is added before the natural logarithm.
    """

    rate: int
    window: int
    hop: int
    fft: int
    frames: int
    bands: int
    fmin: float
    fmax: float
    offset: float

    def frames_in(self, segment_seconds: float) -> int:
        """Frames of a segment: `frames` for each second of it, but no window reaches into the next segment."""
        whole_windows = 1 + (int(segment_seconds * self.rate) - self.window) // self.hop
        return min(round(self.frames * segment_seconds), whole_windows)


# Hershey et al., "CNN Architectures for Large-Scale Audio Classification", and the released VGGish: 96 frames of 10 ms
# in a patch. VGGish lays its patches end to end, 0.96 s apart, which drifts 0.4 s from the seconds of a label by the
# end of ten; here patch t starts at segment t. Its triangles are straight in mel, librosa's in Hz: the bands are the
# same, the weights inside one differ slightly.
MEL_PRESETS = {
    'vggish': MelSpec(
        rate=16000, window=400, hop=160, fft=512, frames=96, bands=64, fmin=125.0, fmax=7500.0, offset=0.01
    )
}


def log_mel(waveform: np.ndarray, mel: MelSpec, segments: int, segment_seconds: float) -> np.ndarray:
    """log(mel magnitude + offset) of each segment, float32 [t f k].

    Args:
      waveform: float32 [n], mono, at `mel.rate`, full scale 1. Silence follows where it is shorter than the segments;
        what is longer is unused.
      mel: the front-end.
      segments: t; segment i starts exactly at sample round(i * segment_seconds * rate).
      segment_seconds: length of a segment; it gives f by `MelSpec.frames_in`.
    """
    starts = np.rint(np.arange(segments) * (segment_seconds * mel.rate)).astype(int)
    starts_tf = starts[:, None] + mel.hop * np.arange(mel.frames_in(segment_seconds))
    total = starts_tf[-1, -1] + mel.window
    waveform = np.pad(waveform[:total].astype(np.float32, copy=False), (0, max(0, total - len(waveform))))
    windows_tfn = np.lib.stride_tricks.sliding_window_view(waveform, mel.window)[starts_tf] * _hann(mel.window)
    magnitude = np.abs(np.fft.rfft(windows_tfn, n=mel.fft))
    return np.log(magnitude @ mel_bank(mel).T + np.float32(mel.offset))


@functools.cache
def mel_bank(mel: MelSpec) -> np.ndarray:
    """librosa's HTK triangles of peak 1, float32 [k fft/2+1], from the user's cache ($XDG_CACHE_HOME) if it is there."""
    path = _cache_path(mel)
    try:
        return np.load(path, allow_pickle=False)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, EOFError, ValueError) as error:
        warnings.warn(f'{path}: the cached mel filter bank cannot be read ({error}); it is made anew', stacklevel=2)
    import librosa  # here, not above: see the module's docstring

    bank = librosa.filters.mel(
        sr=mel.rate,
        n_fft=mel.fft,
        n_mels=mel.bands,
        fmin=mel.fmin,
        fmax=mel.fmax,
        htk=True,
        norm=None,
        dtype=np.float32,
    )
    try:
        _write_whole(path, bank)
    except OSError as error:
        warnings.warn(
            f'{path}: the mel filter bank cannot be cached ({error}); each start takes seconds until $XDG_CACHE_HOME names a '
            'writable folder',
            stacklevel=2,
        )
    return bank


def _cache_path(mel: MelSpec) -> pathlib.Path:
    cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    version = importlib.metadata.version('librosa')
    key = f'{mel.rate}-{mel.fft}-{mel.bands}-{mel.fmin:g}-{mel.fmax:g}'
    return pathlib.Path(cache) / 'stattn_jax' / f'mel-htk-{key}-librosa-{version}.npy'


def _write_whole(path: pathlib.Path, bank: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix='.tmp', delete=False) as file:
        np.save(file, bank)
    os.replace(file.name, path)


@functools.cache
def _hann(length: int) -> np.ndarray:
    """The periodic Hann window: its period is `length`, not length - 1 as in np.hanning."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)
