"""Tests the synthetic scenes: their ground truth, and that the class needs both seeing and hearing."""

import collections
import dataclasses

import numpy as np
import pytest

from data_prep import scenes
from stattn_jax.data import media

SEGMENTS = {'events': 8, 'lopsided': 10}


@pytest.fixture(scope='module')
def many():
    """2000 scenes of each variant."""
    return {v: [scenes.make_scene(v, n, (0, 0, i)) for i in range(2000)] for v, n in SEGMENTS.items()}


def length(interval):
    return interval[1] - interval[0]


@pytest.mark.parametrize('variant', SEGMENTS)
def test_scene_is_a_function_of_its_seed(variant):
    first, again, other = (scenes.make_scene(variant, 8, seed) for seed in ((0, 1, 5), (0, 1, 5), (1, 1, 5)))
    times = np.array([0.5, 6.5])
    np.testing.assert_array_equal(scenes.draw(first, times, 64), scenes.draw(again, times, 64))
    np.testing.assert_array_equal(scenes.sound(first), scenes.sound(again))
    assert (scenes.draw(first, times, 64) != scenes.draw(other, times, 64)).any()
    assert (scenes.sound(first) != scenes.sound(other)).any()


@pytest.mark.parametrize('variant', SEGMENTS)
def test_event_and_offscreen_sound_are_apart_and_inside(many, variant):
    spec = scenes.DIFFICULTIES[variant]
    for scene in many[variant]:
        for (first, end), (least, most) in ((scene.event, (2, 6)), (scene.offscreen, spec.offscreen_lengths)):
            assert 0 <= first < end <= SEGMENTS[variant] and least <= end - first <= most
        assert scene.event[1] <= scene.offscreen[0] or scene.offscreen[1] <= scene.event[0]
    assert {length(scene.event) for scene in many[variant]} == {2, 3, 4, 5, 6}


@pytest.mark.parametrize('variant', SEGMENTS)
def test_labels_of_a_scene_are_distinct_and_all_used(many, variant):
    for scene in many[variant]:
        labels = [scene.offscreen_timbre] + [thing.shape for thing in scene.things]
        assert len(set(labels)) == len(labels) and scene.things[scene.source].shape == scene.timbre == scene.label
        assert len(scene.things) - 1 in range(
            scenes.DIFFICULTIES[variant].distractors[0], scenes.DIFFICULTIES[variant].distractors[1] + 1
        )
    counts = collections.Counter(scene.label for scene in many[variant])
    # 200 are expected, with a standard deviation of 13.
    assert set(counts) == set(range(10)) and max(counts.values()) < 270 and min(counts.values()) > 130


def test_durations_give_no_hint_in_the_easy_variant(many):
    pairs = collections.Counter((length(scene.event), length(scene.offscreen)) for scene in many['events'])
    longer = sum(n for (event, other), n in pairs.items() if event > other)
    shorter = sum(n for (event, other), n in pairs.items() if event < other)
    # The two durations are exchangeable: longer and shorter are equally likely for each of about 1500 scenes, which
    # gives a standard deviation of 19.
    assert abs(longer - shorter) < 4 * np.sqrt(longer + shorter)
    for (event, other), n in pairs.items():
        assert abs(n - pairs[other, event]) < 5 * np.sqrt(n + pairs[other, event]) + 1


def test_duration_is_a_strong_hint_in_the_lopsided_variant(many):
    order = [np.sign(length(scene.event) - length(scene.offscreen)) for scene in many['lopsided']]
    assert 0.75 < np.mean([{1: 1, 0: 0.5, -1: 0}[int(sign)] for sign in order]) < 0.95


@pytest.mark.parametrize('variant', SEGMENTS)
def test_how_long_an_object_is_seen_does_not_tell_which_one_sounds(many, variant):
    seen = [[length(thing.visible) for thing in scene.things] for scene in many[variant]]
    sounding, silent = np.array([s[-1] for s in seen]), np.concatenate([s[:-1] for s in seen])
    error = np.hypot(sounding.std() / np.sqrt(len(sounding)), silent.std() / np.sqrt(len(silent)))
    assert abs(sounding.mean() - silent.mean()) < 4 * error


@pytest.mark.parametrize('variant', SEGMENTS)
def test_sounding_object_is_visible_in_all_of_its_event(many, variant):
    for scene in many[variant]:
        first, end = scene.things[-1].visible
        assert 0 <= first <= scene.event[0] and scene.event[1] <= end <= SEGMENTS[variant]


def test_lopsided_objects_cover_six_percent(many):
    areas = [(x1 - x0) * (y1 - y0) for s in many['lopsided'] for x0, y0, x1, y1 in [s.box(s.event[0] + 0.5)]]
    assert 0.045 < np.mean(areas) < 0.075


def test_every_class_is_drawn_inside_its_box_and_fills_it():
    size, found = 128, set()
    for number in range(60):
        scene = scenes.make_scene('events', 8, (3, 0, number))
        time = scene.event[0] + 0.5
        with_it = scenes.draw(scene, np.array([time]), size)[0].astype(int)
        without = scenes.draw(dataclasses.replace(scene, things=scene.things[:-1]), np.array([time]), size)[0].astype(
            int
        )
        y, x = np.nonzero(np.abs(with_it - without).max(-1) > 2)
        x0, y0, x1, y1 = np.array(scene.box(time)) * size
        # Edges are anti-aliased over one pixel of a 64-pixel frame, half of it outside.
        slack = 0.5 * size / 64 + 1
        assert (
            x.min() >= x0 - slack and x.max() + 1 <= x1 + slack and y.min() >= y0 - slack and y.max() + 1 <= y1 + slack
        )
        # Bars and stripes leave a fifth of the box free at two sides.
        assert x.max() - x.min() > 0.55 * (x1 - x0) and y.max() - y.min() > 0.55 * (y1 - y0)
        assert len(x) > 0.2 * (x1 - x0) * (y1 - y0)
        found.add(scene.label)
    assert found == set(range(10))


@pytest.mark.parametrize('variant', SEGMENTS)
def test_boxes_stay_inside_the_frame(many, variant):
    boxes = np.array([s.box(t + 0.5) for s in many[variant][:300] for t in range(*s.event)])
    assert boxes.min() >= 0 and boxes.max() <= 1


def test_nothing_is_drawn_outside_its_visible_time():
    scene = scenes.make_scene('events', 8, (0, 0, 0))
    bare = dataclasses.replace(scene, things=())
    hidden = dataclasses.replace(scene, things=tuple(dataclasses.replace(t, visible=(2.0, 3.0)) for t in scene.things))
    times = np.array([1.99, 2.0, 2.99, 3.0])
    differs = (scenes.draw(hidden, times, 64) != scenes.draw(bare, times, 64)).any(axis=(1, 2, 3))
    assert differs.tolist() == [False, True, True, False]


def test_sound_is_loud_in_event_and_offscreen_and_noise_elsewhere():
    for number in range(20):
        scene = scenes.make_scene('events', 8, (0, 0, number))
        wave = scenes.sound(scene)
        assert wave.shape == (8 * scenes.RATE,) and wave.dtype == np.float32 and np.abs(wave).max() <= 1
        loudness = np.sqrt(np.mean(wave.reshape(8, -1) ** 2, axis=1))
        on = np.zeros(8, bool)
        on[slice(*scene.event)] = on[slice(*scene.offscreen)] = True
        assert loudness[on].min() > 1.2 * loudness[~on].max(initial=0)
        assert (~on).any() == (length(scene.event) + length(scene.offscreen) < 8)


def test_classes_sound_different():
    rng = np.random.default_rng(0)
    waves = [scenes._timbre(label, scenes.RATE, rng).astype(np.float32) for label in range(10)]
    patches = [media.log_mel(wave, media.MEL_PRESETS['vggish'], 1, 1.0)[0] for wave in waves]
    likeness = np.corrcoef([patch.ravel() for patch in patches]) - np.eye(10)
    assert likeness.max() < 0.9
