"""Tests which outputs each module of STAN affects, and shuffled attention against all possible orders."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.attribution import ClipArrays
from stattn_jax.study import attention_checks


class FixedAttention(nnx.Module):
    """A model that returns the same attention for every clip, with two heads of width 1 and one class."""

    def __init__(self, alpha_tns, evidence_tns, beta_mt, sound_t):
        self.arrays = nnx.Param(jnp.zeros(()))
        self.alpha, self.evidence, self.beta, self.sound = (
            nnx.Variable(jnp.asarray(x)) for x in (alpha_tns, evidence_tns, beta_mt, sound_t)
        )

    def __call__(self, frames, log_mel, valid, *, train):
        scores_mt = jnp.stack([(self.alpha[...] * self.evidence[...]).sum((1, 2)), self.sound[...]])
        out = {
            'alpha': self.alpha[...],
            'cell_values': jnp.swapaxes(self.evidence[...], 1, 2)[..., None].swapaxes(1, 2),
            'beta': self.beta[..., None],
            'segment_scores': scores_mt[..., None],
        }
        out = {name: jnp.broadcast_to(x, (len(frames), *x.shape)) for name, x in out.items()}
        return jnp.zeros((len(frames), 1)), out | {'visual_head': jnp.ones((1, self.alpha.shape[1], 1))}


def split(model):
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    return graphdef, {'params': nnx.as_pure(params), 'rest': nnx.as_pure(rest)}


def clips(valid):
    return ClipArrays(
        np.zeros((1, len(valid), 2, 2, 3), np.float32), np.zeros((1, len(valid), 1, 1), np.float32), np.array([valid])
    )


def ask(*arrays, valid=(True,), **options):
    found = attention_checks.permuted(*split(FixedAttention(*arrays)), clips(list(valid)), np.zeros(1, int), **options)
    return {name: float(x[0]) for name, x in found.items()}


def test_shuffled_attention_changes_the_logit_as_all_orders_do():
    rng = np.random.default_rng(0)
    alpha, evidence = rng.dirichlet(np.ones(4), (2, 1))[..., :3], rng.normal(size=(2, 1, 3))
    beta, sound = rng.dirichlet(np.ones(4)).reshape(2, 2), rng.normal(size=2)
    found = ask(alpha, evidence, beta, sound, valid=(True, True), draws=20000)
    orders = list(itertools.permutations(range(3)))
    change = [
        sum(beta[0, t] * (alpha[t, 0, list(order)] - alpha[t, 0]) @ evidence[t, 0] for t, order in enumerate(pair))
        for pair in itertools.product(orders, repeat=2)
    ]
    assert found['space'] == pytest.approx(np.mean(np.abs(change)), rel=0.03)
    room = sum(beta[0, t] * alpha[t, 0].sum() * np.ptp(evidence[t, 0]) for t in range(2))
    assert found['space_share'] == pytest.approx(found['space'] / room, rel=1e-5)
    scores = np.concatenate([(alpha * evidence).sum((1, 2)), sound])
    change = [(beta.ravel()[list(order)] - beta.ravel()) @ scores for order in itertools.permutations(range(4))]
    assert found['time'] == pytest.approx(np.mean(np.abs(change)), rel=0.03)
    assert found['time_share'] == pytest.approx(found['time'] / np.ptp(scores), rel=1e-5)


def test_uniform_attention_moves_nothing_and_one_that_has_no_choice_is_not_measured():
    alpha, evidence = np.full((1, 2, 4), 0.2), np.arange(8.0).reshape(1, 2, 4)
    found = ask(alpha, evidence, np.full((2, 1), 0.5), np.array([1.0]))
    assert found['space'] == found['space_share'] == 0 and found['time'] == found['time_share'] == 0
    found = ask(alpha, evidence * 0 + 1, np.array([[0.3], [0.7]]), np.array([1.6]))
    assert found['space'] == 0 and np.isnan(found['space_share']) and np.isnan(found['time_share'])
    # Weights .9 and .1 on scores 0 and 5 stay in place, or move the logit by 4; padding is excluded.
    evidence = np.zeros((2, 2, 4))
    beta, sound = np.array([[0.9, 0.0], [0.1, 0.0]]), np.array([5.0, 99.0])
    found = ask(np.full((2, 2, 4), 0.2), evidence, beta, sound, valid=(True, False), draws=4000)
    assert found['time'] == pytest.approx(2, rel=0.05) and found['time_share'] == pytest.approx(0.4, rel=0.05)


@pytest.fixture(scope='module')
def stan():
    batch = tiny.make_batch(0, 5)
    graphdef, state = split(tiny.make_model())
    data = ClipArrays(batch['frames'].astype(np.float32) / 255, batch['log_mel'].astype(np.float32), batch['valid'])
    return graphdef, state, data, np.array([0, 1, 2, 1, 0])


def test_each_module_changes_the_part_it_feeds_and_no_part_above(stan):
    graphdef, state, data, classes = stan

    def fresh(seed):
        return jax.tree.map(lambda x: np.random.default_rng(seed).permutation(np.ravel(x)).reshape(x.shape), state)

    found = attention_checks.modular(graphdef, state, data, classes, fresh=fresh, seeds=4, batch=2)
    kept = {'space': (), 'time': ('alpha',), 'heads': ('alpha', 'beta'), 'sound': ()}
    fed = {
        'space': ('alpha', 'visual'),
        'time': ('beta', 'visual'),
        'heads': ('visual', 'audio'),
        'sound': ('alpha', 'beta', 'visual', 'audio'),
    }
    assert set(found) == set(kept)
    for module, numbers in found.items():
        assert set(numbers) == {'alpha', 'beta', 'visual', 'audio'}
        for name, x in numbers.items():
            assert x.shape == (5,) and np.isfinite(x).all()
            # The ranks of three seconds of audio can survive small changes; the parts that a module feeds directly do
            # not.
            assert name not in kept[module] or (x == 1).all(), (module, name)
            assert name not in fed[module] or (x < 1).sum() > 2, (module, name, x)
    whole = attention_checks.modular(graphdef, state, data, classes, fresh=fresh, seeds=4, batch=5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, whole)


def test_shuffles_of_a_stan_do_not_depend_on_the_batch(stan):
    found, whole = (attention_checks.permuted(*stan, batch=batch) for batch in (2, 5))
    for name, x in found.items():
        assert x.shape == (5,) and (x > 0).all() and (not name.endswith('share') or (x < 1).all())
        np.testing.assert_allclose(x, whole[name], rtol=1e-3)
