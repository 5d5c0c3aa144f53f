"""Small media files of seven containers and mutations of them from seeds, for test_media_fuzz.py."""

import contextlib
import fractions
import io
import pathlib

import av
import numpy as np

RATE = 48000
SECONDS, FPS = 4, 10
# Container, video codec and audio codec of each file.
CONTAINERS = {
    'mp4': ('mp4', 'libx264', 'aac'),
    'mov': ('mov', 'libx264', 'pcm_s16le'),
    'mkv': ('matroska', 'libx264', 'aac'),
    'webm': ('webm', 'libvpx', 'libopus'),
    'avi': ('avi', 'libx264', 'mp3'),
    'flv': ('flv', 'libx264', 'aac'),
    'ts': ('mpegts', 'libx264', 'aac'),
}
_BOXES = (b'moov', b'trak', b'mdia', b'minf', b'stbl', b'edts', b'udta')
_TIMED = (b'stts', b'ctts', b'elst', b'mvhd', b'mdhd', b'tkhd', b'stsc', b'stsz', b'stco')


def make(name: str, seed: int = 0) -> bytes:
    """Returns a file of moving pictures (keyframes every second) and noise."""
    kind, video_codec, audio_codec = CONTAINERS[name]
    rng, target = np.random.default_rng(seed), io.BytesIO()
    texture = rng.integers(0, 200, (12, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    with av.open(target, 'w', format=kind) as container:
        video = container.add_stream(video_codec, rate=FPS)
        video.height, video.width, video.pix_fmt, video.codec_context.gop_size = 48, 64, 'yuv420p', FPS
        audio = container.add_stream(audio_codec, rate=RATE, layout='stereo')
        sound = 0.1 * rng.standard_normal((1, 2 * SECONDS * RATE))
        for i in range(SECONDS * FPS):
            frame = av.VideoFrame.from_ndarray(np.roll(texture, i, 1), format='rgb24')
            frame.pts, frame.time_base = i, fractions.Fraction(1, FPS)
            container.mux(video.encode(frame))
            part = sound[:, 2 * i * RATE // FPS : 2 * (i + 1) * RATE // FPS]
            heard = av.AudioFrame.from_ndarray((part * 32767).astype(np.int16), format='s16', layout='stereo')
            heard.sample_rate, heard.pts, heard.time_base = RATE, i * RATE // FPS, fractions.Fraction(1, RATE)
            container.mux(audio.encode(heard))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    return target.getvalue()


def mutate(name: str, content: bytes, other: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Returns the kind of a random mutation of a file and its bytes; `other` is another file of the same container."""
    kinds = [truncated, flipped, burst, swapped, removed, joined, wild_stamps]
    kinds += [shuffled_boxes, wild_tables] * (name in ('mp4', 'mov'))
    kind = kinds[rng.integers(len(kinds))]
    changed = kind(name, content, other, rng)
    if rng.random() < 0.2:
        changed = flipped(name, changed, other, rng)
    return kind.__name__, changed


def truncated(name, content, other, rng):
    return content[: rng.integers(len(content))]


def flipped(name, content, other, rng):
    """Flips bits, half of the time only in the first kilobyte, where the headers are."""
    changed = bytearray(content)
    size = len(changed) if rng.random() < 0.5 else min(1024, len(changed))
    for at in rng.integers(size, size=rng.integers(1, 30)) if size else ():
        changed[at] ^= 1 << rng.integers(8)
    return bytes(changed)


def burst(name, content, other, rng):
    start = rng.integers(len(content))
    return content[:start] + rng.bytes(min(rng.integers(1, 4000), len(content) - start)) + content[start:][4000:]


def swapped(name, content, other, rng):
    a, b, c = sorted(rng.integers(len(content), size=3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def removed(name, content, other, rng):
    start = rng.integers(len(content))
    return content[:start] + content[start + rng.integers(1, 5000) :]


def joined(name, content, other, rng):
    return content[rng.integers(2) * rng.integers(len(content)) :] + other


def shuffled_boxes(name, content, other, rng):
    """Swaps, removes or repeats boxes of ISO media, at the top or inside."""
    start, end = 0, len(content)
    while True:
        boxes = list(_boxes(content, start, end))
        inner = [box for box in boxes if content[box[0] + 4 : box[0] + 8] in _BOXES]
        if not inner or rng.random() < 0.3:
            break
        start, end = inner[rng.integers(len(inner))]
        start += 8
    parts = [content[a:b] for a, b in boxes]
    order = rng.integers(len(parts), size=len(parts)) if rng.random() < 0.5 else rng.permutation(len(parts))
    return content[:start] + b''.join(parts[i] for i in order) + content[end:]


def wild_tables(name, content, other, rng):
    """Overwrites words of the tables that hold times, sizes and places."""
    changed = bytearray(content)
    for kind in rng.choice(_TIMED, rng.integers(1, 4)):
        at = content.find(kind)
        if at > 0:
            size = int.from_bytes(content[at - 4 : at], 'big')
            word = at + 4 + 4 * rng.integers(max(1, (size - 8) // 4))
            changed[word : word + 4] = _word(rng)
    return bytes(changed)


def wild_stamps(name, content, other, rng):
    """Copies the packets and moves the time stamps of some, or of all from some point on."""
    target, streams = io.BytesIO(), {}
    with (
        contextlib.suppress(av.FFmpegError),
        av.open(io.BytesIO(content)) as source,
        av.open(target, 'w', format=CONTAINERS[name][0]) as container,
    ):
        for stream in source.streams:
            streams[stream.index] = container.add_stream_from_template(stream)
        packets = [packet for packet in source.demux() if packet.dts is not None]
        lasting, shift, kind = rng.random() < 0.5, {}, rng.integers(3)
        for i in range(len(packets)):
            packet = packets[i]
            index, base = packet.stream_index, packet.time_base
            if rng.random() < 0.02:
                seconds = (rng.uniform(-4, 4), rng.uniform(-9000, 9000), rng.uniform(-1e8, 1e8))[kind]
                shift[index if lasting else i] = round(seconds / base)
            moved = shift.get(index if lasting else i, 0)
            packet.pts, packet.dts, packet.stream = packet.pts + moved, packet.dts + moved, streams[index]
            try:
                container.mux(packet)
            except (av.FFmpegError, ValueError):
                continue
    return target.getvalue()


def write(folder: pathlib.Path, count: int, seed: int) -> dict[str, str]:
    """Writes `count` mutated files into a folder; returns the kind of mutation by file name."""
    whole = {name: [make(name, k) for k in range(2)] for name in CONTAINERS}
    kinds = {}
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        name = list(CONTAINERS)[i % len(CONTAINERS)]
        kind, content = mutate(name, *whole[name], rng)
        (folder / f'{i:05d}.{name}').write_bytes(content)
        kinds[f'{i:05d}.{name}'] = kind
    return kinds


def _boxes(content, start, end):
    while start + 8 <= end:
        size = max(8, int.from_bytes(content[start : start + 4], 'big'))
        yield start, min(start + size, end)
        start += size


def _word(rng):
    choices = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, int(rng.integers(2**32)), int(rng.integers(100000)))
    return choices[rng.integers(len(choices))].to_bytes(4, 'big')
