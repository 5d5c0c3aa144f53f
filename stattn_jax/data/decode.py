"""Decodes a media file's video and audio on one clock with PyAV; `media.py` makes clips of the result.

`selective_decoding.py` finds the coded pictures that need not be decoded, `orientation.py` turns the frames upright,
`waveform.py` joins the audio frames, `clock.py` corrects time stamps, and `container.py` opens files.

Second 0 of the clock is the container's start. Every frame and sample is placed by its own presentation time stamp, so
that variable frame rates, late streams and gaps in the audio are handled as by a player. A picture lasts until the next
one.
"""

import contextlib
import dataclasses
import fractions
import functools
import itertools
import operator
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import av
import av.container
import numpy as np

from stattn_jax.data import clock, selective_decoding
from stattn_jax.data.container import MediaError, default_stream, is_joined, open_media
from stattn_jax.data.orientation import upright_rgb, upright_size
from stattn_jax.data.waveform import SoundRun

# Matroska rounds time stamps to milliseconds.
ROUNDING = 1e-3
# A stream may end this much (s) earlier than its container declares: in some formats the last frame's duration is a
# guess.
_END_SLACK = 0.5
# A seek goes this much (s) further back, because audio decoders need some frames before their first good sample.
_PREROLL = 0.5
# Containers that are read through one table of contents or one running clock. In the others each part of a joined file
# has its own clock, and FFmpeg estimates the duration.
_ONE_CLOCK = ('mov', 'matroska', 'avi', 'asf')
# Containers in which `selective_decoding.py` finds the pictures by their time stamps.
_TELLING = ('mov', 'matroska', 'flv')


@dataclasses.dataclass
class Track:
    """The part of one stream that was read: the interval (s) covered by decoded frames, and damage.

    `damaged` counts damaged packets or frames. `declared` is the end (s) that the container declares for the stream
    (infinity if it declares none), `reached` is the end (s) of the last packet read, and `stopped` is true if reading
    ended because enough had been read.
    """

    start: float = np.inf
    end: float = -np.inf
    declared: float = np.inf
    reached: float = -np.inf
    damaged: int = 0
    stopped: bool = False

    def cover(self, start: float, end: float) -> None:
        self.start, self.end = min(self.start, start), max(self.end, end)


@dataclasses.dataclass
class Pictures:
    """Frames uint8 [h w 3], one for each requested time.

    `height` and `width` (pixels) are those of the upright source frame.
    """

    images: list[np.ndarray]
    height: int
    width: int
    track: Track


class MediaFile:
    """A file with a video or an audio stream or both: those flagged "default", or the first of their kind.

    `fps` is the mean frame rate and `rate` is the audio sample rate (0 if unknown). `lacking` holds 'picture' or
    'sound' if there is no such stream; reading it raises MediaError (no_picture, no_sound). `notes` says which streams
    are read where there are several, 'sound 2 of 3' for instance, and 'joined' that only the first of several joined
    files is read. Raises MediaError (missing, unreadable, not_a_video,
    truncated).
    """

    def __init__(self, path: str | os.PathLike):
        # The path is absolute because ffmpeg takes the start of 'a:b.mp4' for a protocol.
        self.path = pathlib.Path(os.path.abspath(path))
        # The first reader takes this container, which saves opening the file again.
        container = self._unread = open_media(self.path)
        self._origin = (container.start_time or 0) / av.time_base
        if not container.streams.video and not container.streams.audio:
            raise self.error('not_a_video', 'it holds neither picture nor sound')
        # The cover image of an audio file is a video stream of one frame.
        pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        kinds = {'picture': pictures, 'sound': container.streams.audio}
        self.lacking = tuple(kind for kind, streams in kinds.items() if not streams)
        if len(self.lacking) == len(kinds):
            raise self.lacking_error('picture')
        chosen: dict[str, Any] = {kind: default_stream(streams) for kind, streams in kinds.items() if streams}
        self._streams = {kind: stream.index for kind, stream in chosen.items()}
        self.notes = tuple(
            f'{kind} {list(streams).index(chosen[kind]) + 1} of {len(streams)}'
            for kind, streams in kinds.items()
            if len(streams) > 1
        )
        picture, sound = chosen.get('picture'), 'sound' in chosen and chosen['sound'].codec_context
        container_format = container.format.name.partition(',')[0]
        self.notes += ('joined',) * is_joined(self.path, container_format)
        # Matroska holds no decoding time stamps.
        self._decoding = container_format != 'matroska'
        self._declared = self._declared_end(container, chosen.values())
        self._measured = container_format not in _ONE_CLOCK or self._origin > _END_SLACK or np.isinf(self._declared)
        self._tells = picture and container_format in _TELLING and selective_decoding.tells(picture.codec_context)
        self._pixel_aspect = float(picture and picture.sample_aspect_ratio or 1)
        self.fps = float(picture and picture.average_rate or 0)
        self.rate = sound.sample_rate if sound else 0
        self.channels = min(2, sound.layout.nb_channels) if sound else 1

    @property
    def duration(self) -> float:
        """The end of the file (s) that its container declares, or else that its packets show; infinity if none does."""
        return (self._extent.end or np.inf) if self._measured else self._declared

    def end_after(self, time: float) -> float:
        """Returns `duration`, or the end (s) that the packets show if the declared one is not after `time`."""
        return self.duration if self.duration > time else max(self.duration, self._extent.end)

    def error(self, reason: str, detail: str) -> MediaError:
        return MediaError(reason, detail, self.path)

    def lacking_error(self, kind: str) -> MediaError:
        """Returns the error for a file without a stream of this kind, 'picture' or 'sound'."""
        return self.error(f'no_{kind}', f'it has no {kind} stream')

    def pictures(self, times: Sequence[float], start: float, stop: float, stored: Callable) -> Pictures:
        """Returns the frame shown at each of `times` (ascending, within start..stop).

        This is the last frame whose time stamp is not later than the time, or the first frame if there is none. Frames
        are upright and have the (height, width) that `stored` returns for the height and width of the source in square
        pixels. Raises MediaError (no_picture, truncated, undecodable).
        """
        try:
            track, shown = self._needed(times, start, stop)
        except (selective_decoding.UnclearError, av.FFmpegError, _SeekError):
            track, frames = self.shown(times, start, stop)
            shown = list(frames)
        size = self.size(shown[0])
        images = {id(frame): upright_rgb(frame, stored(size)) for frame in shown}
        return Pictures([images[id(frame)] for frame in shown], *size, track)

    def shown(self, times: Sequence[float], start: float, stop: float) -> tuple[Track, Iterator[av.VideoFrame]]:
        """Like `pictures`, but yields decoded frames at their coded size one by one, so that memory is bounded.

        The track is complete once the iterator is exhausted.
        """
        track, frames = self._frames('picture', start, stop)
        return track, self._held(times, start, stop, track, frames)

    def size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Returns height and width (pixels) of a frame of this file once it is upright and its pixels are square."""
        return upright_size(frame, self._pixel_aspect)

    def sound(self, start: float, stop: float, rate: int, samples: int, channels: int = 1) -> tuple[np.ndarray, Track]:
        """Returns mono audio (the mean of the channels) from `start`: float32 [samples] at `rate`.

        Samples after `stop` and in gaps are zero. With `channels` 2 the result is stereo, [2 samples], with further
        channels mixed in. Raises MediaError (no_sound, truncated, undecodable).
        """
        track, frames = self._frames('sound', start, stop)
        waveform = np.zeros(samples if channels == 1 else (channels, samples), np.float32)
        try:
            self._write_sound(frames, track, waveform, start, rate)
        except (av.FFmpegError, ValueError) as error:
            raise self.error('undecodable', f'its sound cannot be resampled: {error}') from error
        self._check(track, 'sound', start, stop)
        waveform[..., round((stop - start) * rate) :] = 0
        return waveform, track

    def _write_sound(self, frames, track: Track, waveform: np.ndarray, start: float, rate: int) -> None:
        run = None
        for time, _, frame in frames:
            if run is None or not run.continues(time, frame):
                if run is not None:
                    run.close(waveform)
                run = SoundRun(time, frame, start, rate, waveform.ndim)
            run.write(frame, waveform)
            track.cover(time, run.end)
        if run is not None:
            run.close(waveform)

    def check_whole(self, tracks: Sequence[Track], stop: float) -> None:
        """Raises MediaError (truncated) if all of these streams end early, and no other stream goes on.

        This covers Matroska, which declares one end for the file and none for each stream.
        """
        reached = max(track.reached for track in tracks)
        cut = np.isfinite(self._declared) and reached < min(stop, self._declared) - _END_SLACK
        if not cut or any(track.stopped for track in tracks):
            return
        if self._extent.whole < self._declared - _END_SLACK:
            raise self.error('truncated', f'it ends at {reached:.2f} s of {self._declared:.2f} s')

    def _needed(self, times: Sequence[float], start: float, stop: float) -> tuple[Track, list[av.VideoFrame]]:
        """Like `shown`, but decodes only the pictures that these frames need.

        Raises selective_decoding.UnclearError or av.FFmpegError for anything unusual.
        """
        if not self._tells or self._joined(start):
            raise selective_decoding.UnclearError('not a codec and container that tell')
        track = Track()
        with self._opened(track, 'picture', start - _PREROLL) as (container, stream):
            base = stream.time_base
            packets = self._packets(container, stream, track)
            read = selective_decoding.read(packets, lambda stamp: self._seconds(stamp, base), stop)
            inside = [picture for picture in read if picture.shown and picture.time < stop]
            for picture in inside:
                track.cover(picture.time, picture.time + self._length(picture.packet, base))
            if track.damaged or track.end <= start or (start > _PREROLL and track.start > start):
                raise selective_decoding.UnclearError('damaged, or not read from its beginning')
            track.stopped = any(picture.shown and picture.time >= stop for picture in read)
            if track.stopped:
                track.cover(start, stop)
            # Data preparation runs many processes, and elsewhere one process waits for one clip: more threads cost more
            # than they save.
            stream.codec_context.thread_count = 1
            # If the decoder would conceal an error, everything is decoded instead.
            stream.codec_context.options = {'err_detect': 'explode'}
            frames = selective_decoding.decode(
                read, selective_decoding.shown(inside, times, ROUNDING), stream.codec_context
            )
        self._check(track, 'picture', start, stop)
        return track, frames

    def _held(self, times, start, stop, track, frames):
        held, given = None, 0
        for time, length, frame in frames:
            while held is not None and given < len(times) and times[given] + ROUNDING < time:
                yield held
                given += 1
            held = frame
            track.cover(time, time + length)
        if track.stopped and held is not None:
            # The next picture proves that this one lasts.
            track.cover(time, stop)
        self._check(track, 'picture', start, stop)
        yield from itertools.repeat(held, len(times) - given)

    def _declared_end(self, container, streams: Iterable[av.stream.Stream]) -> float:
        """Returns the end (s) that a container declares for the streams that are read; infinity if it declares none."""
        ends = [self._stream_end(stream) for stream in streams]
        if len(container.streams) > len(ends) and np.isfinite(ends).all():
            return max(ends)
        if not container.duration:
            return np.inf
        # Matroska, WebM and fragmented ISO media declare the time from the zero of their clock, or (some writers) from
        # their start: the earlier of the two is certain.
        return container.duration / av.time_base - (self._origin if self._origin > _END_SLACK else 0.0)

    def _stream_end(self, stream: av.stream.Stream) -> float:
        # Only a container that counts a stream's frames (ISO media, AVI) has a reliable end; elsewhere FFmpeg may guess
        # it.
        if stream.duration and stream.frames:
            return self._seconds((stream.start_time or 0) + stream.duration, stream.time_base)
        return np.inf

    @functools.cached_property
    def _extent(self) -> clock.Extent:
        with open_media(self.path) as container:
            return clock.measure(container, self._streams.values(), self._origin, self._decoding)

    def _joined(self, start: float) -> bool:
        """Returns whether the file has several parts, so that a seek to `start` (s) could reach any of them.

        Up to the declared end a seek reaches the first part.
        """
        doubtful = self._measured or start > self._declared - _END_SLACK
        return doubtful and self._extent.offsets != (0.0,)

    def _offsets(self) -> tuple[float, ...]:
        """Returns the seconds to add to the parts of a file whose clock goes back."""
        if self._extent.offsets is None:
            raise self.error('undecodable', 'the time stamps of one of its streams go back, those of the other do not')
        return self._extent.offsets

    def _frames(self, kind: str, start: float, stop: float) -> tuple[Track, Iterator[tuple]]:
        """Returns the track and an iterator of the frames up to `stop` with their times and lengths.

        The first frame is at or before `start`. The track is updated as frames are read.
        """
        if start > _PREROLL and not self._joined(start):
            track = Track()
            frames = self._decode(track, kind, start, stop, start - _PREROLL)
            # In MPEG-TS a seek can land behind its target (seen with FFmpeg 8), and FFmpeg refuses some seeks; the file
            # is then read from its beginning.
            with contextlib.suppress(_SeekError):
                first = next(frames, None)
                if first is not None and first[0] <= start:
                    return track, itertools.chain([first], frames)
        track = Track()
        return track, self._decode(track, kind, start, stop, 0.0)

    @contextlib.contextmanager
    def _opened(self, track: Track, kind: str, seek: float):
        """Opens the file and a stream, positioned at `seek` (s) or a little before (0 or less: at the beginning).

        Stores in the track the end that the container declares.
        """
        if kind in self.lacking:
            raise self.lacking_error(kind)
        opened, self._unread = self._unread or open_media(self.path), None
        with opened as container:
            stream = container.streams[self._streams[kind]]
            if stream.codec_context is None:
                raise self.error('undecodable', f'its {kind} is in an unknown codec')
            track.declared = self._stream_end(stream)
            if seek > 0:
                try:
                    container.seek(int((seek + self._origin) / stream.time_base), stream=stream)
                except av.FFmpegError as error:
                    raise _SeekError from error
            yield container, stream

    def _decode(self, track: Track, kind: str, start: float, stop: float, seek: float):
        def drop(item):
            track.damaged += item[0] >= start

        with self._opened(track, kind, seek) as (container, stream):
            shift = clock.Shift(self._offsets)
            frames = self._timed(container, stream, track, start, 0.0 if seek <= 0 else None)
            for time, length, frame in clock.steady(frames, operator.itemgetter(0), drop):
                time += shift(time)
                if time >= stop:
                    track.stopped = True
                    return
                track.damaged += frame.is_corrupt and time >= start
                yield time, length, frame

    def _timed(self, container, stream, track: Track, start: float, following: float | None):
        """Yields (time, length, frame) of every frame that can be decoded; `following` is the time of the first."""
        best, base = clock.BestEffort(), stream.time_base
        for packet in self._packets(container, stream, track):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                frames = []
                track.damaged += packet.pts is not None and self._seconds(packet.pts, base) >= start
            for frame in frames:
                stamp = best(frame.pts, frame.dts) if isinstance(frame, av.VideoFrame) else frame.pts
                # Some decoders (Windows Media) set a time stamp on the first frame of a packet only; the others follow
                # it.
                time = following if stamp is None else self._seconds(stamp, base)
                if time is not None:
                    length = self._length(frame, base)
                    following = time + length
                    yield time, length, frame

    def _packets(self, container, stream, track: Track):
        base, shift = stream.time_base, clock.Shift(self._offsets)
        running = clock.Running(self._decoding, lambda stamp: self._seconds(stamp, base))
        try:
            for packet in clock.packets(container, stream):
                if packet.pts is not None:
                    end = self._seconds(packet.pts + (packet.duration or 0), base)
                    track.reached = max(track.reached, end + shift(running(packet)))
                yield packet
        except av.FFmpegError:
            track.damaged += 1

    def _seconds(self, stamp: int, base: fractions.Fraction) -> float:
        # Multiplying stamp * base builds a fraction first, which took a tenth of the time of reading a file.
        return stamp * base.numerator / base.denominator - self._origin

    def _length(self, timed: av.Packet | av.VideoFrame | av.AudioFrame, base: fractions.Fraction) -> float:
        if isinstance(timed, av.AudioFrame):
            return timed.samples / timed.sample_rate if timed.sample_rate else 0.0
        if timed.duration:
            return timed.duration * base.numerator / base.denominator
        return 1 / self.fps if self.fps else 0.0

    def _check(self, track: Track, kind: str, start: float, stop: float) -> None:
        cut = np.isfinite(track.declared) and track.reached < min(stop, track.declared) - _END_SLACK
        if cut and not track.stopped:
            raise self.error('truncated', f'its {kind} ends at {max(track.reached, 0):.2f} s of {track.declared:.2f} s')
        if track.end <= start:
            if track.damaged:
                raise self.error('undecodable', f'none of its {kind} can be decoded ({track.damaged} damaged packets)')
            raise self.error(f'no_{kind}', f'its {kind} stream holds nothing between {start:.2f} s and {stop:.2f} s')


class _SeekError(Exception):
    """FFmpeg refuses to seek in a file."""
