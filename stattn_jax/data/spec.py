"""Defines how the clips of a data set are cut and stored, as recorded in stattn.json. media.py applies it."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from stattn_jax.data.mel import MEL_PRESETS


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """How a clip is cut: number and length (s) of its segments, and size and quality of its frames.

    `short_side` is the shorter side of the stored frames (pixels). Nothing is enlarged. With `square`, whole frames are
    made square, as the network receives them with data.fit 'squash', so that nothing has to be resized when they are
    read; otherwise the aspect ratio is kept. `mel` is a name of MEL_PRESETS. Raises ValueError for a value out of
    range.
    """

    segments: int = 10
    segment_seconds: float = 1.0
    short_side: int = 256
    jpeg_quality: int = 90
    mel: str = 'vggish'
    square: bool = False

    def __post_init__(self):
        for name, least, most in (('segments', 1, 3600), ('short_side', 8, 4096), ('jpeg_quality', 1, 100)):
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f'{name}={value!r}: give a whole number from {least} to {most}')
        # A segment shorter than a tenth of a second holds hardly a frame of the front-end.
        if not isinstance(self.segment_seconds, int | float) or not 0.1 <= self.segment_seconds <= 60:
            raise ValueError(f'segment_seconds={self.segment_seconds!r}: give seconds from 0.1 to 60')
        if not isinstance(self.square, bool):
            raise ValueError(f'square={self.square!r}: give true or false')
        if self.mel not in MEL_PRESETS:
            raise ValueError(f'mel={self.mel!r}: give one of {", ".join(MEL_PRESETS)}')

    @property
    def seconds(self) -> float:
        """Length of a whole clip (s)."""
        return self.segments * self.segment_seconds

    @property
    def channels(self) -> tuple[int, int]:
        """Number of channels of a pixel and of a log-mel cell, as the trunks expect them."""
        return 3, 1

    def shapes(self, frame_size: int) -> tuple[tuple, tuple]:
        """Returns (shape, dtype) of a clip's frames [t h w 3] and log_mel [t f k], as in pipeline.clip_arrays."""
        return ((self.segments, frame_size, frame_size, 3), np.uint8), (self.mel_shape, np.float16)

    @property
    def mel_shape(self) -> tuple[int, int, int]:
        """Shape (t, f, k) of a clip's log-mel."""
        mel = MEL_PRESETS[self.mel]
        return self.segments, mel.frames_in(self.segment_seconds), mel.bands

    def stored(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns height and width (pixels) at which a frame of this height and width is stored."""
        scale = min(1.0, self.short_side / min(size))
        height, width = (max(1, round(side * scale)) for side in size)
        return (min(height, width),) * 2 if self.square else (height, width)

    @property
    def silence(self) -> float:
        """Value of the log-mel in silence."""
        return MEL_PRESETS[self.mel].silence

    def to_json(self) -> dict:
        """Returns the fields as plain types.

        `square` is left out if it is False: data sets from before it existed keep their fingerprints.
        """
        content = dataclasses.asdict(self)
        return content if self.square else {name: value for name, value in content.items() if name != 'square'}

    @classmethod
    def from_json(cls, content: Mapping) -> 'ClipSpec':
        """Inverse of `to_json`; raises ValueError if a field is missing, unknown or out of range."""
        names = {field.name for field in dataclasses.fields(cls)}
        content = {'square': False, **content}
        if set(content) != names:
            wrong = ', '.join(sorted(set(content) ^ names))
            raise ValueError(f'clip spec: missing or unknown: {wrong}; it has exactly {", ".join(sorted(names))}')
        return cls(**content)
