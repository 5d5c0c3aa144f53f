"""Tests events.py: events are probable enough, in valid segments and of classes that the clip may contain.

A segment whose attention goes to the null cell has no event.
"""

import numpy as np

from stattn_jax.metrics import events


def test_probabilities_are_those_of_each_class_or_of_all():
    logits = np.array([[0.0, 2.0, -1000.0], [1000.0, 0.0, 0.0]])
    np.testing.assert_allclose(
        events.probabilities(logits, binary=True), [[0.5, 1 / (1 + np.exp(-2)), 0], [1, 0.5, 0.5]], rtol=1e-12
    )
    total = 1 + np.exp(2.0)
    np.testing.assert_allclose(
        events.probabilities(logits, binary=False), [[1 / total, np.exp(2.0) / total, 0], [1, 0, 0]], rtol=1e-12
    )


def test_candidates_are_the_best_class_or_all_that_are_likely():
    clip = np.array([[0.4, 0.3, 0.1], [0.5, 0.9, 0.49]])
    assert events.candidates(clip, single=True).tolist() == [[True, False, False], [False, True, False]]
    assert events.candidates(clip, single=False).tolist() == [[False, False, False], [True, True, False]]


def test_joint_events_ask_for_the_segment_a_visible_source_and_a_candidate():
    segment = np.array([[[0.9, 0.8], [0.5, 0.1], [0.49, 0.9], [0.9, 0.9], [0.9, 0.9]]])
    null = np.array([[0.1, 0.49, 0.0, 0.5, 0.0]])
    valid = np.array([[True, True, True, True, False]])
    found = events.joint_events(segment, null, valid, np.array([[True, False]]))
    assert found[0, :, 0].tolist() == [True, True, False, False, False] and not found[..., 1].any()


def test_modality_events_ask_each_modality_on_its_own():
    unit = np.array([[[[0.6, 0.6], [0.6, 0.2]], [[0.1, 0.7], [0.9, 0.9]]]])
    found = events.modality_events(unit, np.array([[True, False]]), np.array([[True, True]]))
    assert found.tolist() == [[[[True, True], [False, False]], [[False, True], [False, False]]]]
