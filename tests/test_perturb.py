"""Removal scores are tested against whole forward passes and closed forms, and orders against single-clip loops."""

import itertools

import jax
import numpy as np
import pytest
import tiny
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax import attribution
from stattn_jax.attribution import ClipArrays, Map, perturb, removal
from stattn_jax.metrics import aopc, perturbation

T, S, SIDE = tiny.SEGMENTS, 4, tiny.SIZE
CLASS = 1
BATCH = tiny.make_batch(0, 4)
MEAN = np.random.default_rng(9).random((SIDE, SIDE, 3)).astype(np.float32)
ABSENT = np.random.default_rng(8).normal(-3, 1, (T, *tiny.MEL)).astype(np.float32)
# stan is a sum of terms; the segments of avel_paper interact; the other two lack a modality.
KINDS = ('stan', 'avel_paper', 'audio_only', 'visual_only')


def frozen(array):
    array = np.array(array)
    array.flags.writeable = False
    return array


def clip_of(number):
    """The clip of that number in the batch; clip 0 ends in padding."""
    frames, log_mel, valid = (BATCH[name][number] for name in ('frames', 'log_mel', 'valid'))
    return ClipArrays(frozen(frames.astype(np.float32) / 255), frozen(log_mel.astype(np.float32)), frozen(valid))


class Net:
    """A network of the kind, its scorer, and the outputs of the whole network, [b c]."""

    def __init__(self, kind, chunk=4, binary=False):
        model = tiny.make_model(kind=kind, frame=(SIDE, SIDE)) if kind != 'stan' else tiny.make_model()
        self.graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        self.state = {'params': nnx.as_pure(params), 'rest': nnx.as_pure(rest)}
        self.scorer = perturb.Scorer(self.classifier, self.state, binary=binary, mean_hw3=MEAN, chunk=chunk)
        self.forward = jax.jit(self._forward)

    def classifier(self, state):
        return attribution.of_model(nnx.merge(self.graphdef, state['params'], state['rest']), SIDE, SIDE)

    def _forward(self, frames, log_mel, valid, **masks):
        model = nnx.merge(self.graphdef, self.state['params'], self.state['rest'])
        return model(frames, log_mel, valid, train=False, **masks)


@pytest.fixture(scope='module')
def nets():
    return {kind: Net(kind) for kind in KINDS}


def masks(n, seed=0):
    """Masks of the units left of n clips: the first clip loses nothing, the second everything."""
    rng = np.random.default_rng(seed)
    cells, sounds = rng.random((n, T, S)) < 0.6, rng.random((n, T)) < 0.6
    cells[0], sounds[0], cells[1], sounds[1] = True, True, False, False
    return cells, sounds


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def check(found, logits):
    np.testing.assert_allclose(found[:, perturb.LOGIT], logits[:, CLASS], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[:, perturb.PROBABILITY], softmax(logits)[:, CLASS], rtol=1e-3, atol=1e-5)
    assert np.ptp(logits[:, CLASS]) > 1e-3


def repeated(clip, n):
    return [np.repeat(x[None], n, axis=0) for x in clip]


@pytest.mark.parametrize('kind', KINDS)
def test_feature_scores_are_those_of_the_masked_network(nets, kind):
    clip, (cells, sounds) = clip_of(1), masks(5)
    found = nets[kind].scorer.score(clip, CLASS)(cells, sounds)
    units = np.stack([cells.any(-1), sounds], axis=1)
    units[1] = True  # masks cannot ask a network about an empty clip
    logits, _ = nets[kind].forward(*repeated(clip, 5), cell_mask=cells, unit_mask=units)
    check(np.delete(found, 1, 0), np.delete(np.asarray(logits), 1, 0))
    assert np.isfinite(found).all() and found.shape == (5, 2) and found.dtype == np.float64


def test_a_sum_of_terms_without_any_unit_is_its_bias(nets):
    bias = np.asarray(nets['stan'].state['params']['bias'])
    empty = np.zeros((1, T, S), bool), np.zeros((1, T), bool)
    for number in (0, 1):
        ((probability, logit),) = nets['stan'].scorer.score(clip_of(number), CLASS)(*empty)
        assert logit == pytest.approx(bias[CLASS], abs=1e-6) and probability == pytest.approx(
            softmax(bias)[CLASS], abs=1e-6
        )


@pytest.mark.parametrize('setting', removal.PAIRS)
@pytest.mark.parametrize('kind', KINDS)
def test_input_scores_are_those_of_the_whole_network(nets, kind, setting):
    clip, (cells, sounds) = clip_of(1), masks(6)
    found = nets[kind].scorer.score(clip, CLASS, setting, ABSENT)(cells, sounds)
    without = [
        removal.without(clip, ABSENT, cells[i].reshape(T, 2, 2), sounds[i], setting[0], MEAN) for i in range(len(cells))
    ]
    logits, _ = nets[kind].forward(*(np.stack(x) for x in zip(*without)))
    check(found, np.asarray(logits))


@pytest.mark.parametrize('setting', removal.SETTINGS)
def test_padding_holds_nothing_to_remove(nets, setting):
    clip, (cells, sounds) = clip_of(0), masks(4)
    assert not clip.valid[-1]
    score = nets['stan'].scorer.score(clip, CLASS, setting, ABSENT)
    first = score(cells, sounds)
    cells[:, -1], sounds[:, -1] = ~cells[:, -1], ~sounds[:, -1]
    np.testing.assert_allclose(score(cells, sounds), first, atol=1e-6)


def test_chunks_and_clips_compile_once_and_change_nothing(nets):
    scorer, sevens, clip, (cells, sounds) = nets['stan'].scorer, Net('stan', chunk=7).scorer, clip_of(2), masks(11)
    for setting in removal.SETTINGS:
        whole = scorer.score(clip, CLASS, setting, ABSENT)(cells, sounds)
        other = sevens.score(clip, CLASS, setting, ABSENT)(cells, sounds)
        np.testing.assert_allclose(other, whole, rtol=1e-4, atol=1e-5)
        single = [scorer.score(clip, CLASS, setting, ABSENT)(cells[i : i + 1], sounds[i : i + 1])[0] for i in (0, 4)]
        np.testing.assert_allclose(single, whole[[0, 4]], rtol=1e-4, atol=1e-5)
        scorer.score(clip_of(3), 0, setting, ABSENT)(*masks(5))
    # Counts the compilations behind the trunks (masked ones) and for each removal setting.
    assert scorer._masked._cache_size() == scorer._joined._cache_size() == scorer._pictures._cache_size() == 1
    assert scorer._sources._cache_size() == len(removal.PAIRS)


def test_binary_probability_is_a_sigmoid():
    cells, sounds = masks(4)
    found = Net('stan', binary=True).scorer.score(clip_of(1), CLASS)(cells, sounds)
    np.testing.assert_allclose(found[:, 0], 1 / (1 + np.exp(-found[:, 1])), rtol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Orders
# ---------------------------------------------------------------------------------------------------------------------

VALID = frozen([True, True, False, True, True])


@pytest.fixture
def linear():
    """A map of five segments, one of them invalid, and the score [n 2] of the sum of what is left."""
    rng = np.random.default_rng(0)
    terms = Map(frozen(rng.normal(size=(5, 6))), frozen(rng.normal(size=5)))

    def score(cells, sounds):
        assert not cells[:, ~VALID].any() and not sounds[:, ~VALID].any()
        logit = 0.3 + (cells * terms.visual).sum((1, 2)) + (sounds * terms.audio).sum(1)
        return np.stack([np.tanh(logit), logit], axis=-1)

    return terms, score


def test_curves_follow_both_maps(linear):
    terms, score = linear
    (found,) = perturb.curves(score, VALID, [terms], (0, 0.25, 0.5, 1))
    cells = sorted(((t, s) for t in np.flatnonzero(VALID) for s in range(6)), key=lambda i: -terms.visual[i])
    sounds = sorted(np.flatnonzero(VALID), key=lambda t: -terms.audio[t])
    for k, (n_cells, n_sounds) in enumerate(((0, 0), (6, 1), (12, 2), (24, 4))):
        parts = [terms.visual[i] for i in cells], [terms.audio[t] for t in sounds]
        taken = sum(parts[0][:n_cells]) + sum(parts[1][:n_sounds])
        left = sum(parts[0][n_cells:]) + sum(parts[1][n_sounds:])
        assert found.deletion[k] == pytest.approx([np.tanh(0.3 + left), 0.3 + left], abs=1e-9)
        assert found.insertion[k] == pytest.approx([np.tanh(0.3 + taken), 0.3 + taken], abs=1e-9)
    assert found.fraction == pytest.approx([0, 0.25, 0.5, 1])


def test_curves_of_a_sum_are_symmetric_and_no_order_is_better(linear):
    terms, score = linear
    rng = np.random.default_rng(1)
    others = [Map(rng.normal(size=(5, 6)), rng.normal(size=5)) for _ in range(20)]
    best, *rest = perturb.curves(score, VALID, [terms, *others])
    both = best.deletion + best.insertion
    np.testing.assert_allclose(both[:, 1], both[0, 1], atol=1e-9)
    difference = best.summary()['difference'][1]
    assert difference > max(curve.summary()['difference'][1] for curve in rest) + 0.5


def test_shares_are_true_where_fractions_do_not_divide(linear):
    (found,) = perturb.curves(linear[1], VALID, [linear[0]], (0, 0.1, 0.3, 1))
    assert found.fraction == pytest.approx([0, (2 / 24 + 0) / 2, (7 / 24 + 1 / 4) / 2, 1])


def test_maps_scored_together_equal_those_scored_alone_and_ties_are_drawn(linear):
    terms, score = linear
    flat = Map(np.zeros((5, 6)), np.zeros(5))
    half = Map(terms.visual, np.zeros(5))
    sizes = []

    def counting(cells, sounds):
        sizes.append(len(cells))
        return score(cells, sounds)

    together = perturb.curves(counting, VALID, [flat, terms, half], draws=3, seed=5)
    assert sizes == [2 * 8 * (3 + 1 + 3)]
    for map_, found in zip((flat, terms, half), together):
        (alone,) = perturb.curves(score, VALID, [map_], draws=3, seed=5)
        np.testing.assert_array_equal(alone.deletion, found.deletion)
        np.testing.assert_array_equal(alone.insertion, found.insertion)
    (other,) = perturb.curves(score, VALID, [flat], draws=3, seed=6)
    assert np.abs(other.deletion - together[0].deletion).max() > 1e-3


def test_a_flat_map_is_the_random_order(linear):
    terms, score = linear
    (many,) = perturb.curves(score, VALID, [Map(np.zeros((5, 6)), np.zeros(5))], draws=2000)
    counts = [perturbation.counts(n, perturb.FRACTIONS) / n for n in (24, 4)]
    sums = terms.visual[VALID].sum(), terms.audio[VALID].sum()
    straight = 0.3 + sum(total * (1 - share) for total, share in zip(sums, counts))
    np.testing.assert_allclose(many.deletion[:, 1], straight, atol=0.2)


def test_surface_has_the_diagonal_of_the_curves_and_the_edges_of_each(linear):
    terms, score = linear
    found = perturb.surface(score, VALID, terms)
    (diagonal,) = perturb.curves(score, VALID, [terms], perturb.SURFACE_FRACTIONS)
    assert found.scores.shape == (5, 5, 2)
    np.testing.assert_allclose(np.einsum('iic->ic', found.scores), diagonal.deletion, atol=1e-12)
    assert found.scores[-1, 0, 1] == pytest.approx(0.3 + terms.audio[VALID].sum())
    assert found.scores[0, -1, 1] == pytest.approx(0.3 + terms.visual[VALID].sum())


def test_the_whole_and_the_empty_clip_end_every_curve(nets):
    """On a network, removing everything gives the clip whose content is all absent."""
    clip, net = clip_of(0), nets['stan']
    rng = np.random.default_rng(0)
    maps = [Map(rng.normal(size=(T, S)), rng.normal(size=T)) for _ in range(2)]
    gone = removal.without(clip, ABSENT, np.zeros((T, 2, 2), bool), np.zeros(T, bool), 'blur', MEAN)
    ends = [float(net.forward(*(x[None] for x in c))[0][0, CLASS]) for c in (clip, gone)]
    assert abs(ends[0] - ends[1]) > 0.01
    for found in perturb.curves(net.scorer.score(clip, CLASS, ('blur', 'mute'), ABSENT), clip.valid, maps):
        assert found.deletion[[0, -1], 1] == pytest.approx(ends, abs=1e-5)
        assert found.insertion[[-1, 0], 1] == pytest.approx(ends, abs=1e-5)


@pytest.mark.parametrize('number', [0, 1])
def test_segment_scores_of_a_sum_have_a_closed_form(nets, number):
    clip, net = clip_of(number), nets['stan']
    found = perturb.segment_scores(net.scorer.score(clip, CLASS), clip.valid, S)
    _, out = net.forward(*repeated(clip, 1))
    beta, scores = (np.asarray(out[name], float)[0, :, clip.valid, CLASS] for name in ('beta', 'segment_scores'))
    expected = aopc.pooled_scores(beta.sum(1), (beta * scores).sum(1), float(out['bias'][CLASS]))
    assert len(found) == 2 ** clip.valid.sum() and np.ptp(expected) > 1e-2
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_segment_scores_at_the_input_are_those_of_the_whole_network(nets, kind):
    clip, net = clip_of(1), nets[kind]
    found = perturb.segment_scores(net.scorer.score(clip, CLASS, ('blur', 'mute'), ABSENT), clip.valid, S)
    assert found.shape == (2**T,)
    for number, keep in enumerate(itertools.product((False, True), repeat=T)):
        keep = np.array(keep[::-1])  # subset i keeps the segments of i's bits
        cells = np.broadcast_to(keep[:, None, None], (T, 2, 2))
        left = removal.without(clip, ABSENT, cells, keep, 'blur', MEAN)
        logits, _ = net.forward(*(x[None] for x in left))
        assert found[number] == pytest.approx(float(logits[0, CLASS]), abs=2e-4)


def test_segment_aopc_knows_the_best_and_the_worst_order():
    terms = np.array([0.5, -1.0, 7.0, 2.0, 0.1])

    def score(cells, sounds):
        logit = (cells.all(-1) * sounds) @ np.where(VALID, terms, 99)
        return np.stack([np.zeros(len(logit)), logit], axis=-1)

    scores = perturb.segment_scores(score, VALID, 6)
    found, blind = perturb.segment_aopc(scores, VALID, np.stack([terms, -terms, np.zeros(5)]))
    assert found == pytest.approx([1, 0, 0.5]) and blind == pytest.approx(0.5)
    found, blind = perturb.segment_aopc(np.zeros(16), VALID, terms[None])
    assert np.isnan(found).all() and np.isnan(blind)
