"""Tests of the whole network: the identity that explanations rest on, padding, masks, and gradient paths."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.models import contributions
from stattn_jax.training import losses

CLIPS = 4
BATCH = tiny.make_batch(0, CLIPS)
ALL_CELLS = np.ones((CLIPS, tiny.SEGMENTS, 4), bool)
ALL_UNITS = np.ones((CLIPS, 2, tiny.SEGMENTS), bool)
VARIANTS = {
    'one head': {'heads': 1},
    'two heads': {},
    'bfloat16': {'dtype': 'bfloat16'},
    'no guidance': {'guided': False},
    'no null cell': {'null_cell': False},
    'one time attention': {'class_time': False},
}


@functools.partial(jax.jit, static_argnums=0)
def call(graphdef, state, frames, log_mel, valid, cell_mask, unit_mask, modalities):
    model = nnx.merge(graphdef, state)
    masks = {'cell_mask': cell_mask, 'unit_mask': unit_mask, 'modalities': modalities}
    return model(frames, log_mel, valid, train=False, **masks)


def inputs(batch):
    return batch['frames'].astype(np.float32) / 255, batch['log_mel'].astype(np.float32), batch['valid']


def run(model, batch=BATCH, cell_mask=ALL_CELLS, unit_mask=ALL_UNITS, modalities=None):
    """Returns logits and the other outputs as NumPy arrays."""
    graphdef, state = nnx.split(model)
    masks = cell_mask, unit_mask, modalities
    return jax.tree.map(np.asarray, call(graphdef, nnx.as_pure(state), *inputs(batch), *masks))


@pytest.fixture(scope='module')
def models():
    return {name: tiny.make_model(**options) for name, options in VARIANTS.items()}


@pytest.mark.parametrize('name', VARIANTS)
def test_logits_are_the_sum_of_the_terms_in_out(models, name):
    logits, out = run(models[name])
    exact = {key: x.astype(np.float64) for key, x in out.items() if key != 'cells'}
    assert all(out[key].dtype == np.float32 for key in exact)
    expected = exact['bias'] + np.einsum('bmtc,bmtc->bc', exact['beta'], exact['segment_scores'])
    visual = np.einsum('btns,btnse,cne->btc', exact['alpha'], exact['cell_values'], exact['visual_head'])
    audio = np.einsum('btd,cd->btc', exact['audio'], exact['audio_head'])
    np.testing.assert_allclose(exact['segment_scores'], np.stack([visual, audio], 1), rtol=1e-5, atol=1e-5)
    assert np.all(np.abs(logits - expected) <= 1e-5 * np.maximum(1, np.abs(logits)))
    terms = exact['bias'] + np.einsum('bmtc,bmtc->bc', exact['beta'], np.stack([visual, audio], 1))
    assert np.all(np.abs(logits - terms) <= 1e-5 * np.maximum(1, np.abs(logits)))
    assert np.ptp(exact['beta'], axis=2).max() > 0.1


def test_shapes_are_those_of_the_design(models):
    _, out = run(models['two heads'])
    b, t, s, n, d, c = CLIPS, tiny.SEGMENTS, 4, 2, 16, tiny.CLASSES
    shapes = {
        'alpha': (b, t, n, s), 'null': (b, t, n), 'cell_values': (b, t, n, s, d // n), 'audio': (b, t, d),
        'visual_head': (c, n, d // n), 'audio_head': (c, d), 'bias': (c,), 'segment_scores': (b, 2, t, c),
        'beta': (b, 2, t, c), 'beta_per_segment': (b, 2, t, c), 'beta_per_modality': (b, 2, t, c),
    }  # fmt: skip
    assert {name: out[name].shape for name in shapes} == shapes
    np.testing.assert_allclose(out['alpha'].sum(-1) + out['null'], 1, rtol=1e-6)
    assert models['two heads'].grid(16, 16) == (2, 2)
    assert models['two heads'].grid(17, 24) == (3, 3)


@pytest.mark.parametrize('name', VARIANTS)
def test_maps_are_the_terms_of_the_logit(models, name):
    logits, out = run(models[name])
    classes = np.array([0, 2, 1, 2])
    where, when = map(np.asarray, models[name].maps(out, classes))
    visual, audio = contributions.contributions(out, classes)
    np.testing.assert_allclose(where, visual, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(when, np.asarray(visual).sum(-1) + audio, rtol=1e-4, atol=1e-6)
    total = out['bias'][classes] + when.sum(1)
    np.testing.assert_allclose(total, logits[np.arange(CLIPS), classes], rtol=1e-5, atol=1e-5)


def test_bfloat16_is_close_to_float32(models):
    wide, narrow = run(models['two heads'])[0], run(models['bfloat16'])[0]
    assert 0 < np.abs(wide - narrow).max() < 0.1


def test_padding_changes_no_logit(models):
    logits, out = run(models['two heads'])
    padding = ~BATCH['valid']
    assert padding.any() and not out['beta'].transpose(0, 2, 1, 3)[padding].any()
    other = {name: x.copy() for name, x in BATCH.items()}
    other['frames'][padding] = 255 - other['frames'][padding]
    other['log_mel'][padding] = 3
    np.testing.assert_array_equal(run(models['two heads'], other)[0], logits)
    other['frames'][~padding] = 255 - other['frames'][~padding]
    assert np.abs(run(models['two heads'], other)[0] - logits).min() > 0


def test_removed_cells_and_units_have_no_weight(models):
    cells, units = ALL_CELLS.copy(), ALL_UNITS.copy()
    cells[:, :, 2], units[:, 0, 1] = False, False
    logits, out = run(models['two heads'], BATCH, cells, units)
    assert not out['alpha'][..., 2].any() and not out['beta'][:, 0, 1].any()
    np.testing.assert_allclose(out['alpha'].sum(-1) + out['null'], 1, rtol=1e-6)
    np.testing.assert_allclose(out['beta'].sum((1, 2)), 1, rtol=1e-6)
    assert np.abs(logits - run(models['two heads'])[0]).min() > 0
    no_picture = ALL_UNITS.copy()
    no_picture[:, 0] = False
    _, out = run(models['two heads'], BATCH, unit_mask=no_picture)
    np.testing.assert_allclose(out['beta'][:, 1].sum(1), 1, rtol=1e-6)


def test_match_is_the_odds_of_the_picture_against_nothing(models):
    model = models['two heads']
    _, out = run(model)
    odds = np.log(out['alpha'].sum(-1) / out['null']).mean(-1)
    graphdef, state = nnx.split(model)
    found = jax.jit(lambda state: nnx.merge(graphdef, state).match(out['keys'], out['audio']))(nnx.as_pure(state))
    np.testing.assert_allclose(found, odds, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('detach', [True, False])
def test_the_sound_steered_logits_teach_the_picture_only_without_detach(detach):
    graphdef, params, rest = nnx.split(tiny.make_model(stop_gradient_evidence=detach), nnx.Param, ...)

    @jax.jit
    def gradient(params):
        def loss(params):
            logits, _ = nnx.merge(graphdef, params, nnx.as_pure(rest))(*inputs(BATCH), train=False)
            return jnp.sum(logits**2)

        return jax.grad(loss)(params)

    gradients = gradient(nnx.as_pure(params))
    largest = {name: max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree)) for name, tree in gradients.items()}
    for name in ('visual', 'value', 'visual_head'):
        assert (largest[name] == 0) == detach, name
    for name in ('space', 'time', 'audio', 'audio_out', 'audio_head', 'bias'):
        assert largest[name] > 0, name


@pytest.mark.parametrize('name', VARIANTS)
def test_segment_logits_are_the_logits_with_everything_else_removed(models, name):
    model = models[name]
    segment, unit = map(np.asarray, contributions.segment_logits(run(model)[1]))
    for t, kept in itertools.product(range(tiny.SEGMENTS), ([0], [1], [0, 1])):
        mask = np.zeros_like(ALL_UNITS)
        mask[:, kept, t] = True
        there = BATCH['valid'][:, t]
        expected = run(model, unit_mask=mask)[0][there]
        found = unit[there, kept[0], t] if len(kept) == 1 else segment[there, t]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert not BATCH['valid'].all()
    bias = np.broadcast_to(model.bias[...], segment.shape)
    np.testing.assert_array_equal(segment[~BATCH['valid']], bias[~BATCH['valid']])


@pytest.mark.parametrize('modality', [0, 1])
def test_unimodal_logits_are_the_logits_without_the_other_modality(models, modality):
    model = models['two heads']
    mask = ALL_UNITS.copy()
    mask[:, 1 - modality] = False
    logits = losses.unimodal_logits(run(model)[1], modality)
    np.testing.assert_allclose(logits, run(model, unit_mask=mask)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', VARIANTS)
def test_a_modality_that_the_clip_lacks_has_no_weight(models, name):
    """Its input changes nothing, its units have no weight, and the rest of the logit is a sum of terms as before.

    Clip 1 lacks its picture and clip 2 its sound.
    """
    has = np.ones((CLIPS, 2), bool)
    complete, _ = run(models[name], modalities=has)
    has[1, 0] = has[2, 1] = False
    changed = BATCH | {key: BATCH[key].copy() for key in ('frames', 'log_mel')}
    changed['frames'][1] = changed['log_mel'][2] = 7
    logits, out = run(models[name], modalities=has)
    np.testing.assert_array_equal(logits, run(models[name], changed, modalities=has)[0])
    np.testing.assert_array_equal(logits[[0, 3]], complete[[0, 3]])
    assert (np.abs(logits[1:3] - complete[1:3]).max(1) > 1e-4).all()
    for b, modality in ((1, 0), (2, 1)):
        assert not out['beta'][b, modality].any() and not out['segment_scores'][b, modality].any()
    np.testing.assert_allclose(out['beta'].sum((1, 2)), 1, rtol=1e-6)
    np.testing.assert_allclose(out['alpha'][1:3], 0.25, rtol=1e-6)
    assert not out['null'][1:3].any()
    visual, audio = contributions.all_contributions({key: jnp.asarray(x) for key, x in out.items()})
    np.testing.assert_allclose(out['bias'] + visual.sum((2, 3)) + audio.sum(2), logits, rtol=2e-5, atol=2e-5)


def test_a_clip_without_sound_and_without_cells_has_finite_gradients(models):
    model = models['two heads']
    cells = np.ones((CLIPS, tiny.SEGMENTS, 4, model.cell_width), np.float32)
    graphdef, state = nnx.split(model)

    def total(state, cells):
        masks = {'cell_mask': ~ALL_CELLS, 'modalities': np.array([[True, False]] * CLIPS)}
        sound = jnp.ones((CLIPS, tiny.SEGMENTS, 16))
        return nnx.merge(graphdef, state).forward_heads(cells, sound, BATCH['valid'], **masks)[0].sum()

    gradients = jax.jit(jax.grad(total, argnums=(0, 1)))(nnx.as_pure(state), cells)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
