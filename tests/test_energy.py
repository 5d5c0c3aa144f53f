"""Tests the energy inside the boxes against a fine raster and closed forms, and the covered area."""

import math

import numpy as np
import pytest

from stattn_jax.metrics import energy, localization

WHOLE = (1.0, 0.0, 1.0, 0.0)


def random_boxes(rng, k):
    return np.sort(rng.random((k, 2, 2)), axis=1).reshape(k, 4)


@pytest.mark.parametrize('affine', [WHOLE, (0.5625, 0.21875, 1.0, 0.0), (1.0, 0.0, 0.6, 0.2)])
def test_covered_cells_match_a_fine_raster(affine):
    rng = np.random.default_rng(0)
    fine = (np.arange(200) + 0.5) / 200
    for k in (0, 1, 3):
        boxes = random_boxes(rng, k)
        found = energy.covered_cells((4, 5), boxes, affine)
        x, y = affine[1] + affine[0] * fine, affine[3] + affine[2] * fine
        inside = np.zeros((200, 200), bool)
        for x0, y0, x1, y1 in boxes:
            inside |= ((x0 <= x) & (x < x1)) & ((y0 <= y) & (y < y1))[:, None]
        assert found == pytest.approx(inside.reshape(4, 50, 5, 40).mean(axis=(1, 3)), abs=0.05)
        assert found.mean() == pytest.approx(inside.mean(), abs=0.01)


def test_a_uniform_map_scores_exactly_the_covered_area():
    rng = np.random.default_rng(1)
    for _ in range(30):
        boxes = random_boxes(rng, 3)
        share = energy.covered_cells((7, 6), boxes, WHOLE)
        area = localization.covered_area(boxes)
        assert energy.energy_inside(np.full((7, 6), 0.3), share) == pytest.approx(area, abs=1e-12)
        assert 0 <= share.min() and share.max() <= 1 + 1e-12
    beyond = energy.covered_cells((2, 2), [[-3, 0.5, 9, 7]], WHOLE)
    assert beyond.tolist() == [[0, 0], [1, 1]]


def test_only_positive_values_of_cells_that_are_there_count():
    share = np.array([[1.0, 0.5, 0.0]])
    assert energy.energy_inside(np.array([[1.0, 2.0, 1.0]]), share) == 0.5
    assert energy.energy_inside(np.array([[1.0, -9.0, 3.0]]), share) == 0.25
    assert energy.energy_inside(np.array([[np.nan, 2.0, -np.inf]]), share) == 0.5
    for nothing in ([[0.0, 0.0, 0.0]], [[-1.0, np.nan, -np.inf]]):
        assert math.isnan(energy.energy_inside(np.array(nothing), share))


def test_energies_are_means_over_frames():
    rng = np.random.default_rng(2)
    maps = rng.normal(size=(4, 3, 5, 5))
    maps[1, 0] = -1
    maps[1, 1, :2] = -np.inf
    maps[2] = -np.inf
    rows = [np.column_stack([[0.1, 0.2, 1.7], random_boxes(rng, 3)]) for _ in range(4)]
    rows[3] = np.zeros((0, 5))
    maps.flags.writeable = False
    found, chance = energy.energies(maps, rows, [WHOLE] * 4, 1.0)
    for i, frames in ((0, {0: rows[0][:2], 1: rows[0][2:]}), (1, {1: rows[1][2:]})):
        shares = {t: energy.covered_cells((5, 5), boxes[:, 1:], WHOLE) for t, boxes in frames.items()}
        positive = {t: np.maximum(np.where(np.isfinite(maps[i, t]), maps[i, t], 0), 0) for t in frames}
        want = np.mean([(positive[t] * shares[t]).sum() / positive[t].sum() for t in frames])
        assert found[i] == pytest.approx(want, abs=1e-12)
        blind = np.mean([shares[t][np.isfinite(maps[i, t])].mean() for t in frames])
        assert chance[i] == pytest.approx(blind, abs=1e-12)
    assert np.isnan(found[2:]).all() and np.isnan(chance[2:]).all()


def test_summary_has_its_chance_and_small_objects():
    small, large = np.array([[0.5, 0.0, 0.0, 0.2, 0.5]]), np.array([[0.5, 0.0, 0.0, 1.0, 0.6]])
    boxes = [small, large, small, np.zeros((0, 5))]
    maps = np.ones((4, 1, 10, 10))
    maps[2] = 0
    found = energy.summary(maps, boxes, [WHOLE] * 4, 1.0)
    assert found == pytest.approx({
        'pointing/energy': 0.35, 'pointing/energy_chance': 0.35, 'pointing/energy_n': 2, 'pointing/energy_skipped': 2,
        'pointing/energy_small': 0.1, 'pointing/energy_small_chance': 0.1,
        'pointing/energy_small_n': 1, 'pointing/energy_small_skipped': 1,
    })  # fmt: skip
    maps[0, 0, :5, :2] = 1001
    assert energy.summary(maps, boxes, [WHOLE] * 4, 1.0, prefix='x')['x_small'] > 0.99
    assert energy.summary(maps[3:], boxes[3:], [WHOLE], 1.0, prefix='x') == {
        'x_n': 0, 'x_skipped': 1, 'x_small_n': 0, 'x_small_skipped': 0,
    }  # fmt: skip
