"""Pointing games in space and in time, with chance levels and the number of clips.

The spatial game asks whether the strongest cell is on the object, the temporal game whether the strongest segment is in
the event. A map points at its maximum. Where several cells tie, the score is the expected hit of one of them chosen at
random, so that a constant map scores exactly the random rate. NaN and -inf cells are never chosen; maps may have
negative values. Rates are means over clips. A rate over no clips is left out of the result, and its `_n` is 0. The
definition is the pointing game of Zhang et al., arXiv 1608.00507, with this tie rule in place of "first in row order".
joint.py scores space and time at once; energy.py measures how much of the map is on the object.
"""

from collections.abc import Sequence

import numpy as np

# The usual 15 pixels of a 224 pixel frame (arXiv 1608.00507), as a share of the side.
TOLERANCE = 15 / 224
# Share of the frame: the boxes of half of VGG-SS's clips cover less, and a guess at the middle of the frame misses more
# than half of those clips.
SMALL = 0.25


def macro(hits_n: np.ndarray, classes_n: np.ndarray) -> float:
    """Returns the mean over the occurring classes of the mean of their clips (Zhang et al., arXiv 1608.00507)."""
    return float(np.mean([hits_n[classes_n == c].mean() for c in np.unique(classes_n)]))


def expected_hit(scores: np.ndarray, target: np.ndarray) -> float:
    """Returns |argmax set and target| / |argmax set| of a map and a boolean target; NaN if no cell can be chosen."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    chosen = (scores == scores.max()) & (scores > -np.inf)
    return float(target[chosen].mean()) if chosen.any() else float('nan')


# ---------------------------------------------------------------------------------------------------------------------
# Space
# ---------------------------------------------------------------------------------------------------------------------


def cell_centres(grid: tuple[int, int], affine: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the centres of the grid's cells as x [w] and y [h] in 0..1 of the source frame.

    `affine` is (x_scale, x_offset, y_scale, y_offset), model frame 0..1 to source frame 0..1 (data/pipeline.py:
    frame_affine).
    """
    (h, w), (x_scale, x_offset, y_scale, y_offset) = grid, affine
    return x_offset + x_scale * (np.arange(w) + 0.5) / w, y_offset + y_scale * (np.arange(h) + 0.5) / h


def cells_in_boxes(
    grid: tuple[int, int], boxes_k4: np.ndarray, affine: Sequence[float], tau: float = 0.0
) -> np.ndarray:
    """Returns bool [h w]: the cells whose centre lies in any box, or nearer than `tau` to one.

    `tau` is a share of the frame's side. A cell counts by its centre: with overlap, every cell that a box barely
    touches would be a hit, and coarse grids would score better for being coarse; the centre scores a grid like the
    pixel at which its up-sampled map peaks. An object between centres therefore cannot be hit: its clip stays in as a
    miss, and `_ceiling` reports the rate of a perfect map. Boxes x0 y0 x1 y1 are half-open, like events.
    """
    x, y = cell_centres(grid, affine)
    x0, y0, x1, y1 = np.asarray(boxes_k4, float).reshape(-1, 4).T[:, :, None]
    inside = ((x0 <= x) & (x < x1))[:, None, :] & ((y0 <= y) & (y < y1))[:, :, None]
    dx = np.maximum(np.maximum(x0 - x, x - x1), 0)[:, None, :]
    dy = np.maximum(np.maximum(y0 - y, y - y1), 0)[:, :, None]
    return (inside | (np.hypot(dx, dy) < tau)).any(axis=0)


def point_in_boxes(map_hw: np.ndarray, boxes_k4: np.ndarray, affine: Sequence[float], tau: float = 0.0) -> float:
    """Returns the expected hit of one frame's map on its boxes (`cells_in_boxes`); NaN if no cell can be chosen."""
    return expected_hit(map_hw, cells_in_boxes(map_hw.shape, boxes_k4, affine, tau))


def covered_area(boxes_k4: np.ndarray) -> float:
    """Returns the share of the frame that the boxes cover together."""
    boxes = np.clip(np.asarray(boxes_k4, float).reshape(-1, 4), 0, 1)
    x, y = np.unique(boxes[:, 0::2]), np.unique(boxes[:, 1::2])
    x0, y0, x1, y1 = boxes.T[:, :, None]
    covered = ((x0 <= x[:-1]) & (x[:-1] < x1))[:, None, :] & ((y0 <= y[:-1]) & (y[:-1] < y1))[:, :, None]
    return float(np.diff(y) @ covered.any(axis=0) @ np.diff(x))


def spatial_games(
    maps_nthw: np.ndarray,
    boxes: Sequence[np.ndarray],
    affines: Sequence[Sequence[float]],
    classes_n: Sequence[int] | np.ndarray,
    segment_seconds: float,
    *,
    prefix: str = 'pointing/space',
) -> dict[str, float | int]:
    """Runs `spatial_pointing` as it is, with `TOLERANCE` (`_tolerant`), and on `small_clips` (`_small`)."""
    everything, small, classes_n = np.arange(len(boxes)), np.flatnonzero(small_clips(boxes)), np.asarray(classes_n)
    numbers: dict[str, float | int] = {}
    for name, kept, tau in (('', everything, 0), ('_tolerant', everything, TOLERANCE), ('_small', small, 0)):
        numbers |= spatial_pointing(
            maps_nthw[kept],
            [boxes[i] for i in kept.tolist()],
            [affines[i] for i in kept.tolist()],
            segment_seconds,
            prefix=f'{prefix}{name}',
            tau=tau,
            classes_n=classes_n[kept],
        )
    return numbers


def small_clips(boxes: Sequence[np.ndarray]) -> np.ndarray:
    """Returns bool [n]: clips whose boxes [k 5] cover on average less than `SMALL` of their annotated frames."""
    return np.array([len(boxes_k5) > 0 and _mean_area(boxes_k5) < SMALL for boxes_k5 in boxes], bool)


def _mean_area(boxes_k5):
    times = np.asarray(boxes_k5)[:, 0]
    return np.mean([covered_area(np.asarray(boxes_k5)[times == time, 1:]) for time in np.unique(times)])


def spatial_pointing(
    maps_nthw: np.ndarray,
    boxes: Sequence[np.ndarray],
    affines: Sequence[Sequence[float]],
    segment_seconds: float,
    *,
    prefix: str = 'pointing/space',
    tau: float = 0.0,
    classes_n: np.ndarray | None = None,
) -> dict[str, float | int]:
    """Returns the rates of the spatial pointing game: mean over a clip's annotated frames, then over clips.

    `boxes[i]` is [k 5] (time in seconds, x0, y0, x1, y1) of the label in question; a box belongs to segment floor(time
    / segment_seconds). Frames without a box, or where the map is all masked, do not count; clips left with no frame are
    counted in `_skipped`.

    Keys under `prefix`: the rate itself; `_random` a cell sampled at random; `_centre` the cell(s) nearest to the
    middle of the source frame; `_prior` the single best cell of the scored split (the maximum of mean box occupancy: it
    is fitted to the annotations, hence the hardest of the three); `_chance` the best of these; `_ceiling` a perfect
    map; `_macro`, where the clips' classes [n] are given, the rate as the mean over classes; `_n`, `_skipped`.
    """
    targets = _box_targets(maps_nthw, boxes, affines, segment_seconds, tau)
    return spatial_rates(maps_nthw, targets, affines, prefix=prefix, classes_n=classes_n)


def spatial_rates(
    maps_nthw: np.ndarray,
    targets: Sequence[dict[int, np.ndarray]],
    affines: Sequence[Sequence[float]],
    *,
    prefix: str,
    classes_n: np.ndarray | None = None,
) -> dict[str, float | int]:
    """Returns the rates of `spatial_pointing` for any targets.

    `targets[i]` has the cells that hit, bool [h w], of each annotated segment of a clip.
    """
    clips = _annotated_clips(maps_nthw, targets)
    rows: dict[str, list[np.floating]] = {'': [], '_random': [], '_centre': [], '_ceiling': []}
    occupancy, scored = [], [i for i, frames in enumerate(clips) if frames]
    for i in scored:
        centre = centre_cells(maps_nthw[i].shape[1:], affines[i])
        rows[''].append(np.mean([expected_hit(scores, target) for scores, target in clips[i]]))
        rows['_random'].append(np.mean([target[scores > -np.inf].mean() for scores, target in clips[i]]))
        rows['_centre'].append(np.mean([target[centre].mean() for _, target in clips[i]]))
        rows['_ceiling'].append(np.mean([target.any() for _, target in clips[i]]))
        occupancy.append(np.mean([target for _, target in clips[i]], axis=0))
    counts: dict[str, float | int] = {
        f'{prefix}_n': len(occupancy),
        f'{prefix}_skipped': len(maps_nthw) - len(occupancy),
    }
    if not occupancy:
        return counts
    rates = {f'{prefix}{name}': float(np.mean(values)) for name, values in rows.items()}
    rates[f'{prefix}_prior'] = float(np.mean(occupancy, axis=0).max())
    rates[f'{prefix}_chance'] = max(rates[f'{prefix}_{name}'] for name in ('random', 'centre', 'prior'))
    if classes_n is not None:
        rates[f'{prefix}_macro'] = macro(np.array(rows['']), classes_n[scored])
    return rates | counts


def spatial_hits(
    maps_nthw: np.ndarray,
    boxes: Sequence[np.ndarray],
    affines: Sequence[Sequence[float]],
    segment_seconds: float,
    *,
    tau: float = 0.0,
) -> np.ndarray:
    """Returns the hits of the spatial pointing game, float [n], NaN for a clip that does not count.

    Bootstrap intervals need them clip by clip.
    """
    clips = _annotated_clips(maps_nthw, _box_targets(maps_nthw, boxes, affines, segment_seconds, tau))
    return np.array([np.mean([expected_hit(*frame) for frame in frames]) if frames else np.nan for frames in clips])


def boxes_by_segment(boxes_k5: np.ndarray, segments: int, segment_seconds: float) -> dict[int, np.ndarray]:
    """Returns the boxes [k 4] of every segment that has some, from rows of time, x0, y0, x1, y1.

    Boxes outside the clip are left out.
    """
    boxes_k5 = np.asarray(boxes_k5, float).reshape(-1, 5)
    segment_k = segments_of(boxes_k5[:, 0], segment_seconds)
    return {int(t): boxes_k5[segment_k == t, 1:] for t in np.unique(segment_k) if 0 <= t < segments}


def _box_targets(maps_nthw, boxes, affines, segment_seconds, tau):
    """Returns for each clip the cells that hit, bool [h w], of every segment that has a box."""
    return [
        {
            t: cells_in_boxes(map_thw.shape[1:], boxes_k4, affine, tau)
            for t, boxes_k4 in boxes_by_segment(boxes_k5, len(map_thw), segment_seconds).items()
        }
        for map_thw, boxes_k5, affine in zip(maps_nthw, boxes, affines, strict=True)
    ]


def _annotated_clips(maps_nthw, targets):
    """Returns for each clip the (map, target) of every segment that has a target and a cell to choose."""
    return [
        [(map_thw[t], target_hw) for t, target_hw in target_of.items() if (map_thw[t] > -np.inf).any()]
        for map_thw, target_of in zip(maps_nthw, targets, strict=True)
    ]


def centre_cells(grid: tuple[int, int], affine: Sequence[float]) -> np.ndarray:
    """Returns bool [h w]: the cells nearest to the middle of the source frame."""
    x, y = cell_centres(grid, affine)
    distance = np.hypot(x[None] - 0.5, y[:, None] - 0.5)
    return distance <= distance.min() + 1e-9


# ---------------------------------------------------------------------------------------------------------------------
# Time
# ---------------------------------------------------------------------------------------------------------------------


def segments_of(times: np.ndarray, segment_seconds: float) -> np.ndarray:
    """Returns the segment of each time, floor(time / segment_seconds), robust to rounding (0.3 / 0.1 is segment 3)."""
    return np.floor(np.asarray(times) / segment_seconds + 1e-6).astype(int)


def segments_in_events(segments: int, events_e2: np.ndarray, segment_seconds: float) -> np.ndarray:
    """Returns bool [t]: the segments whose centre lies in any [onset, offset), in seconds from the clip's start."""
    centre = (np.arange(segments) + 0.5) * segment_seconds
    onset, offset = np.asarray(events_e2, float).reshape(-1, 2).T[:, :, None]
    return ((onset <= centre) & (centre < offset)).any(axis=0)


def temporal_pointing(
    scores_nt: np.ndarray,
    valid_nt: np.ndarray,
    events: Sequence[np.ndarray],
    segment_seconds: float,
    *,
    prefix: str = 'pointing/time',
) -> dict[str, float | int]:
    """Returns the rates of the temporal pointing game: is the best valid segment inside an event of the label?

    Rates are means over clips. `events[i]` is [e 2] (onset, offset) of the label in question. Clips without an event,
    or without a segment to choose, are counted in `_skipped`. Events that fill a whole clip cannot be missed;
    `_partial` is the game on the other clips and is the informative number.

    Keys under `prefix` and under `prefix_partial`: the rate itself; `_random` a valid segment sampled at random;
    `_fixed` the single best segment number of these clips; `_chance` the better of the two; `_ceiling` a perfect map;
    `_n`. `_skipped` appears once.
    """
    scores_nt, target_nt, scored_n = _time_targets(scores_nt, valid_nt, events, segment_seconds)
    partial_n = scored_n & (target_nt != valid_nt).any(axis=1)
    return {
        **_temporal_rates(scores_nt[scored_n], valid_nt[scored_n], target_nt[scored_n], prefix),
        **_temporal_rates(scores_nt[partial_n], valid_nt[partial_n], target_nt[partial_n], f'{prefix}_partial'),
        f'{prefix}_skipped': int((~scored_n).sum()),
    }


def temporal_hits(
    scores_nt: np.ndarray, valid_nt: np.ndarray, events: Sequence[np.ndarray], segment_seconds: float
) -> np.ndarray:
    """Returns the hits of the temporal pointing game, float [n], NaN for a clip that does not count.

    Bootstrap intervals need them clip by clip.
    """
    scores_nt, target_nt, scored_n = _time_targets(scores_nt, valid_nt, events, segment_seconds)
    hits = [expected_hit(*row) if scored else np.nan for *row, scored in zip(scores_nt, target_nt, scored_n)]
    return np.array(hits)


def _time_targets(scores_nt, valid_nt, events, segment_seconds):
    """Returns the scores, -inf where not valid; the segments in an event; the clips that count."""
    target_nt = valid_nt & np.stack([segments_in_events(valid_nt.shape[1], e, segment_seconds) for e in events])
    scored_n = (valid_nt & (scores_nt > -np.inf)).any(axis=1) & np.array([len(e) > 0 for e in events])
    return np.where(valid_nt, scores_nt, -np.inf), target_nt, scored_n


def _temporal_rates(scores_nt, valid_nt, target_nt, prefix):
    if not len(scores_nt):
        return {f'{prefix}_n': 0}
    random = float((target_nt.sum(axis=1) / valid_nt.sum(axis=1)).mean())
    fixed = float(target_nt.mean(axis=0).max())
    return {
        prefix: float(np.mean([expected_hit(s, target) for s, target in zip(scores_nt, target_nt, strict=True)])),
        f'{prefix}_random': random,
        f'{prefix}_fixed': fixed,
        f'{prefix}_chance': max(random, fixed),
        f'{prefix}_ceiling': float(target_nt.any(axis=1).mean()),
        f'{prefix}_n': len(scores_nt),
    }
