"""Tests masks.py against a loop over thresholds and frames, as AVSBench's evaluator runs, and numbers by hand."""

import numpy as np
import pytest

from stattn_jax.data import pipeline
from stattn_jax.metrics import masks


def loop(frames):
    """The evaluator's formulas with a prediction of heat >= threshold, averaged over frames."""
    ious, fs = [], []
    for heat, mask in frames:
        iou, f = [], []
        for threshold in np.linspace(0, 1 - 1e-10, 255):
            predicted, target = (heat >= threshold).astype(int), mask.astype(int)
            inter, union = (predicted * target).sum(), np.maximum(predicted, target).sum()
            if target.sum() == 0:
                inter, union = ((1 - target) * (1 - predicted)).sum(), target.size
            iou.append(inter / (union + 1e-7))
            hit = (predicted * target).sum()
            precision, recall = hit / (predicted.sum() + 1e-20), hit / (target.sum() + 1e-20)
            f.append(1.3 * precision * recall / (0.3 * precision + recall) if precision + recall else 0)
        ious.append(iou)
        fs += [f] if mask.any() else []
    return np.mean(ious, axis=0), np.mean(fs, axis=0)


def made(seed, frames=6, side=20):
    rng = np.random.default_rng(seed)
    for i in range(frames):
        # Heat on few levels, with ties, values at a threshold, zeros and ones.
        heat = np.concatenate([masks.THRESHOLDS[rng.integers(0, 255, side * side // 2)], rng.integers(0, 5, 200) / 4])
        yield heat.reshape(side, side), (rng.random((side, side)) < (0, 0.01, 0.2, 0.5, 0.9, 1)[i])


@pytest.mark.parametrize('seed', range(3))
def test_curves_are_those_of_the_evaluators_loop(seed):
    found = masks.ThresholdCurves(made(seed))
    iou, f = loop(made(seed))
    np.testing.assert_allclose(found.iou, iou, rtol=1e-12)
    np.testing.assert_allclose(found.f, f, rtol=1e-9)
    assert (found.frames, found.with_object) == (6, 5)
    threshold = found.best_threshold()
    at = [i for i in range(255) if masks.THRESHOLDS[i] == threshold]
    assert at == [iou.argmax()]
    numbers = found.numbers(threshold)
    assert numbers['miou'] == pytest.approx(iou.max()) and numbers['f'] == pytest.approx(f[at[0]])
    assert numbers['f_best'] == pytest.approx(f.max()) and numbers['iou_auc'] == pytest.approx(iou.mean())
    assert set(found.numbers(None)) == {'iou_auc', 'f_best'}


def test_levels_count_the_thresholds_that_are_reached():
    edges = [masks.THRESHOLDS, np.nextafter(masks.THRESHOLDS, 0), np.nextafter(masks.THRESHOLDS, 1), [0.0, 1.0]]
    heat = np.clip(np.concatenate([*edges, np.random.default_rng(0).random(5000)]), 0, 1)
    expected = [(x >= masks.THRESHOLDS).sum() for x in heat]
    np.testing.assert_array_equal(masks.levels(heat), expected)


def test_numbers_by_hand():
    heat = np.array([[1.0, 0.6], [0.6, 0.0]])
    mask = np.array([[True, False], [False, False]])
    found = masks.ThresholdCurves([(heat, mask)])
    # Of the four pixels, 4 are predicted at 0, 3 up to 0.6, and 1 above.
    assert found.iou[[0, 1, 152, 153, 254]] == pytest.approx([1 / 4, 1 / 3, 1 / 3, 1, 1])
    assert found.f[[0, 1, 153]] == pytest.approx([1.3 * 0.25 / (0.075 + 1), 1.3 / 3 / (0.1 + 1), 1])
    empty = masks.ThresholdCurves([(heat, np.zeros((2, 2), bool))])
    assert empty.iou[[0, 1, 153]] == pytest.approx([0, 1 / 4, 3 / 4]) and empty.with_object == 0
    assert set(empty.numbers(0.5)) == {'iou_auc', 'miou'} and masks.ThresholdCurves([]).numbers(0.5) == {}


def test_a_clip_has_one_scale_and_negative_values_and_missing_segments_are_cold():
    heat = masks.normalise(np.array([[[4.0, -3.0]], [[1.0, 0.0]], [[-np.inf, -np.inf]]]))
    assert heat.tolist() == [[[1, 0]], [[0.25, 0]], [[0, 0]]]
    assert not masks.normalise(np.full((2, 1, 1), -1.0)).any()


def test_the_centre_is_warmest_in_the_middle():
    heat = masks.centre_heat()
    assert heat.max() == heat[111, 111] == heat[112, 112] == 1 and heat.min() == heat[0, 223] == 0


@pytest.mark.parametrize('fit', pipeline.FITS)
def test_cells_in_a_mask_are_those_that_show_its_pixels(fit):
    # A frame of 8 x 16 pixels whose mask is its lower left quarter; the crop keeps columns 4 to 12.
    mask = np.zeros((8, 16), bool)
    mask[4:, :8] = True
    found = masks.cells_in_mask((4, 4), mask, pipeline.frame_affine(8, 16, fit))
    expected = np.zeros((4, 4), bool)
    expected[2:, :2] = True
    np.testing.assert_array_equal(found, expected)
