"""Tests that video files become clips: frames and audio of each segment, masks, notes, arrays, and writing.

tests/test_decode.py tests how streams are decoded and why some cannot be read.
"""

import pathlib

import av
import clips
import numpy as np
import pytest
from clips import RATE, SPEC, clicks, encode, grey, levels, noise, numbers, onsets, pixels

from stattn_jax.data import decode, media

REAL = pathlib.Path(__file__).parents[2] / 'shared' / 'media' / 'BjCEufrlXm4.mp4'


@pytest.fixture(scope='module')
def twenty(tmp_path_factory):
    return clips.write_twenty(tmp_path_factory.mktemp('media') / 'twenty.mp4')


@pytest.mark.parametrize('start', [0, 0.3, 7.05, 15.95])
def test_frames_are_those_shown_at_the_centres(twenty, start):
    clip = media.read_clip(twenty, SPEC, start)
    assert numbers(clip) == [int((start + t + 0.5) * 10 + 1e-6) for t in range(4)]
    assert clip.valid.all() and (clip.height, clip.width) == (48, 64)
    assert clip.duration == pytest.approx(4) and clip.notes == (('long',) if start < 15 else ())


def test_a_click_lands_in_its_segment_and_frame(tmp_path):
    media.write_video(tmp_path / 'click.mp4', grey([0] * 40), 10, clicks(4, [2.5]), RATE)
    patches = media.read_clip(tmp_path / 'click.mp4', SPEC).log_mel.astype(np.float32)
    loudness_tf = patches.max(2)
    assert np.unravel_index(loudness_tf.argmax(), loudness_tf.shape)[0] == 2
    # Windows of 25 ms that hold the 5 ms after 0.5 s begin at 0.475 to 0.505 s: frames 48 to 50.
    assert set(np.flatnonzero(loudness_tf[2] > loudness_tf.max() - 1)) <= {47, 48, 49, 50}
    assert loudness_tf[[0, 1, 3]].max() < loudness_tf.max() - 3


def test_variable_frame_rate_goes_by_time_stamps(tmp_path):
    stamps = np.array([0, 0.1, 0.52, 1.3, 1.49, 1.51, 1.6, 3.4, 3.6, 3.9])
    path = encode(tmp_path / 'vfr.mp4', grey(np.arange(10) * 25), stamps, noise(4)[None])
    shown = [np.flatnonzero(stamps <= centre)[-1] for centre in (0.5, 1.5, 2.5, 3.5)]
    assert shown == [1, 4, 6, 7]
    np.testing.assert_allclose(levels(media.read_clip(path, SPEC)), np.array(shown) * 25, atol=2)


def test_sound_that_begins_late_stays_late(tmp_path):
    sound = clicks(2, [0.25])[None]
    path = encode(tmp_path / 'late.mkv', grey(np.arange(40)), np.arange(40) / 10, sound, first=2.0)
    np.testing.assert_allclose(onsets(path, 0, 4), [2.25], atol=0.002)
    clip = media.read_clip(path, SPEC)
    assert clip.valid.tolist() == [False, False, True, True] and clip.notes == ('short',)


def test_short_clips_are_masked_black_and_silent(tmp_path):
    media.write_video(tmp_path / 'a.mp4', grey([200] * 26), 10, noise(2.6), RATE)
    clip = media.read_clip(tmp_path / 'a.mp4', SPEC)
    assert clip.valid.tolist() == [True, True, True, False] and clip.notes == ('short',)
    assert clip.duration == pytest.approx(2.6, abs=0.06)
    assert min(levels(clip)[:3]) > 190 and levels(clip)[3] == 0
    assert clip.log_mel.shape == (4, 96, 64) and clip.log_mel.dtype == np.float16
    np.testing.assert_array_equal(clip.log_mel[3], np.float16(np.log(0.01)))
    assert clip.log_mel[:3].min(axis=(1, 2)).max() > np.log(0.011)


@pytest.mark.parametrize(
    'start,end,valid,notes',
    [
        (1.5, 4.4, [1, 1, 1, 0], ('short',)),
        (1.5, 4.0, [1, 1, 1, 0], ('short',)),
        (1.5, 3.99, [1, 1, 0, 0], ('short',)),
        (2, 6, [1, 1, 1, 1], ()),
        (2, 6.4, [1, 1, 1, 1], ()),
        (2, 6.5, [1, 1, 1, 1], ('long',)),
        (17.4, 30, [1, 1, 1, 0], ('short',)),
    ],
)
def test_intervals(twenty, start, end, valid, notes):
    """A segment is valid if at least half of it is in the interval; remainders of >= half a segment are noted."""
    clip = media.read_clip(twenty, SPEC, start, end)
    assert clip.valid.tolist() == [bool(v) for v in valid] and clip.notes == notes
    assert clip.duration == pytest.approx(min(end, start + 4, 20) - start, abs=0.05)


def test_sound_after_the_end_of_the_interval_is_not_heard(twenty):
    """The click at 3.25 s lies in the last, half-valid segment but after the end of the interval."""
    loud = media.read_clip(twenty, SPEC, 0.7, 3.5).log_mel[2]
    still = media.read_clip(twenty, SPEC, 0.7, 3.21).log_mel[2]
    assert loud.max() > 0 > still.max()


def test_arrays_take_the_path_of_files(tmp_path):
    """The same frames and audio give nearly the same clip whether or not they were encoded."""
    frames, sound = grey(np.repeat([30, 90, 150, 210], 10)), noise(4)
    media.write_video(tmp_path / 'a.mp4', frames, 10, sound, RATE)
    coded, plain = media.read_clip(tmp_path / 'a.mp4', SPEC), media.clip_from_arrays(frames[5::10], sound, SPEC)
    np.testing.assert_allclose(levels(plain), [30, 90, 150, 210], atol=1)
    np.testing.assert_allclose(levels(coded), levels(plain), atol=2)
    assert np.abs(coded.log_mel.astype(np.float32) - plain.log_mel).mean() < 0.2
    assert (plain.height, plain.width, plain.duration, plain.notes) == (48, 64, 4.0, ()) and plain.valid.all()
    np.testing.assert_array_equal(
        plain.log_mel, media.log_mel(sound, media.MEL_PRESETS['vggish'], 4, 1.0).astype(np.float16)
    )


def test_arrays_are_made_smaller_and_resampled():
    tone = {rate: np.sin(2 * np.pi * 700 * np.arange(4 * rate) / rate).astype(np.float32) for rate in (RATE, 44100)}
    clips = [media.clip_from_arrays(grey([9] * 4, 96, 128), tone[rate], SPEC, rate) for rate in tone]
    assert pixels(clips[0])[0].shape == (48, 64, 3) and (clips[0].height, clips[0].width) == (96, 128)
    np.testing.assert_allclose(clips[0].log_mel[1:3], clips[1].log_mel[1:3], atol=0.1)


@pytest.mark.parametrize(
    'frames,sound,fix',
    [
        (grey([0] * 3), noise(4), 'one a segment'),
        (grey([0] * 4)[..., 0], noise(4), 'one a segment'),
        (grey([0] * 4).astype(np.float32), noise(4), 'uint8'),
        (grey([0] * 4), noise(3), r'\(64000,\)'),
        (grey([0] * 4)[:, :0], noise(4), 'at least one pixel'),
        (grey([0] * 4), (noise(4) * 32767).astype(np.int16), 'int16'),
        (grey([0] * 4), noise(4) * 32767, 'full scale 1'),
        (grey([0] * 4), np.where(np.arange(64000) == 9, np.nan, noise(4)), 'finite'),
        (grey([0] * 4), np.where(np.arange(64000) == 9, np.inf, noise(4)), 'finite'),
    ],
)
def test_other_arrays_are_refused(frames, sound, fix):
    with pytest.raises(ValueError, match=fix):
        media.clip_from_arrays(frames, sound, SPEC)


@pytest.mark.parametrize('rate', [0, -16000, 16000.5, float('nan'), '16000', 10**9])
def test_other_rates_are_refused(rate):
    with pytest.raises(ValueError, match='rate'):
        media.clip_from_arrays(grey([0] * 4), noise(4), SPEC, rate)


def test_videos_that_cannot_be_encoded_are_refused(tmp_path):
    with pytest.raises(media.MediaError, match='20000 x 16 pixels') as raised:
        media.write_video(tmp_path / 'a.mp4', np.zeros((1, 16, 20000, 3), np.uint8), 10, None)
    assert raised.value.reason == 'not_encodable' and not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match='no frames'):
        media.write_video(tmp_path / 'a.mp4', np.zeros((0, 16, 16, 3), np.uint8), 10, None)


def test_a_written_video_keeps_odd_sizes_rate_and_sound(tmp_path):
    path = tmp_path / 'a.mp4'
    media.write_video(path, grey(np.arange(75), 47, 63), 29.97, noise(1.5), RATE)
    with av.open(path) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.height, video.width, video.codec.name, audio.codec.name) == (48, 64, 'h264', 'aac')
        assert float(video.average_rate) == pytest.approx(29.97, abs=0.01)
        assert sum(1 for _ in container.decode(video=0)) == 75
    assert [p.name for p in tmp_path.iterdir()] == ['a.mp4']
    waveform, _ = decode.MediaFile(path).sound(0, 2.5, RATE, round(2.5 * RATE))
    assert np.abs(waveform[: round(1.5 * RATE)]).mean() > 0.05 and np.abs(waveform[round(1.6 * RATE) :]).max() < 1e-3


@pytest.mark.skipif(not REAL.exists(), reason='the real clip is not here')
def test_the_real_clip():
    clip = media.read_clip(REAL, media.ClipSpec())
    assert clip.valid.all() and clip.notes == () and (clip.height, clip.width) == (240, 320)
    assert clip.log_mel.shape == (10, 96, 64) and min(np.std(levels(clip)), np.std(clip.log_mel.astype(float))) > 1


def test_a_clip_without_sound_is_kept_only_where_that_is_wanted(tmp_path, twenty):
    """The frames are those of the same video with sound; the log-mel is that of silence, and the note says so."""
    frames = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), np.uint8)
    media.write_video(tmp_path / 'with.mp4', frames, 10, noise(4), RATE)
    media.write_video(tmp_path / 'without.mp4', frames, 10, None)
    complete = media.read_clip(tmp_path / 'with.mp4', SPEC, keep_lacking=True)
    clip = media.read_clip(tmp_path / 'without.mp4', SPEC, keep_lacking=True)
    assert clip.frames == complete.frames and clip.valid.all() and clip.notes == ('no_sound',)
    np.testing.assert_array_equal(clip.log_mel, np.float16(np.log(0.01)))
    assert clip.arrays()['modalities'].tolist() == [True, False]
    assert complete.notes == () and complete.arrays()['modalities'].all()
    with pytest.raises(media.MediaError, match='no_sound: it has no sound stream'):
        media.read_clip(tmp_path / 'without.mp4', SPEC)


def test_a_sound_file_is_kept_only_where_that_is_wanted(tmp_path):
    encode(tmp_path / 'with.mkv', grey([90] * 40), np.arange(40) / 10, noise(4)[None], codec='pcm_s16le')
    with av.open(tmp_path / 'with.mkv') as source, av.open(tmp_path / 'a.wav', 'w') as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            packet.stream = stream
            target.mux(packet)
    clip = media.read_clip(tmp_path / 'a.wav', SPEC, keep_lacking=True)
    complete = media.read_clip(tmp_path / 'with.mkv', SPEC)
    np.testing.assert_array_equal(clip.log_mel, complete.log_mel)
    assert clip.valid.all() and clip.notes == ('no_picture',) and levels(clip) == [0] * 4
    assert (clip.height, clip.width) == (SPEC.short_side,) * 2
    with pytest.raises(media.MediaError, match='no_picture: it has no picture stream'):
        media.read_clip(tmp_path / 'a.wav', SPEC)


def test_a_part_behind_the_end_of_the_sound_lacks_it(tmp_path):
    path = encode(tmp_path / 'a.mkv', grey([90] * 80), np.arange(80) / 10, noise(3)[None], codec='pcm_s16le')
    assert media.read_clip(path, SPEC, 0, 3, keep_lacking=True).notes == ('short',)
    clip = media.read_clip(path, SPEC, 4, 8, keep_lacking=True)
    assert clip.notes == ('no_sound',) and clip.valid.all()
    with pytest.raises(media.MediaError, match='no_sound'):
        media.read_clip(path, SPEC, 4, 8)


def encode_streamable(path, container_format, codec, sound, rate):
    """Writes four seconds of grey pictures and noise."""
    with av.open(path, 'w', format=container_format) as container:
        video = container.add_stream(codec, rate=10)
        video.height, video.width, video.pix_fmt = 48, 64, 'yuv420p'
        audio = container.add_stream(sound, rate=rate, layout='mono')
        resampler = av.AudioResampler(audio.codec_context.format, 'mono', rate)
        frame = av.AudioFrame.from_ndarray(noise(4, rate)[None], format='fltp', layout='mono')
        frame.sample_rate, frame.pts = rate, 0
        for pixels in grey([90] * 40):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
        for part in (*resampler.resample(frame), *resampler.resample(None), None):
            container.mux(audio.encode(part))
        container.mux(video.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize(
    'encoding',
    [('flv', 'libx264', 'aac', 44100), ('ogg', 'libvpx', 'libopus', 48000)],
    ids=lambda encoding: encoding[0],
)
def test_joined_flash_and_ogg_files_are_noted(tmp_path, encoding):
    """FFmpeg reads the first of the joined files only, without an error that would show it."""
    one, other = (encode_streamable(tmp_path / name, *encoding) for name in ('one', 'other'))
    (tmp_path / 'both').write_bytes(one + other)
    assert media.read_clip(tmp_path / 'one', SPEC).notes == ()
    assert 'joined' in media.read_clip(tmp_path / 'both', SPEC).notes
    with pytest.raises(media.MediaError, match='only the first of several joined files is read'):
        media.read_clip(tmp_path / 'both', SPEC, 5)
