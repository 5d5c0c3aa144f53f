"""Tests cIoU and the pixel pointing game.

References are loops, another resampler, closed forms and the published rows of VGG-SS.
"""

import json
import math

import numpy as np
import PIL.Image
import pytest

from stattn_jax.metrics import sounding

WHOLE = (1.0, 0.0, 1.0, 0.0)


def loop_mask(boxes):
    """Mask by the published rule: corners times 224, cut off at 0, to integers, upper ones excluded."""
    mask = np.zeros((224, 224), bool)
    for box in boxes:
        x0, y0, x1, y1 = (int(224 * max(v, 0)) for v in box)
        mask[y0:y1, x0:x1] = True
    return mask


def random_boxes(rng, k):
    return np.sort(rng.random((k, 2, 2)), axis=1).reshape(k, 4)


def test_box_distance_is_to_the_nearest_pixel_of_the_fields_mask():
    rng = np.random.default_rng(0)
    for k in (1, 2, 4):
        boxes = random_boxes(rng, k)
        rows, columns = np.nonzero(loop_mask(boxes))
        found = sounding.box_distance(boxes)
        assert np.array_equal(found == 0, loop_mask(boxes))
        for y, x in rng.integers(0, 224, (50, 2)):
            want = min(math.hypot(y - a, x - b) for a, b in zip(rows, columns, strict=True))
            assert found[y, x] == pytest.approx(want, abs=1e-12)


def test_boxes_without_a_pixel_and_beyond_the_frame():
    assert np.isinf(sounding.box_distance(np.zeros((0, 4)))).all()
    broken = [[0.5, 0.5, 0.5, 0.9], [0.4, 0.3, -2.8823037615171176e16, 0.9]]
    assert np.isinf(sounding.box_distance(broken)).all()
    assert (sounding.box_distance([[-3.0, 0.5, 0.25, 7.0]]) == 0).sum() == 56 * 112


@pytest.mark.parametrize('grid', [(7, 7), (5, 8), (1, 1), (14, 14)])
def test_drawing_the_whole_frame_matches_another_resampler(grid):
    values = np.random.default_rng(1).normal(size=grid)
    image = PIL.Image.fromarray(values.astype(np.float32))
    want = np.asarray(image.resize((224, 224), PIL.Image.Resampling.BILINEAR))
    assert sounding.draw(values, WHOLE) == pytest.approx(want, abs=2e-6)


def loop_draw(values, affine, y, x):
    """The value of one source pixel: four neighbouring cells weighted by proximity."""
    h, w = values.shape
    place = []
    for pixel, cells, scale, offset in ((y, h, affine[2], affine[3]), (x, w, affine[0], affine[1])):
        view = ((pixel + 0.5) / 224 - offset) / scale
        if not 0 <= view < 1:
            return values.min()
        place.append(min(max(view * cells - 0.5, 0), cells - 1))
    corners = [(a, b) for a in (int(place[0]), int(place[0]) + 1) for b in (int(place[1]), int(place[1]) + 1)]
    weight = {(a, b): (1 - abs(place[0] - a)) * (1 - abs(place[1] - b)) for a, b in corners}
    return sum(weight[a, b] * values[min(a, h - 1), min(b, w - 1)] for a, b in corners)


@pytest.mark.parametrize('affine', [WHOLE, (0.5625, 0.21875, 1.0, 0.0), (1.0, 0.0, 0.6, 0.2)])
def test_drawing_matches_a_loop_and_unseen_pixels_are_lowest(affine):
    rng = np.random.default_rng(2)
    values = rng.normal(size=(5, 6))
    drawn = sounding.draw(values, affine)
    for y, x in rng.integers(0, 224, (300, 2)):
        assert drawn[y, x] == pytest.approx(loop_draw(values, affine, y, x), abs=1e-12)
    unseen = round(224 * 224 * (1 - affine[0] * affine[2]))
    # Interpolated values are never below the minimum; the margin is for seen pixels that equal it.
    assert abs((drawn == values.min()).sum() - unseen) <= 224 * 8


def test_the_larger_half_is_above_the_middle_value_and_ties_with_it_are_out():
    distinct = np.random.default_rng(3).permutation(224 * 224).reshape(224, 224)
    half = sounding.larger_half(distinct)
    assert half.sum() == sounding.PREDICTED == 25087 and np.array_equal(half, distinct > 25088)
    for value in (0.1, -3.7, 0.3):
        assert not sounding.larger_half(sounding.draw(np.full((7, 7), value), WHOLE)).any()
    # Less than half of this tall frame was seen by the model; the unseen part is not predicted.
    seen = sounding.larger_half(sounding.draw(np.random.default_rng(4).random((7, 7)), (1.0, 0.0, 0.4, 0.3)))
    assert seen.any(axis=1).sum() <= 0.4 * 224 + 1


def test_ciou_is_the_iou_of_masks_and_weighs_a_consensus():
    rng = np.random.default_rng(5)
    predicted, truth = rng.random((2, 224, 224)) < 0.5
    assert sounding.ciou(predicted, truth) == (predicted & truth).sum() / (predicted | truth).sum()
    # Three annotators: two agree on 100 pixels, and one alone has 60 more; 80 and 30 of these are predicted, 40 pixels
    # outside them.
    consensus, mask = np.zeros((2, 224, 224))
    consensus[0, :100], consensus[1, :60] = 1.0, 0.5
    mask[0, :80], mask[1, :30], mask[2, :40] = 1, 1, 1
    assert sounding.ciou(mask > 0, consensus) == pytest.approx((80 + 15) / (130 + 40), abs=1e-12)
    nothing = np.zeros((224, 224), bool)
    assert sounding.ciou(nothing, nothing) == sounding.ciou(predicted, nothing) == sounding.ciou(nothing, truth) == 0


def test_rates_closed_forms():
    assert sounding.rates(np.ones(3)) == pytest.approx((1.0, 1.0))
    # Every clip reaches the threshold 0, which gives half a step.
    assert sounding.rates(np.zeros(3)) == pytest.approx((0.0, 0.025))
    cious = np.random.default_rng(6).random(50)
    reached = [sum(c >= 0.05 * i for c in cious) / 50 for i in range(21)]
    want = sum((a + b) / 2 * 0.05 for a, b in zip(reached, reached[1:]))
    assert sounding.rates(cious) == pytest.approx((reached[10], want), abs=1e-12)


def loop_summary(maps, boxes, affines):
    """cIoU, hit, tolerant hit and area of each clip, computed from the published mask rule."""
    rows = []
    for map_hw, box, affine in zip(maps, boxes, affines, strict=True):
        drawn, mask = sounding.draw(map_hw, affine), loop_mask(box)
        half = drawn > np.sort(drawn.ravel())[25088]
        near = sounding.box_distance(box) < 15
        best = drawn == drawn.max()
        overlap = (half & mask).sum() / (half | mask).sum()
        rows.append(
            (overlap, mask[best].mean(), near[best].mean(), mask.mean(), near.mean(), mask[112, 112], near[112, 112])
        )
    return np.array(rows, float)


def test_summary_matches_a_loop():
    rng = np.random.default_rng(7)
    n = 24
    maps, classes = rng.normal(size=(n, 4, 5)), np.arange(n) % 5
    maps[3] = 0
    boxes = [random_boxes(rng, 1 + i % 3) for i in range(n)]
    boxes[::4] = [np.array([[0.1, 0.1, 0.9, 0.95]])] * 6
    boxes[5] = np.zeros((0, 4))
    affines = [WHOLE, (0.6, 0.2, 1.0, 0.0)] * (n // 2)
    rows, found = loop_summary(maps, boxes, affines), sounding.summary(maps, boxes, affines, classes)
    assert (found['sounding/ciou'], found['sounding/auc']) == pytest.approx(sounding.rates(rows[:, 0]), abs=1e-12)
    small = rows[:, 3] < 0.25
    assert 0 < small.sum() < n and found['sounding/point_small_n'] == small.sum()
    for subset, kept in (('', small | True), ('_small', small)):
        hit, near, area, near_area, centre, near_centre = rows[kept, 1:].T
        for game, rates in (('', (hit, centre, area)), ('_tolerant', (near, near_centre, near_area))):
            got = [found[f'sounding/point{subset}{game}{row}'] for row in ('', '_centre', '_random')]
            assert got == pytest.approx([np.mean(rate) for rate in rates], abs=1e-12)
            by_class = [rates[0][classes[kept] == c].mean() for c in set(classes[kept])]
            assert found[f'sounding/point{subset}{game}_macro'] == pytest.approx(np.mean(by_class), abs=1e-12)
    assert (found['sounding/n'], found['sounding/unscorable']) == (n, 1)
    oracle = np.minimum(rows[:, 3] * 50176, 25087) / np.maximum(rows[:, 3] * 50176, 25087)
    assert found['sounding/ciou_oracle'] == np.mean(oracle >= 0.5) >= found['sounding/ciou']
    assert found['sounding/ciou_all'] == np.mean(rows[:, 3] >= 0.5)


def test_no_map_beats_the_oracle_and_a_map_of_the_box_reaches_it():
    box = np.array([[0.25, 0.25, 0.75, 0.75]])
    x = (np.arange(56) + 0.5) / 56
    # Rings around the box, so that the larger half contains it entirely.
    rings = -np.maximum(abs(x - 0.5), abs(x - 0.5)[:, None])
    # A quarter of the frame is half of what is always predicted, less the one pixel that ties.
    found = sounding.summary(rings[None], [box], [WHOLE], [0])
    assert 12544 / 25087 > 0.5 and found['sounding/ciou'] == found['sounding/ciou_oracle'] == 1
    assert found['sounding/auc'] == found['sounding/auc_oracle']
    assert found['sounding/point'] == found['sounding/point_centre'] == 1
    assert 'sounding/point_small' not in found


def test_summary_of_no_clips_and_of_maps_that_are_not_finite():
    assert sounding.summary(np.zeros((0, 3, 3)), [], [], []) == {'sounding/n': 0}
    maps = np.zeros((3, 2, 2))
    maps[1, 0, 0] = -np.inf
    with pytest.raises(ValueError, match='1 of 3 maps have a value that is not finite; leave masked frames out'):
        sounding.summary(maps, [np.zeros((0, 4))] * 3, [WHOLE] * 3, [0] * 3)


@pytest.mark.slow
def test_the_published_rows_of_vggss(annotations):
    """Reproduces the published rows, which all count 5,158 clips.

    The two clips without a usable box count as misses, and boxes are cut as by the published evaluator.
    """
    rows = json.loads((annotations / 'vggss/vggss.json').read_text())
    boxes, names = [row['bbox'] for row in rows], sorted({row['class'] for row in rows})
    classes, n = [names.index(row['class']) for row in rows], len(rows)
    place = (np.arange(28) - 13.5) / 28
    gaussian = np.exp(-(place**2 + place[:, None] ** 2) / (2 * 0.25**2))
    found = sounding.summary(np.broadcast_to(gaussian, (n, 28, 28)), boxes, [WHOLE] * n, classes)
    percent = {name.removeprefix('sounding/'): round(100 * x, 1) for name, x in found.items() if isinstance(x, float)}
    assert (found['sounding/n'], found['sounding/unscorable']) == (5158, 2)
    # Published: centre Gaussian 33.9 / 37.4, all ones 21.9 / 31.3, oracle 50.5 / 49.5.
    assert (percent['ciou'], percent['auc']) == (percent['ciou_centre'], percent['auc_centre']) == (33.9, 37.4)
    assert (percent['ciou_all'], percent['auc_all']) == (21.9, 31.3)
    assert (percent['ciou_oracle'], percent['auc_oracle']) == (50.5, 49.5)
    # Centre pointing 69.4 / 82.0 (15 pixels), 47.0 / 66.7 on the 2,551 clips of small objects; random 31.2.
    assert (percent['point_centre'], percent['point_tolerant_centre']) == (69.4, 82.0)
    assert (percent['point_small_centre'], percent['point_small_tolerant_centre']) == (47.0, 66.7)
    assert (found['sounding/point_small_n'], percent['point_random']) == (2551, 31.2)
    # The published 43.1 is within the error (0.7) of one random point per clip; this is its expectation.
    assert percent['point_tolerant_random'] == 43.3
    # A central square of half the frame's area, cut to pixels like a box: 31.9 / 36.9.
    low, high = 0.5 - 1 / math.sqrt(8), 0.5 + 1 / math.sqrt(8)
    square = sounding.box_distance([[low, low, high, high]]) == 0
    cious = np.array([sounding.ciou(square, loop_mask(box)) for box in boxes])
    assert [round(100 * x, 1) for x in sounding.rates(cious)] == [31.9, 36.9]


def test_boxes_stored_in_single_precision_cover_the_same_pixels(annotations):
    rows = json.loads((annotations / 'vggss/vggss.json').read_text())
    boxes = np.array([box for row in rows for box in row['bbox'] if min(box) >= 0])
    assert len(boxes) == 5929
    assert np.array_equal((boxes.astype(np.float32).astype(float) * 224).astype(int), (boxes * 224).astype(int))
