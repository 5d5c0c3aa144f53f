"""Decoding only the frames of a few times gives the same frames as decoding all of them.

Where this is not certain, everything is decoded.
"""

import av
import clips
import numpy as np
import pytest
from clips import RATE, SPEC, encode, noise

from stattn_jax.data import decode, media, selective_decoding

SECONDS, FPS = 12, 10
STARTS = (0, 0.3, 3.1, 7.9)


def moving():
    """A texture that moves and flickers, so that pictures refer to each other in both directions."""
    texture = np.random.default_rng(0).integers(0, 200, (12, 16, 3), np.uint8).repeat(6, 0).repeat(6, 1)
    frames = [np.roll(texture, (i // 2, i), (0, 1)) + np.uint8(i % 40) for i in range(SECONDS * FPS)]
    return np.stack(frames)[:, :48, :64]


EVEN = np.arange(SECONDS * FPS) / FPS
UNEVEN = EVEN + np.random.default_rng(1).uniform(0, 0.09, EVEN.shape).round(3)


def coded(path, keyframes, parameters='', stamps=EVEN, **options):
    """Encodes the moving texture with one keyframe every `keyframes` frames; `parameters` are for libx264."""

    def setup(stream):
        quality = {'crf': '28', 'g': str(keyframes), 'sc_threshold': '0'}
        stream.codec_context.options = quality | ({'x264-params': parameters} if parameters else {})

    return encode(path, moving(), stamps, noise(SECONDS)[None], setup=setup, **options)


def copied(path, keep=lambda packet, key: True, first=0.0):
    """Stream copy, from `first` (s) on, of the packets that `keep` accepts of a file with a keyframe per second."""
    whole = coded(path.with_name(f'whole{path.suffix}'), FPS)
    with av.open(whole) as source, av.open(path, 'w') as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        source.seek(round(first * av.time_base))
        for packet in source.demux():
            time = None if packet.pts is None else float(packet.pts * packet.time_base)
            if packet.dts is None or (packet.stream.type == 'video' and not keep(packet, time)):
                continue
            shift = round(first / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, streams[packet.stream_index]
            target.mux(packet)
    return path


def spoilt(path, references: bool):
    """Overwrites pictures with noise after their headers, except at the beginning.

    These are pictures that others refer to, or else pictures that are neither referred to nor needed.
    """
    coded(path, 250)
    with av.open(path) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None and packet.size > 40]
    content, random = bytearray(path.read_bytes()), np.random.default_rng(2)
    for packet in packets[20:]:
        needed = abs(float(packet.pts * packet.time_base) % 1 - 0.5) < 0.01
        if bool(bytes(packet)[4] & 96) == references and not needed:
            content[packet.pos + 8 : packet.pos + packet.size] = random.bytes(packet.size - 8)
    path.write_bytes(content)
    return path


def read(path, start):
    """Returns the parts of a clip, or the reason and detail of the error."""
    try:
        clip = media.read_clip(path, SPEC, start)
    except media.MediaError as error:
        return error.reason, error.detail
    return clip.frames, clip.valid.tolist(), clip.duration, clip.notes, clip.log_mel.tobytes()


def alone(path, start):
    """The frames of a clip's centres, decoded alone; raises where everything would have to be decoded."""
    return decode.MediaFile(path)._needed(start + np.arange(4) + 0.5, start, start + 4)[1]


def check_same(path, monkeypatch, starts=STARTS):
    found = [read(path, start) for start in starts]
    with monkeypatch.context() as patch:
        patch.setattr(selective_decoding, 'tells', lambda codec: False)
        assert found == [read(path, start) for start in starts]


TOLD = {
    'keyframes_25.mp4': lambda path: coded(path, 25),
    'keyframes_250.mp4': lambda path: coded(path, 250),
    'keyframes_25.mkv': lambda path: coded(path, 25),
    'many_b.mp4': lambda path: coded(path, 25, 'bframes=8:b-pyramid=strict:direct=temporal:ref=4'),
    'no_b.mp4': lambda path: coded(path, 25, 'bframes=0'),
    'slices.mp4': lambda path: coded(path, 25, 'slices=4'),
    'interlaced.mp4': lambda path: coded(path, 25, 'tff=1'),
    'settings_in_band.mp4': lambda path: coded(path, 25, 'repeat-headers=1'),
    'fragments.mp4': lambda path: coded(path, 25, options={'movflags': 'frag_keyframe+empty_moov'}),
    'begins_before_its_start.mp4': lambda path: copied(path, first=0.6),
}


@pytest.mark.parametrize('name', TOLD)
def test_few_pictures_are_decoded_and_the_frames_are_the_same(tmp_path, monkeypatch, name):
    path, counts, plain = TOLD[name](tmp_path / name), [], selective_decoding._needed

    def counted(pictures, stamps):
        needed = plain(pictures, stamps)
        counts.append((len(needed), len(pictures)))
        return needed

    monkeypatch.setattr(selective_decoding, '_needed', counted)
    check_same(path, monkeypatch)
    for start in STARTS[:3]:
        assert len({frame.pts for frame in alone(path, start)}) == 4
    assert len(counts) >= 6 and all(4 <= needed < 0.9 * all_ for needed, all_ in counts)


def cut(path, share, **options):
    coded(path, 25, **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


# Each file has a start from which everything must be decoded, or None.
UNUSUAL = {
    'uneven.mp4': (0, lambda path: coded(path, 25, stamps=UNEVEN)),
    'uneven.mkv': (0, lambda path: coded(path, 250, stamps=UNEVEN)),
    'open_gop.mp4': (7.9, lambda path: coded(path, 25, 'open-gop=1:bframes=4')),
    'intra_refresh.mp4': (7.9, lambda path: coded(path, 25, 'intra-refresh=1')),
    'transport.ts': (0, lambda path: coded(path, 25, format='mpegts')),
    'no_stamps.avi': (0, lambda path: coded(path, 25)),
    'cut.mkv': (None, lambda path: cut(path, 0.8)),
    'cut.mp4': (7.9, lambda path: cut(path, 0.8, options={'movflags': 'faststart'})),
    'lost_keyframe.mp4': (3.1, lambda path: copied(path, lambda packet, time: abs(time - 5) > 0.01)),
    'hole.mkv': (3.1, lambda path: copied(path, lambda packet, time: not 4.2 < time < 5.8)),
    'spoilt.mp4': (0, lambda path: spoilt(path, references=True)),
}


@pytest.mark.parametrize('name', UNUSUAL)
def test_unusual_files_are_decoded_whole(tmp_path, monkeypatch, name):
    start, make = UNUSUAL[name]
    path = make(tmp_path / name)
    check_same(path, monkeypatch)
    if start is not None:
        with pytest.raises((selective_decoding.UnclearError, av.FFmpegError)):
            alone(path, start)


def test_a_file_without_its_table_of_contents_is_refused_as_before(tmp_path, monkeypatch):
    path = cut(tmp_path / 'a.mp4', 0.9)
    check_same(path, monkeypatch)
    assert read(path, 0)[0] == 'truncated'


def test_damage_that_no_frame_needs_changes_no_frame(tmp_path, monkeypatch):
    """Only decoding everything notes damage that no frame needs."""
    path = spoilt(tmp_path / 'a.mp4', references=False)
    found = read(path, 0)
    monkeypatch.setattr(selective_decoding, 'tells', lambda codec: False)
    whole = read(path, 0)
    assert found[:3] == whole[:3] and found[4] == whole[4]
    assert found[3] == ('long',) and whole[3] == ('long', 'damaged')


def test_joined_sound_is_that_of_single_frames(tmp_path):
    """Stereo audio at another rate, with more samples than are joined at a time."""
    sound = np.stack([noise(4, 44100), np.sin(np.arange(4 * 44100) / 40).astype(np.float32)])
    path = encode(tmp_path / 'a.mkv', clips.grey([9] * 40), np.arange(40) / 10, sound, rate=44100)
    with av.open(path) as container:
        resampler = av.AudioResampler(format='fltp', rate=RATE)
        frames = [frame for frame in container.decode(audio=0) if frame.time < 3.9]
        pieces = [piece for frame in frames for piece in resampler.resample(frame)]
        expected = np.concatenate([p.to_ndarray().mean(0) for p in [*pieces, *resampler.resample(None)]])
    waveform, _ = decode.MediaFile(path).sound(0, 3.9, RATE, round(3.9 * RATE))
    np.testing.assert_array_equal(waveform, expected[: len(waveform)])
