"""Tests the scenes of `binding`.

The audio alone is at chance, the picture alone leaves its colours equally likely, and the accuracy of a fusion
without binding is bounded.
"""

import collections
import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy import optimize

from data_prep import scenes, scenes_binding

N = 1500
SEGMENTS = 8


@pytest.fixture(scope='module')
def many():
    return [scenes_binding.make_scene(SEGMENTS, (0, 0, i)) for i in range(N)]


def objects(scene):
    """The things of a scene as (first half, second half) of each object."""
    return list(zip(scene.things[::2], scene.things[1::2], strict=True))


def colour(thing):
    """The class whose colour is nearest to that of a thing."""
    return int(np.abs(np.array(list(scenes_binding.COLOURS.values())) - thing.rgb).sum(1).argmin())


def is_even(counts, cells):
    """Whether counts over `cells` equally likely values agree with chance.

    Chi-squared must lie within five standard deviations.
    """
    values = np.array(list(counts.values()) + [0] * (cells - len(counts)))
    expected = values.sum() / cells
    return len(values) == cells and ((values - expected) ** 2 / expected).sum() < cells + 5 * np.sqrt(2 * cells)


def test_scene_is_a_function_of_its_seed(many):
    again, other = scenes_binding.make_scene(SEGMENTS, (0, 0, 3)), scenes_binding.make_scene(SEGMENTS, (1, 0, 3))
    times = np.arange(SEGMENTS) + 0.5
    np.testing.assert_array_equal(scenes.draw(again, times, 32), scenes.draw(many[3], times, 32))
    np.testing.assert_array_equal(scenes.sound(again), scenes.sound(many[3]))
    assert (scenes.draw(other, times, 32) != scenes.draw(many[3], times, 32)).any()


def test_objects_are_in_view_all_the_time_and_change_once_at_times_of_their_own(many):
    assert collections.Counter(len(s.things) for s in many).keys() == {4, 6}
    for scene in many:
        changes = []
        for before, after in objects(scene):
            assert (before.visible[0], after.visible[1]) == (0, SEGMENTS) and before.visible[1] == after.visible[0]
            assert before.shape == after.shape and before.half == after.half
            np.testing.assert_array_equal(before.centre(3.7), after.centre(3.7))
            changes.append(before.visible[1])
        assert len(set(changes)) == len(changes) and min(changes) >= 2 and max(changes) <= SEGMENTS - 2
        assert len({before.shape for before, _ in objects(scene)}) == len(changes)


def test_label_is_the_one_colour_of_the_sounding_object_while_it_sounds(many):
    for scene in many:
        colours = [colour(thing) for thing in scene.things]
        assert len(set(colours)) == len(colours) and colours[scene.source] == scene.label
        source = scene.things[scene.source]
        first, end = scene.event
        assert source.visible[0] <= first and end <= source.visible[1] and 2 <= end - first <= 4
        assert source.shape == scene.timbre and scene.offscreen_timbre not in {thing.shape for thing in scene.things}
        assert scene.offscreen[1] <= first or scene.offscreen[0] >= end


def test_boxes_never_meet_and_the_box_is_that_of_the_source(many):
    for scene in many[:500]:
        for time in np.arange(SEGMENTS) + 0.5:
            boxes = [(thing.centre(time), thing.half) for thing, _ in objects(scene)]
            for (a, half_a), (b, half_b) in itertools.combinations(boxes, 2):
                assert np.abs(a - b).max() > half_a + half_b
        centre = scene.things[scene.source].centre(scene.event[0] + 0.5)
        x0, y0, x1, y1 = scene.box(scene.event[0] + 0.5)
        np.testing.assert_allclose([(x0 + x1) / 2, (y0 + y1) / 2], centre)


def test_only_the_source_is_drawn_inside_its_box_in_its_colour():
    for number in range(20):
        scene = scenes_binding.make_scene(SEGMENTS, (5, 0, number))
        time = scene.event[0] + 0.5
        size = 64
        frame = scenes.draw(scene, np.array([time]), size)[0] / 255
        x, y = ((np.arange(size) + 0.5) / size,) * 2
        thing = scene.things[scene.source]
        cx, cy = thing.centre(time)
        inside = scenes._inside(thing.shape, (x[None] - cx) / thing.half, (y[:, None] - cy) / thing.half) < -0.15
        # The grain of the picture has a standard deviation of 0.03; clipping at white removes half of it.
        assert inside.sum() > 20
        np.testing.assert_allclose(frame[inside].mean(0), thing.rgb, atol=0.04)


def test_background_is_grey(many):
    bare = scenes.draw(dataclasses.replace(many[0], things=()), np.array([0.5]), 32)
    assert (bare.max(-1) == bare.min(-1)).all() and bare.std() > 1


def test_sound_alone_is_at_chance(many):
    classes, timbres = len(scenes_binding.CLASSES), len(scenes_binding.SHAPES)
    for name in ('timbre', 'offscreen_timbre'):
        assert is_even(collections.Counter((s.label, getattr(s, name)) for s in many), classes * timbres), name
    times = collections.defaultdict(list)
    for scene in many:
        times[scene.label].append((*scene.event, *scene.offscreen))
    everyone = np.array([row for rows in times.values() for row in rows])
    for rows in times.values():
        error = everyone.std(0) / np.sqrt(len(rows))
        assert (np.abs(np.mean(rows, 0) - everyone.mean(0)) < 4.5 * error).all()


@pytest.mark.parametrize('things', [4, 6])
def test_picture_alone_leaves_its_colours_even(many, things):
    some = [s for s in many if len(s.things) == things]
    assert abs(len(some) - N / 2) < 4 * np.sqrt(N / 4)
    ranks = {
        'colour': lambda t: colour(t),
        'shape': lambda t: t.shape,
        'first seen': lambda t: t.visible,
        'longest seen': lambda t: t.visible[0] - t.visible[1],
        'size': lambda t: t.half,
        'left': lambda t: t.start_xy[0],
        'speed': lambda t: np.abs(t.velocity_xy).sum(),
        'drawn last': None,
    }
    for name, key in ranks.items():
        counts = collections.Counter()
        for i, scene in enumerate(some):
            # Ties (the two halves of an object) are broken at random.
            order = np.random.default_rng(i).permutation(things)
            order = range(things) if key is None else sorted(order, key=lambda j: key(scene.things[j]))
            counts[list(order).index(scene.source)] += 1
        assert is_even(counts, things), name


def test_colours_shapes_and_places_are_independent(many):
    firsts = [(colour(before), before.shape, before.start_xy[0] > 0.5) for s in many for before, _ in objects(s)[:1]]
    assert is_even(collections.Counter((c, shape) for c, shape, _ in firsts), 48)
    assert is_even(collections.Counter((c, left) for c, _, left in firsts), 16)
    silent = collections.Counter(colour(t) for s in many for i, t in enumerate(s.things) if i != s.source)
    assert is_even(silent, 8)


def test_oracles_reach_the_ceilings_of_the_docstring(many):
    """The number of colours that may be the label gives the ceilings of the docstring.

    The picture is known in full; of the sound, nothing, the object, or the times are known.
    """
    shares = collections.defaultdict(list)
    for scene in many:
        first, end = scene.event
        shown = len(scene.things)
        then = sum(t.visible[0] <= first and end <= t.visible[1] for t in scene.things)
        during = len(scene.things) // 2
        shares['picture'].append(1 / shown)
        shares['which'].append(1 / 2)
        shares['when'].append(1 / during)
        assert then <= during
        same = [t for t in scene.things if t.shape == scene.timbre and t.visible[0] <= first < t.visible[1]]
        shares['both'].append(float(len(same) == 1 and colour(same[0]) == scene.label))
    means = {name: np.mean(share) for name, share in shares.items()}
    assert means['picture'] == pytest.approx((1 / 4 + 1 / 6) / 2, abs=0.0045)
    assert means['which'] == 0.5 and means['both'] == 1
    assert means['when'] == pytest.approx((1 / 2 + 1 / 3) / 2, abs=0.012)


def right_together(f_sc, colours, subset):
    """Whether some g makes argmax_c f[s, c] + g[c] right for every sound in `subset`.

    This holds if its colours are the best assignment.
    """
    held = f_sc[np.ix_(subset, colours[list(subset)])]
    _, best = optimize.linear_sum_assignment(held, maximize=True)
    return (best == np.arange(len(subset))).all()


def test_one_order_of_the_colours_in_k_factorial_suits_a_table():
    rng = np.random.default_rng(0)
    for k in (2, 3, 4):
        for _ in range(20):
            f_sc = rng.normal(size=(k, k))
            suits = [right_together(f_sc, np.array(order), range(k)) for order in itertools.permutations(range(k))]
            assert sum(suits) == 1


def cap(m):
    """The largest mean number of right answers among m sounds that the bound of the docstring allows."""
    right = np.arange(m + 1)
    sets = np.array([[math.comb(r, k) for r in right] for k in range(2, m + 1)])
    limits = [math.comb(m, k) / math.factorial(k) for k in range(2, m + 1)]
    found = optimize.linprog(-right, A_ub=sets, b_ub=limits, A_eq=np.ones((1, m + 1)), b_eq=[1], bounds=(0, 1))
    return -found.fun


def test_sum_of_scores_of_sound_and_picture_is_capped():
    assert cap(2) == pytest.approx(1.5)
    # By hand for 4: the limit of 4/6 on threes allows three right in two clips of three, and two in the third.
    assert cap(4) == pytest.approx(8 / 3) and cap(6) == pytest.approx(29 / 8)
    assert (cap(4) / 4 + cap(6) / 6) / 2 < 0.64


@pytest.mark.parametrize('m', [2, 3, 4])
def test_cap_holds_for_tables_found_by_search(m):
    """The best picture score for each order of the colours stays below the bound.

    All sets of sounds are tried, under random and sorted tables.
    """
    rng = np.random.default_rng(m)
    tables = [rng.normal(size=(m, m)) for _ in range(15)] + [np.outer(np.arange(m), np.arange(m)) + 0.0]
    best = []
    for f_sc in tables:
        sizes = [
            max(
                k
                for k in range(1, m + 1)
                for subset in itertools.combinations(range(m), k)
                if right_together(f_sc, np.array(order), subset)
            )
            for order in itertools.permutations(range(m))
        ]
        best.append(np.mean(sizes))
    assert 1 < max(best) <= cap(m) + 1e-9


def test_xor_of_two_objects_and_two_colours_by_trying_every_sum():
    """With two shapes and two colours, no sum is right in more than three of the four worlds.

    The worlds say which object sounds and which one is red.
    """
    most = 0
    for f, g in itertools.product(itertools.product(np.linspace(-3, 3, 7), repeat=2), repeat=2):
        right = sum((f[sounds] + g[red] > 0) == (sounds == red) for sounds in range(2) for red in range(2))
        most = max(most, right)
    assert most == 3
