"""Tests the representation learners, each against its formula in a loop over segments."""

import numpy as np
import pytest
import tiny
import toys
from tiny import quick_compile  # noqa: F401  autouse
from toys import double, linear, relu, sigmoid

from stattn_jax.models.baselines import compared

EVIDENCE = toys.evidence()


def concat(model, seen, heard):
    return relu(linear(model.joint, np.concatenate([seen, heard])))


def film(model, seen, heard):
    return linear(model.gamma, heard) * seen + linear(model.beta, heard)


def gmu(model, seen, heard):
    gate = sigmoid(linear(model.gate, np.concatenate([seen, heard])))
    return gate * np.tanh(linear(model.seen, seen)) + (1 - gate) * np.tanh(linear(model.heard, heard))


def lmf(model, seen, heard):
    """The bilinear form of both vectors with a 1 appended, whose tensor is a sum of rank-one tensors."""
    tensor = np.einsum('r,rij,rkj->ikj', double(model.ranks)[0], double(model.seen), double(model.heard))
    return np.append(seen, 1) @ np.einsum('ikj,k->ij', tensor, np.append(heard, 1)) + double(model.shift)


FORMULAS = {
    'audio_only': lambda model, seen, heard: heard,
    'visual_only': lambda model, seen, heard: seen,
    'concat': concat,
    'film': film,
    'gmu': gmu,
    'lmf': lmf,
}
COUNTED = {'audio_only': (1,), 'visual_only': (0,)}


def pictures():
    values, cells = double(EVIDENCE.values), np.asarray(EVIDENCE.cells)
    picture = np.zeros((toys.B, toys.T, toys.D))
    for b, t in zip(*np.nonzero(cells.any(2))):
        picture[b, t] = values[b, t, cells[b, t]].mean(0)
    return picture


@pytest.mark.parametrize('kind', FORMULAS)
def test_logits_are_the_mean_of_the_formula_over_segments(kind):
    model, picture, audio = toys.make(kind), pictures(), double(EVIDENCE.audio)
    counted = np.asarray(EVIDENCE.units)[:, COUNTED.get(kind, (0, 1))].any(1)
    logits, out = toys.classify(model, EVIDENCE)
    assert out == {} and model.maps(out, np.zeros(toys.B, int)) == (None, None)
    for b in range(toys.B):
        segments = [FORMULAS[kind](model, picture[b, t], audio[b, t]) for t in np.flatnonzero(counted[b])]
        pooled = np.mean(segments, axis=0) if segments else np.zeros(toys.D)
        np.testing.assert_allclose(logits[b], linear(model.head, pooled), rtol=1e-4, atol=1e-5)


def test_late_sum_adds_the_logits_of_each_modality():
    model, picture, audio, units = toys.make('late_sum'), pictures(), double(EVIDENCE.audio), np.asarray(EVIDENCE.units)
    for b, logits in enumerate(toys.classify(model, EVIDENCE)[0]):
        seen, heard = (x[b, kept].mean(0) if kept.any() else np.zeros(toys.D)
                       for x, kept in ((picture, units[b, 0]), (audio, units[b, 1])))  # fmt: skip
        expected = linear(model.visual_head, seen) + linear(model.audio_head, heard)
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('kind', 'bound'),
    [('late_sum', True), ('audio_only', True), ('concat', False), ('film', False), ('gmu', False), ('lmf', False)],
)
def test_only_fusion_of_segments_hears_which_sound_goes_with_which_picture(kind, bound):
    whole = toys.evidence()
    moved = compared.Evidence(whole.values, np.roll(whole.audio, 1, axis=1), whole.cells, whole.units)
    model = toys.make(kind)
    # Nothing is missing from the last clip.
    difference = np.abs(toys.classify(model, moved)[0] - toys.classify(model, whole)[0])[3].max()
    assert (difference < 1e-5) == bound, difference


@pytest.mark.parametrize('kind', ['audio_only', 'visual_only'])
def test_the_modality_that_is_not_read_has_no_parameters(kind):
    model = tiny.make_model(kind=kind, frame=(16, 16))
    absent = ('visual', 'value') if kind == 'audio_only' else ('audio', 'audio_out')
    assert all(getattr(model, name) is None for name in absent) and model.grid(17, 24) == (3, 3)
