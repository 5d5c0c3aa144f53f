"""Decoded sound frames resampled into their place in a waveform; `decode.py` reads them."""

import av
import numpy as np

# Sound frames that follow each other within this (s) are taken as seamless.
_SEAM = 0.02
# Frames are joined to so many samples before they are resampled: one by one, most of the time goes into handing them
# over.
_JOINED = 1 << 15


class SoundRun:
    """Sound frames that follow each other without a gap; `start` is the waveform's first second, `time` the run's,
    `end` its end.
    """

    def __init__(self, time: float, frame: av.AudioFrame, start: float, rate: int, channels: int = 1):
        self.end = time
        self._mono = channels == 1
        self._form = _form(frame)
        self._at = round((time - start) * rate)
        self._waiting = av.AudioFifo()
        self._resampler = av.AudioResampler(format='fltp', layout=None if self._mono else 'stereo', rate=rate)

    def continues(self, time: float, frame: av.AudioFrame) -> bool:
        return abs(time - self.end) <= _SEAM and _form(frame) == self._form

    def write(self, frame: av.AudioFrame, waveform: np.ndarray) -> None:
        """Takes a frame, and writes what is resampled by now."""
        self.end += frame.samples / frame.sample_rate
        # The queue would refuse time stamps that are rounded, as in Matroska.
        frame.pts = None
        self._waiting.write(frame)
        if self._waiting.samples >= _JOINED:
            self._place(self._waiting.read(), waveform)

    def close(self, waveform: np.ndarray) -> None:
        """Writes the rest."""
        rest = self._waiting.read()
        if rest is not None:
            self._place(rest, waveform)
        self._place(None, waveform)

    def _place(self, frame: av.AudioFrame | None, waveform: np.ndarray) -> None:
        for piece in self._resampler.resample(frame):
            # The mean of the channels, as VGGish takes it; the resampler's own mix to mono makes two equal channels
            # louder by 3 dB.
            heard = piece.to_ndarray().mean(0) if self._mono else piece.to_ndarray()
            low, high = max(self._at, 0), min(self._at + heard.shape[-1], waveform.shape[-1])
            if low < high:
                waveform[..., low:high] = heard[..., low - self._at : high - self._at]
            self._at += heard.shape[-1]


def _form(frame: av.AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate
