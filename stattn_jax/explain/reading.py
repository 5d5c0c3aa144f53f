"""Reads a clip for the network, with the `media` fields of its record (file, position, size, notes).

model.py explains the result.
"""

import dataclasses
import hashlib
import os
import pathlib
from typing import Any

import numpy as np

from stattn_jax.data import decode, media


@dataclasses.dataclass(frozen=True)
class Reading:
    """A clip, the `media` of its record (see ExplanationData), and the file that it comes from (None for arrays)."""

    clip: media.Clip
    media: dict[str, Any]
    source: pathlib.Path | None


def read(
    video: str | os.PathLike, spec: media.ClipSpec, start: float | None = None, end: float | None = None
) -> Reading:
    """Reads seconds start..end of a video file, which may lack its sound or its picture.

    Raises media.MediaError with a named reason.
    """
    clip = media.read_clip(video, spec, start, end, keep_lacking=True)
    return Reading(clip, {**of_file(video), **of_clip(clip, float(start or 0.0))}, pathlib.Path(video))


def of_arrays(frames_thwc: np.ndarray, waveform: np.ndarray, rate: int, spec: media.ClipSpec) -> Reading:
    """Makes a clip from arrays with media.clip_from_arrays, and raises the errors of that function."""
    clip = media.clip_from_arrays(frames_thwc, waveform, spec, rate)
    digest = hashlib.sha256(frames_thwc.tobytes())
    digest.update(np.asarray(waveform, np.float32).tobytes())
    source = {'file': 'arrays', 'sha256': digest.hexdigest(), 'fps': 1 / spec.segment_seconds, 'rate': rate}
    return Reading(clip, {**source, **of_clip(clip, 0.0)}, None)


def of_file(video: str | os.PathLike) -> dict[str, Any]:
    """Returns a file's name, content hash, duration (s), frame rate and sample rate (Hz).

    Values that the file does not state are None.
    """
    file = decode.MediaFile(video)
    with open(video, 'rb') as content:
        digest = hashlib.file_digest(content, 'sha256').hexdigest()
    seconds = file.duration if np.isfinite(file.duration) else None
    stated = {'file_duration': seconds, 'fps': file.fps or None, 'rate': file.rate or None}
    return {'file': file.path.name, 'sha256': digest, **stated}


def of_clip(clip: media.Clip, start: float) -> dict[str, Any]:
    """Returns where a clip that begins at `start` (s) lies in its file, its size and its notes."""
    return {
        'start': start,
        'end': start + clip.duration,
        'duration': float(clip.duration),
        'height': clip.height,
        'width': clip.width,
        'notes': list(clip.notes),
    }
