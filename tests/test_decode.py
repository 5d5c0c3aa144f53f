"""Tests decoding: streams on one clock, seeking, single frames and the position of the audio, and unreadable files.

Each file that cannot become a clip raises an error of one line with a named reason, and FFmpeg prints nothing.
"""

import pickle

import av
import clips
import numpy as np
import pytest
from clips import RATE, SPEC, clicks, encode, grey, noise, numbered, numbers, onsets

from stattn_jax.data import container as opening
from stattn_jax.data import decode, media, orientation

GOOD = (grey(np.arange(40) * 5), np.arange(40) / 10, noise(4)[None])


def textured(count=40):
    """Returns noisy frames, which take many bytes, so that a truncated file loses frames."""
    return np.random.default_rng(1).integers(0, 256, (count, 48, 64, 3), np.uint8)


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def no_picture(folder):
    with av.open(folder / 'a.m4a', 'w', format='mp4') as container:
        stream = container.add_stream('aac', rate=16000, layout='mono')
        frame = av.AudioFrame.from_ndarray(noise(2)[None], format='fltp', layout='mono')
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return folder / 'a.m4a'


def no_sound(folder):
    media.write_video(folder / 'a.mp4', GOOD[0], 10, None, 16000)
    return folder / 'a.mp4'


def sound_without_samples(folder):
    with av.open(folder / 'a.mkv', 'w') as container:
        video = container.add_stream('libx264', rate=10)
        video.height, video.width, video.pix_fmt = 48, 64, 'yuv420p'
        container.add_stream('aac', rate=16000, layout='mono')
        for pixels in GOOD[0]:
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
        container.mux(video.encode(None))
    return folder / 'a.mkv'


def text(folder):
    (folder / 'a.mp4').write_text('clip_id,video\n' * 50)
    return folder / 'a.mp4'


def empty(folder):
    (folder / 'a.mp4').write_bytes(b'')
    return folder / 'a.mp4'


def playlist(folder):
    """Writes an HLS playlist, for which FFmpeg would fetch an address."""
    lines = ['#EXTM3U', '#EXT-X-TARGETDURATION:4', '#EXTINF:4,', 'http://127.0.0.1:9/a.ts', '#EXT-X-ENDLIST']
    (folder / 'a.mp4').write_text('\n'.join(lines))
    return folder / 'a.mp4'


def cut_before_the_index(folder):
    return cut(encode(folder / 'a.mp4', *GOOD), 0.8)


def cut_after_the_index(folder):
    return cut(encode(folder / 'a.mp4', textured(), *GOOD[1:], options={'movflags': 'faststart'}), 0.6)


def cut_matroska(folder):
    return cut(encode(folder / 'a.mkv', textured(), *GOOD[1:]), 0.6)


def garbage(folder):
    """Replaces every byte of the frames and the audio and keeps the index."""
    path = encode(folder / 'a.mp4', textured(), *GOOD[1:])
    content = bytearray(path.read_bytes())
    low, high = content.index(b'mdat') + 4, content.index(b'moov') - 4
    content[low:high] = np.random.default_rng(2).integers(0, 256, high - low, np.uint8).tobytes()
    path.write_bytes(content)
    return path


BAD = [
    (lambda folder: folder / 'none.mp4', 'missing', 'no such file'),
    (lambda folder: folder, 'not_a_video', 'regular file'),
    (text, 'not_a_video', 'no known media format'),
    (empty, 'not_a_video', 'no known media format'),
    (playlist, 'not_a_video', 'no known media format'),
    (no_picture, 'no_picture', 'no picture stream'),
    (no_sound, 'no_sound', 'no sound stream'),
    (sound_without_samples, 'no_sound', 'holds nothing'),
    (cut_before_the_index, 'truncated', 'table of contents'),
    (cut_after_the_index, 'truncated', 'of 4.00 s'),
    (cut_matroska, 'truncated', r'ends at 2\.'),
    (garbage, 'undecodable', 'damaged'),
]


@pytest.mark.parametrize('make,reason,detail', BAD, ids=lambda value: getattr(value, '__name__', None))
def test_bad_files_have_a_named_reason(tmp_path, capfd, make, reason, detail):
    path = make(tmp_path)
    capfd.readouterr()
    with pytest.raises(media.MediaError, match=detail) as raised:
        media.read_clip(path, SPEC)
    error = raised.value
    assert error.reason == reason and str(error) == f'{path}: {reason}: {error.detail}; {media.REASONS[reason]}'
    assert '\n' not in str(error)
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize(
    'start,end',
    [(2, 2), (3, 2), (4.5, None), (-1, 2), (float('nan'), None), (0, 0.3), (3.8, None)],
)
def test_empty_intervals(tmp_path, start, end):
    path = encode(tmp_path / 'a.mp4', *GOOD)
    with pytest.raises(media.MediaError, match=f'{start:g} s to ') as raised:
        media.read_clip(path, SPEC, start, end)
    assert raised.value.reason == 'empty_interval'


def test_segments_before_the_cut_can_be_read(tmp_path):
    clip = media.read_clip(cut_after_the_index(tmp_path), SPEC, 0, 1)
    assert clip.valid.tolist() == [True, False, False, False]


def test_damage_is_noted_and_the_picture_before_stands_in(tmp_path):
    path = encode(tmp_path / 'a.mp4', textured(), *GOOD[1:])
    content = bytearray(path.read_bytes())
    with av.open(path) as container:
        packet = next(p for p in container.demux(video=0) if p.pts is not None and p.pts * p.time_base >= 1.9)
        place, size = packet.pos, packet.size
    content[place : place + size] = bytes(size)
    path.write_bytes(content)
    clip = media.read_clip(path, SPEC)
    assert clip.notes == ('damaged',) and clip.valid.all()


def test_a_gap_in_the_sound_stays_silent(tmp_path):
    """Packets between 1 and 3 s are lost, and later audio keeps its time."""
    encode(tmp_path / 'whole.mkv', GOOD[0], GOOD[1], clicks(4, [0.5, 2.0, 3.5])[None])
    with av.open(tmp_path / 'whole.mkv') as source, av.open(tmp_path / 'gap.mkv', 'w') as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None and not (packet.stream.type == 'audio' and 1 < packet.pts * packet.time_base < 3):
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    waveform, _ = decode.MediaFile(tmp_path / 'gap.mkv').sound(0, 4, 16000, 64000)
    loud = np.flatnonzero(np.abs(waveform) > 0.2) / 16000
    assert np.all((np.abs(loud - 0.5) < 0.01) | (np.abs(loud - 3.5) < 0.01)) and loud.min() < 1 < 3 < loud.max()
    np.testing.assert_array_equal(waveform[round(1.1 * 16000) : round(2.9 * 16000)], 0)


def test_errors_cross_processes_and_need_no_path():
    error = media.MediaError('no_sound', 'it has\nno sound stream', 'a.mp4')
    again = pickle.loads(pickle.dumps(error))
    assert (again.reason, again.detail, str(again)) == (error.reason, error.detail, str(error)) and '\n' not in str(
        error
    )
    assert str(media.MediaError('missing', 'gone')) == 'missing: gone; check the path'


@pytest.fixture(scope='module')
def twenty(tmp_path_factory):
    return clips.write_twenty(tmp_path_factory.mktemp('media') / 'twenty.mp4')


@pytest.mark.parametrize('start', [0, 0.3, 7.05, 15.95])
def test_sound_lies_on_the_clock_of_the_picture(twenty, start):
    times = np.arange(20) + 0.25 - start
    np.testing.assert_allclose(onsets(twenty, start, 4), times[(times > 0) & (times < 4)], atol=0.002)


def test_seeking_does_not_read_from_the_beginning(twenty):
    file = decode.MediaFile(twenty)
    assert file.pictures([15.5], 15, 16, lambda size: size).track.start > 10
    assert file.sound(15, 16, RATE, RATE)[1].start > 14


def test_a_seek_that_lands_behind_its_target_is_mended(tmp_path):
    """In MPEG-TS a seek to 0.58 s lands at 3.26 s, the next key frame; the clip must equal that of the mp4.

    The clock of MPEG-TS begins with the audio encoder's lead of 1024 samples, so everything is 64 ms later.
    """
    frames, sound = numbered(80), clicks(8, [4.25])
    media.write_video(tmp_path / 'a.mp4', frames, 10, sound, RATE)

    def few_key_frames(stream):
        stream.codec_context.gop_size = 1000

    path = encode(tmp_path / 'a.ts', frames, np.arange(80) / 10, sound[None], setup=few_key_frames, format='mpegts')
    seen, wanted = (media.read_clip(p, SPEC, 1.08) for p in (path, tmp_path / 'a.mp4'))
    assert numbers(seen) == numbers(wanted) == [15, 25, 35, 45]
    np.testing.assert_allclose(onsets(path, 1.08, 4), [4.25 + 0.064 - 1.08], atol=0.002)


def test_frames_come_one_by_one_as_they_are_shown(twenty):
    """Verifies the numbers of the frames shown 0.05 s after the start of each, and that they are decoded lazily.

    After one frame has been requested, only few have been read.
    """
    file = decode.MediaFile(twenty)
    track, frames = file.shown(np.arange(3, 17, 0.1) + 0.05, 3, 17)
    first = next(frames)
    assert file.size(first) == (48, 64) and track.end < 6
    shown = [first, *frames]
    images = [orientation.upright_rgb(frame, (48, 64)) for frame in shown]
    low, high = (np.array([image[:, x].mean() for image in images]) for x in (slice(4, 28), slice(36, 60)))
    assert (np.round(low / 16) + 16 * np.round(high / 16)).tolist() == list(range(30, 170))
    assert track.end >= 17 and file.fps == 10


def test_stereo_at_another_rate_is_averaged_and_resampled(tmp_path):
    """The left and right channels are 0.4 and 0.2 of one tone; their mean is 0.3, whatever a decoder's mix would be."""
    tone = np.sin(2 * np.pi * 500 * np.arange(44100 * 2) / 44100).astype(np.float32)
    sound = np.stack([0.4 * tone, 0.2 * tone])
    path = encode(tmp_path / 'a.mkv', grey([9] * 20), np.arange(20) / 10, sound, rate=44100, codec='pcm_s16le')
    waveform, track = decode.MediaFile(path).sound(0, 2, RATE, 2 * RATE)
    expected = 0.3 * np.sin(2 * np.pi * 500 * np.arange(2 * RATE) / RATE)
    np.testing.assert_allclose(waveform[100:-100], expected[100:-100], atol=1e-3)
    assert track.start == 0 and track.end == pytest.approx(2, abs=0.002)


class Unseekable:
    """A container in which FFmpeg refuses to seek."""

    def __init__(self, container):
        self._container = container

    def __getattr__(self, name):
        return getattr(self._container, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._container.close()

    def seek(self, *where, **options):
        raise av.error.PermissionError(1, 'Operation not permitted')


@pytest.mark.parametrize('tells', [True, False])
def test_a_file_in_which_no_seek_is_possible_is_read_from_its_beginning(twenty, monkeypatch, tells):
    wanted = media.read_clip(twenty, SPEC, 7.05)
    monkeypatch.setattr(decode, 'open_media', lambda path, plain=decode.open_media: Unseekable(plain(path)))
    if not tells:
        monkeypatch.setattr(decode.selective_decoding, 'tells', lambda codec: False)
    clip = media.read_clip(twenty, SPEC, 7.05)
    assert clip.frames == wanted.frames and clip.valid.all()
    np.testing.assert_allclose(onsets(twenty, 7.05, 4), [0.2, 1.2, 2.2, 3.2], atol=0.002)


class Growing(Unseekable):
    """A container that shows new streams while it is read, at whose end PyAV 18 raises IndexError."""

    def demux(self, *streams):
        yield from self._container.demux(*streams)
        raise IndexError('list index out of range')


def test_streams_that_appear_late_do_no_harm(twenty, monkeypatch):
    wanted = media.read_clip(twenty, SPEC, 16)
    monkeypatch.setattr(decode, 'open_media', lambda path, plain=decode.open_media: Growing(plain(path)))
    assert media.read_clip(twenty, SPEC, 16).frames == wanted.frames


@pytest.mark.parametrize(
    'name,reason', [('x' * 300 + '.mp4', 'unreadable'), ('a\0b.mp4', 'unreadable'), ('f/a.mp4', 'missing')]
)
def test_paths_that_the_system_refuses(tmp_path, name, reason):
    (tmp_path / 'f').touch()
    with pytest.raises(media.MediaError) as raised:
        media.read_clip(tmp_path / name, SPEC)
    assert raised.value.reason == reason


def test_a_locked_folder(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, 'Permission denied', path)

    monkeypatch.setattr(opening.os, 'stat', refuse)
    with pytest.raises(media.MediaError, match='unreadable: Permission denied'):
        decode.MediaFile(tmp_path / 'a.mp4')


@pytest.mark.parametrize(
    'error', [RuntimeError('odd'), OSError(5, 'Input/output error'), ZeroDivisionError(), KeyError('x')]
)
def test_any_other_failure_of_a_file_is_its_reason(twenty, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(decode.MediaFile, 'sound', fail)
    with pytest.raises(media.MediaError, match=type(error).__name__) as raised:
        media.read_clip(twenty, SPEC)
    assert raised.value.reason == 'failed' and raised.value.__cause__ is error
