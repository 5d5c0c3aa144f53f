"""Computes log-mel patches from a waveform, one per segment, each from the segment's own samples.

`media.py` calls it. The parameters of a front-end are a named `MelSpec`; `tests/test_mel.py` pins the resulting values.
Where librosa makes the filter bank, it does so once per machine: librosa's first call compiles for seconds (measured
with librosa 0.11: 13 s on a fresh machine, 1.3 s in each later process), so the bank is kept in the user's cache
folder, and librosa is imported only if the bank is not there.
"""

import dataclasses
import functools
import importlib.metadata
import math
import os
import pathlib
import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np

from stattn_jax import files


@dataclasses.dataclass(frozen=True)
class MelSpec:
    """A log-mel front-end: samples per second, window, hop and FFT in samples, bands between fmin and fmax in Hz.

    frames: number of hops that are kept of a segment of one second; None: every window that fits.
    offset, floor: before the logarithm a band is raised to at least `floor`, then `offset` is added.
    decibels: 10 log10 instead of the natural logarithm.
    power: exponent of the magnitudes that are summed in a band, 1 or 2.
    bank: the filter bank, a name of BANKS.
    centred: windows are centred on multiples of the hop, with the segment mirrored at its ends, so that the first and
      last samples count as much as others; otherwise the first window begins with the segment.
    symmetric: the period of the Hann window is window - 1 samples, as in np.hanning; otherwise it is `window`.
    zero_mean: each window's mean is subtracted first.
    preemphasis: this fraction of the preceding sample is then subtracted from each sample of a window.
    """

    rate: int
    window: int
    hop: int
    fft: int
    frames: int | None
    bands: int
    fmin: float
    fmax: float
    offset: float = 0.0
    floor: float = 0.0
    decibels: bool = False
    power: int = 1
    bank: str = 'htk'
    centred: bool = False
    symmetric: bool = False
    zero_mean: bool = False
    preemphasis: float = 0.0

    def samples_in(self, segment_seconds: float) -> int:
        """Returns the number of whole samples in a segment, so that no segment reaches into the next."""
        return int(segment_seconds * self.rate)

    def frames_in(self, segment_seconds: float) -> int:
        """Returns the frames of a segment: all windows that fit into it, but at most `frames` per second of it."""
        whole_windows = 1 + (self.samples_in(segment_seconds) + 2 * self.margin - self.window) // self.hop
        if self.frames is None:
            return whole_windows
        return min(round(self.frames * segment_seconds), whole_windows)

    @property
    def margin(self) -> int:
        """Number of samples by which the first and the last window may extend beyond the ends of the segment."""
        return self.window // 2 if self.centred else 0

    @property
    def logarithm(self) -> tuple[float, float]:
        """(scale, offset) such that a band is scale * ln(energy + offset)."""
        return 10 / math.log(10) if self.decibels else 1.0, self.offset or self.floor

    @property
    def silence(self) -> float:
        """Value of the log-mel in silence."""
        return float(self.compress(np.zeros(())))

    def compress(self, bands: np.ndarray) -> np.ndarray:
        """Returns the logarithm of the band sums."""
        bands = np.maximum(bands, self.floor) + self.offset
        return 10 * np.log10(bands) if self.decibels else np.log(bands)


# Every front-end treats a segment as a clip of its own: where the reference was given clips of ten seconds, the values
# here are those that it computes from each second alone.
#
# 'vggish': Hershey et al., "CNN Architectures for Large-Scale Audio Classification", and the released VGGish: 96 frames
# of 10 ms in a patch. VGGish lays its patches end to end, 0.96 s apart, which drifts 0.4 s from the seconds of a label
# by the end of ten; here patch t starts at segment t. The triangles of the released code are straight in mel, those of
# 'vggish' in Hz: the bands are the same, the weights inside one differ slightly. 'vggish_published' has the released
# weights.
#
# 'panns_16k', 'panns_32k': Kong et al., "PANNs" (arXiv 1912.10211): one second gives 101 frames, all of which are kept.
#
# 'ast': Gong et al., "AST" (arXiv 2104.01778), by Kaldi's filter bank without dither; one second gives 98 frames. AST
# subtracts the mean of the clip first. Because each window's mean is subtracted as well, that has no effect and is left
# out.
_VGGISH = MelSpec(rate=16000, window=400, hop=160, fft=512, frames=96, bands=64, fmin=125.0, fmax=7500.0, offset=0.01)
_PANNS = MelSpec(
    rate=32000,
    window=1024,
    hop=320,
    fft=1024,
    frames=None,
    bands=64,
    fmin=50.0,
    fmax=14000.0,
    floor=1e-10,
    decibels=True,
    power=2,
    bank='slaney',
    centred=True,
)
MEL_PRESETS = {
    'vggish': _VGGISH,
    'vggish_published': dataclasses.replace(_VGGISH, bank='straight_in_mel'),
    'panns_16k': dataclasses.replace(_PANNS, rate=16000, window=512, hop=160, fft=512, fmax=8000.0),
    'panns_32k': _PANNS,
    'ast': MelSpec(
        rate=16000,
        window=400,
        hop=160,
        fft=512,
        frames=None,
        bands=128,
        fmin=20.0,
        fmax=8000.0,
        floor=float(np.finfo(np.float32).eps),
        power=2,
        bank='straight_in_mel',
        symmetric=True,
        zero_mean=True,
        preemphasis=0.97,
    ),
}


def log_mel(waveform: np.ndarray, mel: MelSpec, segments: int, segment_seconds: float) -> np.ndarray:
    """Computes the logarithm of each segment's mel bands, float32 [t f k].

    Args:
      waveform: float32 [n], mono, at `mel.rate`, full scale 1. It is padded with silence if it is shorter than the
        segments; samples beyond them are unused.
      mel: the front-end.
      segments: t; segment i starts exactly at sample round(i * segment_seconds * rate).
      segment_seconds: length of a segment (s); it gives f by `MelSpec.frames_in`.
    """
    starts = np.rint(np.arange(segments) * (segment_seconds * mel.rate)).astype(int)
    samples = mel.samples_in(segment_seconds)
    total = starts[-1] + samples
    waveform = np.pad(waveform[:total].astype(np.float32, copy=False), (0, max(0, total - len(waveform))))
    segments_tn = np.lib.stride_tricks.sliding_window_view(waveform, samples)[starts]
    if mel.centred:
        segments_tn = np.pad(segments_tn, ((0, 0), (mel.margin, mel.margin)), mode='reflect')
    windows_tfn = np.lib.stride_tricks.sliding_window_view(segments_tn, mel.window, axis=1)[:, :: mel.hop]
    windows_tfn = _without_offset(windows_tfn[:, : mel.frames_in(segment_seconds)], mel)
    magnitude = np.abs(np.fft.rfft(windows_tfn * _hann(mel.window, mel.symmetric), n=mel.fft))
    return mel.compress(magnitude**mel.power @ mel_bank(mel).T)


def _without_offset(windows: np.ndarray, mel: MelSpec) -> np.ndarray:
    """Subtracts the mean of windows [... n] and weakens their low frequencies, as `mel` specifies."""
    if mel.zero_mean:
        windows = windows - windows.mean(axis=-1, keepdims=True)
    if mel.preemphasis:
        # The first sample of a window is its own predecessor, as in Kaldi.
        before = np.concatenate([windows[..., :1], windows[..., :-1]], axis=-1)
        windows = windows - np.float32(mel.preemphasis) * before
    return windows


@functools.cache
def mel_bank(mel: MelSpec) -> np.ndarray:
    """The weight of each frequency in each band, float32 [k fft/2+1]."""
    return BANKS[mel.bank](mel)


def _straight_in_mel(mel: MelSpec) -> np.ndarray:
    """Triangles of peak 1 whose sides are straight over mel = 1127 ln(1 + Hz / 700)."""
    low, high, bins = (
        1127 * np.log1p(np.asarray(hertz) / 700)
        for hertz in (mel.fmin, mel.fmax, np.arange(mel.fft // 2 + 1) * mel.rate / mel.fft)
    )
    corners = np.linspace(low, high, mel.bands + 2)[:, None]
    left, peak, right = corners[:-2], corners[1:-1], corners[2:]
    sides = np.minimum((bins - left) / (peak - left), (right - bins) / (right - peak))
    return np.maximum(sides, 0).astype(np.float32)


def _of_librosa(mel: MelSpec, htk: bool, norm: Literal['slaney'] | None) -> np.ndarray:
    """Returns librosa's triangles, straight in Hz, from the user's cache ($XDG_CACHE_HOME) if they are there."""
    path = _cache_path(mel)
    try:
        return np.load(path, allow_pickle=False)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, EOFError, ValueError) as error:
        warnings.warn(f'{path}: the cached mel filter bank cannot be read ({error}); it is made anew', stacklevel=2)
    import librosa  # here, not above: see the module's docstring

    bank = librosa.filters.mel(
        sr=mel.rate, n_fft=mel.fft, n_mels=mel.bands, fmin=mel.fmin, fmax=mel.fmax, htk=htk, norm=norm, dtype=np.float32
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.whole_file(path) as file:
            np.save(file, bank)
    except OSError as error:
        warnings.warn(
            f'{path}: the mel filter bank cannot be cached ({error}); each start takes seconds until $XDG_CACHE_HOME '
            'names a writable folder',
            stacklevel=2,
        )
    return bank


# 'htk': HTK's mel scale, peak 1. 'slaney': Slaney's mel scale, area 1. 'straight_in_mel': HTK's mel scale, peak 1.
BANKS: dict[str, Callable[[MelSpec], np.ndarray]] = {
    'htk': functools.partial(_of_librosa, htk=True, norm=None),
    'slaney': functools.partial(_of_librosa, htk=False, norm='slaney'),
    'straight_in_mel': _straight_in_mel,
}


def _cache_path(mel: MelSpec) -> pathlib.Path:
    cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    version = importlib.metadata.version('librosa')
    key = f'{mel.rate}-{mel.fft}-{mel.bands}-{mel.fmin:g}-{mel.fmax:g}'
    return pathlib.Path(cache) / 'stattn_jax' / f'mel-{mel.bank}-{key}-librosa-{version}.npy'


@functools.cache
def _hann(length: int, symmetric: bool) -> np.ndarray:
    """Returns the Hann window of period `length`, or length - 1, as in np.hanning, if it is symmetric."""
    period = length - 1 if symmetric else length
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / period)).astype(np.float32)
