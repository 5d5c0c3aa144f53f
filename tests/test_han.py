"""Tests HAN and its MMIL pooling against a loop that contains only the remaining units."""

import numpy as np
import toys
from tiny import quick_compile  # noqa: F401  autouse
from toys import double, linear, relu, sigmoid, softmax

EVIDENCE = toys.evidence()
CLASSES = np.array([0, 2, 1, 2])


def hybrid(module, x, y):
    """Updates x [t d] with its own keys and those of y, either of which may be empty."""
    added = sum(toys.attend(layer, x, keys) for layer, keys in ((module.cross, y), (module.own, x)) if len(keys))
    x = toys.layer_norm(module.norms[0], x + added)
    return toys.layer_norm(module.norms[1], x + linear(module.narrow, relu(linear(module.wide, x))))


def terms(model, b):
    """Returns each unit's share of p, [m t c]."""
    cells, units = np.asarray(EVIDENCE.cells)[b], np.asarray(EVIDENCE.units)[b]
    picture = np.zeros((toys.T, toys.D))
    for t in np.flatnonzero(cells.any(1)):
        picture[t] = double(EVIDENCE.values)[b, t, cells[t]].mean(0)
    left = [x[kept] for x, kept in ((picture, units[0]), (double(EVIDENCE.audio)[b], units[1]))]
    x = np.zeros((2, toys.T, toys.D))
    for m in range(2):
        if units[m].any():
            x[m, units[m]] = hybrid(model.hybrid, left[m], left[1 - m])
    shares = np.zeros((2, toys.T, toys.CLASSES))
    time, modality = linear(model.time, x), linear(model.modality, x)
    for (m, t), c in zip(np.argwhere(units).repeat(toys.CLASSES, axis=0), np.tile(range(toys.CLASSES), units.sum())):
        over_time = softmax(np.where(units[m], time[m, :, c], -np.inf))[t]
        over_modalities = softmax(np.where(units[:, t], modality[:, t, c], -np.inf))[m]
        shares[m, t, c] = over_time * over_modalities * sigmoid(linear(model.score, x[m, t])[c])
    return shares


def test_han_is_the_loop_and_a_sigmoid_gives_its_probability_back():
    model = toys.make('han')
    logits, out = toys.classify(model, EVIDENCE)
    where, when = toys.maps(model, out, CLASSES)
    assert where is None
    for b in range(toys.B):
        shares = terms(model, b)
        expected = np.minimum(shares.sum((0, 1)), 1 - 1e-6)
        np.testing.assert_allclose(sigmoid(logits[b]), expected, rtol=1e-4, atol=1e-6)
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(when[b], shares.sum(0)[:, CLASSES[b]], rtol=1e-4, atol=1e-6)


def test_both_modalities_go_through_the_same_layer():
    model = toys.make('han')
    swapped = type(EVIDENCE)(EVIDENCE.audio[:, :, None], EVIDENCE.values[:, :, 0], EVIDENCE.units[:, 1, :, None],
                             EVIDENCE.units[:, ::-1])  # fmt: skip
    one_cell = type(EVIDENCE)(EVIDENCE.values[:, :, :1], EVIDENCE.audio, EVIDENCE.units[:, 0, :, None], EVIDENCE.units)
    np.testing.assert_allclose(
        toys.classify(model, swapped)[0], toys.classify(model, one_cell)[0], rtol=1e-4, atol=1e-5
    )


def test_probabilities_above_one_are_clamped():
    model = toys.make('han')
    model.score.bias[...] = np.full(toys.CLASSES, 50.0, np.float32)
    model.time.kernel[...] = 30 * np.asarray(model.time.kernel[...])
    model.modality.kernel[...] = 30 * np.asarray(model.modality.kernel[...])
    logits, out = toys.classify(model, EVIDENCE)
    assert out['unit_scores'].sum((1, 2)).max() > 1 and np.isfinite(logits).all()
    np.testing.assert_allclose(logits.max(), np.log(1e6), rtol=0.01)
