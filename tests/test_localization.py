"""Tests pointing games against naive loops and closed forms."""

import math

import numpy as np
import pytest

from stattn_jax.metrics import localization

WHOLE = (1.0, 0.0, 1.0, 0.0)


def loop_hit(map_hw, boxes, affine, tau):
    """Visits every cell; a cell hits when its centre is in a box or nearer than tau to one."""
    h, w = map_hw.shape
    best, hits = -math.inf, []
    for i in range(h):
        for j in range(w):
            value = map_hw[i, j]
            if math.isnan(value) or value == -math.inf or value < best:
                continue
            x = affine[1] + affine[0] * (j + 0.5) / w
            y = affine[3] + affine[2] * (i + 0.5) / h
            hit = False
            for x0, y0, x1, y1 in boxes:
                nearest = (min(max(x, x0), x1), min(max(y, y0), y1))
                hit |= (x0 <= x < x1 and y0 <= y < y1) or math.dist(nearest, (x, y)) < tau
            hits = [*hits, hit] if value == best else [hit]
            best = value
    return sum(hits) / len(hits)


def random_boxes(rng, k):
    corners = np.sort(rng.random((k, 2, 2)), axis=1)
    return corners.reshape(k, 4)


@pytest.mark.parametrize('tau', [0.0, localization.TOLERANCE, 0.3])
def test_point_in_boxes_matches_a_loop(tau):
    rng = np.random.default_rng(1)
    for _ in range(100):
        scores = rng.integers(-2, 3, (5, 6)).astype(float)
        scores[rng.random((5, 6)) < 0.2] = rng.choice([np.nan, -np.inf])
        scores[0, 0] = 0
        boxes, affine = random_boxes(rng, rng.integers(1, 4)), (0.6, 0.2, 0.9, 0.05)
        found = localization.point_in_boxes(scores, boxes, affine, tau)
        assert found == pytest.approx(loop_hit(scores, boxes, affine, tau), abs=1e-12)


def test_masked_cells_are_never_chosen_and_signed_maps_point():
    scores = np.array([[np.nan, -np.inf], [-3.0, -5.0]])
    assert localization.expected_hit(scores, np.array([[1, 1], [0, 0]], bool)) == 0
    assert localization.expected_hit(scores, np.array([[0, 0], [1, 0]], bool)) == 1
    assert math.isnan(localization.expected_hit(np.full((2, 2), -np.inf), np.ones((2, 2), bool)))


def test_the_axes_are_not_swapped_and_the_affine_leads_to_the_source_frame():
    scores = np.zeros((4, 4))
    scores[0, 3] = 1
    top_right, bottom_left = [[0.75, 0.0, 1.0, 0.25]], [[0.0, 0.75, 0.25, 1.0]]
    assert localization.point_in_boxes(scores, top_right, WHOLE) == 1
    assert localization.point_in_boxes(scores, bottom_left, WHOLE) == 0
    # The model sees the middle half of a wide frame: the cell's centre moves from x = 0.875 to 0.25 + 0.5 * 0.875 =
    # 0.6875.
    assert localization.point_in_boxes(scores, top_right, (0.5, 0.25, 1.0, 0.0)) == 0
    assert localization.point_in_boxes(scores, [[0.65, 0.0, 0.7, 0.25]], (0.5, 0.25, 1.0, 0.0)) == 1


def test_tolerance_reaches_exactly_tau():
    scores = np.array([[1.0, 0.0]])
    box = [[0.3, 0.0, 0.4, 1.0]]
    assert localization.point_in_boxes(scores, box, WHOLE, tau=0.049) == 0
    assert localization.point_in_boxes(scores, box, WHOLE, tau=0.051) == 1


def clips_with_boxes(rng, n=30, t=4, grid=(5, 6)):
    boxes = []
    for i in range(n):
        k = 0 if i % 7 == 3 else rng.integers(1, 5)
        boxes.append(np.column_stack([rng.random(k) * t * 0.5, random_boxes(rng, k)]))
    return rng.normal(size=(n, t, *grid)), boxes, [(0.8, 0.1, 1.0, 0.0)] * n


@pytest.mark.parametrize('tau', [0.0, localization.TOLERANCE])
def test_spatial_pointing_matches_a_loop(tau):
    maps, boxes, affines = clips_with_boxes(np.random.default_rng(2))
    per_clip, per_clip_cell = [], []
    for map_thw, rows, affine in zip(maps, boxes, affines, strict=True):
        frames, cells = [], []
        for t in range(4):
            here = [row[1:] for row in rows if math.floor(row[0] / 0.5) == t]
            if here:
                frames.append(loop_hit(map_thw[t], here, affine, tau))
                cells.append([[loop_hit(one_cell(i, j), here, affine, tau) for j in range(6)] for i in range(5)])
        if frames:
            per_clip.append(np.mean(frames))
            per_clip_cell.append(np.mean(cells, axis=0))
    found = localization.spatial_pointing(maps, boxes, affines, 0.5, tau=tau)
    occupancy = np.mean(per_clip_cell, axis=0)
    assert found['pointing/space'] == pytest.approx(np.mean(per_clip))
    assert found['pointing/space_random'] == pytest.approx(occupancy.mean())
    assert found['pointing/space_prior'] == pytest.approx(occupancy.max())
    # With 5 rows and 6 columns, the two middle columns of the middle row tie for the centre.
    assert found['pointing/space_centre'] == pytest.approx(occupancy[2, 2:4].mean())
    assert found['pointing/space_chance'] == max(found[f'pointing/space_{k}'] for k in ('random', 'centre', 'prior'))
    assert (found['pointing/space_n'], found['pointing/space_skipped']) == (len(per_clip), 30 - len(per_clip))


def one_cell(i, j):
    cell = np.zeros((5, 6))
    cell[i, j] = 1
    return cell


def test_constant_maps_score_the_random_rate_and_perfect_maps_the_ceiling():
    maps, boxes, affines = clips_with_boxes(np.random.default_rng(3))
    found = localization.spatial_pointing(np.zeros_like(maps), boxes, affines, 0.5, prefix='x')
    assert found['x'] == found['x_random'] > 0
    for i, (rows, affine) in enumerate(zip(boxes, affines, strict=True)):
        for t in range(4):
            maps[i, t] = localization.cells_in_boxes((5, 6), rows[np.floor(rows[:, 0] / 0.5) == t, 1:], affine)
    found = localization.spatial_pointing(maps, boxes, affines, 0.5, prefix='x')
    # A frame whose boxes contain no centre has an all-zero map: it scores 0, as the ceiling does.
    assert found['x'] == pytest.approx(found['x_ceiling']) and 0.5 < found['x_ceiling'] < 1
    found = localization.spatial_pointing(maps, [np.array([[0, 0, 0, 1, 1.0]])] * 30, affines, 0.5, prefix='x')
    assert found['x'] == found['x_random'] == 1.0


def test_macro_is_the_mean_over_classes_of_the_clips_that_count():
    maps, boxes, affines = clips_with_boxes(np.random.default_rng(6))
    classes = np.arange(30) % 4
    found = localization.spatial_pointing(maps, boxes, affines, 0.5, classes_n=classes)
    one = [
        localization.spatial_pointing(maps[i : i + 1], boxes[i : i + 1], affines[:1], 0.5).get('pointing/space')
        for i in range(30)
    ]
    want = np.mean([np.mean([one[i] for i in range(30) if classes[i] == c and one[i] is not None]) for c in range(4)])
    assert None in one and found['pointing/space_macro'] == pytest.approx(want, abs=1e-12)
    assert found['pointing/space_macro'] != found['pointing/space']


def test_covered_area_counts_overlap_once():
    assert localization.covered_area([[0.1, 0.2, 0.5, 0.7]]) == pytest.approx(0.2)
    assert localization.covered_area([[0, 0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75]]) == pytest.approx(0.4375)
    assert localization.covered_area(np.zeros((0, 4))) == 0
    rng = np.random.default_rng(7)
    centre = (np.arange(400) + 0.5) / 400
    for _ in range(20):
        boxes = random_boxes(rng, 4)
        inside = [[(x0 <= centre) & (centre < x1) & ((y0 <= y) & (y < y1)) for y in centre] for x0, y0, x1, y1 in boxes]
        assert localization.covered_area(boxes) == pytest.approx(np.any(inside, axis=0).mean(), abs=0.01)


def test_spatial_games_are_three_games():
    maps, boxes, affines = clips_with_boxes(np.random.default_rng(8))
    boxes[::3] = [np.array([[0.0, 0.1, 0.2, 0.9, 1.0]])] * 10
    classes = np.arange(30) % 3
    found = localization.spatial_games(maps, boxes, affines, classes, 0.5, prefix='x')
    # The area of a clip with several annotated frames is the mean over these frames.
    area = [
        np.mean([localization.covered_area(rows[rows[:, 0] == t, 1:]) for t in np.unique(rows[:, 0])])
        if len(rows)
        else 1
        for rows in boxes
    ]
    small = [i for i in range(30) if area[i] < 0.25]
    assert 0 < len(small) < 25 and found['x_small_n'] == len(small)
    games = {'x': (range(30), 0), 'x_tolerant': (range(30), localization.TOLERANCE), 'x_small': (small, 0)}
    for prefix, (kept, tau) in games.items():
        part = [[rows[i] for i in kept] for rows in (maps, boxes, affines)]
        options = {'prefix': prefix, 'tau': tau, 'classes_n': classes[list(kept)]}
        want = localization.spatial_pointing(*part, 0.5, **options)
        assert {name: found[name] for name in want} == want
    assert found['x_tolerant'] >= found['x'] and 'x_small_macro' in found
    none = localization.spatial_games(maps, [np.array([[0, 0, 0, 1, 1.0]])] * 30, affines, classes, 0.5, prefix='x')
    assert none['x_small_n'] == 0 and 'x_small' not in none


def test_masked_frames_and_boxes_beyond_the_clip_do_not_count():
    maps = np.zeros((2, 2, 3, 3))
    maps[0, 1] = -np.inf
    boxes = [np.array([[1.5, 0, 0, 1, 1.0]]), np.array([[7.0, 0, 0, 1, 1.0]])]
    assert localization.spatial_pointing(maps, boxes, [WHOLE] * 2, 1.0) == {
        'pointing/space_n': 0,
        'pointing/space_skipped': 2,
    }


def test_box_times_on_a_segment_border_belong_to_the_later_segment():
    times = np.array([0.0, 0.3, 0.6, 0.96 * 3, 0.5])
    assert [int(localization.segments_of(t, s)) for t, s in zip(times, (0.1, 0.1, 0.1, 0.96, 1.0), strict=True)] == [
        0,
        3,
        6,
        3,
        0,
    ]


def loop_time(scores, valid, events, seconds):
    """Returns the expected hit, the chance level, and the target row of one clip."""
    target = [v and any(a <= (t + 0.5) * seconds < b for a, b in events) for t, v in enumerate(valid)]
    best = max(s for s, v in zip(scores, valid, strict=True) if v)
    chosen = [hit for s, v, hit in zip(scores, valid, target, strict=True) if v and s == best]
    return sum(chosen) / len(chosen), sum(target) / sum(valid), target


def clips_with_events(rng, n=40, t=10):
    scores = rng.integers(-3, 3, (n, t)).astype(float)
    valid = np.arange(t) < rng.integers(3, t + 1, n)[:, None]
    events = [np.sort(rng.random((rng.integers(0, 3), 2)) * t * 0.5, axis=1) for _ in range(n)]
    events[0] = np.array([[0.0, 5.0]])
    return scores, valid, events


def test_temporal_pointing_matches_a_loop():
    scores, valid, events = clips_with_events(np.random.default_rng(4))
    rows = [loop_time(*row, 0.5) + (row[1],) for row in zip(scores, valid, events, strict=True) if len(row[2])]
    partial = [row for row in rows if any(v and not hit for v, hit in zip(row[3], row[2], strict=True))]
    found = localization.temporal_pointing(scores, valid, events, 0.5)
    for name, kept in (('pointing/time', rows), ('pointing/time_partial', partial)):
        assert found[name] == pytest.approx(np.mean([row[0] for row in kept]))
        assert found[f'{name}_random'] == pytest.approx(np.mean([row[1] for row in kept]))
        assert found[f'{name}_fixed'] == pytest.approx(max(np.mean([row[2][t] for row in kept]) for t in range(10)))
        assert found[f'{name}_chance'] == max(found[f'{name}_random'], found[f'{name}_fixed'])
        assert found[f'{name}_n'] == len(kept)
    assert 0 < len(partial) < len(rows) < 40
    assert found['pointing/time_skipped'] == 40 - len(rows)


def test_temporal_closed_forms():
    scores, valid, events = clips_with_events(np.random.default_rng(5))
    found = localization.temporal_pointing(np.zeros_like(scores), valid, events, 0.5, prefix='x')
    assert found['x'] == pytest.approx(found['x_random'], abs=1e-12)
    oracle = np.stack([localization.segments_in_events(10, e, 0.5) for e in events]) * 1.0
    found = localization.temporal_pointing(oracle - 5, valid, events, 0.5, prefix='x')
    assert found['x_partial'] == pytest.approx(found['x_partial_ceiling']) and found['x_partial_ceiling'] > 0.5
    full = localization.temporal_pointing(scores, valid, [np.array([[0, 5.0]])] * 40, 0.5, prefix='x')
    assert full['x'] == full['x_random'] == 1 and full['x_partial_n'] == 0 and 'x_partial' not in full


def test_invalid_segments_are_never_chosen():
    scores, valid = np.array([[1.0, 9.0]]), np.array([[True, False]])
    assert localization.temporal_pointing(scores, valid, [np.array([[1.0, 2.0]])], 1.0)['pointing/time'] == 0
    assert localization.temporal_pointing(scores, valid, [np.array([[0.0, 1.0]])], 1.0)['pointing/time'] == 1


def test_rates_are_means_of_the_hits_of_clips():
    maps, boxes, affines = clips_with_boxes(np.random.default_rng(9))
    maps[1] = -np.inf
    for tau in (0.0, localization.TOLERANCE):
        hits = localization.spatial_hits(maps, boxes, affines, 0.5, tau=tau)
        rates = localization.spatial_pointing(maps, boxes, affines, 0.5, tau=tau)
        assert np.nanmean(hits) == pytest.approx(rates['pointing/space'])
        assert (np.isnan(hits).sum(), (~np.isnan(hits)).sum()) == (
            rates['pointing/space_skipped'],
            rates['pointing/space_n'],
        )
        alone = localization.spatial_hits(maps[5:6], boxes[5:6], affines[:1], 0.5, tau=tau)
        assert alone[0] == hits[5]
    scores, valid, events = clips_with_events(np.random.default_rng(10))
    hits = localization.temporal_hits(scores, valid, events, 0.5)
    rates = localization.temporal_pointing(scores, valid, events, 0.5)
    assert np.nanmean(hits) == pytest.approx(rates['pointing/time'])
    assert np.isnan(hits).sum() == rates['pointing/time_skipped'] > 0


def test_small_clips_are_counted_by_their_mean_frame():
    # A frame of 10 % and one of 30 %; two boxes of 15 % in one frame; no boxes.
    rows = [
        [[0.5, 0, 0, 0.1, 1], [1.5, 0, 0, 0.3, 1]],
        [[0.5, 0, 0, 0.15, 1], [0.5, 0.5, 0, 0.65, 1]],
        np.zeros((0, 5)),
    ]
    assert localization.small_clips([np.array(row, float) for row in rows]).tolist() == [True, False, False]
