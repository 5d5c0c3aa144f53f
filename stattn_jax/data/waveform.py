"""Resamples decoded audio frames into their place in a waveform; used by `decode.py`."""

import av
import numpy as np

# Audio frames whose gap is at most this (s) are treated as seamless.
_SEAM = 0.02
# Frames are joined to this many samples before they are resampled: with single frames, the calls take most of the time.
_JOINED = 1 << 15
# From this many planes on, PyAV 18 reads beyond a frame's list of planes, which ends the process.
_MOST_PLANES = 8


class SoundRun:
    """Audio frames that follow each other without a gap, beginning at `time` (s) and ending so far at `end` (s).

    `start` is the time (s) of the waveform's first sample.
    """

    def __init__(self, time: float, frame: av.AudioFrame, start: float, rate: int, channels: int = 1):
        self.end = time
        self._mono = channels == 1
        self._form = _form(frame)
        self._at = round((time - start) * rate)
        self._waiting = av.AudioFifo()
        # Packed samples have one plane.
        packed = self._mono and frame.layout.nb_channels >= _MOST_PLANES
        self._channels = frame.layout.nb_channels if packed else None
        self._resampler = av.AudioResampler(
            format='flt' if packed else 'fltp', layout=None if self._mono else 'stereo', rate=rate
        )

    def continues(self, time: float, frame: av.AudioFrame) -> bool:
        return abs(time - self.end) <= _SEAM and _form(frame) == self._form

    def write(self, frame: av.AudioFrame, waveform: np.ndarray) -> None:
        """Adds a frame, and writes the samples that are resampled by now to the waveform."""
        self.end += frame.samples / frame.sample_rate
        # The queue would reject time stamps that are rounded, as in Matroska.
        frame.pts = None
        self._waiting.write(frame)
        if self._waiting.samples >= _JOINED:
            self._place(self._waiting.read(), waveform)

    def close(self, waveform: np.ndarray) -> None:
        """Writes the remaining samples."""
        rest = self._waiting.read()
        if rest is not None:
            self._place(rest, waveform)
        self._place(None, waveform)

    def _place(self, frame: av.AudioFrame | None, waveform: np.ndarray) -> None:
        for piece in self._resampler.resample(frame):
            # The mean of the channels, as in VGGish; the resampler's own mix to mono makes two equal channels louder by
            # 3 dB.
            heard = piece.to_ndarray()
            if self._channels:
                heard = heard.reshape(-1, self._channels).T
            if self._mono:
                heard = heard.mean(0)
            low, high = max(self._at, 0), min(self._at + heard.shape[-1], waveform.shape[-1])
            if low < high:
                waveform[..., low:high] = heard[..., low - self._at : high - self._at]
            self._at += heard.shape[-1]


def _form(frame: av.AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate
