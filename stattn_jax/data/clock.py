"""Corrects time stamps as players do: wrong order, single wild stamps, clocks that go back; used by `decode.py`.

In files that were joined byte by byte (MPEG-TS, for instance) the clock begins anew with each part. `measure` finds the
parts of the streams in one pass over the packets, without decoding, and `Shift` moves each part behind the one before.
"""

import contextlib
import dataclasses
import fractions
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import av
import av.container

# A stamp that is more than this much (s) before the last one begins another part of a joined file.
_BACK = 0.5
# A single stamp further ahead than this much (s) is wrong if the next one is in line with those before it.
_LEAP = 10.0


class BestEffort:
    """FFmpeg's best-effort time stamp of a decoded frame (libavcodec/decode.c, guess_correct_pts).

    In AVI and ASF, FFmpeg makes the presentation time stamps of pictures that are coded out of order from the order in
    which they are stored. Those time stamps go back, and the decoding time stamps, in which frames leave the decoder,
    do not. The stamp that has gone back less often is used.
    """

    def __init__(self):
        self._last: list[int | None] = [None, None]
        self._faults, self._decoding = [0, 0], False

    def __call__(self, pts: int | None, dts: int | None) -> int | None:
        """Returns the time stamp of the next frame in the decoder's order, or None if nothing reliable is known."""
        for i, (own, other) in enumerate(((pts, dts), (dts, pts))):
            if own is not None and self._last[i] is not None:
                self._faults[i] += own <= self._last[i]
            self._last[i] = own if own is not None else other if other is not None else self._last[i]
        self._decoding |= dts is not None
        if pts is not None and (self._faults[0] <= self._faults[1] or not self._decoding):
            return pts
        return dts


def steady(items: Iterable, time: Callable[[Any], float], dropped: Callable[[Any], object]) -> Iterator:
    """Yields the items without those whose time alone is out of line; `dropped` is called with each of these."""
    last = odd = None
    for item in items:
        now = time(item)
        if odd is not None:
            if -_BACK <= now - last <= _LEAP:
                dropped(odd)
            else:
                yield odd
                last = time(odd)
            odd = None
        if last is not None and not -_BACK <= now - last <= _LEAP:
            odd = item
            continue
        yield item
        last = now
    if odd is not None:
        yield odd


class Shift:
    """Returns the seconds to add to the times of one stream, given one after the other.

    offsets: returns the seconds to add to each part of the file; called only once the times go back.
    """

    def __init__(self, offsets: Callable[[], tuple[float, ...]]):
        self._offsets, self._part = offsets, 0
        self._last: float | None = None

    def __call__(self, time: float) -> float:
        self._part += self._last is not None and time < self._last - _BACK
        self._last = time
        if not self._part:
            return 0.0
        offsets = self._offsets()
        return offsets[min(self._part, len(offsets) - 1)]


@dataclasses.dataclass(frozen=True)
class Extent:
    """Facts about a file that its packets show.

    `end` is the end (s) of the measured streams on a clock that never goes back, `whole` the last time stamp (s) of any
    stream, and `offsets` the seconds to add to each part of the file; None if one stream goes back and the other does
    not, so that nothing shows which parts belong together.
    """

    end: float
    whole: float
    offsets: tuple[float, ...] | None


class Running:
    """Returns for each packet of a stream a time (s) that goes back where the clock of a joined file does, only there.

    decoding: whether the container holds decoding time stamps. Elsewhere FFmpeg guesses them, and the presentation time
      of a key frame is used, which is later than those of all pictures stored before it.
    seconds: returns the time (s) of a time stamp.
    """

    def __init__(self, decoding: bool, seconds: Callable[[int], float]):
        self._decoding, self._seconds = decoding, seconds
        self._last: float | None = None

    def __call__(self, packet: av.Packet) -> float | None:
        if self._decoding and packet.dts is not None:
            self._last = self._seconds(packet.dts)
        elif packet.pts is not None:
            time = self._seconds(packet.pts)
            self._last = time if packet.is_keyframe or self._last is None else max(time, self._last)
        return self._last


def measure(
    container: av.container.InputContainer, streams: Iterable[int], origin: float, decoding: bool = True
) -> Extent:
    """Reads all packets; `streams` are the indices of those that are measured, `origin` (s) is second 0.

    decoding: see `Running`.
    """
    seconds = {stream.index: _to_seconds(stream.time_base, origin) for stream in container.streams}
    times: dict[int, list[tuple[float, float, float]]] = {index: [] for index in streams}
    runs = {index: Running(decoding, seconds[index]) for index in times}
    whole = 0.0
    with contextlib.suppress(av.FFmpegError):
        for packet in packets(container):
            shown = packet.dts if packet.pts is None else packet.pts
            if shown is None:
                continue
            to_seconds = seconds[packet.stream_index]
            start, end = to_seconds(shown), to_seconds(shown + (packet.duration or 0))
            whole = max(whole, end)
            if packet.stream_index in times:
                times[packet.stream_index].append((runs[packet.stream_index](packet), start, end))
    parts = [_parts(steady(known, lambda item: item[0], lambda item: None)) for known in times.values() if known]
    if not parts:
        return Extent(0.0, whole, (0.0,))
    if len({len(known) for known in parts}) > 1:
        return Extent(max(end for known in parts for _, end in known), whole, None)
    offsets = [0.0]
    for before, after in itertools.pairwise(zip(*parts, strict=True)):
        offsets.append(offsets[-1] + max(end for _, end in before) - min(start for start, _ in after))
    return Extent(offsets[-1] + max(known[-1][1] for known in parts), whole, tuple(offsets))


def packets(container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet]:
    """Yields the packets of the streams (default: all) up to the end of the file; raises av.FFmpegError for damage."""
    try:
        yield from container.demux(*streams)
    except IndexError:
        # PyAV 18 ends with this when streams have appeared while it read, which it cannot flush. They come after those
        # that are read here, whose last, empty packets it has given by then.
        return


def _parts(times: Iterable[tuple[float, float, float]]) -> list[tuple[float, float]]:
    """Returns the first start and the last end (s) of each part of a stream, from (running time, start, end)."""
    parts, last = [], None
    for now, start, end in times:
        if last is None or now < last - _BACK:
            parts.append((start, end))
        parts[-1] = (min(parts[-1][0], start), max(parts[-1][1], end))
        last = now
    return parts


def _to_seconds(base: fractions.Fraction, origin: float) -> Callable[[int], float]:
    return lambda stamp: stamp * base.numerator / base.denominator - origin
