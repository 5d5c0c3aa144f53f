"""What-if answers equal the network's own outputs.

The closed form and the kept features are compared with runs in which units and cells are masked.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from tiny import quick_compile  # noqa: F401

from stattn_jax.explain import counterfactuals
from stattn_jax.explain.explanation import ExplanationData, make_geometry
from stattn_jax.models import contributions

B, T, CLASSES = 3, tiny.SEGMENTS, tiny.CLASSES
VALID = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool)
COMPLETE = np.ones((B, 2), bool)
KINDS = [('float32', False), ('float32', True), ('bfloat16', False), ('bfloat16', True)]


class Network:
    """A tiny network with random parameters, compiled once with masks as arguments."""

    def __init__(self, dtype, **options):
        self.model = tiny.make_model(dtype=dtype, **options)
        graphdef, state = nnx.split(self.model)

        def forward(frames, log_mel, valid, unit_mask, cell_mask, modalities):
            masks = {'unit_mask': unit_mask, 'cell_mask': cell_mask, 'modalities': modalities}
            return nnx.merge(graphdef, state)(frames, log_mel, valid, train=False, **masks)

        self._forward = jax.jit(forward)
        self.counterfactuals = jax.jit(lambda *inputs: counterfactuals.compute(nnx.merge(graphdef, state), *inputs))
        self.cells = int(np.prod(self.model.grid(tiny.SIZE, tiny.SIZE)))

    def __call__(self, inputs, unit_mask=None, cell_mask=None, modalities=COMPLETE):
        unit_mask = np.ones((B, 2, T), bool) if unit_mask is None else unit_mask
        cell_mask = np.ones((B, T, self.cells), bool) if cell_mask is None else cell_mask
        return self._forward(*inputs, VALID, unit_mask, cell_mask, modalities)


@pytest.fixture(scope='module', params=KINDS, ids=str)
def network(request):
    dtype, _ = request.param
    network = Network(dtype)
    network.binary = request.param[1]
    return network


def random_inputs(seed):
    """Frames and log-mel of B clips, some loud enough for logits far from zero."""
    rng = np.random.default_rng(seed)
    frames = rng.random((B, T, tiny.SIZE, tiny.SIZE, 3)).astype(np.float32)
    return frames, (rng.normal(-2, 1 + seed, (B, T, *tiny.MEL))).astype(np.float32)


def records(network, logits, out, seed):
    mean = jnp.asarray(np.random.default_rng(seed).normal(size=(2, CLASSES)), jnp.float32)
    arrays = contributions.record(logits, out, mean, network.binary)
    geometry = make_geometry((T, 2, 2), 1.0, (1.0, 0.0, 1.0, 0.0), 16, 16)
    names = tuple('abc')
    for b in range(B):
        mine = {name: x if name in ('bias', 'mean_scores') else x[b] for name, x in arrays.items()}
        rest = {'media': {}, 'model': {}, 'log_mel': np.zeros((T, 1, 1)), 'frames': (b'',) * T}
        yield ExplanationData.from_arrays(
            mine, geometry=geometry, classes=names, multi_label=network.binary, valid=VALID[b], **rest
        )


def close(got, want):
    got, want = np.asarray(got, float), np.asarray(want, float)
    assert (np.abs(got - want) <= 1e-5 * np.maximum(1, np.abs(want))).all(), np.abs(got - want).max()


@pytest.mark.parametrize('seed', range(4))
def test_terms_add_up_and_removed_units_are_reruns(network, seed):
    inputs = random_inputs(seed)
    logits, out = network(inputs)
    rng = np.random.default_rng(seed)
    assert (np.asarray(out['null'])[VALID] > 1e-4).all() and np.isfinite(logits).all()
    explained = list(records(network, logits, out, seed))
    assert max(e.residual()[1] for e in explained) <= 1e-5
    for _ in range(5):
        keep = rng.random((B, 2, T)) < 0.5
        keep[:, rng.integers(2), 0] = True
        masked, _ = network(inputs, unit_mask=keep)
        for b, e in enumerate(explained):
            close([e.without_units(keep[b], label) for label in 'abc'], masked[b])
    for m in range(2):
        for t in range(T):
            keep = np.ones((B, 2, T), bool)
            keep[:, m, t] = False
            masked, _ = network(inputs, unit_mask=keep)
            for b, e in enumerate(explained):
                close([e.removed_units(label)[m, t] + logits[b, c] for c, label in enumerate('abc')], masked[b])


def answers(network, inputs, out, b, classes, order=None, modalities=COMPLETE):
    kept = {name: out[name][b] for name in ('keys', 'values', 'audio')}
    kept |= {'valid': VALID[b], 'modalities': modalities[b]}
    silence = np.full(tiny.MEL, -4.6, np.float32)
    return jax.device_get(
        network.counterfactuals(kept, np.array(classes), np.arange(T) if order is None else order, silence)
    )


@pytest.mark.parametrize('seed', range(2))
def test_removed_cells_are_reruns(network, seed):
    inputs = random_inputs(seed)
    logits, out = network(inputs)
    found = [answers(network, inputs, out, b, [2, 0])['removed'] for b in range(B)]
    assert found[0].shape == (2, T, network.cells) and np.abs(found[0]).max() > 1e-3
    for t in range(T):
        for s in range(network.cells):
            cell_mask = np.ones((B, T, network.cells), bool)
            cell_mask[:, t, s] = False
            masked, _ = network(inputs, cell_mask=cell_mask)
            for b in range(B):
                close(found[b][:, t, s] + np.asarray(logits)[b, [2, 0]], masked[b, jnp.array([2, 0])])
    for b in range(B):
        assert not found[b][:, ~VALID[b]].any()


def test_silence_and_moved_sound_are_reruns(network):
    frames, log_mel = random_inputs(1)
    logits, out = network((frames, log_mel))
    silent, silent_out = network((frames, np.full_like(log_mel, -4.6)))
    orders = [counterfactuals.moved(valid)[0] for valid in VALID]
    shifted, shifted_out = network((frames, np.stack([log_mel[b, order] for b, order in enumerate(orders)])))
    for b in range(B):
        got = answers(network, (frames, log_mel), out, b, [0], orders[b])
        # The audio trunk ran on other batches, so bfloat16 rounds differently.
        bound = 1e-5 if network.model.dtype == jnp.float32 else 0.05
        for i, (want, maps) in enumerate(((logits, out), (silent, silent_out), (shifted, shifted_out))):
            np.testing.assert_allclose(got['logits'][i], want[b], rtol=bound, atol=bound)
            np.testing.assert_allclose(got['alpha'][i], maps['alpha'][b].mean(axis=1), atol=bound)


def test_uniform_attention_has_the_same_counterfactuals():
    network = Network('float32', uniform_space=True, uniform_time=True)
    inputs = random_inputs(0)
    logits, out = network(inputs)
    got = answers(network, inputs, out, 0, [1])
    cell_mask = np.ones((B, T, network.cells), bool)
    cell_mask[:, 1, 2] = False
    close(got['removed'][0, 1, 2] + logits[0, 1], network(inputs, cell_mask=cell_mask)[0][0, 1])
    np.testing.assert_allclose(got['alpha'], 1 / (network.cells + 1), atol=1e-6)


def test_valid_segments_change_places_and_no_other():
    order, by = counterfactuals.moved(np.array([True, True, False, True, True, True]))
    assert by == 2 and order.tolist() == [4, 5, 2, 0, 1, 3]
    order, by = counterfactuals.moved(np.array([False, True, False]))
    assert by == 0 and order.tolist() == [0, 1, 2]


def test_trust_is_computed_from_the_counterfactual_answers():
    logits = np.array([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0], [0.0, 4.0, 1.0]])
    rng = np.random.default_rng(0)
    alpha = rng.random((3, 3, 4))
    valid = np.array([True, True, False])
    trust = counterfactuals.trust({'logits': logits, 'alpha': alpha}, tuple('abc'), False, valid, 1)
    silence, shifted = trust['silence'], trust['shifted_sound']
    assert (silence['label'], shifted['label'], shifted['by_segments']) == ('a', 'b', 1)
    assert silence['probability'] == pytest.approx(1 / (1 + np.e**3 + np.e))
    x, y = alpha[0, :2].ravel() - alpha[0, :2].mean(), alpha[1, :2].ravel() - alpha[1, :2].mean()
    assert silence['map_correlation'] == pytest.approx((x @ y) / np.sqrt((x @ x) * (y @ y)))
    several = counterfactuals.trust({'logits': logits, 'alpha': alpha}, tuple('abc'), True, valid, 1)
    assert several['shifted_sound']['probability'] == pytest.approx(1 / (1 + np.exp(-4)))


def test_constant_maps_have_no_correlation_but_with_themselves():
    flat, rising = np.ones((2, 3)), np.arange(6.0).reshape(2, 3)
    assert counterfactuals.correlation(flat, rising) is None and counterfactuals.correlation(flat, flat) == 1.0
    assert counterfactuals.correlation(rising, -rising) == pytest.approx(-1)


def test_clips_that_lack_a_modality_add_up_and_their_removals_are_reruns(network):
    """Clip 0 has no sound, and clip 1 has no picture; the frames and the log-mel that stand there change nothing."""
    modalities = COMPLETE.copy()
    modalities[0, 1] = modalities[1, 0] = False
    inputs, other = random_inputs(0), random_inputs(1)
    logits, out = network(inputs, modalities=modalities)
    replaced = inputs[0].copy(), inputs[1].copy()
    replaced[1][0], replaced[0][1] = other[1][0], other[0][1]
    np.testing.assert_array_equal(network(replaced, modalities=modalities)[0], logits)
    notes = [('no_sound',), ('no_picture',)] + [()] * (B - 2)
    explained = [
        dataclasses.replace(e, media={'notes': notes[b]}) for b, e in enumerate(records(network, logits, out, 0))
    ]
    assert max(e.residual()[1] for e in explained) <= 1e-5
    for b, m in ((0, 0), (1, 1)):
        e = explained[b]
        assert e.units.tolist() == [(VALID[b] & (i == m)).tolist() for i in range(2)]
        assert e.shares('a')[('sound', 'picture')[m]] == 0
        for t in range(T):
            keep = np.ones((B, 2, T), bool)
            keep[:, m, t] = False
            masked, _ = network(inputs, unit_mask=keep, modalities=modalities)
            close([e.removed_units(label)[m, t] + logits[b, c] for c, label in enumerate('abc')], masked[b])
        removed = answers(network, inputs, out, b, [2, 0], modalities=modalities)['removed']
        for t in range(T):
            cell_mask = np.ones((B, T, network.cells), bool)
            cell_mask[:, t, 0] = False
            masked, _ = network(inputs, cell_mask=cell_mask, modalities=modalities)
            close(removed[:, t, 0] + np.asarray(logits)[b, [2, 0]], masked[b, jnp.array([2, 0])])
