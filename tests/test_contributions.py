"""The sum is exact: against logits and float64 loops, with heads, null weight and padded segments; centred too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stattn_jax.explain import contributions as explain
from stattn_jax.models.stan import Stan

B, T, N, S, E, D, C = 3, 5, 2, 6, 4, 7, 4
VALID = np.arange(T) < np.array([5, 3, 4])[:, None]


def softmax(x, axes):
    x = np.exp(x - x.max(axis=axes, keepdims=True))
    return x / x.sum(axis=axes, keepdims=True)


def random_out(seed, scale=1.0):
    """An `out` as the network makes it, and its logits; everything computed in float64, handed over in float32."""
    rng = np.random.default_rng(seed)
    weights = softmax(rng.normal(size=(B, T, N, S + 1)) * 2, 3)
    beta = softmax(np.where(VALID[:, None, :, None], rng.normal(size=(B, 2, T, C)), -np.inf), (1, 2))
    out = {
        'alpha': weights[..., :-1],
        'null': weights[..., -1],
        'beta': beta,
        'cell_values': rng.normal(size=(B, T, N, S, E)) * scale,
        'audio': rng.normal(size=(B, T, D)) * scale,
        'visual_head': rng.normal(size=(C, N, E)),
        'audio_head': rng.normal(size=(C, D)),
        'bias': rng.normal(size=C),
    }
    visual = np.einsum('btns,btnse,cne->btc', out['alpha'], out['cell_values'], out['visual_head'])
    out['segment_scores'] = np.stack([visual, np.einsum('btd,cd->btc', out['audio'], out['audio_head'])], axis=1)
    logits = out['bias'] + (beta * out['segment_scores']).sum(axis=(1, 2))
    return out, logits


def float32(out):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), out)


def clip(out, b):
    shared = ('visual_head', 'audio_head', 'bias')
    return {k: x if k in shared else x[b : b + 1] for k, x in out.items()}


def loop_terms(out, b, c):
    visual, audio = np.zeros((T, S)), np.zeros(T)
    for t in range(T):
        for s in range(S):
            for n in range(N):
                value = sum(out['cell_values'][b, t, n, s, e] * out['visual_head'][c, n, e] for e in range(E))
                visual[t, s] += out['beta'][b, 0, t, c] * out['alpha'][b, t, n, s] * value
        audio[t] = out['beta'][b, 1, t, c] * sum(out['audio'][b, t, d] * out['audio_head'][c, d] for d in range(D))
    return visual, audio


def test_terms_match_a_float64_loop():
    out, _ = random_out(0)
    classes = jnp.array([2, 0, 3])
    visual, audio = explain.contributions(float32(out), classes)
    for b, c in enumerate([2, 0, 3]):
        want_visual, want_audio = loop_terms(out, b, c)
        np.testing.assert_allclose(visual[b], want_visual, atol=2e-6)
        np.testing.assert_allclose(audio[b], want_audio, atol=2e-6)


def test_every_class_of_one_clip_equals_one_class_of_every_clip():
    out = float32(random_out(1)[0])
    per_class = [explain.contributions(out, jnp.full(B, c)) for c in range(C)]
    for b in range(B):
        visual, audio = explain.all_contributions(clip(out, b))
        np.testing.assert_allclose(visual, np.stack([v[b] for v, _ in per_class]), atol=1e-6)
        np.testing.assert_allclose(audio, np.stack([a[b] for _, a in per_class]), atol=1e-6)


@pytest.mark.parametrize('scale', [1.0, 30.0])
def test_terms_and_bias_add_up_to_the_logit(scale):
    out, logits = random_out(2, scale)
    bound = 1e-5 * np.maximum(1, np.abs(logits))
    for c in range(C):
        visual, audio = explain.contributions(float32(out), jnp.full(B, c))
        total = out['bias'][c] + np.asarray(visual, float).sum(axis=(1, 2)) + np.asarray(audio, float).sum(axis=1)
        assert (np.abs(total - logits[:, c]) <= bound[:, c]).all()
    for b in range(B):
        found = explain.residual(float32(clip(out, b)), jnp.asarray(logits[b : b + 1], jnp.float32))
        assert found.shape == (C,) and (np.asarray(found) <= bound[b]).all()


def test_the_residual_sees_a_broken_sum():
    out, logits = random_out(3)
    broken = clip(out, 0) | {'alpha': clip(out, 0)['alpha'] * 1.01}
    want = np.abs(0.01 * (out['beta'][0, 0] * out['segment_scores'][0, 0]).sum(axis=0))
    found = explain.residual(float32(broken), jnp.asarray(logits[:1], jnp.float32))
    np.testing.assert_allclose(found, want, atol=1e-5)
    assert want.max() > 1e-4


def test_padded_segments_contribute_nothing():
    out = float32(random_out(4)[0])
    visual, audio = explain.contributions(out, jnp.array([0, 1, 2]))
    assert not np.asarray(visual)[~VALID].any() and not np.asarray(audio)[~VALID].any()
    assert np.asarray(visual)[VALID].all() and np.asarray(audio)[VALID].all()


def test_centred_terms_add_up_and_match_the_formula():
    out, logits = random_out(5)
    mu = np.random.default_rng(6).normal(size=(2, C)) * 3
    for b in range(B):
        one = clip(out, b)
        reference, visual, audio = explain.centred(float32(one), jnp.asarray(mu, jnp.float32))
        total = np.asarray(reference, float) + np.asarray(visual, float).sum((1, 2)) + np.asarray(audio, float).sum(1)
        assert (np.abs(total - logits[b]) <= 1e-5 * np.maximum(1, np.abs(logits[b]))).all()
        for c in range(C):
            want_visual, want_audio = loop_terms(out, b, c)
            for t in range(T):
                share = sum(out['alpha'][b, t, n] for n in range(N)) / N
                np.testing.assert_allclose(
                    visual[c, t], want_visual[t] - out['beta'][b, 0, t, c] * share * mu[0, c], atol=3e-6
                )
            np.testing.assert_allclose(audio[c], want_audio - out['beta'][b, 1, :, c] * mu[1, c], atol=3e-6)


def test_a_constant_moved_from_the_scores_to_the_bias_changes_the_terms_but_not_the_centred_ones():
    """Picture and sound scores +k, bias -k: without null weight the same model, and only the centred terms know it."""
    out, _ = random_out(7)
    out['alpha'] = out['alpha'] / out['alpha'].sum(axis=-1, keepdims=True)
    visual = np.einsum('btns,btnse,cne->btc', out['alpha'], out['cell_values'], out['visual_head'])
    out['segment_scores'] = np.stack([visual, out['segment_scores'][:, 1]], axis=1)
    # One more value and head column per head carry k = 2 to every cell: N heads of 1 / N * k.
    ones = np.ones((B, T, N, S, 1))
    moved = out | {
        'cell_values': np.concatenate([out['cell_values'], ones], axis=-1),
        'visual_head': np.concatenate([out['visual_head'], np.full((C, N, 1), 2 / N)], axis=-1),
        'segment_scores': out['segment_scores'] + 2,
        'bias': out['bias'] - 2,
    }
    results = []
    for model in (float32(out), float32(moved)):
        score, weight = explain.unit_scores(model, jnp.asarray(VALID))
        results.append((explain.all_contributions(clip(model, 0)), explain.centred(clip(model, 0), score / weight)))
    (plain, around_mean), (plain_moved, around_mean_moved) = results
    assert np.abs(plain[0] - plain_moved[0]).max() > 0.01
    for a, b in zip(around_mean, around_mean_moved, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_average_clip_has_zero_centred_evidence():
    """With equal weight on every valid segment, centred terms vanish over the set: what `unit_scores` defines."""
    out, _ = random_out(8)
    out['beta'] = np.where(VALID[:, None, :, None], np.ones((B, 2, T, C)), 0)
    score, weight = explain.unit_scores(float32(out), jnp.asarray(VALID))
    totals = [explain.centred(float32(clip(out, b)), score / weight)[1:] for b in range(B)]
    np.testing.assert_allclose(sum(v.sum(axis=(1, 2)) for v, _ in totals), 0, atol=1e-5)
    np.testing.assert_allclose(sum(a.sum(axis=1) for _, a in totals), 0, atol=1e-5)


def test_compiles_with_the_same_terms():
    out = float32(random_out(9)[0])
    classes = jnp.array([1, 2, 3])
    for a, b in zip(explain.contributions(out, classes), jax.jit(explain.contributions)(out, classes), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_network_adds_up_whatever_its_dtype(dtype):
    rng = np.random.default_rng(10)
    model = Stan(C, width=16, heads=2, dtype=dtype, rngs=nnx.Rngs(0))
    frames = jnp.asarray(rng.random((1, 3, 32, 32, 3)), jnp.float32)
    log_mel = jnp.asarray(rng.normal(size=(1, 3, 96, 64)), jnp.float32)
    valid = jnp.array([[True, True, False]])
    logits, out = jax.jit(lambda *clip: model(*clip, train=False))(frames, log_mel, valid)
    reference, visual, audio = explain.centred(out, jnp.asarray(rng.normal(size=(2, C)), jnp.float32))
    bound = 1e-5 * np.maximum(1, np.abs(logits[0]))
    assert (np.asarray(explain.residual(out, logits)) <= bound).all()
    total = np.asarray(reference, float) + np.asarray(visual, float).sum((1, 2)) + np.asarray(audio, float).sum(1)
    assert (np.abs(total - logits[0]) <= bound).all()
