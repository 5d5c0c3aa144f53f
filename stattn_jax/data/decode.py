"""Decodes a media file's video and audio on one clock with PyAV; `media.py` makes clips of the result.

`selective_decoding.py` finds the coded pictures that need not be decoded, `orientation.py` turns the frames upright,
and `waveform.py` joins the audio frames.

Second 0 of the clock is the container's start. Every frame and sample is placed by its own presentation time stamp, so
that variable frame rates, late streams and gaps in the audio are handled as by a player.
"""

import contextlib
import dataclasses
import fractions
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import av
import av.container
import numpy as np

from stattn_jax.data import selective_decoding
from stattn_jax.data.orientation import upright_rgb, upright_size
from stattn_jax.data.waveform import SoundRun

# Maps each reason to the suggested fix.
REASONS = {
    'missing': 'check the path',
    'unreadable': 'check the permissions of the file',
    'not_a_video': 'give a video file with picture and sound',
    'no_picture': 'give a video with a picture stream there',
    'no_sound': 'give a video with a sound stream there',
    'truncated': 'fetch or copy the file again, it is incomplete',
    'empty_interval': 'choose start and end inside the video',
    'undecodable': 'encode the file anew, as H.264 and AAC for instance',
    'bad_features': 'fetch the feature file again, or make it anew',
}

# Matroska rounds time stamps to milliseconds.
ROUNDING = 1e-3
# A stream may end this much (s) earlier than its container declares: in some formats the last frame's duration is a
# guess.
_END_SLACK = 0.5
# A seek goes this much (s) further back, because audio decoders need some frames before their first good sample.
_PREROLL = 0.5
# Signatures (offset, bytes) of ISO media (after a size), Matroska, AVI and Flash. A file that has one but cannot be
# opened is truncated.
_SIGNATURES = ((4, (b'ftyp', b'moov', b'mdat', b'wide')), (0, (b'\x1a\x45\xdf\xa3', b'RIFF', b'FLV\x01')))


class MediaError(Exception):
    """A file cannot become a clip: `reason` is a key of REASONS, `detail` explains it; str() adds file and fix."""

    def __init__(self, reason: str, detail: str, path: str | os.PathLike = ''):
        super().__init__(reason, detail, path)
        self.reason, self.detail, self.path = reason, ' '.join(detail.split()), path

    def __str__(self):
        name = f'{self.path}: ' if self.path else ''
        return f'{name}{self.reason}: {self.detail}; {REASONS[self.reason]}'


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
    """A file with a video and an audio stream.

    `duration` is the duration that the container declares (s; infinity if it declares none), `fps` is the mean frame
    rate and `rate` is the audio sample rate (0 if unknown). Raises MediaError (missing, unreadable, not_a_video,
    no_picture, no_sound, truncated).
    """

    def __init__(self, path: str | os.PathLike):
        # The path is absolute because ffmpeg takes the start of 'a:b.mp4' for a protocol.
        self.path = pathlib.Path(os.path.abspath(path))
        # The first reader takes this container, which saves opening the file again.
        container = self._unread = self._open()
        self._origin = (container.start_time or 0) / av.time_base
        self.duration = container.duration / av.time_base if container.duration else np.inf
        if not container.streams.video and not container.streams.audio:
            raise self.error('not_a_video', 'it holds neither picture nor sound')
        # The cover image of an audio file is a video stream of one frame.
        pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not pictures:
            raise self.error('no_picture', 'it has no picture stream')
        if not container.streams.audio:
            raise self.error('no_sound', 'it has no sound stream')
        self._streams = {'picture': pictures[0].index, 'sound': container.streams.audio[0].index}
        self._tells = selective_decoding.tells(pictures[0].codec_context)
        self._pixel_aspect = float(pictures[0].sample_aspect_ratio or 1)
        self.fps = float(pictures[0].average_rate or 0)
        sound = container.streams.audio[0].codec_context
        self.rate = sound.sample_rate if sound else 0
        self.channels = min(2, sound.layout.nb_channels) if sound else 1

    def error(self, reason: str, detail: str) -> MediaError:
        return MediaError(reason, detail, self.path)

    def pictures(self, times: Sequence[float], start: float, stop: float, stored: Callable) -> Pictures:
        """Returns the frame shown at each of `times` (ascending, within start..stop).

        This is the last frame whose time stamp is not later than the time, or the first frame if there is none. Frames
        are upright and have the (height, width) that `stored` returns for the height and width of the source in square
        pixels. Raises MediaError (no_picture, truncated, undecodable).
        """
        try:
            track, shown = self._needed(times, start, stop)
        except (selective_decoding.UnclearError, av.FFmpegError):
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
        waveform, run = np.zeros(samples if channels == 1 else (channels, samples), np.float32), None
        for time, _, frame in frames:
            if run is None or not run.continues(time, frame):
                if run is not None:
                    run.close(waveform)
                run = SoundRun(time, frame, start, rate, channels)
            run.write(frame, waveform)
            track.cover(time, run.end)
        self._check(track, 'sound', start, stop)
        run.close(waveform)
        waveform[..., round((stop - start) * rate) :] = 0
        return waveform, track

    def check_whole(self, tracks: Sequence[Track], stop: float) -> None:
        """Raises MediaError (truncated) if both streams end early.

        This covers Matroska, which declares one end for the file and none for each stream.
        """
        reached = max(track.reached for track in tracks)
        cut = np.isfinite(self.duration) and reached < min(stop, self.duration) - _END_SLACK
        if cut and not any(track.stopped for track in tracks):
            raise self.error('truncated', f'it ends at {reached:.2f} s of {self.duration:.2f} s')

    def _needed(self, times: Sequence[float], start: float, stop: float) -> tuple[Track, list[av.VideoFrame]]:
        """Like `shown`, but decodes only what these frames need.

        Raises selective_decoding.UnclearError or av.FFmpegError for anything unusual.
        """
        if not self._tells:
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
        self._check(track, 'picture', start, stop)
        yield from itertools.repeat(held, len(times) - given)

    def _open(self) -> av.container.InputContainer:
        if not self.path.exists():
            raise self.error('missing', 'there is no such file')
        if not self.path.is_file():
            raise self.error('not_a_video', 'it is not a regular file')
        try:
            # The whitelist keeps a playlist that is named .mp4 from opening network addresses.
            return av.open(str(self.path), metadata_errors='replace', options={'protocol_whitelist': 'file'})
        except PermissionError as error:
            raise self.error('unreadable', error.strerror) from error
        except av.FFmpegError as error:
            with open(self.path, 'rb') as file:
                head = file.read(8)
            if any(head[at:].startswith(marks) for at, marks in _SIGNATURES):
                raise self.error('truncated', 'it begins as a video, but its table of contents is broken') from error
            raise self.error('not_a_video', 'its content is of no known media format') from error

    def _frames(self, kind: str, start: float, stop: float) -> tuple[Track, Iterator[tuple]]:
        """Returns the track and an iterator of the frames up to `stop` with their times and lengths.

        The first frame is at or before `start`. The track is updated as frames are read.
        """
        if start > _PREROLL:
            track = Track()
            frames = self._decode(track, kind, start, stop, start - _PREROLL)
            first = next(frames, None)
            if first is not None and first[0] <= start:
                return track, itertools.chain([first], frames)
            # In MPEG-TS a seek can land behind its target (seen with FFmpeg 8); the file is then read from its
            # beginning.
        track = Track()
        return track, self._decode(track, kind, start, stop, 0.0)

    @contextlib.contextmanager
    def _opened(self, track: Track, kind: str, seek: float):
        """Opens the file and a stream, positioned at `seek` (s) or a little before (0 or less: at the beginning).

        Stores in the track the end that the container declares.
        """
        opened, self._unread = self._unread or self._open(), None
        with opened as container:
            stream = container.streams[self._streams[kind]]
            if stream.codec_context is None:
                raise self.error('undecodable', f'its {kind} is in an unknown codec')
            # Only a container that counts a stream's frames (ISO media, AVI) has a reliable end; elsewhere FFmpeg may
            # guess it.
            if stream.duration and stream.frames:
                track.declared = self._seconds((stream.start_time or 0) + stream.duration, stream.time_base)
            if seek > 0:
                container.seek(int((seek + self._origin) / stream.time_base), stream=stream)
            yield container, stream

    def _decode(self, track: Track, kind: str, start: float, stop: float, seek: float):
        with self._opened(track, kind, seek) as (container, stream):
            following, base = 0.0 if seek <= 0 else None, stream.time_base
            for packet in self._packets(container, stream, track):
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    frames = []
                    track.damaged += packet.pts is not None and self._seconds(packet.pts, base) >= start
                for frame in frames:
                    # Some decoders (Windows Media) set a time stamp on the first frame of a packet only; the others
                    # follow it.
                    time = following if frame.pts is None else self._seconds(frame.pts, base)
                    if time is None:
                        continue
                    length = self._length(frame, base)
                    following = time + length
                    if time >= stop:
                        track.stopped = True
                        return
                    track.damaged += frame.is_corrupt and time >= start
                    yield time, length, frame

    def _packets(self, container, stream, track: Track):
        base = stream.time_base
        try:
            for packet in container.demux(stream):
                if packet.pts is not None:
                    track.reached = max(track.reached, self._seconds(packet.pts + (packet.duration or 0), base))
                yield packet
        except av.FFmpegError:
            track.damaged += 1

    def _seconds(self, stamp: int, base: fractions.Fraction) -> float:
        # Multiplying stamp * base builds a fraction first, which took a tenth of the time of reading a file.
        return stamp * base.numerator / base.denominator - self._origin

    def _length(self, timed: av.Packet | av.VideoFrame | av.AudioFrame, base: fractions.Fraction) -> float:
        if isinstance(timed, av.AudioFrame):
            return timed.samples / timed.sample_rate
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
