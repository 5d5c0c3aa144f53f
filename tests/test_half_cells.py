"""Tests the finer map against closed forms: its places, its sums, and that even evidence stays even."""

import jax.numpy as jnp
import numpy as np
import pytest

from stattn_jax.explain import half_cells

ALL = ((0, 0), *half_cells.SHIFTS)


def evenly(cells):
    """Returns each value divided among its four half cells."""
    return cells.repeat(2, axis=-2).repeat(2, axis=-1) / 4


@pytest.mark.parametrize('h, w', [(1, 1), (3, 5), (4, 4)])
def test_every_shift_gives_even_evidence_evenly(h, w):
    assert len(set(ALL)) == 9
    even = np.full((2, h, w), 0.7, np.float32)
    np.testing.assert_allclose(half_cells.average(dict.fromkeys(ALL, even)), evenly(even), rtol=1e-6)


@pytest.mark.parametrize('shift', ALL)
def test_a_cell_gives_all_of_its_value_to_its_half_cells_inside_the_frame(shift):
    cells = np.random.default_rng(0).normal(size=(2, 3, 5))
    finer = half_cells.average({shift: cells})
    assert finer.shape == (2, 6, 10)
    np.testing.assert_allclose(finer.sum(axis=(1, 2)), cells.sum(axis=(1, 2)), rtol=1e-12)
    down, right = shift
    rows, columns = slice(2 + down, 4 + down), slice(4 + right, 6 + right)
    np.testing.assert_allclose(finer[:, rows, columns], evenly(cells)[:, 2:4, 4:6], rtol=1e-12)


def test_moved_frames_repeat_their_edge():
    frames = np.arange(2 * 6 * 8 * 3, dtype=np.float32).reshape(1, 2, 6, 8, 3)
    rows, columns = np.arange(6), np.arange(8)
    for down, right in ALL:
        from_row, from_column = (rows + 2 * down).clip(0, 5), (columns + 2 * right).clip(0, 7)
        expected = frames[:, :, from_row][:, :, :, from_column]
        np.testing.assert_array_equal(half_cells.moved(jnp.asarray(frames), jnp.array([down, right]), 2), expected)


@pytest.mark.parametrize('row, column', [(3, 4), (0, 0), (6, 5)])
def test_the_map_of_a_bright_half_cell_is_largest_there(row, column):
    """The network is the mean brightness of a cell; half a cell has 3 pixels."""
    frames = np.zeros((1, 1, 24, 18, 1), np.float32)
    frames[:, :, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3] = 1
    maps = {}
    for shift in ALL:
        seen = np.asarray(half_cells.moved(jnp.asarray(frames), jnp.array(shift), 3))
        maps[shift] = seen.reshape(4, 6, 3, 6).mean(axis=(1, 3))
    finer = half_cells.average(maps)
    assert np.unravel_index(finer.argmax(), finer.shape) == (row, column)
    assert np.partition(finer.ravel(), -2)[-2] < 0.8 * finer.max()
    cells = half_cells.average({(0, 0): maps[0, 0]})
    assert (cells == cells.max()).sum() == 4


def test_the_map_adds_up_in_proportion_to_the_cells():
    rng = np.random.default_rng(1)
    finer, visual = rng.normal(size=(2, 4, 6, 10)), rng.normal(size=(2, 4, 3, 5)).astype(np.float32)
    visual[1, 2] = 0
    exact = half_cells.adding_up(finer, visual)
    sums = visual.sum(axis=(2, 3), dtype=float)
    np.testing.assert_allclose(exact.sum(axis=(2, 3)), sums, atol=1e-12)
    added, missing = exact - finer, sums - finer.sum(axis=(2, 3))
    share = np.abs(visual[0]) / np.abs(visual[0]).sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(added[0], evenly(share) * missing[0, :, None, None], rtol=1e-6)
    np.testing.assert_allclose(added[1, 2], missing[1, 2] / 60, rtol=1e-12)
    np.testing.assert_allclose(half_cells.adding_up(evenly(visual.astype(float)), visual), evenly(visual), atol=1e-7)
