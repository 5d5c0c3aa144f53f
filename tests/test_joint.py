"""Tests pointing in time and space at once against a loop, and maps where only one of the two is correct."""

import numpy as np
import pytest

from stattn_jax.metrics import joint, localization

WHOLE = (1.0, 0.0, 1.0, 0.0)


def make_clips(seed, n=30, t=4, grid=(3, 4)):
    """Returns scores, maps, boxes and events.

    Boxes are in every segment of the events, except in every seventh clip.
    """
    rng = np.random.default_rng(seed)
    boxes, events = [], []
    for i in range(n):
        onset = rng.integers(0, t)
        offset = rng.integers(onset, t) + 1
        seconds = np.arange(onset, offset - (i % 7 == 3)) + 0.5
        corners = np.sort(rng.random((len(seconds), 2, 2)), axis=1).reshape(-1, 4)
        boxes.append(np.column_stack([seconds, corners]))
        events.append(np.array([[onset, offset]], float) if i % 5 else np.zeros((0, 2)))
    scores = rng.integers(0, 3, (n, t)).astype(float)
    maps = rng.integers(0, 4, (n, t, *grid)).astype(float)
    # The best segment of one clip has no cells.
    scores[2, 0], scores[4, 1] = -np.inf, 9
    maps[4, 1], maps[6, :, 0] = -np.inf, np.nan
    return scores, maps, boxes, events


def loop_clip(scores, maps, rows, events):
    """Returns the hit, the chance level and the hits of every cell of one clip, or None."""
    t, h, w = maps.shape
    hits = np.zeros((t, h, w))
    if not len(events):
        return None
    for k in range(t):
        if not any(a <= k + 0.5 < b for a, b in events):
            continue
        here = [row[1:] for row in rows if int(row[0]) == k]
        if not here:
            return None
        for y in range(h):
            for x in range(w):
                at = ((x + 0.5) / w, (y + 0.5) / h)
                hits[k, y, x] = any(x0 <= at[0] < x1 and y0 <= at[1] < y1 for x0, y0, x1, y1 in here)
    there = [k for k in range(t) if scores[k] > -np.inf and np.nanmax(maps[k]) > -np.inf]
    best = max(scores[k] for k in there)
    found = []
    for k in there:
        if scores[k] == best:
            strongest = np.nanmax(maps[k])
            found.append(np.mean([hits[k][at] for at in np.ndindex(h, w) if maps[k][at] == strongest]))
    cells = [np.mean([hits[k][at] for at in np.ndindex(h, w) if maps[k][at] > -np.inf]) for k in there]
    return np.mean(found), np.mean(cells), hits


def test_joint_pointing_matches_a_loop():
    scores, maps, boxes, events = make_clips(0)
    scores.flags.writeable = maps.flags.writeable = False
    rows = [loop_clip(*clip) for clip in zip(scores, maps, boxes, events)]
    kept = [row for row in rows if row]
    found = joint.joint_pointing(scores, maps, boxes, events, [WHOLE] * 30, 1.0)
    hits = joint.joint_hits(scores, maps, boxes, events, [WHOLE] * 30, 1.0)
    assert hits == pytest.approx([row[0] if row else np.nan for row in rows], abs=1e-12, nan_ok=True)
    assert 0 < np.nanmean(hits) < 1 and 10 < len(kept) < 25
    assert found['pointing/joint'] == pytest.approx(np.nanmean(hits))
    assert found['pointing/joint_random'] == pytest.approx(np.mean([row[1] for row in kept]))
    occupancy = np.mean([row[2] for row in kept], axis=0)
    # With three rows and four columns, the two middle columns of the middle row tie for the centre.
    assert found['pointing/joint_centre'] == pytest.approx(occupancy[:, 1, 1:3].mean(axis=1).max())
    assert found['pointing/joint_prior'] == pytest.approx(occupancy.max())
    assert found['pointing/joint_chance'] == max(found[f'pointing/joint_{k}'] for k in ('random', 'centre', 'prior'))
    assert found['pointing/joint_ceiling'] == np.mean([row[2].any() for row in kept])
    assert (found['pointing/joint_n'], found['pointing/joint_skipped']) == (len(kept), 30 - len(kept))


def test_a_hit_needs_both():
    boxes, events = [np.array([[1.5, 0.5, 0.0, 1.0, 0.5]])], [np.array([[1.0, 2.0]])]
    when, where = np.eye(3), np.zeros((2, 3, 2, 2))
    where[0, :, 0, 1] = where[1, :, 1, 0] = 1
    for t in range(3):
        for place, right in ((0, True), (1, False)):
            hit = joint.joint_hits(when[t : t + 1], where[place : place + 1], boxes, events, [WHOLE], 1.0)
            assert hit.tolist() == [float(t == 1 and right)]
    # The box reaches to x = 0.5; the wrong cell's centre is (0.25, 0.75), 0.25 * sqrt(2) away.
    tolerant = joint.joint_hits(when[1:2], where[1:], boxes, events, [WHOLE], 1.0, tau=0.36)
    assert tolerant.tolist() == [1]


def test_constant_maps_score_the_random_rate_and_perfect_ones_the_ceiling():
    scores, maps, boxes, events = make_clips(1)
    flat = joint.joint_pointing(
        np.zeros_like(scores), np.zeros_like(maps), boxes, events, [WHOLE] * 30, 1.0, prefix='x'
    )
    assert flat['x'] == pytest.approx(flat['x_random'], abs=1e-12) and flat['x'] > 0
    perfect = np.zeros_like(maps)
    for i, rows in enumerate(boxes):
        for t, corners in localization.boxes_by_segment(rows, 4, 1.0).items():
            perfect[i, t] = localization.cells_in_boxes((3, 4), corners, WHOLE)
    found = joint.joint_pointing(perfect.max(axis=(2, 3)), perfect, boxes, events, [WHOLE] * 30, 1.0, prefix='x')
    assert found['x'] == found['x_ceiling'] > 0.5
    nothing = joint.joint_pointing(scores[:1], maps[:1], boxes[:1], [np.zeros((0, 2))], [WHOLE], 1.0, prefix='x')
    assert nothing == {'x_n': 0, 'x_skipped': 1}
