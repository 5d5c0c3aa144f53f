"""Tests that contributions, centred or not, add up to the logit exactly.

They are compared with logits and float64 loops, with heads, null weight and padded segments.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stattn_jax.models import contributions as explain
from stattn_jax.training import step

B, T, N, S, E, D, C = 3, 5, 2, 6, 4, 7, 4
VALID = np.arange(T) < np.array([5, 3, 4])[:, None]
UNITS = jnp.asarray(np.repeat(VALID[:, None], 2, axis=1))


def softmax(x, axes):
    x = np.exp(x - x.max(axis=axes, keepdims=True))
    return x / x.sum(axis=axes, keepdims=True)


def random_out(seed, scale=1.0):
    """Returns an `out` as the network makes it, and its logits, both computed in float64."""
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


def total(reference, visual, audio):
    """Returns the sum of a class's terms in float64, [b c]."""
    return np.asarray(reference, float) + np.asarray(visual, float).sum((2, 3)) + np.asarray(audio, float).sum(2)


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
    visual, audio = explain.all_contributions(out)
    np.testing.assert_allclose(visual, np.stack([v for v, _ in per_class], axis=1), atol=1e-6)
    np.testing.assert_allclose(audio, np.stack([a for _, a in per_class], axis=1), atol=1e-6)


@pytest.mark.parametrize('scale', [1.0, 30.0])
def test_terms_and_bias_add_up_to_the_logit(scale):
    out, logits = random_out(2, scale)
    bound = 1e-5 * np.maximum(1, np.abs(logits))
    for c in range(C):
        visual, audio = explain.contributions(float32(out), jnp.full(B, c))
        sums = out['bias'][c] + np.asarray(visual, float).sum(axis=(1, 2)) + np.asarray(audio, float).sum(axis=1)
        assert (np.abs(sums - logits[:, c]) <= bound[:, c]).all()


def test_padded_segments_contribute_nothing():
    out = float32(random_out(4)[0])
    visual, audio = explain.contributions(out, jnp.array([0, 1, 2]))
    assert not np.asarray(visual)[~VALID].any() and not np.asarray(audio)[~VALID].any()
    assert np.asarray(visual)[VALID].all() and np.asarray(audio)[VALID].all()


def test_centred_terms_add_up_and_match_the_formula():
    out, logits = random_out(5)
    mu = np.random.default_rng(6).normal(size=(2, C)) * 3
    reference, visual, audio = explain.centred(float32(out), jnp.asarray(mu, jnp.float32))
    assert (np.abs(total(reference, visual, audio) - logits) <= 1e-5 * np.maximum(1, np.abs(logits))).all()
    for b in range(B):
        for c in range(C):
            want_visual, want_audio = loop_terms(out, b, c)
            for t in range(T):
                share = sum(out['alpha'][b, t, n] for n in range(N)) / N
                np.testing.assert_allclose(
                    visual[b, c, t], want_visual[t] - out['beta'][b, 0, t, c] * share * mu[0, c], atol=3e-6
                )
            np.testing.assert_allclose(audio[b, c], want_audio - out['beta'][b, 1, :, c] * mu[1, c], atol=3e-6)


def test_centred_terms_of_one_class_are_those_of_all():
    out = float32(random_out(7)[0])
    mu, classes = jnp.asarray(np.random.default_rng(8).normal(size=(2, C)), jnp.float32), jnp.array([2, 0, 1])
    _, visual, audio = explain.centred(out, mu)
    own_visual, own_audio = explain.centred_contributions(out, classes, mu)
    for b, c in enumerate(classes):
        np.testing.assert_allclose(own_visual[b], visual[b, c], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(own_audio[b], audio[b, c], rtol=1e-5, atol=1e-6)


def test_a_constant_moved_from_the_scores_to_the_bias_changes_the_terms_but_not_the_centred_ones():
    """Adds k to the visual and audio scores and -k to the bias.

    Without null weight this is the same model, and only the centred terms stay the same.
    """
    out, _ = random_out(7)
    out['alpha'] = out['alpha'] / out['alpha'].sum(axis=-1, keepdims=True)
    visual = np.einsum('btns,btnse,cne->btc', out['alpha'], out['cell_values'], out['visual_head'])
    out['segment_scores'] = np.stack([visual, out['segment_scores'][:, 1]], axis=1)
    # An additional value and head column per head add k = 2 to every cell: N heads of 1 / N * k.
    ones = np.ones((B, T, N, S, 1))
    moved = out | {
        'cell_values': np.concatenate([out['cell_values'], ones], axis=-1),
        'visual_head': np.concatenate([out['visual_head'], np.full((C, N, 1), 2 / N)], axis=-1),
        'segment_scores': out['segment_scores'] + 2,
        'bias': out['bias'] - 2,
    }
    results = []
    for model in (float32(out), float32(moved)):
        mean = step.mean_scores(*step.score_sums(model, UNITS), None)
        results.append((explain.all_contributions(model), explain.centred(model, mean)))
    (plain, around_mean), (plain_moved, around_mean_moved) = results
    assert np.abs(plain[0] - plain_moved[0]).max() > 0.01
    for a, b in zip(around_mean, around_mean_moved, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_average_clip_has_zero_centred_evidence():
    """With equal weight on every valid segment, centred terms sum to zero over the data set.

    This is the purpose of the means over the training set.
    """
    out, _ = random_out(8)
    out['beta'] = np.where(VALID[:, None, :, None], np.ones((B, 2, T, C)), 0)
    mean = step.mean_scores(*step.score_sums(float32(out), UNITS), None)
    _, visual, audio = explain.centred(float32(out), mean)
    np.testing.assert_allclose(visual.sum(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(audio.sum(axis=(0, 2)), 0, atol=1e-5)


def test_the_record_of_a_batch_is_that_of_its_clips():
    out, logits = random_out(11)
    mu = jnp.asarray(np.random.default_rng(6).normal(size=(2, C)), jnp.float32)
    whole = explain.record(jnp.asarray(logits), float32(out), mu, False)
    np.testing.assert_allclose(whole['probabilities'], softmax(logits, 1), atol=1e-6)
    np.testing.assert_allclose(whole['alpha'], out['alpha'].mean(axis=2), atol=1e-6)
    for b in range(B):
        one = explain.record(jnp.asarray(logits[b : b + 1]), clip(float32(out), b), mu, True)
        np.testing.assert_allclose(one['probabilities'][0], 1 / (1 + np.exp(-logits[b])), atol=1e-6)
        for name in set(one) - {'probabilities', 'bias', 'mean_scores'}:
            np.testing.assert_allclose(one[name][0], whole[name][b], atol=1e-6, err_msg=name)


def test_compiles_with_the_same_terms():
    out = float32(random_out(9)[0])
    classes = jnp.array([1, 2, 3])
    for a, b in zip(explain.contributions(out, classes), jax.jit(explain.contributions)(out, classes), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
