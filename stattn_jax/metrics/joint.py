"""Pointing game in time and space: is the strongest cell of the strongest segment on the object, during its event?

A clip has one point: the best cell in the best segment. It hits if the segment lies in an event of the label and the
cell in a box of that segment, so that a hit in time alone or in space alone does not count. Ties count by their
expected hit, as in localization.py.
"""

from collections.abc import Sequence

import numpy as np

from stattn_jax.metrics import localization


def joint_hits(
    scores_nt: np.ndarray,
    maps_nthw: np.ndarray,
    boxes: Sequence[np.ndarray],
    events: Sequence[np.ndarray],
    affines: Sequence[Sequence[float]],
    segment_seconds: float,
    *,
    tau: float = 0.0,
) -> np.ndarray:
    """Returns the expected hit of each clip: float [n], NaN for a clip that does not count (see `joint_pointing`)."""
    return _hits(scores_nt, maps_nthw, _targets(maps_nthw, boxes, events, affines, segment_seconds, tau))


def _hits(scores_nt, maps_nthw, targets):
    hits = np.full(len(targets), np.nan)
    for i, target_thw in enumerate(targets):
        there_t = _there(scores_nt[i], maps_nthw[i])
        if target_thw is not None and there_t.any():
            best_t = there_t & (scores_nt[i] == scores_nt[i][there_t].max())
            frames = zip(maps_nthw[i][best_t], target_thw[best_t])
            hits[i] = np.mean([localization.expected_hit(*frame) for frame in frames])
    return hits


def joint_pointing(
    scores_nt: np.ndarray,
    maps_nthw: np.ndarray,
    boxes: Sequence[np.ndarray],
    events: Sequence[np.ndarray],
    affines: Sequence[Sequence[float]],
    segment_seconds: float,
    *,
    prefix: str = 'pointing/joint',
    tau: float = 0.0,
) -> dict[str, float | int]:
    """Returns the rates of the joint pointing game over clips, with their chance levels.

    `scores` select the segment and `maps` the cell; -inf or NaN marks segments and cells that do not exist. `boxes[i]`
    [k 5] and `events[i]` [e 2] are of the label in question, as in localization.py. A clip counts if every segment of
    its events has a box (otherwise a hit cannot be distinguished from a miss) and some segment can be chosen;
    `_skipped` counts the others.

    Keys under `prefix`: the rate itself; `_random` a segment and a cell sampled at random; `_centre` the middle of the
    frame in the best fixed segment; `_prior` the best fixed segment and cell, fitted to the annotations of these clips;
    `_chance` the best of these; `_ceiling` a perfect map; `_n`, `_skipped`.
    """
    targets = _targets(maps_nthw, boxes, events, affines, segment_seconds, tau)
    return joint_rates(scores_nt, maps_nthw, targets, affines, prefix=prefix)


def joint_rates(
    scores_nt: np.ndarray,
    maps_nthw: np.ndarray,
    targets: Sequence[np.ndarray | None],
    affines: Sequence[Sequence[float]],
    *,
    prefix: str = 'pointing/joint',
) -> dict[str, float | int]:
    """Returns the rates of `joint_pointing` for any targets.

    `targets[i]` has the cells that hit, bool [t h w], of a clip, and is None for a clip that does not count.
    """
    hits = _hits(scores_nt, maps_nthw, targets)
    scored = np.flatnonzero(~np.isnan(hits)).tolist()
    counts: dict[str, float | int] = {f'{prefix}_n': len(scored), f'{prefix}_skipped': len(hits) - len(scored)}
    if not len(scored):
        return counts
    random, centre_nt = [], []
    for i in scored:
        there_thw = _there(scores_nt[i], maps_nthw[i])[:, None, None] & (maps_nthw[i] > -np.inf)
        rate_t = [target[there].mean() for target, there in zip(targets[i], there_thw) if there.any()]
        random.append(np.mean(rate_t))
        centre = localization.centre_cells(maps_nthw[i].shape[1:], affines[i])
        centre_nt.append(targets[i][:, centre].mean(axis=1))
    rates = {
        prefix: float(hits[scored].mean()),
        f'{prefix}_random': float(np.mean(random)),
        f'{prefix}_centre': float(np.mean(centre_nt, axis=0).max()),
        f'{prefix}_prior': float(np.mean([targets[i] for i in scored], axis=0).max()),
        f'{prefix}_ceiling': float(np.mean([targets[i].any() for i in scored])),
    }
    rates[f'{prefix}_chance'] = max(rates[f'{prefix}_{name}'] for name in ('random', 'centre', 'prior'))
    return rates | counts


def _there(scores_t, map_thw):
    return (scores_t > -np.inf) & (map_thw > -np.inf).any(axis=(1, 2))


def _targets(maps_nthw, boxes, events, affines, segment_seconds, tau):
    """Returns the cells that hit, bool [t h w], for each clip.

    The entry is None where a segment of an event has no box, or where there is no event.
    """
    targets = []
    for map_thw, boxes_k5, events_e2, affine in zip(maps_nthw, boxes, events, affines, strict=True):
        t, *grid = map_thw.shape
        boxes_of = localization.boxes_by_segment(boxes_k5, t, segment_seconds)
        event_t = np.flatnonzero(localization.segments_in_events(t, events_e2, segment_seconds)).tolist()
        target_thw = np.zeros(map_thw.shape, bool)
        for segment in event_t:
            if segment in boxes_of:
                target_thw[segment] = localization.cells_in_boxes(grid, boxes_of[segment], affine, tau)
        targets.append(target_thw if len(events_e2) and boxes_of.keys() >= {*event_t} else None)
    return targets
