"""Tests every part of the loss against a NumPy loop, for one label per clip and for several."""

import jax
import numpy as np
import pytest
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.training import losses

B, T, S, HEADS, WIDTH, C = 4, 3, 5, 2, 4, 3
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(B, C)) * 2
ONE = np.eye(C)[[0, 2, 1, 2]]
SEVERAL = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]], float)
VALID = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]], bool)
HEARD = RNG.random((B, T, C)) * VALID[..., None]
HEARD /= HEARD.sum(1, keepdims=True)
EVIDENCE = RNG.normal(size=(B, T, S, C)) * 3

classification = jax.jit(losses.classification, static_argnames=('multi_label', 'smoothing'))
pooled = jax.jit(losses.frame_mil, static_argnames=('multi_label', 'sharpness'))


def log_softmax(x):
    return x - np.log(np.exp(x).sum())


def softplus(x):
    return np.log1p(np.exp(x))


def single(*arrays):
    return [np.asarray(x, np.float32) for x in arrays]


@pytest.mark.parametrize('smoothing', [0.0, 0.2])
def test_classification_of_one_label_is_cross_entropy(smoothing):
    loss = classification(*single(LOGITS, ONE), multi_label=False, smoothing=smoothing)
    expected = []
    for logits, labels in zip(LOGITS, ONE):
        targets = np.full(C, smoothing / C)
        targets[labels.argmax()] += 1 - smoothing
        expected.append(-sum(targets * log_softmax(logits)))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize('smoothing', [0.0, 0.2])
def test_classification_of_several_labels_is_a_sum_of_binary_ones(smoothing):
    loss = classification(*single(LOGITS, SEVERAL), multi_label=True, smoothing=smoothing)
    expected = np.zeros(B)
    for b, c in np.ndindex(B, C):
        target = smoothing / 2 + (1 - smoothing) * SEVERAL[b, c]
        probability = 1 / (1 + np.exp(-LOGITS[b, c]))
        expected[b] -= target * np.log(probability) + (1 - target) * np.log(1 - probability)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_the_paths_and_the_bias_make_the_logit():
    beta, scores = RNG.random((2, B, 2, T, C))
    out = dict(zip(('beta', 'segment_scores'), single(beta, scores)))
    for m in range(2):
        expected = [[sum(beta[b, m, t, c] * scores[b, m, t, c] for t in range(T)) for c in range(C)] for b in range(B)]
        np.testing.assert_allclose(losses.modality_logits(out, m), expected, rtol=1e-5)


def test_undecided_is_the_divergence_of_the_uniform_law():
    expected = [sum(np.log(1 / C / np.exp(log_softmax(logits))) / C) for logits in LOGITS]
    np.testing.assert_allclose(jax.jit(losses.kl_to_uniform)(*single(LOGITS)), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(losses.kl_to_uniform)(np.full((1, C), 7, np.float32)), 0, atol=1e-6)


def test_cell_evidence_sums_over_heads():
    values, head = RNG.normal(size=(B, T, HEADS, S, WIDTH)), RNG.normal(size=(C, HEADS, WIDTH))
    expected = np.zeros((B, T, S, C))
    for b, t, s, c, n in np.ndindex(B, T, S, C, HEADS):
        expected[b, t, s, c] += values[b, t, n, s] @ head[c, n]
    evidence = losses.cell_evidence(dict(zip(('cell_values', 'visual_head'), single(values, head))))
    np.testing.assert_allclose(evidence, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('multi_label', [False, True])
def test_heard_is_the_probability_from_each_segments_sound_shared_out_over_time_and_no_way_for_gradients(multi_label):
    scores, bias = RNG.normal(size=(B, 2, T, C)).astype(np.float32), np.array([0.5, -1.0, 0.0], np.float32)
    logits = scores[:, 1] + bias
    probability = 1 / (1 + np.exp(-logits)) if multi_label else np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = (probability + 1e-3) ** 4 * VALID[..., None]

    def heard(scores):
        return losses.audio_saliency({'segment_scores': scores, 'bias': bias}, VALID, multi_label=multi_label)

    np.testing.assert_allclose(jax.jit(heard)(scores), expected / expected.sum(1, keepdims=True), rtol=1e-4)
    np.testing.assert_array_equal(jax.jit(jax.grad(lambda scores: (heard(scores)[..., 0] ** 2).sum()))(scores), 0)


def test_attention_learns_the_share_of_each_cell_in_the_label_of_its_frame():
    alpha = RNG.random((B, T, HEADS, S + 1))
    alpha = (alpha / alpha.sum(-1, keepdims=True))[..., :S]
    shares, expected = SEVERAL / np.maximum(SEVERAL.sum(1, keepdims=True), 1), np.zeros(B)
    for b, t, n, c in np.ndindex(B, T, HEADS, C):
        teacher = np.exp(2 * EVIDENCE[b, t, :, c])
        among = np.log(alpha[b, t, n] / alpha[b, t, n].sum())
        expected[b] -= shares[b, c] * HEARD[b, t, c] * teacher @ among / teacher.sum() / HEADS
    arrays = single(alpha, EVIDENCE, HEARD, SEVERAL)
    loss = jax.jit(losses.attention, static_argnames='sharpness')(*arrays, sharpness=2.0)
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-6)
    gradient = jax.grad(lambda evidence: losses.attention(arrays[0], evidence, *arrays[2:], sharpness=2.0).sum())
    np.testing.assert_array_equal(gradient(arrays[1]), 0)


@pytest.mark.parametrize('multi_label', [False, True])
def test_frame_probabilities_are_the_weighted_sum_over_segments(multi_label):
    frames, heard, expected = frame_logits(2.0), HEARD[..., 0], np.zeros((B, C))
    for b, t in np.ndindex(B, T):
        odds = np.exp(frames[b, t])
        expected[b] += heard[b, t] * (odds / (1 + odds) if multi_label else odds / odds.sum())
    found = losses.frame_probabilities(*single(EVIDENCE, heard), multi_label=multi_label, sharpness=2.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def frame_logits(sharpness):
    """Returns the logits of the frames [b t c], computed by a loop."""
    frames = np.zeros((B, T, C))
    for b, t, c in np.ndindex(B, T, C):
        frames[b, t, c] = np.log(np.mean([np.exp(sharpness * x) for x in EVIDENCE[b, t, :, c]])) / sharpness
    return frames


def cells(labels, multi_label, sharpness):
    arrays = single(EVIDENCE, HEARD, labels)
    return pooled(*arrays, VALID, multi_label=multi_label, sharpness=sharpness)


@pytest.mark.parametrize('sharpness', [1.0, 4.0])
def test_cells_of_one_label_classify_the_frames_where_it_is_heard(sharpness):
    frames, expected = frame_logits(sharpness), np.zeros(B)
    for b, t in np.ndindex(B, T):
        label = ONE[b].argmax()
        expected[b] -= HEARD[b, t, label] * log_softmax(frames[b, t])[label]
    np.testing.assert_allclose(cells(ONE, False, sharpness), expected, rtol=1e-4)


def test_cells_of_mixed_labels_weigh_them_by_their_shares():
    mixed = np.array([[0.75, 0.25, 0.0]] * B)
    parts = [np.asarray(cells(np.eye(C)[[label] * B], False, 1.0)) for label in range(2)]
    np.testing.assert_allclose(cells(mixed, False, 1.0), 0.75 * parts[0] + 0.25 * parts[1], rtol=1e-5)


@pytest.mark.parametrize('sharpness', [1.0, 4.0])
def test_cells_of_several_labels_also_deny_the_absent_ones_at_all_valid_segments(sharpness):
    frames, expected = frame_logits(sharpness), np.zeros(B)
    for b, t, c in np.ndindex(B, T, C):
        if SEVERAL[b, c]:
            expected[b] += HEARD[b, t, c] * softplus(-frames[b, t, c])
        elif VALID[b, t]:
            expected[b] += softplus(frames[b, t, c]) / VALID[b].sum()
    np.testing.assert_allclose(cells(SEVERAL, True, sharpness), expected, rtol=1e-4)


def test_sharp_pooling_of_cells_is_their_maximum():
    loss = np.asarray(cells(ONE, False, 50.0))
    best = EVIDENCE.max(2)
    expected = [
        -sum(HEARD[b, t, i] * log_softmax(best[b, t])[i] for t in range(T)) for b, i in enumerate(ONE.argmax(1))
    ]
    np.testing.assert_allclose(loss, expected, atol=0.1)


def test_match_is_minus_log_of_the_probability_of_a_visible_source():
    odds, heard = RNG.normal(size=(B, T)), HEARD[..., 0]
    for matched in (True, False):
        expected = np.zeros(B)
        for b, t in np.ndindex(B, T):
            visible = 1 / (1 + np.exp(-odds[b, t]))
            expected[b] -= heard[b, t] * np.log(visible if matched else 1 - visible)
        np.testing.assert_allclose(losses.correspondence(*single(odds, heard), matched), expected, rtol=1e-5)


@pytest.mark.parametrize('shift', [1, 3])
def test_other_clips_are_those_of_all_devices(shift):
    batch = {'x': np.arange(16.0, dtype=np.float32).reshape(16, 1) ** 2, 'label': np.arange(16)}
    split = jax.tree.map(lambda x: x.reshape(8, 2, *x.shape[1:]), batch)

    def weighted(x, other):
        return (x * other**2).sum()

    def step(arrays):
        other = losses.other_clips(arrays, shift, 'data')
        gradient = jax.grad(lambda x: weighted(x, losses.other_clips(x, shift, 'data')))(arrays['x'])
        return other, gradient

    other, gradient = jax.tree.map(
        lambda x: np.asarray(x).reshape(16, *x.shape[2:]), jax.pmap(step, axis_name='data')(split)
    )
    for name, x in losses.other_clips(batch, shift, None).items():
        np.testing.assert_array_equal(x, np.roll(batch[name], shift, axis=0))
        np.testing.assert_array_equal(other[name], x)
    expected = jax.grad(lambda x: weighted(x, losses.other_clips(x, shift, None)))(batch['x'])
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)
