"""Tests both forms of AVEL against a loop, and which of them is equivariant to a permutation of cells.

It also verifies that the LSTM skips missing units.
"""

import dataclasses

import numpy as np
import pytest
import tiny
import toys
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse
from toys import double, linear, relu, sigmoid, softmax

from stattn_jax.models.baselines.avel import BiLstm

EVIDENCE = toys.evidence()
CLASSES = np.array([0, 2, 1, 2])
FORMS = ('avel_paper', 'avel_code')


def lstm(cell, xs):
    """Returns the states [t e] after the steps xs [t d]; the gates are in flax's order: in, forget, cell, out."""
    c = h = np.zeros(cell.hidden_features)
    states = []
    for x in xs:
        i, f, g, o = np.split(linear(cell.dense_i, x) + linear(cell.dense_h, h), 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return states


def both_ways(module, x_td, there_t):
    result = np.zeros((len(x_td), 2 * module.ways[0].hidden_features))
    steps = np.flatnonzero(there_t)
    for part, cell, order in ((slice(None, len(result[0]) // 2), module.ways[0], steps),
                              (slice(len(result[0]) // 2, None), module.ways[1], steps[::-1])):  # fmt: skip
        for t, h in zip(order, lstm(cell, x_td[order])):
            result[t, part] = h
    return result


def attention(model, values_sd, audio_d, cells_s, form):
    query = linear(model.of_heard, relu(linear(model.heard, audio_d)))
    scores = np.full(len(values_sd), -np.inf)
    for i in np.flatnonzero(cells_s):
        hidden = linear(model.of_seen, relu(linear(model.seen, values_sd[i])))
        hidden = hidden + (query if form == 'avel_paper' else query[i])
        scores[i] = linear(model.score, np.tanh(hidden))[0]
    return softmax(scores) if cells_s.any() else np.zeros(len(scores))


@pytest.mark.parametrize('form', FORMS)
def test_avel_is_the_loop(form):
    model = toys.make(form)
    logits, out = toys.classify(model, EVIDENCE)
    where, when = toys.maps(model, out, CLASSES)
    values, audio = double(EVIDENCE.values), double(EVIDENCE.audio)
    cells, units = np.asarray(EVIDENCE.cells), np.asarray(EVIDENCE.units)
    for b in range(toys.B):
        weights = np.array([attention(model, values[b, t], audio[b, t], cells[b, t], form) for t in range(toys.T)])
        picture = np.einsum('ts,tsd->td', weights, values[b])
        heard, seen = both_ways(model.lstms[1], audio[b], units[b, 1]), both_ways(model.lstms[0], picture, units[b, 0])
        joint = relu(linear(model.joint, relu(np.concatenate([heard, seen], axis=1))))
        segments = linear(model.head, joint)
        there = units[b].any(0)
        np.testing.assert_allclose(logits[b], segments[there].max(0), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(where[b], weights, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(when[b][there], segments[there, CLASSES[b]], rtol=1e-3, atol=1e-5)
    assert np.ptp(where[3]) > 0.01


def moved(order):
    return dataclasses.replace(EVIDENCE, values=EVIDENCE.values[:, :, order], cells=EVIDENCE.cells[:, :, order])


@pytest.mark.parametrize('form', FORMS)
def test_the_papers_attention_follows_a_moved_cell_and_the_codes_does_not(form):
    model, order = toys.make(form), np.array([2, 0, 3, 1])
    weights = toys.classify(model, EVIDENCE)[1]['weights']
    beside = np.abs(toys.classify(model, moved(order))[1]['weights'] - weights[..., order])[3].max()
    assert beside < 1e-6 if form == 'avel_paper' else beside > 0.01


@pytest.mark.parametrize('form', FORMS)
def test_equal_cells_get_equal_weights_in_the_paper_alone(form):
    model = toys.make(form)
    equal = dataclasses.replace(EVIDENCE, values=EVIDENCE.values[:, :, :1] * np.ones((1, 1, toys.S, 1), np.float32))
    weights = toys.classify(model, equal)[1]['weights'][3]
    assert np.abs(weights - 1 / toys.S).max() < 1e-6 if form == 'avel_paper' else np.ptp(weights, axis=1).max() > 0.01


def test_the_codes_hidden_units_are_the_cells_of_its_frames():
    assert toys.make('avel_code').of_seen.kernel.shape == (toys.D, toys.S)
    assert toys.make('avel_paper').of_seen.kernel.shape == (toys.D, toys.HIDDEN)


def test_missing_steps_do_not_reach_the_memory():
    module = tiny.filled(lambda: BiLstm(toys.D, 5, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    x, there = rng.normal(size=(2, 6, toys.D)).astype(np.float32), np.ones((2, 6), bool)
    there[0, [2, 5]] = False
    found = np.asarray(module(x, there))
    shorter = np.asarray(module(x[:1, [0, 1, 3, 4]], np.ones((1, 4), bool)))
    np.testing.assert_allclose(found[0, [0, 1, 3, 4]], shorter[0], rtol=1e-5, atol=1e-6)
    assert not found[0, [2, 5]].any() and np.abs(found[1]).min() > 0
