"""Tests the figure: its size, formats, colour scale, choice and pixels of frames, and text that could break it."""

import base64
import dataclasses
import io
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import simplejpeg
from clips import write_twenty
from PIL import Image

from stattn_jax import colours
from stattn_jax.explain import figure
from stattn_jax.explain.explanation import GroundTruth, make_geometry, strongest_cell
from stattn_jax.explain.result import Explanation

# No text, edge or colour map has a colour near this green.
FRAME = (20, 140, 90)
SVG = '{http://www.w3.org/2000/svg}'


def make(
    t=4, grid=(3, 4), *, height=48, width=64, affine=(1.0, 0.0, 1.0, 0.0), valid=None, media=None, classes=('a', 'b')
):
    rng = np.random.default_rng(0)
    visual = rng.normal(size=(2, t, *grid)).astype(np.float32) * 0.1
    jpeg = simplejpeg.encode_jpeg(np.full((height, width, 3), FRAME, np.uint8))
    audio, both = rng.normal(size=(2, t)).astype(np.float32), np.zeros((2, t, 2), np.float32)
    return Explanation(
        media={'file': 'clip.mp4', 'start': 0.0, 'duration': float(t), 'height': height, 'width': width}
        | (media or {}),
        geometry=make_geometry((t, *grid), 1.0, affine, height, width),
        model={},
        classes=classes,
        multi_label=False,
        logits=np.array([1, 0], np.float32),
        probabilities=np.array([0.7, 0.3], np.float32),
        bias=np.zeros(2, np.float32),
        reference=np.zeros(2, np.float32),
        mean_scores=np.zeros((2, 2), np.float32),
        visual=visual,
        audio=audio,
        alpha=np.abs(visual[0]),
        null=np.full(t, 0.1, np.float32),
        beta=both,
        segment_scores=both,
        valid=np.ones(t, bool) if valid is None else valid,
        log_mel=rng.normal(size=(t, 8, 6)).astype(np.float16),
        frames=(jpeg,) * t,
    )


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert('RGB')).astype(int)


def test_the_png_is_1600_wide_and_shows_all_its_parts(tmp_path):
    truth = GroundTruth(intervals=[(1.0, 3.0)], boxes=[(1.5, 0.2, 0.2, 0.6, 0.8)])
    make().save_figure(tmp_path / 'plain.png')
    make().save_figure(tmp_path / 'truth.png', label='b', truth=truth)
    plain, with_truth = pixels(tmp_path / 'plain.png'), pixels(tmp_path / 'truth.png')
    assert plain.shape == with_truth.shape and plain.shape[1] == 1600 and 600 < plain.shape[0] < 1000
    for colour in (colours.PICTURE, colours.SOUND, colours.STRONGEST):
        assert count(plain, colour) > 50, colour
    assert count(plain, colours.TRUE) == 0 < count(with_truth, colours.TRUE)


def count(image, colour):
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(image - rgb).max(axis=-1) <= 2).sum())


def test_the_outline_of_the_strongest_cell_lies_where_the_geometry_puts_it(tmp_path):
    """Verifies the outline in a crop of the frame's middle half.

    Its top left cell begins at a quarter of the frame's width.
    """
    record = make(t=1, grid=(2, 2), height=64, width=64, affine=(0.5, 0.25, 1.0, 0.0))
    visual = np.zeros_like(record.visual)
    visual[0, 0, 0, 0] = 1
    dataclasses.replace(record, visual=visual).save_figure(tmp_path / 'a.png')
    image = pixels(tmp_path / 'a.png')[:440]
    frame = np.argwhere(np.abs(image - FRAME).max(axis=-1) <= 3)
    (top, left), (bottom, right) = frame.min(axis=0), frame.max(axis=0)
    side = right - left
    assert side == pytest.approx(bottom - top, abs=3) and side > 100
    rgb = [int(colours.STRONGEST[i : i + 2], 16) for i in (1, 3, 5)]
    rows, columns = np.where(np.abs(image - rgb).max(axis=-1) <= 2)
    middle = columns[rows < top + 0.6 * side]
    assert (middle.min() - left) / side == pytest.approx(0.25, abs=0.03)
    assert (middle.max() - left) / side == pytest.approx(0.5, abs=0.03)


SILENT = np.zeros(2)


def test_one_colour_scale_for_the_clip():
    visual = np.array([[[0.1, -0.2]], [[0.4, 0.2]]])
    rgba, scale = colours.overlay(visual, SILENT)
    assert scale == 0.4
    opacity = rgba[..., 3]
    assert opacity[1, 0, 0] == opacity.max() and opacity[0, 0, 1] == 0
    assert np.array_equal(np.argsort(opacity.ravel()), np.argsort(np.maximum(visual, 0).ravel()))
    # On its own, the first frame would be its own maximum; here it stays at a quarter of the scale.
    lightness = rgba[..., :3].sum(axis=-1)
    assert lightness[0, 0, 0] < lightness[1, 0, 1] < lightness[1, 0, 0]


def test_faint_support_stays_faint_beside_strong_objection():
    rgba, scale = colours.overlay(np.array([[[0.01, -1.0]]]), SILENT)
    assert scale == 1.0 and 0 < rgba[0, 0, 0, 3] < 0.1


def test_half_cells_have_the_scale_of_cells():
    visual, audio = np.array([[[0.4, -0.2]]]), np.zeros(1)
    even = visual.repeat(2, axis=1).repeat(2, axis=2)
    rgba, scale = colours.overlay(visual, audio)
    finer, same = colours.overlay(visual, audio, even)
    assert same == scale
    np.testing.assert_array_equal(finer, rgba.repeat(2, axis=1).repeat(2, axis=2))
    even[0, 1, 1] = 0.8
    finer, scale = colours.overlay(visual, audio, even)
    assert scale == 0.8 and finer[0, 1, 1, 3] == finer[..., 3].max() == colours.OPACITY


def test_a_picture_that_hardly_matters_does_not_glow():
    visual = np.array([[[0.25, 0.25]], [[0.0, 0.1]]])
    for loudest, longer in ((4.0, 1), (-5.0, 1), (20.0, 4), (-20.0, 4)):
        assert colours.overlay(visual, np.array([1.0, loudest]))[1] == pytest.approx(0.25 * longer)
    glow, faint = (colours.overlay(visual, np.array([1.0, loudest]))[0][..., 3] for loudest in (4.0, 20.0))
    np.testing.assert_allclose(faint, glow * (1 / 4) ** 0.6, rtol=1e-6)


def test_a_picture_without_support_has_no_heat_and_no_strongest_cell(tmp_path):
    visual = -np.ones((2, 2, 2))
    assert not colours.overlay(visual, SILENT)[0][..., 3].any() and colours.overlay(np.zeros((1, 2, 2)), SILENT)[1] == 0
    assert strongest_cell(visual) is None
    record = make()
    dataclasses.replace(record, visual=-np.abs(record.visual)).save_figure(tmp_path / 'a.png')
    assert count(pixels(tmp_path / 'a.png'), colours.STRONGEST) == 0


def test_strongest_cell_is_the_argmax():
    visual = np.random.default_rng(1).normal(size=(5, 3, 4))
    visual[3, 2, 1] = 9
    assert strongest_cell(visual) == (3, 2, 1)


@pytest.mark.parametrize('t', [1, 4, 10, 11, 30, 61])
def test_shown_segments_are_spread_evenly_and_hold_the_strongest(t):
    for strongest in range(t):
        visual = np.zeros((t, 2, 2))
        visual[strongest, 1, 1] = 1
        shown = figure.shown_segments(visual)
        assert strongest in shown and shown == sorted(set(shown)) and len(shown) == min(t, 10)
        assert np.diff([-1, *shown, t]).max() <= 2 * -(-t // 9)


@pytest.mark.parametrize(
    'change',
    [
        {'media': {'file': '$x_1$ \\frac{長} ' * 40}, 'classes': ('長' * 100, '$b^$')},
        {'t': 1},
        {'t': 23},
        {'height': 120, 'width': 40, 'valid': np.array([True, True, False, False])},
    ],
)
def test_odd_clips_are_drawn_without_a_warning(tmp_path, change):
    make(**change).save_figure(tmp_path / 'a.png')
    assert pixels(tmp_path / 'a.png').shape[1] == 1600


# ---------------------------------------------------------------------------------------------------------------------
# The formats, and the frames of the source
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def filmed(tmp_path):
    """Returns a record of four seconds from 7.05 s on of the video of numbered frames, which is twice its size."""
    source = write_twenty(tmp_path / 'twenty.mp4')
    media = {'start': 7.05, 'width': 64, 'height': 48}
    record = make(height=24, width=32, media=media)
    return dataclasses.replace(record, source=source)


def embedded(path):
    """Returns the images that an SVG embeds, in their order."""
    images = [node.attrib['{http://www.w3.org/1999/xlink}href'] for node in ElementTree.parse(path).iter(f'{SVG}image')]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(',')[2])))) for uri in images]


def test_an_svg_is_paths_and_frames_with_the_pixels_of_the_source(filmed, tmp_path):
    filmed.save_figure(tmp_path / 'a.svg')
    images = embedded(tmp_path / 'a.svg')
    frames = [image for image in images if image.shape[:2] == (48, 64) and image[..., 3].min() == 255]
    # The frames shown at 0.5, 1.5, ... s of the clip; frame n begins at n / 10 s of the source.
    assert [number(frame) for frame in frames] == [75, 85, 95, 105]
    heat = [image for image in images if image.shape[:2] == (48, 64) and image[..., 3].min() < 255]
    assert len(heat) == 4 and len(images) == 4 + 4 + 2
    text = (tmp_path / 'a.svg').read_text()
    assert '<text' not in text and '<!-- clip.mp4 -->' in text and 'pixelated' not in text


def number(frame):
    """Decodes the number of clips.numbered."""
    low, high = (frame[8:-8, x - 8 : x + 8, :3].mean() for x in (16, 48))
    return round(low / 16) + 16 * round(high / 16)


def test_a_pdf_has_text_in_truetype_and_the_pixels_of_the_source(filmed, tmp_path):
    filmed.save_figure(tmp_path / 'a.PDF')
    content = (tmp_path / 'a.PDF').read_bytes()
    assert content.startswith(b'%PDF') and b'/FontFile2' in content and b'/Type3' not in content
    assert content.count(b'/Height 48') == content.count(b'/Width 64') > 4
    assert b'/Title (clip.mp4: a)' in content


def test_a_png_shows_the_frames_of_the_source(filmed, tmp_path):
    filmed.save_figure(tmp_path / 'source.png')
    dataclasses.replace(filmed, source=None).save_figure(tmp_path / 'record.png')
    of_source, of_record = (np.abs(pixels(tmp_path / f'{name}.png') - FRAME) for name in ('source', 'record'))
    assert not (of_source.max(axis=-1) <= 3).any() and (of_record.max(axis=-1) <= 3).mean() > 0.05


def test_a_source_that_is_gone_is_named_and_the_record_is_drawn(filmed, tmp_path, caplog):
    gone = dataclasses.replace(filmed, source=tmp_path / 'gone.mp4')
    with caplog.at_level('WARNING'):
        gone.save_figure(tmp_path / 'a.png')
    assert 'frames of the record' in caplog.text and 'gone.mp4: missing' in caplog.text
    dataclasses.replace(filmed, source=None).save_figure(tmp_path / 'b.png')
    assert (tmp_path / 'a.png').read_bytes() == (tmp_path / 'b.png').read_bytes()


def test_large_frames_become_smaller_and_small_ones_stay():
    assert figure._bounded((1080, 1920), 1280) == (720, 1280) and figure._bounded((48, 64), 1280) == (48, 64)


@pytest.mark.parametrize('kind', figure.LONGEST_SIDE)
def test_equal_figures_are_equal_files_and_settings_stay(tmp_path, kind):
    before = dict(matplotlib.rcParams)
    for name in ('a', 'b'):
        make(t=1).save_figure(tmp_path / f'{name}.{kind}')
    assert (tmp_path / f'a.{kind}').read_bytes() == (tmp_path / f'b.{kind}').read_bytes()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize('name', ['a.eps', 'a', 'a.png.'])
def test_an_unknown_suffix_is_one_line_and_writes_nothing(tmp_path, name):
    with pytest.raises(ValueError, match=r"a[^ ]*: the suffix is '.*'; expected one of png, pdf, svg$"):
        make(t=1).save_figure(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_boxes_are_those_annotated_nearest_in_the_segment():
    first, late, other = (0.1, 0.1, 0.2, 0.2), (0.3, 0.1, 0.4, 0.2), (0.5, 0.5, 0.6, 0.6)
    truth = GroundTruth(boxes=[(1.1, *first), (1.1, *other), (1.8, *late), (2.0, *other)])
    assert truth.boxes_near(1.3, 1.0) == [first, other] and truth.boxes_near(1.5, 1.0) == [late]
    assert truth.boxes_near(2.9, 1.0) == [other] and truth.boxes_near(0.9, 1.0) == []
