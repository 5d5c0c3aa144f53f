"""Makes a `Clip` from a video file or from arrays: for each segment the frame at its centre and a log-mel patch.

Data preparation and explanation read video only through `read_clip`. `decode.py` handles streams and time stamps,
`mel.py` is the audio front-end, and `records.py` defines how a clip is stored.
"""

import dataclasses
import fractions
import itertools
import math
import os
from collections.abc import Iterable, Sequence
from typing import Any

import av
import numpy as np
import simplejpeg

from stattn_jax import files
from stattn_jax.data.container import REASONS, MediaError
from stattn_jax.data.decode import ROUNDING, MediaFile, Pictures, Track
from stattn_jax.data.mel import MEL_PRESETS, MelSpec, log_mel
from stattn_jax.data.orientation import upright_rgb, upright_size
from stattn_jax.data.spec import ClipSpec
from stattn_jax.data.waveform import SoundRun

__all__ = [
    'MEL_PRESETS',
    'REASONS',
    'Clip',
    'ClipSpec',
    'MediaError',
    'MelSpec',
    'black',
    'clip_from_arrays',
    'encode_video',
    'log_mel',
    'modalities',
    'read_clip',
    'write_video',
]

# -80 dB of full scale: about three steps of 16-bit audio, and far below the noise of any room.
SILENCE = 1e-4
# The notes of clips that lack a modality, in the order of modalities.
LACKING = ('no_picture', 'no_sound')
# Decoded audio may exceed full scale by a few dB.
_LOUDEST = 2.0
# The highest rate that FFmpeg's audio formats use is 768 kHz.
_HIGHEST_RATE = 768_000
_LAYOUTS = {1: 'mono', 2: 'stereo'}


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip of t segments.

    frames: t upright JPEGs, all of one size; black where not valid.
    log_mel: float16 [t f k]; the logarithm of silence where not valid.
    valid: bool [t]; a segment is valid if at least half of it lies inside the video stream, the audio stream and the
      requested interval.
    height, width: pixels of the upright source frame, before it was made smaller.
    duration: seconds of the source that were used.
    notes: of 'short' (some segments are not valid), 'long' (half a segment or more was left over), 'silent' (never
      above 1e-4 of full scale), 'damaged' (something read for the clip could not be decoded; the previous frame, or
      silence, is used instead) and 'no_picture' or 'no_sound' (the clip lacks this modality: its frames are black, or
      its log-mel is that of silence, and neither is used). Further notes name the streams that were read, and
      'joined' says that only the first of several joined files was.
    """

    frames: list[bytes]
    log_mel: np.ndarray
    valid: np.ndarray
    height: int
    width: int
    duration: float
    notes: tuple[str, ...] = ()

    def arrays(self, view: int = 0) -> dict[str, np.ndarray]:
        """Returns log_mel, valid and modalities, which need no decoding; a clip of frames has only one view."""
        return {'log_mel': self.log_mel, 'valid': self.valid, 'modalities': modalities(self.notes)}

    def without_picture(self) -> 'Clip':
        """Returns the clip with black frames."""
        return dataclasses.replace(self, frames=black(self.frames))

    def with_sound_of(self, other: 'Clip') -> 'Clip':
        """Returns the clip with the log-mel of another clip; both have sound."""
        return dataclasses.replace(self, log_mel=other.log_mel)


def modalities(notes: Sequence[str]) -> np.ndarray:
    """Returns which modalities (visual, audio) a clip with these notes has: bool [m]."""
    return np.array([note not in notes for note in LACKING])


def black(frames: Sequence[bytes]) -> list[bytes]:
    """Returns as many black JPEGs of the same size."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(frames[0])
    return [simplejpeg.encode_jpeg(np.zeros((height, width, 3), np.uint8))] * len(frames)


def read_clip(
    path: str | os.PathLike,
    spec: ClipSpec,
    start: float | None = None,
    end: float | None = None,
    *,
    keep_lacking: bool = False,
) -> Clip:
    """Reads a clip from the interval [start, end) (s) of a video file; None stands for the file's beginning or end.

    Segment t is [start + t * segment_seconds, start + (t + 1) * segment_seconds); its frame is the one shown at its
    centre. With `keep_lacking`, a clip without sound or without picture is read with the note 'no_sound' or
    'no_picture'; otherwise that is an error. Raises MediaError with a reason from REASONS, whatever fails.
    """
    name = os.fspath(path)
    try:
        return _read(name, spec, start, end, keep_lacking)
    except MediaError:
        raise
    except Exception as error:
        raise MediaError('failed', f'{type(error).__name__}: {error}', name) from error


def _read(path: str, spec: ClipSpec, start: float | None, end: float | None, keep_lacking: bool) -> Clip:
    file = MediaFile(path)
    if file.lacking and not keep_lacking:
        raise file.lacking_error(file.lacking[0])
    start = 0.0 if start is None else float(start)
    end = math.inf if end is None else float(end)
    stretch = f'{start:g} s to {"its end" if end == math.inf else f"{end:g} s"}'
    if not 0 <= start < min(end, file.end_after(start)):
        first = ' (only the first of several joined files is read)' if 'joined' in file.notes else ''
        raise file.error('empty_interval', f'{stretch} holds nothing of its {file.duration:.2f} s{first}')
    stop = min(end, start + spec.seconds)
    starts_t = start + np.arange(spec.segments) * spec.segment_seconds
    ends_t = starts_t + spec.segment_seconds

    centres = [centre for centre in (starts_t + ends_t) / 2 if centre <= stop + ROUNDING]
    if not centres:
        raise file.error('empty_interval', f'{stretch} is less than half a segment')
    pictures, waveform, sound, lacking = _streams(file, centres, start, stop, spec, keep_lacking)
    tracks = [pictures.track] if pictures is not None else []
    tracks += [sound] if sound is not None else []
    file.check_whole(tracks, stop)

    low, high = max(start, *(track.start for track in tracks)), min(stop, *(track.end for track in tracks))
    valid = np.minimum(ends_t, high) - np.maximum(starts_t, low) >= spec.segment_seconds / 2 - ROUNDING
    damaged = sum(track.damaged for track in tracks)
    if not valid.any():
        raise _nothing_valid(file, stretch, pictures, damaged, lacking)
    goes_on = any(track.stopped for track in tracks)
    last = min(end, file.end_after(stop) if goes_on else max(track.reached for track in tracks))
    notes = {
        'short': not valid.all(),
        'long': math.isfinite(last) and last - stop >= spec.segment_seconds / 2,
        'silent': waveform is not None and np.abs(waveform).max() <= SILENCE,
        'damaged': damaged > 0,
        **dict.fromkeys(lacking, True),
    }
    if pictures is None:
        height = width = spec.short_side
        images = [np.zeros((height, width, 3), np.uint8)] * spec.segments
    else:
        height, width = pictures.height, pictures.width
        # In a shorter interval some segments have no frame; they are not valid and therefore black.
        images = pictures.images + [pictures.images[-1]] * (spec.segments - len(centres))
    silence = np.zeros(_samples(spec, MEL_PRESETS[spec.mel].rate), np.float32)
    return Clip(
        frames=_jpegs(images, valid, spec),
        log_mel=_log_mel(silence if waveform is None else waveform, valid & (waveform is not None), spec),
        valid=valid,
        height=height,
        width=width,
        duration=float(min(stop, max(track.end for track in tracks)) - start),
        notes=(*(note for note, holds in notes.items() if holds), *file.notes),
    )


def _streams(
    file: MediaFile, centres: Sequence[float], start: float, stop: float, spec: ClipSpec, keep_lacking: bool
) -> tuple[Pictures | None, np.ndarray | None, Track | None, list[str]]:
    """Reads pictures, waveform and the track of the sound; None, and a note, for a part that a clip may lack.

    Raises MediaError for anything else that is wrong, and where there is neither picture nor sound.
    """
    rate = MEL_PRESETS[spec.mel].rate
    readers = {
        'picture': lambda: file.pictures(centres, start, stop, spec.stored),
        'sound': lambda: file.sound(start, stop, rate, _samples(spec, rate)),
    }
    found: dict[str, Any] = {}
    lacking = []
    for kind, read in readers.items():
        try:
            found[kind] = read()
        except MediaError as error:
            if not keep_lacking or error.reason not in LACKING:
                raise
            lacking.append(error)
    if not found:
        raise lacking[0]
    waveform, sound = found.get('sound', (None, None))
    return found.get('picture'), waveform, sound, [error.reason for error in lacking]


def _nothing_valid(
    file: MediaFile, stretch: str, pictures: Pictures | None, damaged: int, lacking: Sequence[str]
) -> MediaError:
    """Returns the error for an interval in which no segment is valid."""
    seen = ''
    if pictures is not None and len(set(map(id, pictures.images))) == 1 and not pictures.track.stopped:
        seen = f'one picture, until {pictures.track.end:.2f} s; '
    wanted = ' and '.join(kind for kind in ('picture', 'sound') if f'no_{kind}' not in lacking)
    detail = f'{stretch} holds no half segment with {wanted} ({seen}{damaged} damaged packets)'
    return file.error('undecodable' if damaged else 'empty_interval', detail)


def clip_from_arrays(
    frames_thwc: np.ndarray, waveform: np.ndarray, spec: ClipSpec, rate: int = 16000, *, valid: np.ndarray | None = None
) -> Clip:
    """Makes a clip from arrays, by the same steps as `read_clip` after decoding.

    frames_thwc: uint8 [t h w 3], upright, one for each segment's centre.
    waveform: float32 [n], mono, full scale 1, at `rate` samples a second, as long as the clip.
    valid: bool [t]; the other segments become black and silent, with the note 'short'. Default: all are valid.

    Raises ValueError if the arrays are not as described or their shapes are not those of `spec`.
    """
    _check_arrays(frames_thwc, waveform, spec, rate)
    images = [av.VideoFrame.from_ndarray(frame, format='rgb24') for frame in frames_thwc]
    size = upright_size(images[0])
    stored = spec.stored(size)
    valid = np.ones(spec.segments, bool) if valid is None else valid
    mel_rate = MEL_PRESETS[spec.mel].rate
    return Clip(
        frames=_jpegs([upright_rgb(image, stored) for image in images], valid, spec),
        log_mel=_log_mel(_resample(waveform, rate, mel_rate, _samples(spec, mel_rate)), valid, spec),
        valid=valid,
        height=size[0],
        width=size[1],
        duration=float(valid.sum() * spec.segment_seconds),
        notes=('short',) * (not valid.all()),
    )


def _check_arrays(frames_thwc: np.ndarray, waveform: np.ndarray, spec: ClipSpec, rate: int) -> None:
    if frames_thwc.dtype != np.uint8 or frames_thwc.ndim != 4 or frames_thwc.shape[::3] != (spec.segments, 3):
        raise ValueError(
            f'frames {frames_thwc.dtype} {frames_thwc.shape}: give uint8 ({spec.segments}, height, width, 3), one a '
            'segment'
        )
    if not frames_thwc.size:
        raise ValueError(f'frames {frames_thwc.shape}: give at least one pixel')
    if not isinstance(rate, int | np.integer) or not 1 <= rate <= _HIGHEST_RATE:
        raise ValueError(f'rate {rate!r}: give a whole number of samples a second, at most {_HIGHEST_RATE}')
    if waveform.dtype.kind != 'f':
        raise ValueError(f'waveform {waveform.dtype}: give float32 of full scale 1; int16, for instance, is / 32768')
    samples = _samples(spec, rate)
    if waveform.shape != (samples,):
        raise ValueError(f'waveform {waveform.shape}: give ({samples},), {spec.seconds:g} s of mono at {rate} Hz')
    loudest = np.abs(waveform).max()
    if not loudest <= _LOUDEST:
        raise ValueError(f'waveform with values up to {loudest:g}: give finite values of full scale 1, from -1 to 1')


def write_video(
    path: str | os.PathLike, frames_thwc: np.ndarray, fps: float, waveform: np.ndarray | None, rate: int = 16000
) -> None:
    """Writes an mp4 (H.264, AAC); the file appears under its name only when it is complete.

    frames_thwc: uint8 [t h w 3]; H.264 needs even sides, so the last row or column is repeated where a side is odd.
    fps: frames a second.
    waveform: float32 [n], mono, full scale 1, at `rate` samples a second; None for a video without an audio stream.
    """
    frames_thwc = np.pad(frames_thwc, [(0, 0), *((0, side % 2) for side in frames_thwc.shape[1:3]), (0, 0)], 'edge')
    with files.whole_path(path) as part:
        encode_video(part, frames_thwc, fps, waveform, rate)


def encode_video(
    path: str | os.PathLike,
    frames: Iterable[np.ndarray],
    fps: float,
    waveform: np.ndarray | None,
    rate: int,
    **quality: str,
) -> None:
    """Encodes frames as they arrive, uint8 [h w 3] with even sides, with audio [n], or [2 n] in stereo.

    quality: options of libx264.

    The other arguments are those of `write_video`. Raises ValueError if there are no frames, and MediaError
    (not_encodable) if the encoder refuses them, and OSError if the file cannot be written.
    """
    frames, rate_of_frames = iter(frames), fractions.Fraction(fps).limit_denominator(1001)
    first = next(frames, None)
    if first is None:
        raise ValueError('there are no frames to write; give at least one')
    try:
        _encode(os.fspath(path), itertools.chain([first], frames), first.shape, rate_of_frames, waveform, rate, quality)
    except av.FFmpegError as error:
        if (disk := files.of_file_system(error, path)) is not None:
            raise disk from error
        size = f'{first.shape[1]} x {first.shape[0]} pixels, {float(rate_of_frames):g} a second'
        raise MediaError('not_encodable', f'FFmpeg cannot write pictures of {size}: {error}', path) from error


def _encode(
    path: str, frames, shape: tuple[int, ...], fps: fractions.Fraction, waveform, rate: int, quality: dict[str, str]
) -> None:
    # The table of contents comes first, so that a player can start before it has the whole file.
    with av.open(path, 'w', format='mp4', options={'movflags': 'faststart'}) as container:
        video = container.add_stream('libx264', rate=fps, options={'crf': '18', 'preset': 'veryfast'} | quality)
        video.height, video.width = shape[:2]
        video.pix_fmt = 'yuv420p'
        # Whole frames are encoded in parallel; the default cuts each frame into slices, which costs bits and gains
        # less.
        video.thread_type = 'AUTO'
        audio = container.add_stream('aac', rate=rate, layout=_LAYOUTS[waveform.ndim]) if waveform is not None else None
        # The audio of a frame is written right after it, so that the two streams are interleaved in the file.
        sent, samples = 0, waveform.shape[-1] if waveform is not None else 0
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
            frame.pts = i
            container.mux(video.encode(frame))
            until = min(samples, round((i + 1) * rate / fps))
            if sent < until:
                container.mux(audio.encode(_audio_frame(waveform[..., sent:until], rate, sent)))
                sent = until
        if sent < samples:
            container.mux(audio.encode(_audio_frame(waveform[..., sent:], rate, sent)))
        for stream in [video] + [audio] * (audio is not None):
            container.mux(stream.encode(None))


def _samples(spec: ClipSpec, rate: int) -> int:
    return round(spec.seconds * rate)


def _audio_frame(waveform: np.ndarray, rate: int, at: int = 0) -> av.AudioFrame:
    """Returns audio, float32 [n] or [2 n], as a frame that begins at sample `at`."""
    planes = np.ascontiguousarray(np.atleast_2d(waveform), np.float32)
    frame = av.AudioFrame.from_ndarray(planes, format='fltp', layout=_LAYOUTS[waveform.ndim])
    frame.sample_rate, frame.pts = rate, at
    return frame


def _resample(waveform: np.ndarray, rate: int, new_rate: int, samples: int) -> np.ndarray:
    """Resamples mono audio, float32 [n] at `rate`, to another rate: float32 [samples]."""
    resampled, frame = np.zeros(samples, np.float32), _audio_frame(waveform, rate)
    run = SoundRun(0.0, frame, 0.0, new_rate)
    run.write(frame, resampled)
    run.close(resampled)
    return resampled


def _jpegs(images: Sequence[np.ndarray], valid: np.ndarray, spec: ClipSpec) -> list[bytes]:
    return [
        simplejpeg.encode_jpeg(image if shown else np.zeros_like(image), spec.jpeg_quality, colorsubsampling='420')
        for image, shown in zip(images, valid, strict=True)
    ]


def _log_mel(waveform: np.ndarray, valid: np.ndarray, spec: ClipSpec) -> np.ndarray:
    mel = MEL_PRESETS[spec.mel]
    patches = log_mel(waveform, mel, spec.segments, spec.segment_seconds)
    patches[~valid] = mel.silence
    return patches.astype(np.float16)
