"""Averages the visual contributions over shifts of the frames by half a cell, on a grid of cells half as large.

Cells whose place is shifted by half a cell overlap, so that their average varies within a cell. A correction then makes
the average add up to the exact visual contribution of each segment. docs/explanations.md states how much better the
average points at objects. Averages over shifted inputs are an old method; see the cycle spinning of Coifman and Donoho
(1995). Values of half cells are sums, as those of cells are: evenly spread, a cell's value is four times that of each
of its half cells.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

# Half cells by which the frame moves under the grid (down, right), apart from no shift at all.
SHIFTS = tuple((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0))


def moved(frames_bthwc: jax.Array, shift_2: jax.Array, half: int) -> jax.Array:
    """Returns frames whose pixel (y, x) is that at (y, x) + shift * half, or the nearest one at the edge.

    half: pixels of half a cell; shift_2: int [2], down and right, from -1 to 1.
    """
    edges = ((0, 0), (0, 0), (half, half), (half, half), (0, 0))
    down, right = half * (1 + shift_2)
    start = (0, 0, down, right, 0)
    return jax.lax.dynamic_slice(jnp.pad(frames_bthwc, edges, mode='edge'), start, frames_bthwc.shape)


def average(maps_by_shift: Mapping[tuple[int, int], np.ndarray]) -> np.ndarray:
    """Returns the mean of maps [... h w] of moved frames as [... 2h 2w], float64.

    The value of a cell is spread evenly over those of its half cells that lie inside the frame.
    """
    parts = []
    for (down, right), cells in maps_by_shift.items():
        rows, columns = _spread(cells.shape[-2], down), _spread(cells.shape[-1], right)
        parts.append(rows.T @ cells.astype(float) @ columns)
    return np.mean(parts, axis=0)


def adding_up(finer: np.ndarray, visual: np.ndarray) -> np.ndarray:
    """Returns `finer` [... 2h 2w] changed to the sum of `visual` [... h w] over the last two axes.

    The difference is added in proportion to the absolute values of `visual`, evenly where all of them are 0.
    """
    size = np.abs(visual.astype(float))
    total = size.sum(axis=(-2, -1), keepdims=True)
    share = np.divide(size, total, out=np.full_like(size, 1 / np.prod(size.shape[-2:])), where=total > 0)
    missing = visual.sum(axis=(-2, -1), dtype=float, keepdims=True) - finer.sum(axis=(-2, -1), keepdims=True)
    return finer + average({(0, 0): share * missing})


def _spread(cells: int, shift: int) -> np.ndarray:
    """Returns [h 2h]: the share of each cell that each half cell gets along one axis, for a shift of -1, 0 or 1."""
    share = np.zeros((cells, 2 * cells))
    for i, row in enumerate(share):
        row[max(0, 2 * i + shift) : 2 * i + shift + 2] = 1
    return share / share.sum(axis=1, keepdims=True)
