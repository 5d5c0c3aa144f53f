"""Tests spatial and temporal attention against NumPy loops, and the invariants of their softmax.

The softmax runs over the cells and the null cell in space, and over the units in time.
"""

import jax
import numpy as np
import pytest
import tiny
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.models.attention import SpatialAttention, TemporalAttention

B, T, S, HEADS, WIDTH, CLASSES = 2, 3, 5, 2, 4, 3
RNG = np.random.default_rng(0)
CELLS = RNG.normal(size=(B, T, S, 6)).astype(np.float32)
SOUND = RNG.normal(size=(B, T, 7)).astype(np.float32)
MASK = RNG.random((B, T, S)) < 0.5
MASK[0, 0] = False
MATCH = RNG.normal(size=(B, T)).astype(np.float32)
VALID = np.ones((B, 2, T), bool)
VALID[0, :, -1], VALID[1, 0] = False, False


def make_space(**options):
    return tiny.filled(lambda: SpatialAttention(6, 7, heads=HEADS, head_width=WIDTH, rngs=nnx.Rngs(0), **options))


def make_time(**options):
    return tiny.filled(lambda: TemporalAttention(6, 7, CLASSES, hidden=5, rngs=nnx.Rngs(0), **options))


def attend(module, cells, sound, mask):
    return module(module.keys(cells), sound, mask)


@pytest.fixture(scope='module')
def space():
    return make_space()


def linear(module, x):
    return x @ np.asarray(module.kernel[...], np.float64) + np.asarray(module.bias[...], np.float64)


def cosine(q, k):
    return q @ k / np.sqrt((q @ q + 1e-6) * (k @ k + 1e-6))


def space_by_loop(module, cells, sound, mask):
    """Returns the attention weights [b t n s + 1], with the null cell last."""
    weights = np.zeros((B, T, HEADS, S + 1))
    for b, t, n in np.ndindex(B, T, HEADS):
        part = slice(n * WIDTH, (n + 1) * WIDTH)
        q = linear(module.query, sound[b, t])[part] if module.query else np.asarray(module.own_query[n])
        keys = [linear(module.key, cells[b, t, s])[part] for s in range(S)]
        keys += [np.asarray(module.null_key[n])] if module.null_key else []
        odds = np.exp(np.exp(float(module.log_scale[n])) * np.array([cosine(q, k) for k in keys]))
        odds[:S] *= mask[b, t]
        weights[b, t, n, : len(keys)] = odds / max(odds.sum(), 1e-30)
    return weights


@pytest.mark.parametrize('mask', [None, MASK], ids=['all cells', 'some cells'])
def test_space_is_the_loop(space, mask):
    alpha, null = attend(space, CELLS, SOUND, mask)
    expected = space_by_loop(space, CELLS, SOUND, np.ones_like(MASK) if mask is None else mask)
    np.testing.assert_allclose(alpha, expected[..., :-1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(null, expected[..., -1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.asarray(alpha).sum(-1) + null, 1, atol=1e-6)
    assert np.ptp(alpha, axis=2).max() > 0.05


def test_removed_cells_get_nothing_and_the_null_cell_all_that_is_left(space):
    alpha, null = map(np.asarray, attend(space, CELLS, SOUND, MASK))
    assert not alpha.transpose(0, 1, 3, 2)[~MASK].any()
    assert (alpha.transpose(0, 1, 3, 2)[MASK] > 0).all()
    np.testing.assert_array_equal(null[0, 0], 1)


@pytest.mark.parametrize('options', [{'guided': False}, {'null_cell': False}, {'guided': False, 'null_cell': False}])
def test_ablations_of_space_are_the_loop_too(options):
    module = make_space(**options)
    assert (module.query is None) == (options.get('guided') is False) == (module.own_query is not None)
    alpha, null = map(np.asarray, attend(module, CELLS, SOUND, MASK))
    expected = space_by_loop(module, CELLS, SOUND, MASK)
    np.testing.assert_allclose(alpha, expected[..., :-1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(null, expected[..., -1], rtol=1e-4, atol=1e-6)
    other = np.asarray(attend(module, CELLS, SOUND[::-1], MASK)[0])
    assert np.array_equal(other, alpha) == ('guided' in options)
    if 'null_cell' in options:
        assert not null.any() and not alpha[0, 0].any()
        np.testing.assert_allclose(alpha.sum(-1)[MASK.any(-1)], 1, rtol=1e-6)


def test_a_frame_without_cells_and_without_a_null_cell_has_finite_gradients():
    module = make_space(null_cell=False)
    gradient = jax.grad(lambda cells: (attend(module, cells, SOUND, MASK)[0] ** 2).sum())(CELLS)
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[0, 0].any() and np.abs(gradient).max() > 0


def test_permuted_cells_permute_alpha_alone(space):
    order = np.random.default_rng(2).permutation(S)
    alpha, null = attend(space, CELLS, SOUND, MASK)
    moved, moved_null = attend(space, CELLS[:, :, order], SOUND, MASK[:, :, order])
    np.testing.assert_allclose(moved, np.asarray(alpha)[..., order], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(moved_null, null, rtol=1e-5, atol=1e-7)


def test_uniform_space_ignores_frames_and_audio():
    module = make_space(uniform=True)
    alpha, null = attend(module, CELLS, SOUND, None)
    np.testing.assert_allclose(alpha, 1 / (S + 1), rtol=1e-6)
    np.testing.assert_allclose(null, 1 / (S + 1), rtol=1e-6)
    alpha, null = attend(module, CELLS, SOUND, MASK)
    share = 1 / (MASK.sum(-1) + 1)[:, :, None]
    np.testing.assert_allclose(alpha, np.broadcast_to((share * MASK)[:, :, None], alpha.shape), rtol=1e-6)
    np.testing.assert_allclose(null, np.broadcast_to(share, null.shape), rtol=1e-6)


def time_by_loop(module, picture, sound, match):
    """Returns the attention weights [b m t c].

    Flax's layer norm has epsilon 1e-6, and its gelu is the tanh approximation.
    """
    odds = np.zeros((B, 2, T, CLASSES))
    for b, t in np.ndindex(B, T):
        x = np.concatenate([picture[b, t], sound[b, t]]).astype(np.float64)
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-6) * np.asarray(module.norm.scale[...]) + np.asarray(
            module.norm.bias[...]
        )
        x = linear(module.hidden, x)
        x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        by_match = np.asarray(module.match_weight[...])[:, None] * match[b, t]
        odds[b, :, t] = np.exp(linear(module.score, x).reshape(2, -1) + by_match) * VALID[b, :, t, None]
    return odds / odds.sum((1, 2), keepdims=True)


@pytest.mark.parametrize('by_class', [True, False])
def test_time_is_the_loop(by_class):
    module = make_time(by_class=by_class)
    beta, beta_per_segment, beta_per_modality = map(np.asarray, module(CELLS[:, :, 0], SOUND, MATCH, VALID))
    np.testing.assert_allclose(beta, time_by_loop(module, CELLS[:, :, 0], SOUND, MATCH), rtol=1e-4, atol=1e-6)
    for part, axis in ((beta_per_segment, 1), (beta_per_modality, 2)):
        np.testing.assert_allclose(part * beta.sum(axis, keepdims=True), beta, rtol=1e-5, atol=1e-7)
        some = np.where(VALID.any(axis)[..., None], 1, 0) * np.ones(CLASSES)
        np.testing.assert_allclose(part.sum(axis), some, rtol=1e-6)
    np.testing.assert_allclose(beta.sum((1, 2)), 1, rtol=1e-6)
    assert not beta[~VALID].any()
    assert (beta[VALID] > 0).all() and (np.ptp(beta, axis=-1).max() > 0.01) == by_class


def test_uniform_time_shares_among_valid_units():
    module = make_time(uniform=True)
    beta, *_ = module(CELLS[:, :, 0], SOUND, MATCH, VALID)
    expected = VALID / VALID.sum((1, 2), keepdims=True)
    np.testing.assert_allclose(beta, np.broadcast_to(expected[..., None], beta.shape), rtol=1e-6)
