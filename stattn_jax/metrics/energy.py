"""Energy-based pointing game: the share of a map's positive values that lies inside the boxes.

Definition: Wang et al., arXiv 1910.01279. Only positive values count, since a share of a signed sum has no bounds. A
cell that a box cuts counts by the part that is inside, so that a uniform map scores exactly the covered area, which is
the chance level. Unlike the pointing game, it rewards a map whose values all lie in one cell.
"""

from collections.abc import Sequence

import numpy as np

from stattn_jax.metrics import localization


def covered_cells(grid: tuple[int, int], boxes_k4: np.ndarray, affine: Sequence[float]) -> np.ndarray:
    """Returns float [h w]: the share of each cell that the boxes cover together.

    Boxes and `affine` are as in localization.py.
    """
    boxes = np.asarray(boxes_k4, float).reshape(-1, 4)
    (h, w), (x_scale, x_offset, y_scale, y_offset) = grid, affine
    x, column_x, in_kx = _strips((boxes[:, 0::2] - x_offset) / x_scale * w, w)
    y, row_y, in_ky = _strips((boxes[:, 1::2] - y_offset) / y_scale * h, h)
    covered_yx = (in_ky[:, :, None] & in_kx[:, None]).any(axis=0)
    share = np.zeros((h, w))
    np.add.at(share, (row_y[:, None], column_x), covered_yx * y[:, None] * x)
    return share


def _strips(ends_k2, cells):
    """Cuts one axis at all edges of cells and boxes, in units of cells.

    Returns the widths of the strips [x], the cells that they lie in [x], and which strips lie in which box [k x].
    """
    ends_k2 = np.clip(ends_k2, 0, cells)
    edges = np.unique(np.concatenate([np.arange(cells + 1), ends_k2.ravel()]))
    middle = (edges[1:] + edges[:-1]) / 2
    return np.diff(edges), middle.astype(int), (ends_k2[:, :1] <= middle) & (middle < ends_k2[:, 1:])


def energy_inside(map_: np.ndarray, share: np.ndarray) -> float:
    """Returns the sum of positive values times the inside share of their cells (0..1 or bool), over their sum.

    It is NaN where no value is positive. NaN and -inf mark cells that do not exist.
    """
    positive = np.where(map_ > 0, map_, 0)
    return float((positive * share).sum() / positive.sum()) if positive.any() else float('nan')


def energies(
    maps_nthw: np.ndarray, boxes: Sequence[np.ndarray], affines: Sequence[Sequence[float]], segment_seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the energy inside the boxes and its chance level, float [n] each, as means over a clip's frames.

    The chance level is the boxes' share of the map's cells. `boxes[i]` is [k 5] as in localization.py. Frames without a
    box, or where no value of the map is positive, do not count; NaN for clips left with no frame.
    """
    energy_n, chance_n = np.full((2, len(boxes)), np.nan)
    for i, (map_thw, boxes_k5, affine) in enumerate(zip(maps_nthw, boxes, affines, strict=True)):
        boxes_of = localization.boxes_by_segment(boxes_k5, len(map_thw), segment_seconds)
        frames = [
            (map_thw[t], covered_cells(map_thw.shape[1:], boxes_k4, affine))
            for t, boxes_k4 in boxes_of.items()
            if (map_thw[t] > 0).any()
        ]
        if frames:
            energy_n[i] = np.mean([energy_inside(*frame) for frame in frames])
            chance_n[i] = np.mean([share[map_hw > -np.inf].mean() for map_hw, share in frames])
    return energy_n, chance_n


def summary(
    maps_nthw: np.ndarray,
    boxes: Sequence[np.ndarray],
    affines: Sequence[Sequence[float]],
    segment_seconds: float,
    *,
    prefix: str = 'pointing/energy',
) -> dict[str, float | int]:
    """Returns means over clips of `energies` under `prefix`, and on localization.small_clips under `prefix_small`.

    Keys of each: the energy; `_chance`; `_n`, and `_skipped`, the clips without a box or without a positive value.
    """
    energy_n, chance_n = energies(maps_nthw, boxes, affines, segment_seconds)
    scored_n = ~np.isnan(energy_n)
    numbers: dict[str, float | int] = {}
    for name, kept_n in (('', np.ones_like(scored_n)), ('_small', localization.small_clips(boxes))):
        here_n = kept_n & scored_n
        numbers |= {f'{prefix}{name}_n': int(here_n.sum()), f'{prefix}{name}_skipped': int((kept_n & ~scored_n).sum())}
        if here_n.any():
            numbers[f'{prefix}{name}'] = float(energy_n[here_n].mean())
            numbers[f'{prefix}{name}_chance'] = float(chance_n[here_n].mean())
    return numbers
