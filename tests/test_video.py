"""Tests the explained interval as mp4.

It is in sync, upright and small; the heat lies on the cells that it refers to, and the strip agrees with the numbers.
"""

import dataclasses
import fractions
import io

import av
import numpy as np
import pytest
from clips import RATE, clicks, encode, grey, noise, numbered, onsets, write_twenty
from explained import make

from stattn_jax import colours
from stattn_jax.data import decode, media
from stattn_jax.explain import video
from stattn_jax.explain.explanation import GroundTruth


@pytest.fixture(scope='module')
def twenty(tmp_path_factory):
    return write_twenty(tmp_path_factory.mktemp('video') / 'twenty.mp4')


def frames_of(path):
    with av.open(path) as container:
        frames = list(container.decode(video=0))
    return [frame.time for frame in frames], np.stack([frame.to_ndarray(format='rgb24') for frame in frames])


def numbers_of(images):
    """Decodes the numbers of clips.numbered in images of any size."""
    quarter = images.shape[2] // 4
    low, high = (images[:, 4:-4, x - 8 : x + 8].mean(axis=(1, 2, 3)) for x in (quarter, 3 * quarter))
    return (np.round(low / 16) + 16 * np.round(high / 16)).astype(int).tolist()


def clip_of(path, source, *arguments):
    path.write_bytes(video.web_clip(source, *arguments))
    return path


# ---------------------------------------------------------------------------------------------------------------------
# The clip for the web
# ---------------------------------------------------------------------------------------------------------------------


def test_a_web_clip_keeps_pictures_and_sound_together(twenty, tmp_path):
    """Frame n is shown from n / 10 s on; the interval begins in the middle of frame 70."""
    path = clip_of(tmp_path / 'a.mp4', twenty, 7.05, 11.05)
    times, images = frames_of(path)
    np.testing.assert_allclose(times, np.arange(40) / 10, atol=1e-6)
    assert numbers_of(images) == list(range(70, 110))
    np.testing.assert_allclose(onsets(path, 0, 4), np.arange(4) + 0.2, atol=0.003)


def test_frames_of_a_variable_rate_come_at_their_times(tmp_path):
    """Ten frames in the first second, two in the second: each time shows the last frame before it."""
    stamps = np.array([*np.arange(10) / 10, 1.0, 1.62])
    source = encode(tmp_path / 'a.mkv', numbered(12), stamps, clicks(2, [1.62])[None])
    path = clip_of(tmp_path / 'b.mp4', source, 0.0, 2.0)
    times, images = frames_of(path)
    shown = np.searchsorted(stamps, np.array(times) + 1e-3, side='right') - 1
    assert numbers_of(images) == shown.tolist() and len(times) >= 20
    np.testing.assert_allclose(onsets(path, 0, 2), [1.62], atol=0.003)


def test_a_web_clip_has_a_format_that_browsers_play(twenty):
    content = video.web_clip(twenty, 0, 1)
    assert content.index(b'moov') < content.index(b'mdat')
    with av.open(io.BytesIO(content)) as container:
        picture, sound = container.streams.video[0].codec_context, container.streams.audio[0].codec_context
        assert (picture.name, picture.pix_fmt) == ('h264', 'yuv420p')
        assert (sound.name, sound.sample_rate, sound.layout.name) == ('aac', 48000, 'mono')


@pytest.mark.parametrize('fps,written', [(1, 10), (4, 12), (10, 10), (30, 30), (60, 30), (50, 25)])
def test_the_rate_is_that_of_the_source_within_10_to_30(tmp_path, fps, written):
    """The rate is a whole multiple or fraction of the source's, so that every remaining frame keeps its time."""
    media.write_video(tmp_path / 'a.mp4', numbered(fps * 2), fps, noise(2), RATE)
    times, images = frames_of(clip_of(tmp_path / 'b.mp4', tmp_path / 'a.mp4', 0.0, 2.0))
    np.testing.assert_allclose(times, np.arange(2 * written) / written, atol=1e-4)
    assert numbers_of(images) == [int(n * fps / written + 1e-6) for n in range(2 * written)]


@pytest.mark.parametrize(
    'height,width,aspect,degrees,wanted',
    [
        (48, 64, 1, 0, (24, 32)),
        (64, 48, 1, 0, (32, 24)),
        (48, 64, 1, 90, (32, 24)),
        (48, 64, 2, 0, (24, 64)),
        (18, 22, 1, 0, (18, 22)),
        (50, 64, 1, 0, (24, 30)),
    ],
)
def test_a_web_clip_is_upright_square_even_and_never_enlarged(tmp_path, height, width, aspect, degrees, wanted):
    def setup(stream):
        stream.codec_context.sample_aspect_ratio = fractions.Fraction(aspect)
        stream.set_display_rotation(degrees)

    source = encode(tmp_path / 'a.mp4', grey([90] * 10, height, width), np.arange(10) / 10, noise(1)[None], setup=setup)
    content = video.web_clip(source, 0, 1, 24)
    with av.open(io.BytesIO(content)) as container:
        frame = next(container.decode(video=0))
        assert container.streams.video[0].sample_aspect_ratio in (None, 0, 1)
    assert (frame.height, frame.width) == wanted and not frame.rotation


def test_even_noise_does_not_make_a_web_clip_large(tmp_path):
    """Two seconds of noise that cannot be compressed stay small; ten seconds may take 1.5 MB."""
    frames = np.random.default_rng(0).integers(0, 256, (20, 240, 320, 3), np.uint8)
    media.write_video(tmp_path / 'a.mp4', frames, 10, noise(2), RATE)
    assert (tmp_path / 'a.mp4').stat().st_size > 1e6 > 0.4e6 > len(video.web_clip(tmp_path / 'a.mp4', 0, 2))


def test_a_long_interval_is_read_in_pieces_without_a_seam(twenty, tmp_path, monkeypatch):
    """The clicks of write_twenty, one each second, stay where they are, and gaps of the audio are silence."""
    whole = onsets(clip_of(tmp_path / 'whole.mp4', twenty, 3.0, 9.0), 0, 6)
    monkeypatch.setattr(video._Sound, 'PIECE', int(1.7 * video.RATE))
    sizes = []
    decoded = video._Sound._decoded
    monkeypatch.setattr(video._Sound, '_decoded', lambda *them: (sizes.append(them[2]), decoded(*them))[1])
    video.write_web_clip(twenty, tmp_path / 'pieces.mp4', 3.0, 9.0, 240, 15)
    assert len(sizes) == 4 and sum(sizes) == 6 * video.RATE
    np.testing.assert_allclose(onsets(tmp_path / 'pieces.mp4', 0, 6), whole, atol=0.003)
    # The rate of 10 stays, since it is below the limit.
    assert numbers_of(frames_of(tmp_path / 'pieces.mp4')[1]) == list(range(30, 90))
    gap = encode(tmp_path / 'gap.mkv', numbered(60), np.arange(60) / 10, clicks(2, [0.5])[None], codec='pcm_s16le')
    video.write_web_clip(gap, tmp_path / 'gap.mp4', 0.0, 6.0, 240)
    assert decode.MediaFile(tmp_path / 'gap.mp4').duration == pytest.approx(6, abs=0.1)


def test_a_source_that_is_gone_is_named(tmp_path):
    with pytest.raises(media.MediaError, match='gone.mp4: missing'):
        video.web_clip(tmp_path / 'gone.mp4', 0, 1)


# ---------------------------------------------------------------------------------------------------------------------
# The overlay
# ---------------------------------------------------------------------------------------------------------------------


def overlay(path, record, label=None):
    """Times, pictures without the strip, and strips of a written overlay."""
    record.save_video(path, label)
    times, images = frames_of(path)
    return times, images[:, : -video.STRIP], images[:, -video.STRIP :].astype(int)


def test_the_overlay_keeps_pictures_and_sound_together(twenty, tmp_path):
    record = make(np.zeros((2, 4, 2, 2)), np.zeros((2, 4)), source=twenty, start=7.05)
    times, images, _ = overlay(tmp_path / 'a.mp4', record)
    np.testing.assert_allclose(times, np.arange(40) / 10, atol=1e-6)
    assert images.shape[1:3] == (360, 480) and numbers_of(images) == list(range(70, 110))
    np.testing.assert_allclose(onsets(tmp_path / 'a.mp4', 0, 4), np.arange(4) + 0.2, atol=0.003)
    assert [path.name for path in tmp_path.iterdir()] == ['a.mp4']


def marked(path, box, height, width, degrees=0, bars=0):
    """Writes a grey video with a white box (rows, columns), optionally with black bars or a display rotation.

    The bars are above and below.
    """
    frames = grey([110] * 20, height, width)
    if bars:
        frames[:, :bars] = frames[:, -bars:] = 0
    frames[:, slice(*box[0]), slice(*box[1])] = 250
    return encode(
        path, frames, np.arange(20) / 10, noise(2)[None], setup=lambda stream: stream.set_display_rotation(degrees)
    )


def extent(mask):
    rows, columns = np.where(mask)
    return np.array([rows.min(), rows.max() + 1, columns.min(), columns.max() + 1])


CROP = (0.75, 0.125, 1.0, 0.0)
MARKERS = {
    # box in the coded frame, coded height and width, display rotation, bars, affine, cell, box in the upright frame
    # 0..1
    'landscape': (((0, 24), (96, 128)), 96, 128, 0, 0, (1.0, 0.0, 1.0, 0.0), (0, 3), (0, 1 / 4, 3 / 4, 1)),
    'portrait': (((96, 128), (0, 24)), 128, 96, 0, 0, (1.0, 0.0, 1.0, 0.0), (3, 0), (3 / 4, 1, 0, 1 / 4)),
    # Turned counter-clockwise, the coded top left is the bottom left of an upright frame of 128 x 96.
    'rotated': (((0, 24), (0, 32)), 96, 128, 90, 0, (1.0, 0.0, 1.0, 0.0), (3, 0), (3 / 4, 1, 0, 1 / 4)),
    # The central square of a letterboxed frame: its cells are 24 pixels wide and begin at pixel 16.
    'letterboxed': (((24, 48), (16, 40)), 96, 128, 0, 12, CROP, (1, 0), (1 / 4, 1 / 2, 1 / 8, 5 / 16)),
}


@pytest.mark.parametrize('name', MARKERS)
def test_the_heat_lies_on_the_marker(tmp_path, name):
    box, height, width, degrees, bars, affine, cell, upright = MARKERS[name]
    source = marked(tmp_path / 'a.mp4', box, height, width, degrees, bars)
    visual = np.zeros((2, 2, 4, 4))
    cold = make(visual, np.ones((2, 2)), source=source, affine=affine)
    # The value lies half way up the scale, because the top is nearly as white as the marker.
    visual[0, 1][cell], visual[0, 0, 0, 0] = 1, -2
    hot = make(visual, np.ones((2, 2)), source=source, affine=affine)
    _, before, _ = overlay(tmp_path / 'cold.mp4', cold)
    _, after, _ = overlay(tmp_path / 'hot.mp4', hot)
    # Only the second of the cell glows, and in it only the cell.
    glow = (np.abs(after.astype(int) - before).max(axis=-1) > 40)[[3, 8, 13, 18]]
    assert not glow[:2].any()
    image = before[15]
    high, wide = image.shape[:2]
    left = (480 - 360) // 2 if name in ('portrait', 'rotated') else 0
    wide -= 2 * left
    marker = extent(image.min(axis=-1) > 190)
    expected = np.array(upright) * (high, high, wide, wide) + (0, 0, left, left)
    np.testing.assert_allclose(marker, expected, atol=4)
    for second in glow[2:]:
        np.testing.assert_allclose(extent(second), marker, atol=4)
        rows, columns = slice(marker[0] + 6, marker[1] - 6), slice(marker[2] + 6, marker[3] - 6)
        assert second[rows, columns].mean() > 0.95


def test_half_cells_glow_in_the_outline_of_the_strongest_cell(tmp_path):
    """Only the lower right quarter of the strongest cell has evidence; the outline is that of the cell."""
    source = encode(tmp_path / 'a.mp4', grey([110] * 20, 96, 128), np.arange(20) / 10, noise(2)[None])
    visual, finer = np.zeros((2, 2, 3, 4)), np.zeros((2, 2, 6, 8), np.float32)
    visual[0, 0, 1, 2], finer[0, 0, 3, 5] = 1, 1
    record = make(visual, np.ones((2, 2)), source=source)
    _, (cells, *_), _ = overlay(tmp_path / 'cells.mp4', record)
    _, (halves, *_), _ = overlay(tmp_path / 'halves.mp4', dataclasses.replace(record, visual_finer=finer))
    outlines = [extent(near(image.astype(int), colours.STRONGEST)) for image in (cells, halves)]
    np.testing.assert_array_equal(*outlines)
    np.testing.assert_allclose(outlines[0], np.array([1 / 3, 2 / 3, 1 / 2, 3 / 4]) * (360, 360, 480, 480), atol=4)
    inside = halves[130:230, 250:350].astype(int)
    glow = np.abs(inside - [110] * 3).max(axis=-1) > 40
    np.testing.assert_allclose(extent(glow), [50, 100, 50, 100], atol=12)
    assert glow[60:90, 60:90].all() and not glow[:40].any()


def near(image, colour, tolerance=45):
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return np.abs(image - rgb).max(axis=-1) <= tolerance


def test_heat_leaves_the_picture_visible(tmp_path):
    """Within the hottest cell, a dark and a bright half remain distinct."""
    frames = grey([30] * 20, 96, 128)
    frames[:, :, 16:32] = 220
    source = encode(tmp_path / 'a.mp4', frames, np.arange(20) / 10, noise(2)[None])
    visual = np.zeros((2, 2, 3, 4))
    visual[0, :, 1, 0] = 1
    _, images, _ = overlay(tmp_path / 'b.mp4', make(visual, np.ones((2, 2)), source=source))
    cell = images[5].astype(int)[135:225]
    assert cell[:, 75:105].mean() - cell[:, 15:45].mean() > 60


def test_the_strip_shows_the_terms_and_the_time(twenty, tmp_path):
    """Visual is positive in segment 0, audio negative in segment 2, nothing else; the playhead spans the strip."""
    visual, audio = np.zeros((2, 4, 1, 1)), np.zeros((2, 4))
    visual[0, 0], audio[0, 2] = 2, -1
    record = make(visual, audio, source=twenty)
    times, _, strips = overlay(tmp_path / 'a.mp4', record)
    strip = strips[15]
    picture, sound = (extent(near(strip[video.TOP :], colour)) for colour in (colours.PICTURE, colours.SOUND))
    segment = (480 - 24) / 4
    # The heights are proportional to the terms, and the bars meet at the zero line.
    assert (
        picture[0] <= 2
        and sound[1] == pytest.approx(video.STRIP - video.BOTTOM - video.TOP, abs=3)
        and abs(picture[1] - sound[0]) <= 3
    )
    assert (picture[1] - picture[0]) / (sound[1] - sound[0]) == pytest.approx(2, rel=0.15)
    assert 12 <= picture[2] and picture[3] <= 12 + segment / 2 + 2
    assert 12 + 2.5 * segment - 2 <= sound[2] and sound[3] <= 12 + 3 * segment
    for k in (1, 13, 39):
        dark = np.flatnonzero(
            (strips[k, video.TOP + 2 : video.STRIP - video.BOTTOM - 2].max(axis=-1) < 110).mean(axis=0) > 0.9
        )
        assert dark.mean() == pytest.approx(12 + times[k] / 4 * 455, abs=1.5)


def test_the_label_chooses_the_map_that_is_drawn(twenty, tmp_path):
    visual = np.zeros((2, 2, 2, 2))
    visual[0, 0, 0, 0] = visual[1, 0, 1, 1] = 1
    record = make(visual, np.zeros((2, 2)), source=twenty)
    for label, cell in (('a', (slice(0, 180), slice(0, 240))), ('b', (slice(180, 360), slice(240, 480)))):
        _, images, _ = overlay(tmp_path / 'a.mp4', record, label)
        # The source is grey, so coloured pixels are heat.
        coloured = np.ptp(images[2].astype(int), axis=-1) > 20
        assert coloured[cell].mean() > 0.9 and coloured.sum() == pytest.approx(coloured[cell].sum(), rel=0.05)
    with pytest.raises(ValueError, match="unknown label 'c'"):
        record.save_video(tmp_path / 'a.mp4', 'c')


def test_a_long_name_does_not_push_anything_out_of_the_strip(twenty, tmp_path):
    """The key at the right does not depend on the name."""
    keys = []
    for name in ('a', '長い' * 80 + '\n'):
        record = make(np.zeros((1, 2, 1, 1)), np.zeros((1, 2)), source=twenty, classes=(name,), probabilities=(0.5,))
        keys.append(overlay(tmp_path / 'a.mp4', record)[2][5, :, 468:])
    assert np.abs(keys[0] - keys[1]).mean() < 3 and keys[0].min() < 60


def test_segments_without_data_are_grey(twenty, tmp_path):
    record = make(
        np.zeros((1, 4, 1, 1)), np.zeros((1, 4)), source=twenty, valid=[1, 1, 1, 0], classes='a', probabilities=[1]
    )
    _, _, strips = overlay(tmp_path / 'a.mp4', record)
    assert strips[5, video.TOP + 9, 12:350].mean() > 245 and strips[5, video.TOP + 9, 360:465].mean() == pytest.approx(
        0xDD, abs=4
    )


def test_the_overlay_has_the_resolution_of_the_source(tmp_path):
    """The picture of a wide source stays as it is, and the strip grows with it; beyond 1280 pixels both end."""
    for name, (height, width), picture, strip in (
        ('a', (400, 520), (400, 520), 126),
        ('b', (600, 960), (600, 960), 188),
        ('c', (736, 1472), (640, 1280), 252),
    ):
        source = encode(tmp_path / f'{name}.mp4', grey([90] * 5, height, width), np.arange(5) / 10, noise(1)[None])
        record = make(np.zeros((2, 1, 2, 2)), np.zeros((2, 1)), source=source, seconds=0.5)
        record.save_video(tmp_path / 'out.mp4')
        _, images = frames_of(tmp_path / 'out.mp4')
        assert images.shape[1:3] == (picture[0] + strip, picture[1])
        np.testing.assert_allclose(images[2, : picture[0]].mean(), 90, atol=3)
        assert images[2, picture[0] :].mean() > 200


def test_annotations_are_drawn_as_in_the_figure(twenty, tmp_path):
    """The dashed box comes in its second only, and the interval is green in the strip."""
    truth = GroundTruth([(1.0, 3.0)], [(2.5, 0.25, 0.25, 0.75, 0.5)])
    record = make(np.zeros((2, 4, 2, 2)), np.ones((2, 4)) * 1e-9, source=twenty)
    record.save_video(tmp_path / 'bare.mp4')
    record.save_video(tmp_path / 'true.mp4', truth=truth)
    (_, bare), (_, true) = (frames_of(tmp_path / f'{name}.mp4') for name in ('bare', 'true'))
    changed = np.abs(true[:, : -video.STRIP].astype(int) - bare[:, : -video.STRIP]).max(axis=-1) > 60
    assert changed[20:30].any(axis=(1, 2)).all() and not changed[:20].any() and not changed[30:].any()
    np.testing.assert_allclose(extent(changed[25]), (90, 180, 120, 360), atol=4)
    # An outline, not an area, with white and black dashes.
    assert changed[25].sum() < 0.3 * 90 * 240 and not changed[25, 100:170, 130:350].any()
    dashes = true[25, 90:92, 124:356].mean(axis=(0, 2))
    assert dashes.max() > 220 and dashes.min() < 60
    green = [near(images[5, -video.STRIP + video.TOP + 4], '#dfeae1', 12) for images in (bare, true)]
    assert not green[0].any()
    np.testing.assert_allclose(np.flatnonzero(green[1])[[0, -1]], (12 + 455 / 4, 12 + 3 * 455 / 4), atol=3)


def test_the_strip_names_the_runner_up(twenty):
    """With another class than the best one, it names the best one."""
    terms = np.zeros((3, 2, 1, 1)), np.zeros((3, 2))
    titles = []
    for classes in (('a', 'b', 'c'), ('a', 'b', 'd'), ('a', 'x', 'c')):
        record = make(*terms, source=twenty, classes=classes, probabilities=(0.6, 0.3, 0.1))
        titles.append([video._strip(record, c, GroundTruth(), 480)[:26] for c in (0, 1)])
    first, second = zip(*titles)
    assert np.array_equal(first[0], first[1]) and not np.array_equal(first[0], first[2])
    assert np.array_equal(second[0], second[1]) and not np.array_equal(second[0], second[2])
    # One class alone has no runner-up.
    alone = make(np.zeros((1, 2, 1, 1)), np.zeros((1, 2)), source=twenty, classes=('a',), probabilities=(0.6,))
    assert (video._strip(alone, 0, GroundTruth(), 480)[:26, 240:] == 255).all()


def test_stereo_stays_stereo_and_is_as_loud(tmp_path):
    frames, seconds = grey(np.arange(20) * 10), np.arange(2 * RATE) / RATE
    tones = np.stack([0.5 * np.sin(2 * np.pi * 440 * seconds), 0.1 * np.sin(2 * np.pi * 660 * seconds)]).astype(
        np.float32
    )
    source = encode(tmp_path / 'two.mp4', frames, np.arange(20) / 10, tones)
    (tmp_path / 'web.mp4').write_bytes(video.web_clip(source, 0, 2))
    file = decode.MediaFile(tmp_path / 'web.mp4')
    heard, _ = file.sound(0, 2, video.RATE, 2 * video.RATE, channels=2)
    middle = heard[:, video.RATE // 2 : -video.RATE // 2]
    np.testing.assert_allclose(np.sqrt(2 * (middle**2).mean(1)), [0.5, 0.1], rtol=0.05)
    mono = encode(tmp_path / 'one.mp4', frames, np.arange(20) / 10, tones[:1])
    (tmp_path / 'web1.mp4').write_bytes(video.web_clip(mono, 0, 2))
    assert (file.channels, decode.MediaFile(tmp_path / 'web1.mp4').channels) == (2, 1)
