"""Tests CAM, gated attention MIL and prototypes against loops, and how their maps relate to their logits."""

import numpy as np
import toys
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse
from toys import double, linear, relu, sigmoid, softmax

from stattn_jax.models.baselines import KINDS
from stattn_jax.models.baselines.intrinsic import PROTOTYPES

EVIDENCE = toys.evidence()
VALUES, AUDIO = double(EVIDENCE.values), double(EVIDENCE.audio)
CELLS, UNITS = np.asarray(EVIDENCE.cells), np.asarray(EVIDENCE.units)
CLASSES = np.array([0, 2, 1, 2])


def cam_cells(model, b):
    """Yields (t, s, joint vector) of every cell that the average counts."""
    for t, s in np.ndindex(toys.T, toys.S):
        if CELLS[b, t, s] or (UNITS[b, 1, t] and not UNITS[b, 0, t]):
            yield t, s, relu(linear(model.seen, VALUES[b, t, s]) + linear(model.heard, AUDIO[b, t]))


def test_cam_is_the_loop_and_its_map_sums_to_the_logit():
    model = toys.make('cam')
    logits, out = toys.classify(model, EVIDENCE)
    where, when = toys.maps(model, out, CLASSES)
    assert (UNITS[:, 1] & ~UNITS[:, 0]).any()
    for b in range(toys.B):
        joined = list(cam_cells(model, b))
        expected = linear(model.head, np.mean([x for *_, x in joined], axis=0))
        np.testing.assert_allclose(logits[b], expected, rtol=1e-4, atol=1e-5)
        terms = np.zeros((toys.T, toys.S))
        for t, s, x in joined:
            terms[t, s] = x @ double(model.head.kernel)[:, CLASSES[b]] / len(joined)
        np.testing.assert_allclose(where[b], terms, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(when[b], terms.sum(1), rtol=1e-4, atol=1e-6)
        total = double(model.head.bias)[CLASSES[b]] + when[b].sum()
        np.testing.assert_allclose(total, logits[b, CLASSES[b]], rtol=1e-4, atol=1e-5)


def test_mil_is_the_loop_over_a_bag_of_cells_and_sounds():
    model = toys.make('mil')
    logits, out = toys.classify(model, EVIDENCE)
    where, when = toys.maps(model, out, CLASSES)
    for b in range(toys.B):
        bag = [(VALUES[b, t, s], t, s) for t, s in zip(*np.nonzero(CELLS[b]))]
        bag += [(AUDIO[b, t], t, None) for t in np.flatnonzero(UNITS[b, 1])]
        scores = [
            (
                double(model.score.kernel)[:, 0] * np.tanh(linear(model.content, h)) * sigmoid(linear(model.gate, h))
            ).sum()
            for h, *_ in bag
        ]
        weights = softmax(np.array(scores))
        pooled = sum(w * h for w, (h, *_) in zip(weights, bag))
        np.testing.assert_allclose(logits[b], linear(model.head, pooled), rtol=1e-4, atol=1e-5)
        cells, seconds = np.zeros((toys.T, toys.S)), np.zeros(toys.T)
        for w, (_, t, s) in zip(weights, bag):
            seconds[t] += w
            if s is not None:
                cells[t, s] = w
        np.testing.assert_allclose(where[b], cells, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(when[b], seconds, rtol=1e-4, atol=1e-6)
        assert abs(when[b].sum() - 1) < 1e-6
    assert np.ptp(where[3]) > 1e-3


def matches(model, x, modality):
    """Returns log((d + 1) / (d + 1e-4)) for every prototype, where d is computed from the difference itself."""
    x = sigmoid(linear(model.unit[modality], relu(linear(model.narrow[modality], x))))
    d = ((x - double(model.prototypes)[modality]) ** 2).sum(-1)
    return np.log((d + 1) / (d + 1e-4))


def test_prototypes_are_the_loop_over_their_best_matches():
    model = toys.make('proto')
    logits, out = toys.classify(model, EVIDENCE)
    where, when = toys.maps(model, out, CLASSES)
    head = double(model.head)
    for b, c in enumerate(CLASSES):
        own = slice(c * PROTOTYPES, (c + 1) * PROTOTYPES)
        seen, heard = np.zeros((toys.T, toys.S, head.shape[1])), np.zeros((toys.T, head.shape[1]))
        for t, s in zip(*np.nonzero(CELLS[b])):
            seen[t, s] = matches(model, VALUES[b, t, s], 0)
        for t in np.flatnonzero(UNITS[b, 1]):
            heard[t] = matches(model, AUDIO[b, t], 1)
        expected = seen.max((0, 1)) @ head[0] + heard.max(0) @ head[1]
        np.testing.assert_allclose(logits[b], expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(where[b], seen[..., own] @ head[0, own, c], rtol=1e-3, atol=1e-4)
        curve = seen.max(1)[:, own] @ head[0, own, c] + heard[:, own] @ head[1, own, c]
        np.testing.assert_allclose(when[b], curve, rtol=1e-3, atol=1e-4)


def test_prototypes_begin_as_those_of_their_class():
    model = KINDS['proto'](toys.SIZES, rngs=nnx.Rngs(0))
    head = np.asarray(model.head[...]).reshape(2, toys.CLASSES, PROTOTYPES, toys.CLASSES)
    for c, other in np.ndindex(toys.CLASSES, toys.CLASSES):
        assert (head[:, c, :, other] == (1 if c == other else -0.5)).all()
    prototypes = np.asarray(model.prototypes[...])
    assert prototypes.min() >= 0 and prototypes.max() <= 1 and np.ptp(prototypes) > 0.9


def test_a_cell_that_is_a_prototype_matches_it_as_well_as_can_be():
    model = toys.make('proto')
    prototypes = np.array(model.prototypes[...])
    prototypes[0, 4] = sigmoid(linear(model.unit[0], relu(linear(model.narrow[0], VALUES[3, 1, 2]))))
    model.prototypes[...] = prototypes
    seen = np.asarray(model._match(EVIDENCE.values, 0))[3, ..., 4]
    assert np.unravel_index(seen.argmax(), seen.shape) == (1, 2)
    np.testing.assert_allclose(seen.max(), np.log(1 / 1e-4), rtol=1e-2)
