"""Tests mask_scores.py on clips made by hand: thresholds of another split, trivial answers, pointing games."""

import numpy as np
import pytest

from stattn_jax import mask_scores, score
from stattn_jax.data import media, records, source
from stattn_jax.metrics import masks, sounding

SIDE = masks.SIDE
HALF = SIDE // 2


def info():
    spec = media.ClipSpec(segments=2)
    return source.DatasetInfo('fake', ('a', 'b'), True, spec, {'test': 2}, {'test': 2}, {'test': 1}, 'abc')


def quarter(row, column):
    pixels = np.zeros((SIDE, SIDE), bool)
    pixels[row * HALF : (row + 1) * HALF, column * HALF : (column + 1) * HALF] = True
    return pixels


def truth(labels, frames, valid=(True, True), modalities=(True, True)):
    """Returns a clip with masks, given as (time, label, pixels)."""
    made = tuple(records.Mask.of_pixels(*frame) for frame in frames)
    return score.Truth(labels, (), (), (), np.array(valid), 40, 40, np.array(modalities), made)


def clips():
    """Three clips of two segments and 2 x 2 cells: one label, two labels, none; the second has an empty frame."""
    alpha = np.full((3, 2, 4), 0.1)
    # The first clip attends to its object in both frames, the second in its second frame only, the third to the wrong
    # cell.
    alpha[0, :, 0] = 0.5, 0.4
    alpha[1, 1, 3] = 0.6
    alpha[2, 0, 1] = 0.6
    visual = np.full((3, 2, 2, 4), -1.0)
    visual[0, 0, 0, 2] = visual[1, 0, 1, 0] = 1.0
    visual[1, 1, 1, 3] = 3.0
    rows = {
        'alpha': alpha,
        'visual': visual,
        'audio': np.zeros((3, 2, 2)),
        'classes': np.array([[0, 1], [0, 1], [0, 1]]),
    }
    known = [
        truth((0,), [(0.5, 0, quarter(0, 0)), (1.5, 0, quarter(0, 0))]),
        truth((0, 1), [(0.5, None, np.zeros((SIDE, SIDE), bool)), (1.5, 0, quarter(1, 0)), (1.5, 1, quarter(1, 1))]),
        truth((), [(0.5, None, quarter(0, 0))]),
    ]
    return rows, known


def test_pointing_games_count_the_union_of_the_masks_of_a_frame():
    rows, known = clips()
    numbers = mask_scores.measure(rows, known, info(), 'squash', None).numbers({})
    # Clip 0 hits in both frames, clip 1 in the only frame with an object, clip 2 misses.
    assert numbers['masks/point'] == pytest.approx(2 / 3) and numbers['masks/point_n'] == 3
    # Contributions: clip 0 misses in its first frame and ties in its second (1/4); clip 1 hits; clip 2 has no label.
    assert numbers['masks/point_contribution'] == pytest.approx((1 / 8 + 1) / 2)
    assert numbers['masks/point_contribution_n'] == 2
    # In time and space, clip 2 does not count, since its second segment was not annotated. Clip 1 attends most in its
    # second segment; clip 0 misses by its contributions.
    assert numbers['masks/joint'] == 1 and numbers['masks/joint_n'] == 2 and numbers['masks/joint_skipped'] == 1
    assert numbers['masks/joint_contribution'] == 0.5
    assert (numbers['masks/frames'], numbers['masks/frames_with_object'], numbers['masks/skipped']) == (5, 4, 0)


def expected_frames(rows, known):
    """Returns the heat of the attention and the mask of each frame, in the order of the clips."""
    unions = [quarter(0, 0), quarter(0, 0), np.zeros((SIDE, SIDE), bool), quarter(1, 0) | quarter(1, 1), quarter(0, 0)]
    places = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    for (i, t), union in zip(places, unions):
        cells = (rows['alpha'][i] / rows['alpha'][i].max())[t].reshape(2, 2)
        yield sounding.draw(cells, (1, 0, 1, 0)), union


def test_rates_are_those_at_the_threshold_of_another_split():
    rows, known = clips()
    measured = mask_scores.measure(rows, known, info(), 'squash', quarter(0, 0).astype(float))
    expected = masks.ThresholdCurves(expected_frames(rows, known))
    thresholds = {'': 0.5, '_contribution': 0.25, '_centre': 0.75, '_prior': 0.5}
    numbers = measured.numbers(thresholds)
    for name, value in expected.numbers(0.5).items():
        assert numbers[f'masks/{name}'] == pytest.approx(value), name
    # Every frame is a quarter or a half of the picture, or empty.
    assert numbers['masks/miou_everything'] == pytest.approx((1 / 4 + 1 / 4 + 0 + 1 / 2 + 1 / 4) / 5)
    assert numbers['masks/miou_nothing'] == pytest.approx(1 / 5)
    # The prior is right in three frames, and has a quarter of the picture in the empty frame.
    assert numbers['masks/miou_prior'] == pytest.approx((1 + 1 + 3 / 4 + 0 + 1) / 5)
    assert numbers['masks/miou_chance'] == numbers['masks/miou_prior']
    assert numbers['masks/f_chance'] == numbers['masks/f_prior'] == pytest.approx(3 / 4)
    assert numbers['masks/threshold'] == 0.5 and numbers['masks/threshold_prior'] == 0.5
    without = measured.numbers({})
    assert without['masks/iou_auc'] == numbers['masks/iou_auc'] and 'masks/f_best_chance' in without
    assert not any(name.startswith(('masks/miou', 'masks/threshold')) or name == 'masks/f' for name in without)


def test_thresholds_are_the_best_of_their_own_split():
    rows, known = clips()
    thresholds = mask_scores.measure(rows, known, info(), 'squash', None).thresholds()
    assert thresholds[''] == masks.ThresholdCurves(expected_frames(rows, known)).best_threshold()
    assert thresholds.keys() == {'', '_contribution', '_everything', '_centre'}


def test_frames_without_both_modalities_or_outside_the_clip_are_counted():
    rows, known = clips()
    known[0] = truth((0,), [(0.5, 0, quarter(0, 0)), (1.5, 0, quarter(0, 0)), (7.5, 0, quarter(0, 0))], (True, False))
    known[1] = truth((0,), [(0.5, 0, quarter(0, 0))], modalities=(True, False))
    numbers = mask_scores.measure(rows, known, info(), 'squash', None).numbers({})
    assert (numbers['masks/frames'], numbers['masks/skipped']) == (2, 3)
    assert numbers['masks/point_n'] == 2 and numbers['masks/joint_n'] == 1


def test_a_network_with_maps_of_its_own_and_one_without_any():
    rows, known = clips()
    where = np.zeros((3, 2, 2, 4))
    where[0, 0, :, 0] = where[1, 1, 1, 2] = 1
    own = {'classes': rows['classes'], 'where': where}
    numbers = mask_scores.measure(own, known, info(), 'squash', None).numbers({})
    assert numbers['masks/point'] == 1 and numbers['masks/point_n'] == 2 and 'masks/joint' not in numbers
    timed = mask_scores.measure(own | {'when': where.sum(-1)}, known, info(), 'squash', None).numbers({})
    assert timed['masks/joint'] == 1
    bare = mask_scores.measure({'classes': rows['classes']}, known, info(), 'squash', None).numbers({})
    assert bare['masks/iou_auc_chance'] == numbers['masks/iou_auc_chance'] and 'masks/iou_auc' not in bare


def test_the_prior_is_the_mean_of_the_masks():
    _, known = clips()
    found = mask_scores.prior(known)
    # Of the masks, three cover the upper left quarter, and one frame both lower ones.
    assert found[0, 0] == 1 and found[-1, 0] == found[-1, -1] == pytest.approx(1 / 3) and found[0, -1] == 0
    assert mask_scores.prior([truth((0,), [])]) is None
