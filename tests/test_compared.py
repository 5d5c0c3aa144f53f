"""Tests the properties that all compared models share, from frames to logits.

These concern padding, masks, batches, permuted cells, gradients, maps and the builder.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax import models
from stattn_jax.models import baselines

KINDS = tuple(baselines.KINDS)
CLIPS, CELLS = 4, 4
BATCH = tiny.make_batch(0, CLIPS)
ALL_CELLS, ALL_UNITS = np.ones((CLIPS, tiny.SEGMENTS, CELLS), bool), np.ones((CLIPS, 2, tiny.SEGMENTS), bool)
CLASSES = np.array([0, 2, 1, 2])
SHOWS_WHERE = ('cam', 'mil', 'proto', 'avel_paper', 'avel_code')
# nnx.MultiHeadAttention adds the key's bias to all keys alike, so its softmax does not depend on it.
UNSEEN = ("['key']['bias']",)


@functools.cache
def model_of(kind):
    return tiny.make_model(kind=kind, frame=(tiny.SIZE, tiny.SIZE))


@functools.cache
def compiled(kind):
    graphdef, _ = nnx.split(model_of(kind))

    @jax.jit
    def call(state, frames, log_mel, valid, cell_mask, unit_mask):
        model = nnx.merge(graphdef, state)
        logits, out = model(frames, log_mel, valid, train=False, cell_mask=cell_mask, unit_mask=unit_mask)
        return logits, model.maps(out, CLASSES)

    return call


def inputs(batch):
    return batch['frames'].astype(np.float32) / 255, batch['log_mel'].astype(np.float32), batch['valid']


def run(kind, batch=BATCH, cell_mask=ALL_CELLS, unit_mask=ALL_UNITS):
    """Returns logits [b c] and the maps of CLASSES."""
    state = nnx.as_pure(nnx.split(model_of(kind))[1])
    return jax.tree.map(np.asarray, compiled(kind)(state, *inputs(batch), cell_mask, unit_mask))


def altered(where, keys=('frames', 'log_mel')):
    """Returns the batch with other frames, or other audio, in some segments [b t]."""
    other = {name: x.copy() for name, x in BATCH.items()}
    for key in keys:
        other[key][where] = {'frames': 255 - other['frames'], 'log_mel': -other['log_mel']}[key][where]
    return other


@pytest.mark.parametrize('kind', KINDS)
def test_padding_changes_no_logit_and_valid_segments_do(kind):
    logits, (where, when) = run(kind)
    padding = ~BATCH['valid']
    changed, maps = run(kind, altered(padding))
    np.testing.assert_array_equal(changed, logits)
    jax.tree.map(np.testing.assert_array_equal, maps, (where, when))
    assert padding.any() and np.abs(run(kind, altered(~padding))[0] - logits).max() > 1e-4
    for shown in (where, when):
        assert shown is None or not shown[padding].any()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('modality', [0, 1])
def test_the_content_of_a_removed_unit_changes_no_logit(kind, modality):
    units = ALL_UNITS.copy()
    units[:, modality, 1] = False
    gone = np.zeros(BATCH['valid'].shape, bool)
    gone[:, 1] = True
    logits, _ = run(kind, unit_mask=units)
    hidden, _ = run(kind, altered(gone, [('frames', 'log_mel')[modality]]), unit_mask=units)
    np.testing.assert_array_equal(hidden, logits)
    reads = (baselines.KINDS[kind].uses_video, baselines.KINDS[kind].uses_audio)[modality]
    assert (np.abs(logits - run(kind)[0]).max() > 1e-6) == reads


@pytest.mark.parametrize('kind', KINDS)
def test_a_clip_of_nothing_has_finite_logits(kind):
    empty = {**BATCH, 'valid': np.zeros_like(BATCH['valid'])}
    assert np.isfinite(run(kind, empty)[0]).all()


@pytest.mark.parametrize('kind', KINDS)
def test_a_cell_that_is_taken_away_is_not_shown(kind):
    cells = ALL_CELLS.copy()
    cells[:, :, 2] = False
    logits, (where, _) = run(kind, cell_mask=cells)
    whole, (all_cells, _) = run(kind)
    assert (np.abs(logits - whole).max() > 1e-6) == baselines.KINDS[kind].uses_video
    assert (where is not None) == (kind in SHOWS_WHERE)
    if where is not None:
        assert not where[..., 2].any() and all_cells[..., 2].any()


@pytest.mark.parametrize('kind', KINDS)
def test_each_clip_has_its_numbers_whatever_else_is_in_the_batch(kind):
    logits, maps = run(kind)
    order = np.array([2, 0, 1, 1])
    moved = jax.tree.map(lambda x: x[order], BATCH)
    np.testing.assert_allclose(run(kind, moved)[0], logits[order], rtol=1e-5, atol=1e-6)
    shapes = [(CLIPS, tiny.SEGMENTS, CELLS), (CLIPS, tiny.SEGMENTS)]
    assert all(x is None or x.shape == shape for x, shape in zip(maps, shapes, strict=True))
    assert all(x is None or x.dtype == np.float32 for x in (logits, *maps))


@functools.cache
def features(kind):
    """Returns a network on features, in which a cell does not depend on its position, and its inputs."""
    options = {'kind': kind, 'visual': 'precomputed', 'audio': 'precomputed', 'channels': (6, 7), 'frame': (2, 2)}
    rng = np.random.default_rng(0)
    return tiny.make_model(**options), rng.normal(size=(2, 3, 2, 2, 6)), rng.normal(size=(2, 3, 1, 7))


@pytest.mark.parametrize(
    'kind', [pytest.param(kind, marks=pytest.mark.slow if kind == 'mbt' else ()) for kind in KINDS]
)
def test_moved_cells_move_the_map_and_leave_the_logits_but_not_in_avels_code(kind):
    model, frames, sound = features(kind)
    order, valid = np.array([2, 0, 3, 1]), np.ones((2, 3), bool)
    moved = frames.reshape(2, 3, 4, 6)[:, :, order].reshape(frames.shape)
    (logits, out), (other, other_out) = (model(x, sound, valid, train=False) for x in (frames, moved))
    (where, when), (moved_where, moved_when) = (model.maps(o, CLASSES[:2]) for o in (out, other_out))
    if kind == 'avel_code':
        assert np.abs(moved_where - where[..., order]).max() > 1e-3 and np.abs(other - logits).max() > 1e-5
        return
    np.testing.assert_allclose(other, logits, rtol=1e-4, atol=1e-5)
    if where is not None:
        np.testing.assert_allclose(moved_where, where[..., order], rtol=1e-4, atol=1e-6)
        assert np.ptp(where, axis=-1).max() > 1e-3
    if when is not None:
        np.testing.assert_allclose(moved_when, when, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_gradients_reach_every_parameter(kind):
    graphdef, params, rest = nnx.split(model_of(kind), nnx.Param, ...)

    @jax.jit
    def gradient(params):
        def loss(params):
            logits, _ = nnx.merge(graphdef, params, nnx.as_pure(rest))(*inputs(BATCH), train=False)
            return jnp.sum(jax.nn.log_softmax(logits)[np.arange(CLIPS), CLASSES])

        return jax.grad(loss)(params)

    for path, x in jax.tree_util.tree_leaves_with_path(gradient(nnx.as_pure(params))):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(x).all(), name
        assert name.endswith(UNSEEN) or np.abs(x).max() > 0, name


def test_other_kinds_refuse_the_ablations_of_stan_and_leave_its_options():
    with pytest.raises(ValueError, match="config.model.guided is False, an ablation .* kind is 'cam'; expected True"):
        tiny.make_model(kind='cam', guided=False)
    with pytest.raises(ValueError, match='config.model.uniform_time is True.*expected False'):
        tiny.make_model(kind='han', uniform_time=True)
    assert isinstance(tiny.make_model(kind='cam', heads=4, stop_gradient_evidence=False), baselines.KINDS['cam'])
    assert isinstance(tiny.make_model(), models.SpaceTimeAttention) and models.KINDS == ('stan', *KINDS)


@pytest.mark.parametrize('kind', ['concat', 'avel_code', 'mbt'])
def test_bfloat16_trunks_are_close_and_give_float32(kind):
    narrow = tiny.make_model(kind=kind, frame=(tiny.SIZE, tiny.SIZE), dtype='bfloat16')
    graphdef, state = nnx.split(narrow)
    logits = jax.jit(lambda state: nnx.merge(graphdef, state)(*inputs(BATCH), train=False)[0])(nnx.as_pure(state))
    assert logits.dtype == np.float32 and 0 < np.abs(logits - run(kind)[0]).max() < 0.3
