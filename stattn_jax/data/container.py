"""Opens media files with PyAV and names the reason where one cannot be used; used by `decode.py`."""

import functools
import mmap
import os
import pathlib
import re
import stat
from collections.abc import Sequence

import av
import av.container

# Maps each reason to the suggested fix.
REASONS = {
    'missing': 'check the path',
    'unreadable': 'check the path and its permissions',
    'not_a_video': 'give a video file with picture and sound',
    'no_picture': 'give a video with a picture stream there, or prepare such clips with --silent=keep',
    'no_sound': 'give a video with a sound stream there, or prepare such clips with --silent=keep',
    'truncated': 'fetch or copy the file again, it is incomplete',
    'empty_interval': 'choose start and end inside the video',
    'undecodable': 'encode the file anew, as H.264 and AAC for instance',
    'not_encodable': 'leave out the mp4 and the page, or make the pictures smaller',
    'failed': 'please report it, with the file',
    'crashed': 'encode the file anew; if memory was short (SIGKILL), use fewer workers',
    'damaged_record': 'delete the damaged shard, prepare the data again, and extract them to another --out',
    'bad_features': 'fetch the feature file again, or make it anew',
}

# Signatures (offset, bytes) of ISO media (after a size), Matroska, AVI and Flash. A file that has one but cannot be
# opened is truncated.
_SIGNATURES = ((4, (b'ftyp', b'moov', b'mdat', b'wide')), (0, (b'\x1a\x45\xdf\xa3', b'RIFF', b'FLV\x01')))

# The header of a Flash file, and a page with which a stream of an Ogg file begins or goes on (RFC 3533, section 6).
_FLASH_HEADER = re.compile(rb'FLV\x01[\x01\x04\x05]\0\0\0\x09\0\0\0\0')
_OGG_BEGINS, _OGG_GOES_ON = re.compile(rb'OggS\0\x02'), re.compile(rb'OggS\0[^\x02]')


class MediaError(Exception):
    """A file cannot become a clip: `reason` is a key of REASONS, `detail` explains it; str() adds file and fix."""

    def __init__(self, reason: str, detail: str, path: str | os.PathLike = ''):
        super().__init__(reason, detail, path)
        self.reason, self.detail, self.path = reason, ' '.join(detail.split()), path

    def __str__(self):
        name = f'{self.path}: ' if self.path else ''
        return f'{name}{self.reason}: {self.detail}; {REASONS[self.reason]}'


def open_media(path: pathlib.Path) -> av.container.InputContainer:
    """Opens a file; raises MediaError (missing, unreadable, not_a_video, truncated)."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise MediaError('missing', 'there is no such file', path) from None
    except (OSError, ValueError) as error:
        raise MediaError('unreadable', getattr(error, 'strerror', None) or str(error), path) from error
    if not stat.S_ISREG(mode):
        raise MediaError('not_a_video', 'it is not a regular file', path)
    try:
        # The whitelist keeps a playlist that is named .mp4 from opening network addresses.
        opened = av.open(str(path), metadata_errors='replace', options={'protocol_whitelist': 'file'})
    except (av.FFmpegError, ValueError) as error:
        raise _unopened(path) from error
    for stream in opened.streams.audio:
        if stream.codec_context is not None:
            _forget_channel_map(stream.codec_context)
    return opened


def _forget_channel_map(codec: av.AudioCodecContext) -> None:
    """Reduces an unusual channel layout to its number of channels.

    PyAV 18 copies layouts with a map of channels (labelled, or in an order of their own: 'FR+FL') without the map and
    frees it twice, which ends the process. The layout read here is then its only owner.
    """
    layout = codec.layout
    if '(' in layout.name or layout.name.startswith('ambisonic'):
        codec.layout = f'{layout.nb_channels} channels'


def is_joined(path: pathlib.Path, container_format: str) -> bool:
    """Returns whether a Flash or Ogg file is several files joined byte by byte; FFmpeg reads only the first of them."""
    if container_format not in ('flv', 'ogg'):
        return False
    status = os.stat(path)
    return _has_second_header(path, container_format, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _has_second_header(path: pathlib.Path, container_format: str, size: int, changed: int) -> bool:
    # `size` and `changed` make another version of the file another key of the cache.
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if container_format == 'flv':
            return _FLASH_HEADER.search(content, 1) is not None
        data = _OGG_GOES_ON.search(content)
        return data is not None and _OGG_BEGINS.search(content, data.start()) is not None


def default_stream(streams: Sequence[av.stream.Stream]) -> av.stream.Stream:
    """Returns the first stream that is flagged "default", or the first of all."""
    return next((one for one in streams if one.disposition & av.stream.Disposition.default), streams[0])


def _unopened(path: pathlib.Path) -> MediaError:
    """Returns the error for a file that FFmpeg cannot open."""
    try:
        with open(path, 'rb') as file:
            head = file.read(8)
    except OSError as error:
        return MediaError('unreadable', error.strerror or str(error), path)
    if any(head[at:].startswith(marks) for at, marks in _SIGNATURES):
        return MediaError('truncated', 'it begins as a video, but its table of contents is broken', path)
    return MediaError('not_a_video', 'its content is of no known media format', path)
