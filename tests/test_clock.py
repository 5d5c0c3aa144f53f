"""Tests files with unusual clocks: joined parts, wrong orders, clocks that begin late, still pictures, no duration."""

import fractions

import av
import numpy as np
import pytest
from clips import RATE, encode, grey, levels, noise, numbered, numbers

from stattn_jax.data import clock, decode, media

# Frequency (Hz) and length (s) of the parts of a joined file.
PARTS = ((440, 3), (2000, 8))
TEN = media.ClipSpec(segments=10, short_side=48)


def tone(seconds, frequency):
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)[None]


def frequencies(path, start, seconds):
    """Returns the strongest frequency (Hz) of the middle half of each second."""
    waveform, _ = decode.MediaFile(path).sound(start, start + seconds, RATE, seconds * RATE)
    middles = waveform.reshape(seconds, RATE)[:, RATE // 4 : -RATE // 4]
    return (2 * np.abs(np.fft.rfft(middles)).argmax(1)).tolist()


def copied(source, target, shift=0.0, shown=lambda packet: True, **options):
    """Stream copy of the packets that `shown` accepts, `shift` (s) later."""
    with av.open(source) as old, av.open(target, 'w', **options) as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is None or not shown(packet):
                continue
            later = round(shift / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts + later, packet.dts + later, streams[packet.stream_index]
            new.mux(packet)
    return target


def joined(folder, name, *parts, **options):
    """Joins files of one level and one tone each, (level, frequency, seconds), byte by byte."""
    content = b''
    for level, frequency, seconds in parts:
        frames = grey([level] * (10 * seconds))
        path = encode(folder / f'part_{name}', frames, np.arange(len(frames)) / 10, tone(seconds, frequency), **options)
        content += path.read_bytes()
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize('name', ['a.ts', 'a.mkv'])
def test_a_joined_file_goes_on_where_its_clock_goes_back(tmp_path, name):
    path = joined(tmp_path, name, (60, 440, 5), (180, 2000, 5))
    clip = media.read_clip(path, TEN)
    np.testing.assert_allclose(levels(clip), [60] * 5 + [180] * 5, atol=4)
    assert frequencies(path, 0, 10) == [440] * 5 + [2000] * 5 and clip.valid.all() and clip.notes == ()


@pytest.mark.parametrize('start', [2, 4, 7])
def test_an_interval_of_a_joined_file(tmp_path, start):
    """A seek in such a file would find the time in any of its parts."""
    path = joined(tmp_path, 'a.ts', (60, 440, 3), (120, 1000, 4), (180, 2000, 4))
    clip = media.read_clip(path, media.ClipSpec(segments=4, short_side=48), start)
    truth = np.repeat([0, 1, 2], [3, 4, 4])[start : start + 4]
    np.testing.assert_allclose(levels(clip), np.array([60, 120, 180])[truth], atol=4)
    assert frequencies(path, start, 4) == [(440, 1000, 2000)[part] for part in truth]
    assert decode.MediaFile(path).duration == pytest.approx(11, abs=0.3)


@pytest.mark.parametrize('name', ['a.mkv', 'live.mkv', 'a.avi'])
def test_frames_and_audio_after_the_declared_end_are_found(tmp_path, name):
    """The duration that these containers declare, if any, is that of the first part."""
    options = {'codec': 'mp3' if name == 'a.avi' else 'aac'}
    path = joined(tmp_path, name, (60, 440, 3), (180, 2000, 8), **options)
    if name == 'live.mkv':
        parts = [live(tmp_path / f'{i}.mkv', np.arange(10 * n) / 10, n, tone(n, f)) for i, (f, n) in enumerate(PARTS)]
        path.write_bytes(b''.join(part.read_bytes() for part in parts))
    for start in (0, 2, 5):
        clip = media.read_clip(path, media.ClipSpec(segments=4, short_side=48), start)
        assert clip.valid.all() and clip.notes == ('long',)
        assert frequencies(path, start, 4) == [(440, 2000)[start + t >= 3] for t in range(4)]
        if name != 'live.mkv':
            np.testing.assert_allclose(levels(clip), [(60, 180)[start + t >= 3] for t in range(4)], atol=4)


def test_one_stream_that_goes_back_alone_is_refused(tmp_path):
    """The second part has no sound, so that nothing shows where it belongs."""
    whole = joined(tmp_path, 'a.ts', (60, 440, 5))
    silent = encode(tmp_path / 'b.ts', grey([180] * 50), np.arange(50) / 10, tone(5, 2000))
    silent = copied(silent, tmp_path / 'c.ts', shown=lambda packet: packet.stream.type == 'video')
    path = tmp_path / 'd.ts'
    path.write_bytes(whole.read_bytes() + silent.read_bytes())
    with pytest.raises(media.MediaError, match='go back') as raised:
        media.read_clip(path, TEN)
    assert raised.value.reason == 'undecodable'
    assert media.read_clip(path, media.ClipSpec(segments=4, short_side=48)).valid.all()


def numbers_of(images):
    return [round(image[:, 4:28].mean() / 16) + 16 * round(image[:, 36:60].mean() / 16) for image in images]


@pytest.mark.parametrize('name', ['a.avi', 'a.asf'])
def test_pictures_that_are_coded_out_of_order_are_shown_in_order(tmp_path, name):
    """These containers hold no presentation time stamps, and those that FFmpeg makes for B-frames go back."""

    def reordered(stream):
        stream.codec_context.options = {'crf': '10', 'bf': '3', 'b_strategy': '0', 'x264-params': 'scenecut=0'}
        stream.codec_context.time_base = fractions.Fraction(1, 10)

    path = encode(tmp_path / name, numbered(100), np.arange(100) / 10, noise(10)[None], codec='mp3', setup=reordered)
    times = np.arange(10, 100) / 10 + 0.05
    for start in (0, 3):
        kept = times[times > start + 1]
        images = decode.MediaFile(path).pictures(kept, start, 10, lambda size: size).images
        assert np.diff(numbers_of(images)).tolist() == [1] * (len(kept) - 1)


def test_best_effort_stamps_are_those_of_ffmpeg():
    """Verifies that presentation time stamps are used as long as they go back no more often than the others."""
    stamps = [(1, 2), (3, 3), (2, 4), (5, 5), (4, 6), (None, 7), (9, None)]
    best = clock.BestEffort()
    assert [best(*pair) for pair in stamps] == [1, 3, 4, 5, 6, 7, None]
    best = clock.BestEffort()
    assert [best(*pair) for pair in [(5, 5), (9, 4), (7, 3), (8, None)]] == [5, 9, 7, 8]


@pytest.mark.parametrize(
    'times,kept',
    [
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        ([0, 1, 5000, 2, 3], [0, 1, 2, 3]),
        ([7, 8, 0, 9, 10], [7, 8, 9, 10]),
        ([7, 8, 0, 1, 2], [7, 8, 0, 1, 2]),
        ([0, 1, 40, 41], [0, 1, 40, 41]),
        ([0, 1, 40], [0, 1, 40]),
        ([], []),
    ],
)
def test_a_single_wild_time_stamp_is_left_out(times, kept):
    dropped = []
    assert list(clock.steady(times, lambda time: time, dropped.append)) == kept
    assert sorted(kept + dropped) == sorted(times)


def late_fragments(folder):
    """Writes fragmented ISO media whose first fragments are missing, as in a live stream."""

    def key_frames(stream):
        stream.codec_context.gop_size = 10

    options = {'movflags': 'frag_keyframe+empty_moov+default_base_moof'}
    path = encode(
        folder / 'all.mp4', numbered(160), np.arange(160) / 10, noise(16)[None], setup=key_frames, options=options
    )
    content, boxes = path.read_bytes(), []
    while content:
        size = int.from_bytes(content[:4], 'big')
        boxes.append(content[:size])
        content = content[size:]
    head = [box for box in boxes if box[4:8] in (b'ftyp', b'moov')]
    fragments = [box for box in boxes if box[4:8] in (b'moof', b'mdat')]
    (folder / 'a.mp4').write_bytes(b''.join(head + fragments[16:]))
    return folder / 'a.mp4'


def begins_late(folder):
    whole = encode(folder / 'whole.mp4', numbered(80), np.arange(80) / 10, noise(8)[None])
    return copied(whole, folder / 'a.mkv', 5.0)


@pytest.mark.parametrize('make,seconds', [(begins_late, 8), (late_fragments, 9.5)])
def test_a_clock_that_begins_late_is_no_damage(tmp_path, make, seconds):
    clip = media.read_clip(make(tmp_path), TEN)
    assert clip.valid.sum() in (int(seconds), round(seconds)) and clip.valid[0]
    assert clip.duration == pytest.approx(seconds, abs=0.4)
    assert np.diff(numbers(clip)[: int(seconds)]).tolist() == [10] * (int(seconds) - 1)


def test_a_late_clock_does_not_hide_that_a_file_is_cut(tmp_path):
    frames = np.random.default_rng(1).integers(0, 256, (80, 48, 64, 3), np.uint8)
    whole = encode(tmp_path / 'whole.mp4', frames, np.arange(80) / 10, noise(8)[None])
    path = copied(whole, tmp_path / 'a.mkv', 5.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(media.MediaError) as raised:
        media.read_clip(path, TEN)
    assert raised.value.reason == 'truncated'


def two_sounds(path, seconds=(8, 20), default=0):
    """Writes eight seconds of pictures with two sound streams, of 440 and 2000 Hz."""
    with av.open(path, 'w') as container:
        video = container.add_stream('libx264', rate=10)
        video.height, video.width, video.pix_fmt = 48, 64, 'yuv420p'
        sounds = [container.add_stream('aac', rate=RATE, layout='mono') for _ in seconds]
        for i, stream in enumerate(sounds):
            stream.disposition = av.stream.Disposition.default if i == default else av.stream.Disposition(0)
        for pixels in numbered(80):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
        container.mux(video.encode(None))
        for stream, length, frequency in zip(sounds, seconds, (440, 2000), strict=True):
            frame = av.AudioFrame.from_ndarray(tone(length, frequency), format='fltp', layout='mono')
            frame.sample_rate, frame.pts = RATE, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv'])
def test_another_stream_that_is_longer_is_no_damage(tmp_path, name):
    clip = media.read_clip(two_sounds(tmp_path / name), TEN)
    assert clip.valid.tolist() == [True] * 8 + [False] * 2 and clip.notes == ('short', 'sound 1 of 2')


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv'])
@pytest.mark.parametrize('default', [0, 1])
def test_the_default_stream_is_read_and_named(tmp_path, name, default):
    path = two_sounds(tmp_path / name, (8, 8), default)
    assert frequencies(path, 0, 7) == [(440, 2000)[default]] * 7
    assert media.read_clip(path, media.ClipSpec(segments=8)).notes == (f'sound {default + 1} of 2',)


class Pipe:
    """A file that cannot seek, so that a muxer cannot add the duration afterwards."""

    def __init__(self, path):
        self._file = open(path, 'wb')
        self.write = self._file.write

    def close(self):
        self._file.close()


def live(path, stamps, seconds, sound=None):
    """Writes numbered pictures at `stamps` (s) as a live Matroska file, which declares no duration."""
    whole = encode(
        path.with_name('whole.mp4'), numbered(len(stamps)), stamps, noise(seconds)[None] if sound is None else sound
    )
    pipe = Pipe(path)
    copied(whole, pipe, format='matroska', options={'live': '1'})
    pipe.close()
    with av.open(path) as container:
        assert container.duration is None
    return path


def test_a_file_without_a_duration_is_noted_as_long(tmp_path):
    path = live(tmp_path / 'a.mkv', np.arange(200) / 10, 20)
    assert decode.MediaFile(path).duration == pytest.approx(20, abs=0.1)
    clip = media.read_clip(path, TEN)
    assert clip.valid.all() and clip.notes == ('long',)
    assert media.read_clip(path, media.ClipSpec(segments=20)).notes == ()
    assert numbers(media.read_clip(path, TEN, 5.09)) == list(range(55, 155, 10))


@pytest.mark.parametrize('name', ['a.mkv', 'live.mkv', 'a.mp4'])
def test_a_picture_lasts_until_the_next_one(tmp_path, name):
    stamps = [0, 5, 10, 15]
    if name == 'live.mkv':
        path = live(tmp_path / name, stamps, 20)
    else:
        path = encode(tmp_path / name, numbered(4), stamps, noise(20)[None])
    for start in (0, 1.6, 4):
        clip = media.read_clip(path, TEN, start)
        assert clip.valid.all() and 'short' not in clip.notes
        assert numbers(clip) == [int((start + t + 0.5) // 5) for t in range(10)]


def test_one_picture_is_named(tmp_path):
    path = encode(tmp_path / 'a.mkv', numbered(1), [0], noise(20)[None])
    with pytest.raises(media.MediaError, match='one picture') as raised:
        media.read_clip(path, TEN)
    assert raised.value.reason == 'empty_interval'
