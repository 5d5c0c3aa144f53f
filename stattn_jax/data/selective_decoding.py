"""Finds the coded pictures of an H.264 stream that a few frames need, so that `decode.py` decodes no others.

A picture is needed if it is requested, or if it lies between the preceding refresh and a requested picture and other
pictures may refer to it. Its packet contains this information: H.264 in ISO media and Matroska is a sequence of units,
each after its size, whose first byte holds the unit's type and whether other pictures refer to it (ITU-T H.264, 7.3.1
and 7.4.1). At a refresh (IDR) the decoder drops all earlier pictures. The frames are bit-identical to those of decoding
everything; any irregularity in the stream raises `UnclearError`.
"""

import bisect
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import av

# Unit types (ITU-T H.264, table 7-1): slice, slice of a refresh; parameter sets; units that do not concern other
# pictures.
_SLICE, _REFRESH = 1, 5
_SETTINGS = (7, 8)
_ASIDES = (6, 9, 12)
# At most this many of the pictures decoded before a picture are shown after it (the largest decoded picture buffer,
# A.3.1).
_MOST_HELD = 16
# The largest allowed step between pictures, as a multiple of the shortest. Time stamps in whole milliseconds differ by
# less at 300 frames a second.
_UNEVEN = 1.5


class UnclearError(Exception):
    """The stream does not show, or not reliably, which pictures are needed, so everything must be decoded."""


@dataclasses.dataclass(frozen=True, slots=True)
class CodedPicture:
    """A packet with its time (s).

    The flags are true if it is shown, if others may refer to it, if it is a refresh and if it contains parameter sets.
    """

    packet: av.Packet
    time: float
    shown: bool
    reference: bool
    refresh: bool
    settings: bool


def tells(codec: av.codec.CodecContext | None) -> bool:
    """Returns whether a stream is H.264 with units after four-byte sizes, as in ISO media and Matroska."""
    extra = codec.extradata if codec is not None and codec.name == 'h264' else None
    return extra is not None and len(extra) > 4 and extra[0] == 1 and extra[4] & 3 == 3


def read(packets: Iterable[av.Packet], seconds: Callable[[int], float], stop: float) -> list[CodedPicture]:
    """Returns the pictures in decoding order, up to a point after which none is shown before `stop` (s).

    They include a few later pictures if the stream goes on.
    seconds: returns the time (s) of a time stamp.

    Raises UnclearError.
    """
    pictures, late, last = [], 0, -math.inf
    for packet in packets:
        if packet.pts is None and not packet.size:
            break
        if packet.pts is None or packet.is_corrupt or packet.has_sidedata('new_extradata'):
            raise UnclearError('a packet without a time stamp, cut short, or in another form')
        picture = _picture(packet, seconds(packet.pts))
        if picture.refresh and picture.time < last:
            raise UnclearError('a clock that goes back')
        last = max(last, picture.time)
        pictures.append(picture)
        late += picture.time >= stop
        if late > _MOST_HELD or (picture.refresh and picture.time >= stop):
            break
    if not pictures or not pictures[0].refresh or len({picture.packet.pts for picture in pictures}) < len(pictures):
        raise UnclearError('no refresh at its beginning, or two pictures at a time')
    return pictures


def shown(pictures: Sequence[CodedPicture], times: Sequence[float], rounding: float) -> list[CodedPicture]:
    """Returns the picture shown at each of `times` (s).

    This is the last picture whose time is not later by more than `rounding`, or the first if there is none. Raises
    UnclearError if the pictures are not evenly spaced.
    """
    ordered = sorted(pictures, key=lambda picture: picture.time)
    starts = [picture.time for picture in ordered]
    steps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    # A gap may be a lost picture, which decoders replace by something that depends on the pictures before.
    if steps and max(steps) > _UNEVEN * min(steps):
        raise UnclearError('pictures at an uneven pace')
    return [ordered[max(0, bisect.bisect_right(starts, time + rounding) - 1)] for time in times]


def decode(
    pictures: Sequence[CodedPicture], wanted: Sequence[CodedPicture], codec: av.VideoCodecContext
) -> list[av.VideoFrame]:
    """Returns the frames of the wanted pictures and decodes only the pictures that they need.

    Raises UnclearError or av.FFmpegError.
    """
    stamps, found, last = {picture.packet.pts for picture in wanted}, {}, None
    for packet in [*_needed(pictures, stamps), None]:
        for frame in codec.decode(packet):
            if frame.is_corrupt or frame.pts is None or (last is not None and frame.pts <= last):
                raise UnclearError('a damaged frame, or frames out of order')
            last = frame.pts
            if frame.pts in stamps:
                found[frame.pts] = frame
    if len(found) < len(stamps):
        raise UnclearError('a frame did not come')
    return [found[picture.packet.pts] for picture in wanted]


def _needed(pictures: Sequence[CodedPicture], stamps: set[int]) -> list[av.Packet]:
    needed, leads = [], False
    for picture in reversed(pictures):
        requested = picture.packet.pts in stamps
        if requested or picture.settings or (leads and picture.reference):
            needed.append(picture.packet)
        leads = (leads or requested) and not picture.refresh
    return needed[::-1]


def _picture(packet: av.Packet, time: float) -> CodedPicture:
    units, at, types, referred = memoryview(packet), 0, set(), False
    while at + 4 < len(units):
        header = units[at + 4]
        types.add(header & 31)
        # The first bit of a unit is never set; two bits show whether others refer to it.
        if header & 128:
            raise UnclearError('a broken unit')
        referred |= header & 31 in (_SLICE, _REFRESH) and bool(header & 96)
        size = int.from_bytes(units[at : at + 4], 'big')
        if not size:
            raise UnclearError('an empty unit')
        at += 4 + size
    if at != len(units) or not types & {_SLICE, _REFRESH} or types - {_SLICE, _REFRESH, *_SETTINGS, *_ASIDES}:
        raise UnclearError('units that do not fill their packet, or of rare types')
    return CodedPicture(packet, time, not packet.is_discard, referred, _REFRESH in types, bool(types & set(_SETTINGS)))
