"""Clips of precomputed features: what published visual and audio networks said about each segment, instead of picture
and sound.

A `FeatureSpec` stands where a set of videos has a media.ClipSpec, and a `FeatureClip` where it has a media.Clip;
records.py, pipeline.py and the trunks called `precomputed` take either. Read next: data_prep/features.py, which reads
the published files.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """What a set of features holds: per segment a grid `visual` (h, w, d) of visual and `audio` (k,) numbers of audio
    features.

    segment_seconds: length of a segment (s). source: which networks made them, in words.
    """

    segments: int
    segment_seconds: float
    visual: tuple[int, int, int]
    audio: int
    source: str

    @property
    def seconds(self) -> float:
        """Length of a whole clip (s)."""
        return self.segments * self.segment_seconds

    @property
    def channels(self) -> tuple[int, int]:
        """Numbers in a cell of the picture and in a frame of the sound: what the trunks take."""
        return self.visual[2], self.audio

    def shapes(self, frame_size: int) -> tuple[tuple, tuple]:
        """(shape, dtype) of a clip's frames [t h w d] and log_mel [t 1 k], as pipeline.clip_arrays gives them."""
        return ((self.segments, *self.visual), np.float16), ((self.segments, 1, self.audio), np.float16)

    def to_json(self) -> dict:
        return dataclasses.asdict(self) | {'kind': 'features', 'visual': list(self.visual)}

    @classmethod
    def from_json(cls, content: Mapping) -> 'FeatureSpec':
        """The inverse of `to_json`."""
        fields = {name: value for name, value in content.items() if name != 'kind'}
        return cls(**fields | {'visual': tuple(fields['visual'])})


@dataclasses.dataclass(frozen=True)
class FeatureClip:
    """One clip of t segments: visual float16 [t h w d], audio float16 [t k], valid bool [t], and notes as in
    media.Clip.

    The published files hold float32 or float64; float16 keeps three digits and a quarter of the bytes.
    """

    visual: np.ndarray
    audio: np.ndarray
    valid: np.ndarray
    duration: float
    notes: tuple[str, ...] = ()
    # The features were made of whole frames squashed to a square, so that a frame's aspect does not matter.
    height: int = 1
    width: int = 1

    def arrays(self, view: int = 0) -> dict[str, np.ndarray]:
        """frames [t h w d], log_mel [t 1 k] and valid [t]: the names of media.Clip's arrays, which the network takes
        them for.

        There is but one view.
        """
        return {'frames': self.visual, 'log_mel': self.audio[:, None], 'valid': self.valid}

    def without_picture(self) -> 'FeatureClip':
        """The clip with features of zero for its picture."""
        return dataclasses.replace(self, visual=np.zeros_like(self.visual))

    def with_sound_of(self, other: 'FeatureClip') -> 'FeatureClip':
        """The clip with the audio features of another."""
        return dataclasses.replace(self, audio=other.audio)
