"""Clips of precomputed features: outputs of published visual and audio networks for each segment.

A `FeatureSpec` takes the place of the media.ClipSpec of a set of videos, and a `FeatureClip` that of a media.Clip.
records.py, pipeline.py and the trunks named `precomputed` accept either. data_prep/features.py reads the published
files.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from stattn_jax.data import media


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """The features of a segment: a grid `visual` (h, w, d) of visual features and `audio` (k,) audio features.

    segment_seconds: length of a segment (s).
    source: a description of the networks that made the features.
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
        """Number of channels of a visual cell and of an audio frame, as the trunks expect them."""
        return self.visual[2], self.audio

    def shapes(self, frame_size: int) -> tuple[tuple, tuple]:
        """Returns (shape, dtype) of a clip's frames [t h w d] and log_mel [t 1 k], as in pipeline.clip_arrays."""
        return ((self.segments, *self.visual), np.float16), ((self.segments, 1, self.audio), np.float16)

    def to_json(self) -> dict:
        return dataclasses.asdict(self) | {'kind': 'features', 'visual': list(self.visual)}

    @classmethod
    def from_json(cls, content: Mapping) -> 'FeatureSpec':
        """Inverse of `to_json`."""
        fields = {name: value for name, value in content.items() if name != 'kind'}
        return cls(**fields | {'visual': tuple(fields['visual'])})


@dataclasses.dataclass(frozen=True)
class FeatureClip:
    """One clip of t segments: visual float16 [t h w d], audio float16 [t k], valid bool [t].

    The notes are as in media.Clip. The published files hold float32 or float64; float16 keeps three digits and takes at
    most half of the bytes.
    """

    visual: np.ndarray
    audio: np.ndarray
    valid: np.ndarray
    duration: float
    notes: tuple[str, ...] = ()
    # The features were made of whole frames squashed to a square, so the frame's aspect ratio does not matter.
    height: int = 1
    width: int = 1

    def arrays(self, view: int = 0) -> dict[str, np.ndarray]:
        """Returns frames [t h w d], log_mel [t 1 k], valid [t] and modalities [m], as the network names them.

        These are the names of media.Clip's arrays. There is only one view.
        """
        modalities = media.modalities(self.notes)
        return {'frames': self.visual, 'log_mel': self.audio[:, None], 'valid': self.valid, 'modalities': modalities}

    def without_picture(self) -> 'FeatureClip':
        """Returns the clip with visual features of zero."""
        return dataclasses.replace(self, visual=np.zeros_like(self.visual))

    def with_sound_of(self, other: 'FeatureClip') -> 'FeatureClip':
        """Returns the clip with the audio features of another clip."""
        return dataclasses.replace(self, audio=other.audio)
