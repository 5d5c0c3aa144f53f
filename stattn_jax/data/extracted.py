"""Clips whose frames, audio or both are stored as features of a frozen trunk, so that training need not run it.

An `ExtractedSpec` contains the media.ClipSpec of the data that it was made from. A network trained on such records also
reads video files, because it contains the trunk. data_prep/extract.py makes these records. features.py is for features
of networks that are not part of this package.
"""

import dataclasses
import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from stattn_jax import files
from stattn_jax.data import media, tfrecord
from stattn_jax.data.spec import ClipSpec

# File beside the records with the visual trunk's features of a black frame; the leak checks put them in place of the
# frames.
ABSENT_FILE = 'absent.npz'


@dataclasses.dataclass(frozen=True)
class Extraction:
    """How the features of one modality were made.

    trunk: a name of models/trunks/registry.py.
    weights: the weights file, or the name of a package's weights; sha256 and licence are those of the file's content.
    shape: (h, w, d) of a frame's cells, or (d,) of a segment's audio.
    views: number of versions of each clip. Version 0 is the unchanged clip; the others are augmented by crop, flip and
      colour (training/augment.py) with random numbers from `seed`.
    frame_size, fit: of the frames that the trunk received, as in pipeline.clip_arrays; 0 and '' for audio.
    """

    trunk: str
    weights: str
    sha256: str
    licence: str
    shape: tuple[int, ...]
    views: int = 1
    frame_size: int = 0
    fit: str = ''
    crop: float = 1.0
    flip: float = 0.0
    colour: float = 0.0
    seed: int = 0

    def stored(self, segments: int) -> tuple[int, ...]:
        """Returns the shape of a clip's features: [v t h w d] or [v t d]."""
        return self.views, segments, *self.shape

    @classmethod
    def from_json(cls, content: Mapping) -> 'Extraction':
        return cls(**{**content, 'shape': tuple(content['shape'])})


@dataclasses.dataclass(frozen=True)
class ExtractedSpec:
    """The counterpart of ClipSpec for a data set of extracted features.

    media: how the clips were cut and stored before extraction.
    visual, audio: how the features were made; None where the frames or the log-mel stayed as they were.
    source: fingerprint of the data set that the features were made from.
    """

    media: ClipSpec
    visual: Extraction | None
    audio: Extraction | None
    source: str

    @property
    def segments(self) -> int:
        return self.media.segments

    @property
    def segment_seconds(self) -> float:
        return self.media.segment_seconds

    @property
    def seconds(self) -> float:
        """Length of a whole clip (s)."""
        return self.media.seconds

    @property
    def parts(self) -> tuple[Extraction | None, Extraction | None]:
        """The extractions (visual, audio)."""
        return self.visual, self.audio

    @property
    def views(self) -> int:
        """Number of versions of each clip."""
        return max(part.views for part in self.parts if part)

    @property
    def channels(self) -> tuple[int, int]:
        """Number of channels of a visual pixel or cell, and of an audio cell or segment."""
        visual, audio = (part.shape[-1] if part else raw for part, raw in zip(self.parts, self.media.channels))
        return visual, audio

    def shapes(self, frame_size: int) -> tuple[tuple, tuple]:
        """Returns (shape, dtype) of a clip's frames and of its log_mel, as pipeline.clip_arrays gives them.

        The shapes are [t h w d] and [t 1 d] where they were extracted.
        """
        frames, log_mel = self.media.shapes(frame_size)
        if self.visual:
            frames = (self.segments, *self.visual.shape), np.float16
        if self.audio:
            log_mel = (self.segments, 1, *self.audio.shape), np.float16
        return frames, log_mel

    def describe(self) -> str:
        """Describes in words the features that the trunks made."""
        return ', '.join(
            f'{name} {part.trunk} ({pathlib.PurePath(part.weights).name}) {"x".join(map(str, part.shape))}'
            + (f' in {part.views} views' if part.views > 1 else '')
            for name, part in zip(('visual', 'audio'), self.parts)
            if part
        )

    def to_json(self) -> dict:
        return dataclasses.asdict(self) | {'kind': 'extracted', 'media': self.media.to_json()}

    @classmethod
    def from_json(cls, content: Mapping) -> 'ExtractedSpec':
        """Inverse of `to_json`; raises ValueError if the clip spec is invalid."""
        visual, audio = (content[name] and Extraction.from_json(content[name]) for name in ('visual', 'audio'))
        return cls(ClipSpec.from_json(content['media']), visual, audio, content['source'])


@dataclasses.dataclass(frozen=True)
class ExtractedClip:
    """One clip of t segments with frames or visual, and log_mel or audio; the other one of each pair is None.

    frames, log_mel and the fields from valid on are as in media.Clip.
    visual: float16 [v t h w d].
    audio: float16 [v t d].
    absent: float16 [h w d], the cells of a black frame.
    """

    frames: list[bytes] | None
    log_mel: np.ndarray | None
    visual: np.ndarray | None
    audio: np.ndarray | None
    valid: np.ndarray
    height: int
    width: int
    duration: float
    notes: tuple[str, ...] = ()
    absent: np.ndarray | None = None

    def arrays(self, view: int = 0) -> dict[str, np.ndarray]:
        """Returns valid [t], modalities [m], log_mel [t f k] or [t 1 d], and, if extracted, frames [t h w d].

        JPEGs are left out.
        """
        arrays = {'valid': self.valid, 'modalities': media.modalities(self.notes), 'log_mel': self.log_mel}
        if self.audio is not None:
            arrays['log_mel'] = self.audio[view % len(self.audio), :, None]
        if self.visual is not None:
            arrays['frames'] = self.visual[view % len(self.visual)]
        return arrays

    def without_picture(self) -> 'ExtractedClip':
        """Returns the clip with black frames, or with the trunk's features of black frames."""
        if self.visual is None:
            return dataclasses.replace(self, frames=media.black(self.frames))
        return dataclasses.replace(self, visual=np.broadcast_to(self.absent, self.visual.shape))

    def with_sound_of(self, other: 'ExtractedClip') -> 'ExtractedClip':
        """Returns the clip with the log-mel or the audio features of another clip."""
        return dataclasses.replace(self, log_mel=other.log_mel, audio=other.audio)


def write_absent(directory: str | os.PathLike, absent: np.ndarray) -> None:
    """Writes the cells of a black frame, float16 [h w d]; equal arrays give equal bytes."""
    with files.whole_file(pathlib.Path(directory) / ABSENT_FILE) as file:
        np.savez(file, visual=absent)


def read_absent(directory: str | os.PathLike, visual: Extraction) -> np.ndarray:
    """Reads the cells of a black frame, float16 [h w d]; raises DataError if they are missing or damaged."""
    path = pathlib.Path(directory) / ABSENT_FILE
    try:
        with np.load(path) as file:
            absent = file['visual']
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise tfrecord.DataError(
            f'{path} cannot be read ({str(error) or type(error).__name__}); '
            'run the same data_prep.extract command again'
        ) from None
    if absent.shape != visual.shape or absent.dtype != np.float16 or not np.isfinite(absent).all():
        raise tfrecord.DataError(
            f'{path} holds {absent.dtype} {absent.shape}, expected finite float16 {visual.shape}; '
            'run the same data_prep.extract command again'
        )
    return absent
