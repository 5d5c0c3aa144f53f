"""Tests of the maps that networks provide for themselves in the form that the study uses."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.attribution import ClipArrays, Map
from stattn_jax.study import networks

BATCH = tiny.make_batch(1, 4)
CLIPS = ClipArrays(
    jnp.asarray(BATCH['frames'], jnp.float32) / 255,
    jnp.asarray(BATCH['log_mel'], jnp.float32),
    jnp.asarray(BATCH['valid']),
)
CLASSES = jnp.array([0, 1, 2, 0])


def shown(**options):
    model = tiny.make_model(**options)
    return model, *networks.own(model, CLIPS, CLASSES)


def test_stan_shows_its_terms_and_its_weights():
    model, logits, own = shown(stop_gradient_evidence=False)
    _, out = model(*CLIPS, train=False)
    terms, weights = own['terms'].map, own['attention'].map
    total = model.bias[...][CLASSES] + terms.visual.sum((1, 2)) + terms.audio.sum(1)
    np.testing.assert_allclose(total, logits[jnp.arange(4), CLASSES], atol=1e-5)
    # The attention weights sum to one minus the share of the null cells.
    beta = np.take_along_axis(np.asarray(out['beta']), np.asarray(CLASSES)[:, None, None, None], -1)[..., 0]
    lost = (beta[:, 0] * np.asarray(out['null']).mean(-1)).sum(1)
    np.testing.assert_allclose(weights.visual.sum((1, 2)) + weights.audio.sum(1) + lost, 1, atol=1e-5)
    np.testing.assert_allclose(own['attention'].when.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(own['terms'].when, terms.visual.sum(-1) + terms.audio, atol=1e-6)


@pytest.mark.parametrize('kind', ['cam', 'mil'])
def test_maps_that_compare_within_a_clip_are_taken_as_they_are(kind):
    model, _, own = shown(kind=kind, heads=None)
    where, when = model.maps(model(*CLIPS, train=False)[1], CLASSES)
    np.testing.assert_array_equal(own['own'].map.visual, where)
    np.testing.assert_array_equal(own['own'].when, when)


def test_maps_that_compare_within_a_frame_are_weighed_by_the_verdict_on_time():
    model, _, own = shown(kind='avel_paper', heads=None)
    where, when = model.maps(model(*CLIPS, train=False)[1], CLASSES)
    for i, valid in enumerate(BATCH['valid']):
        share = np.exp(when[i][valid]) / np.exp(when[i][valid]).sum()
        np.testing.assert_allclose(own['own'].map.visual[i][valid], where[i][valid] * share[:, None], rtol=1e-5)
        np.testing.assert_array_equal(own['own'].map.visual[i][~valid], 0)


def test_a_verdict_on_time_alone_is_the_same_for_all_cells():
    _, _, own = shown(kind='han', heads=None)
    np.testing.assert_array_equal(own['own'].map.visual, np.repeat(own['own'].when[..., None], 4, axis=-1))


def test_who_shows_nothing_has_no_map():
    assert shown(kind='late_sum', heads=None)[2] == {}


def test_the_explanation_that_stands_for_a_network():
    assert networks.first({'attention': 0, 'terms': 1}) == 'terms'
    assert networks.first({'rise': 0, 'grad_cam': 1}) == 'grad_cam'
    assert networks.first({'rise': 0}) == 'rise' and networks.first({}) is None


def test_batches_join_to_the_result_of_one_call():
    rows = networks.in_batches(
        lambda clips, classes: clips.log_mel.sum((1, 2, 3)) * classes, CLIPS, np.arange(4), chunk=3
    )
    assert [len(row) for row in rows] == [3, 1]
    np.testing.assert_allclose(np.concatenate(rows), np.asarray(CLIPS.log_mel).sum((1, 2, 3)) * np.arange(4), rtol=1e-5)


def test_time_is_the_sum_of_a_segments_cells_and_its_sound():
    map_ = Map(jnp.arange(6.0).reshape(2, 3), jnp.array([1.0, -2.0]))
    np.testing.assert_array_equal(networks.timed(map_).when, [4, 10])
