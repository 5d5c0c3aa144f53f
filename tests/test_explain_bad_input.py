"""Tests unusual videos: each is explained, with all kinds of files, or rejected in one clear line."""

import fractions
import json

import av
import clips
import numpy as np
import pytest
import runs

from stattn_jax.data import media
from stattn_jax.explain import __main__ as command
from stattn_jax.explain import console, record_files

pytestmark = pytest.mark.usefixtures('quick_compile')


def moving(count, height, width):
    return np.random.default_rng(0).integers(0, 255, (count, height, width, 3), np.uint8)


def no_samples(path):
    """Writes a video with an audio stream that is declared but empty."""
    with av.open(path, 'w') as container:
        video = container.add_stream('libx264', rate=10)
        video.height, video.width, video.pix_fmt = 48, 64, 'yuv420p'
        container.add_stream('aac', rate=clips.RATE, layout='mono')
        for pixels in clips.numbered(60):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
        container.mux(video.encode(None))


def corrupt_tail(path):
    """Overwrites the last third of the media data; the table of contents is complete and at the front."""
    whole = path.with_name('whole.mp4')
    clips.encode(whole, moving(60, 48, 64), np.arange(60) / 10, clips.noise(6)[None], options={'movflags': 'faststart'})
    content = bytearray(whole.read_bytes())
    third = len(content) // 3
    content[-third:] = np.random.default_rng(0).bytes(third)
    path.write_bytes(content)


def portrait_4k(path):
    media.write_video(path, np.full((2, 3840, 2160, 3), 90, np.uint8), 0.5, clips.noise(4), clips.RATE)


def surround(path):
    """Writes a video with six audio channels, one of which is loud."""
    with av.open(path, 'w') as container:
        video = container.add_stream('libx264', rate=10)
        video.height, video.width, video.pix_fmt = 48, 64, 'yuv420p'
        audio = container.add_stream('aac', rate=48000, layout='5.1')
        for pixels in clips.numbered(60):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
        sound = np.zeros((6, 6 * 48000), np.float32)
        sound[2] = clips.noise(6, 48000)
        frame = av.AudioFrame.from_ndarray(sound, format='fltp', layout='5.1')
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, fractions.Fraction(1, 48000)
        for stream, last in ((audio, frame), (audio, None), (video, None)):
            container.mux(stream.encode(last))


def grey(path):
    def setup(stream):
        stream.pix_fmt = 'gray'

    clips.encode(path, clips.numbered(60), np.arange(60) / 10, clips.noise(6)[None], setup=setup)


def very_short(path):
    media.write_video(path, clips.numbered(3), 10, clips.noise(0.3), clips.RATE)


def no_sound_stream(path):
    media.write_video(path, clips.numbered(60), 10, None)


def only_sound(path):
    with av.open(str(path), 'w', format='wav') as container:
        stream = container.add_stream('pcm_s16le', rate=clips.RATE, layout='mono')
        samples = (clips.noise(6)[None] * 2**15).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format='s16', layout='mono')
        frame.sample_rate, frame.pts = clips.RATE, 0
        for each in (frame, None):
            container.mux(stream.encode(each))


def silent_track(path):
    media.write_video(path, clips.numbered(60), 10, np.zeros(6 * clips.RATE, np.float32))


# For each: the notes of its record, or the reason of its error; both where either result is correct.
CASES = {
    no_samples: ('no_sound', None),
    no_sound_stream: ('no_sound', None),
    only_sound: ('no_picture', None),
    silent_track: ('silent', None),
    corrupt_tail: ('short damaged', 'undecodable'),
    portrait_4k: ('short', None),
    surround: (None, None),
    grey: (None, None),
    very_short: (None, 'empty_interval'),
}


LACKING = {'no_sound': ('audio', 'visual'), 'no_picture': ('visual', 'audio')}
NOTICES = {
    'no_sound': 'There is no sound stream here, so the network answers by the picture alone',
    'no_picture': 'There is no picture stream here, so the network answers by the sound alone',
    'silent': 'The sound track is silent: it never exceeds \N{MINUS SIGN}80 dB of full scale.',
}


@pytest.mark.parametrize('make', CASES, ids=lambda make: make.__name__)
def test_a_result_or_one_line(trained, tmp_path, capsys, make):
    video, out = tmp_path / 'video.mp4', tmp_path / 'out'
    make(video)
    code = command.main(['explain', f'--workdir={trained}', f'--video={video}', f'--out={out}'])
    output, errors = capsys.readouterr()
    note, reason = CASES[make]
    if code:
        lines = [line for line in errors.splitlines() if line.startswith('error: ')]
        assert code == 1 and len(lines) == 1 and reason is not None and f'{video}: {reason}: ' in lines[0], errors
        assert not any(out.iterdir())
        return
    assert reason is None or note is not None, output
    assert sorted(path.name for path in out.iterdir()) == sorted(f'explanation.{kind}' for kind in console.KINDS)
    assert max(record_files.check(out / 'explanation.json').values()) <= record_files.TOLERANCE
    record = json.loads((out / 'explanation.json').read_text())
    assert record['media']['notes'] == (note or '').split()
    if note in LACKING:
        lacking, present = LACKING[note]
        assert record['modalities'] == {lacking: False, present: True}
        assert not record['trust'].keys() & {'silence', 'shifted_sound'}
        for row in record['maps']:
            assert not np.any(row['visual' if lacking == 'visual' else 'audio'])
            assert np.sum(row['attention_in_time'][present]) == pytest.approx(1, abs=1e-5)
    if note in NOTICES:
        page = (out / 'explanation.html').read_text(encoding='utf-8')
        notice = next(text for text in record['notices'] if NOTICES[note] in text)
        assert NOTICES[note] in output
        assert f'<li>{NOTICES[note]}' in page
        leaves = 'of the attention weight in time, so that this leaves ' in notice
        assert leaves == (note in LACKING)
    if make is portrait_4k:
        assert (record['media']['height'], record['media']['width']) == (3840, 2160)
        assert record['valid_segments'] == [True] * 4 + [False] * (runs.SEGMENTS - 4)
    if make is surround:
        # The audio is the mean of the channels: a sixth of the loud one, and not silence.
        assert record['media']['rate'] == 48000 and 'silent' not in record['media']['notes']
