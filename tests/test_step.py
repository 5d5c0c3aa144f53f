"""Tests the train step under jit on 8 devices, pmap on 8 and jit on 1.

Its randomness is tested, and its other parts are compared with NumPy.
"""

import dataclasses
import functools
import os
import pathlib
import subprocess
import sys

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from configs import common
from stattn_jax import models, run
from stattn_jax.data import media
from stattn_jax.runtime import parallel
from stattn_jax.training import losses, step
from stattn_jax.training.augment import Augment
from stattn_jax.training.step import Drop, Loss

STEPS, CLIPS = 10, 16
DEVICES = {'jit8': ('jit', 8), 'pmap8': ('pmap', 8), 'jit1': ('jit', 1)}
AUGMENT = Augment(crop=0.5, flip=0.5, colour=0.3, mel_bands=2, mel_frames=4, mel_shift=2, mixup=0.5)
AUGMENT = dataclasses.replace(AUGMENT, mel_gain=0.2, mel_background=0.3)
DROP = Drop(cell=0.3, segment=0.3, modality=0.5)
LACKING = np.ones((CLIPS, 2), bool)
LACKING[[3, 4, 9], [1, 0, 1]] = False
RANDOM = {'augment': AUGMENT, 'drop': DROP}
FACTS = run.DataFacts(('a', 'b', 'c'), False, media.ClipSpec(), '')
MASKS = {'cell_mask': ('cell',), 'unit_mask': ('segment', 'modality')}
NO_LOSS = {
    'audio': 0.0,
    'visual': 0.0,
    'frame_mil': 0.0,
    'correspondence': 0.0,
    'mismatched_uniform': 0.0,
    'attention': 0.0,
    'mismatched_mil': 0.0,
}


def make_config(multi_label=False):
    """Uses AdamW for single-label clips and SGD for multi-label ones, so that both optimisers are compared.

    AdamW magnifies rounding where gradients vanish.
    """
    config = common.tiny(common.get_config())
    config.model.update({'width': 16, 'heads': 2, 'hidden': 8, 'frame_size': tiny.SIZE})
    config.optim.update(
        {'name': 'sgd' if multi_label else 'adamw', 'lr': 0.1 if multi_label else 2e-3, 'warmup_steps': 2}
    )
    config.loss.update({'negatives': 1, 'attention': 0.05, 'mismatched_mil': 0.05})
    config.train.steps = STEPS
    # With seed 0, rounding moves a value across a ReLU in the eighth step (jax 0.10.2), and devices differ a little.
    config.seed = 2
    return config


def make_step(strategy, *, multi_label=False, augment=Augment(), drop=Drop(), accumulate=1, **loss):  # noqa: B008
    """The step of a tiny run as train.py makes it, and its first state."""
    config = make_config(multi_label)
    graphdef, state, optimiser, _ = run.make_state(config, FACTS, strategy.axis)

    def pure_step(state, batch):
        return step.train_step(
            graphdef,
            state,
            batch,
            optimiser=optimiser,
            loss=Loss(**config.loss.to_dict() | {'multi_label': multi_label} | loss),
            augment=augment,
            drop=drop,
            frame_size=tiny.SIZE,
            accumulate=accumulate,
            axis=strategy.axis,
        )

    return pure_step, state


@functools.cache
def trained(name, multi_label):
    """Metrics of ten steps as {name: [step]}, and the state before and after on the host.

    With several labels, everything random is on, and in the last steps some clips lack a modality.
    """
    kind, count = DEVICES[name]
    strategy = parallel.make_strategy(kind, jax.devices()[:count])
    pure_step, first = make_step(strategy, multi_label=multi_label, **(RANDOM if multi_label else {}))
    compiled, state, metrics = strategy.compile(pure_step), strategy.place_state(first), []
    for number in range(STEPS):
        batch = tiny.make_batch(number, CLIPS, multi_label)
        if multi_label:
            batch['modalities'] = LACKING if number >= STEPS - 3 else np.ones_like(LACKING)
        state, scalars = compiled(state, strategy.place_batch(batch))
        metrics.append(jax.device_get(scalars))
    return (
        {key: np.array([m[key] for m in metrics]) for key in metrics[0]},
        jax.device_get(first),
        jax.device_get(state),
    )


@pytest.mark.parametrize(
    ('name', 'multi_label'),
    [
        ('jit8', False),
        ('pmap8', False),
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in ('jit8', 'pmap8')),
    ],
)
def test_eight_devices_train_as_one_does(name, multi_label):
    expected, first, one = trained('jit1', multi_label)
    metrics, _, many = trained(name, multi_label)
    assert metrics.keys() == expected.keys()
    for key, values in expected.items():
        # `swap` is a difference of logarithms near log(classes), exact to their rounding. A gradient jumps where
        # rounding moves a value across a ReLU or a maximum to another cell, so norms agree less closely than losses.
        # `attention` takes the logarithm of weights near 0.
        rtol = 1e-3 if 'l2_' in key else 2e-4 if 'attention' in key else 1e-5
        atol = 1e-6 if 'mismatched_uniform' in key else 0
        np.testing.assert_allclose(metrics[key], values, rtol=rtol, atol=atol, err_msg=key)
        assert np.ptp(values) > 0, key
    for part in ('params', 'rest', 'score_mean', 'step'):
        for a, b in zip(jax.tree.leaves(one[part]), jax.tree.leaves(many[part]), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5, err_msg=part)
        moved = jax.tree.map(lambda a, start: np.abs(a - start).max(), one[part], first[part])
        assert max(jax.tree.leaves(moved)) > 0.005, part


def test_the_parts_make_the_total_and_their_loss_falls():
    metrics, first, state = trained('jit1', False)
    weights = make_config().loss
    total = metrics['train/loss_main'] + sum(weights[part] * metrics[f'train/loss_{part}'] for part in NO_LOSS)
    np.testing.assert_allclose(metrics['train/loss'], total, rtol=1e-5)
    assert metrics['train/loss_frame_mil'][-1] < metrics['train/loss_frame_mil'][0]
    norm = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(state['params'])))
    np.testing.assert_allclose(metrics['train/l2_params'][-1], norm, rtol=1e-5)
    assert (first['step'], state['step']) == (0, STEPS)


@pytest.mark.parametrize('multi_label', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_micro_batches_give_the_step_of_the_whole_batch(monkeypatch, multi_label):
    """Batch normalisation with fixed statistics, without mismatched audio: no clip depends on the others."""
    network = models.SpaceTimeAttention
    call = network.__call__
    monkeypatch.setattr(network, '__call__', lambda *inputs, train, **masks: call(*inputs, train=False, **masks))
    alone = {'correspondence': 0.0, 'mismatched_uniform': 0.0, 'mismatched_mil': 0.0, 'multi_label': multi_label}
    batch = tiny.make_batch(0, CLIPS, multi_label) | {'modalities': LACKING}
    results = []
    for accumulate in (1, 4):
        pure_step, state = make_step(parallel.make_strategy('jit', jax.devices()[:1]), accumulate=accumulate, **alone)
        results.append(jax.device_get(jax.jit(pure_step)(state, batch)))
    (whole, scalars), (micro, micro_scalars) = results
    assert micro_scalars.keys() == scalars.keys()
    for name, value in scalars.items():
        np.testing.assert_allclose(micro_scalars[name], value, rtol=2e-5, err_msg=name)
    np.testing.assert_allclose(micro['score_mean'], whole['score_mean'], rtol=1e-5, atol=1e-7)
    # The gradients: the learning rate of the first step is 0, and the optimiser has its moments.
    moments = [jax.tree.leaves(state['opt_state']) for state in (whole, micro)]
    assert sum(np.abs(x).max() > 1e-3 for x in moments[0]) > 20
    for a, b in zip(*moments, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('kind, count', [('jit', 4), ('pmap', 2)])
def test_micro_batches_are_the_same_on_any_number_of_devices(kind, count):
    """Batch normalisation, mismatched audio, mixing and all random numbers are those of a micro-batch."""
    batch, after = tiny.make_batch(0, CLIPS), []
    for strategy in (
        parallel.make_strategy('jit', jax.devices()[:1]),
        parallel.make_strategy(kind, jax.devices()[:count]),
    ):
        pure_step, state = make_step(strategy, accumulate=2, **RANDOM)
        devices = len(strategy.devices)
        order = np.arange(CLIPS).reshape(2, devices, -1).swapaxes(0, 1).ravel()
        placed = strategy.place_batch({name: x[order] for name, x in batch.items()})
        after.append(jax.device_get(strategy.compile(pure_step)(strategy.place_state(state), placed)))
    (one, scalars), (many, many_scalars) = after
    for name, value in scalars.items():
        rtol = 1e-3 if 'l2_' in name else 2e-4 if 'attention' in name else 1e-5
        np.testing.assert_allclose(many_scalars[name], value, rtol=rtol, atol=1e-6, err_msg=name)
    for a, b in zip(
        jax.tree.leaves((one['rest'], one['score_mean'])), jax.tree.leaves((many['rest'], many['score_mean']))
    ):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_rows_that_do_not_split_into_micro_batches_are_refused():
    pure_step, state = make_step(parallel.make_strategy('jit', jax.devices()[:1]), accumulate=2)
    with pytest.raises(ValueError, match='15 clips of a device do not split into 2 micro-batches'):
        jax.eval_shape(pure_step, state, tiny.make_batch(0, 15))


@pytest.fixture(scope='module')
def random_step():
    """A step with everything random on, on one device and without donation; its first state; a batch."""
    pure_step, state = make_step(parallel.make_strategy('jit', jax.devices()[:1]), **RANDOM, **NO_LOSS)
    return jax.jit(pure_step), state, tiny.make_batch(0, CLIPS)


def test_a_step_is_a_pure_function_of_state_and_batch(random_step):
    compiled, state, batch = random_step
    first, second = jax.device_get(compiled(state, batch)), jax.device_get(compiled(state, batch))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(first))


def test_another_step_number_draws_anew(random_step):
    compiled, state, batch = random_step
    for name in ('step', 'seed'):
        losses = [float(compiled({**state, name: np.int32(n)}, batch)[1]['train/loss']) for n in (0, 1, 2)]
        assert len(set(losses)) == 3


def abstract_step(frame_size, **options):
    """A step with all parts of the loss and everything random on, and its state as shapes."""
    config = make_config()
    config.model.update(options)
    graphdef, state, optimiser, _ = run.make_state(config, FACTS, None, abstract=True)

    def pure_step(state, batch):
        return step.train_step(
            graphdef, state, batch, optimiser=optimiser, loss=Loss(attention=1.0, mismatched_mil=1.0),
            augment=AUGMENT, drop=DROP,
            frame_size=frame_size,
        )  # fmt: skip

    return pure_step, state, tiny.make_batch(0, 2)


def program():
    """The lowered step as it is given to the compiler."""
    pure_step, state, batch = abstract_step(tiny.SIZE)
    return jax.jit(pure_step).lower(state, batch).as_text()


def test_the_tree_mode_of_flax_makes_the_same_program():
    root = str(pathlib.Path(__file__).parents[1])
    env = os.environ | {'NNX_GRAPH_MODE': 'false', 'NNX_GRAPH_UPDATES': 'false', 'PYTHONPATH': root}
    done = subprocess.run([sys.executable, '-W', 'error', __file__], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == program() and 'stablehlo.dot_general' in done.stdout


@pytest.mark.parametrize(
    'options',
    [
        {'visual': 'resnet18', 'audio': 'resnet18', 'dtype': 'bfloat16'},
        {'visual': 'resnet50', 'stop_gradient_evidence': False},
    ],
    ids=['resnet18 in bfloat16', 'resnet50'],
)
def test_a_step_of_the_large_trunks_keeps_the_tree_of_the_state(options):
    pure_step, state, batch = abstract_step(2 * tiny.SIZE, **options)
    new, _ = jax.eval_shape(pure_step, state, batch)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), state)


@pytest.mark.parametrize(
    'rates', [Drop(cell=0.4, segment=0.9, modality=0.8), Drop(segment=0.5), Drop(modality=1.0), Drop(cell=0.2)]
)
def test_drop_masks_keep_a_unit_of_every_clip_and_hit_their_rates(rates):
    valid = np.ones((2000, tiny.SEGMENTS), bool)
    valid[::2, 1:] = False
    every = np.broadcast_to(valid[:, None], (2000, 2, tiny.SEGMENTS))
    masks = jax.tree.map(
        np.asarray, jax.jit(step.drop_masks, static_argnums=(2, 3))(jax.random.key(0), every, (3, 4), rates)
    )
    assert masks.keys() == {name for name in MASKS if any(getattr(rates, rate) for rate in MASKS[name])}
    if rates.cell:
        assert masks['cell_mask'].shape == (2000, tiny.SEGMENTS, 12)
        assert masks['cell_mask'].mean() == pytest.approx(1 - rates.cell, abs=0.01)
    if 'unit_mask' not in masks:
        return
    units = masks['unit_mask']
    assert (units & valid[:, None]).any((1, 2)).all()
    if rates == Drop(segment=0.5):
        # Both modalities lose all three segments once in 64 clips; such clips then keep everything.
        assert units[1::2].mean() == pytest.approx(0.5 + 0.5 / 64, abs=0.02)
    if rates.modality == 1:
        heard_or_seen = units[1::2].all(2)
        assert (heard_or_seen.sum(1) == 1).all() and not (units[1::2].any(2) ^ heard_or_seen).any()
        assert heard_or_seen[:, 0].mean() == pytest.approx(0.5, abs=0.05)


def test_a_clip_without_sound_never_loses_all_its_visual_units():
    units = np.ones((500, 2, tiny.SEGMENTS), bool)
    units[:, 1] = False
    kept = step.drop_masks(jax.random.key(0), units, (3, 4), Drop(modality=1.0))['unit_mask']
    assert np.asarray(kept & units).any((1, 2)).all()


def test_mean_scores_are_means_over_valid_units_of_the_batch():
    rng = np.random.default_rng(0)
    units = rng.random((4, 2, 3)) < 0.6
    alpha, scores = rng.random((4, 3, 2, 5)), rng.normal(size=(4, 2, 3, 6))
    sums, seen, heard = np.zeros((2, 6)), 0, 0
    for b, m, t in zip(*np.nonzero(units)):
        sums[m] += scores[b, m, t]
        seen += np.mean([alpha[b, t, n].sum() for n in range(2)]) * (m == 0)
        heard += m
    means = step.mean_scores(*step.score_sums({'alpha': alpha, 'segment_scores': scores}, units), None)
    np.testing.assert_allclose(means, sums / [[seen], [heard]], rtol=1e-5)


def test_forward_gives_each_clip_its_numbers_whatever_else_is_in_the_batch():
    _, _, state = trained('jit1', False)
    graphdef, *_ = run.make_state(make_config(), FACTS, None)
    call = jax.jit(lambda batch: step.forward(graphdef, state, batch, frame_size=tiny.SIZE)[0])
    batch = tiny.make_batch(3, 8)
    logits = np.asarray(call(batch))
    order = np.array([5, 1, 7, 0, 0, 0, 0, 0])
    padded = jax.tree.map(lambda x: x[order], batch)
    padded['valid'][3:], padded['frames'][3:], padded['log_mel'][3:] = False, 0, 0
    np.testing.assert_allclose(np.asarray(call(padded))[:3], logits[order[:3]], rtol=1e-5, atol=1e-6)
    assert np.ptp(logits, axis=0).min() > 0.01


if __name__ == '__main__':
    assert not flax.config.nnx_graph_mode and not flax.config.nnx_graph_updates
    sys.stdout.write(program())


CELLS, SOUNDS = (np.random.default_rng(0).normal(size=(4, 3, *shape)).astype(np.float32) for shape in ((4, 64), (16,)))
LABELS = np.eye(tiny.CLASSES, dtype=np.float32)[[0, 1, 2, 0]]
VALID = np.ones((4, 3), bool)


@functools.cache
def parts_and_gradients(multi_label):
    """Returns the compiled function of cells, sound and modalities to the parts of the loss and the total's gradients.

    The gradients are those by the parameters, the cells and the sound.
    """
    graphdef, params, rest = nnx.split(tiny.make_model(stop_gradient_evidence=False), nnx.Param, ...)
    loss = Loss(multi_label=multi_label, attention=1.0, mismatched_mil=1.0)

    def total(params, cells, sounds, modalities):
        model = nnx.merge(graphdef, params, rest)
        logits, out = model.forward_heads(cells, sounds, VALID, modalities=modalities)
        parts = step.loss_parts(model, logits, out, LABELS, VALID, loss, None, None, modalities)
        return step.total_loss(parts, loss), parts

    by_all = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))
    return lambda *inputs: by_all(nnx.as_pure(params), *inputs)[::-1]


@pytest.mark.parametrize('multi_label', [False, True])
@pytest.mark.parametrize('lacking', [0, 1])
def test_a_clip_without_a_modality_adds_nothing_to_the_losses_that_need_it(lacking, multi_label):
    """These losses are the same whatever the other modality of clip 1 contains; the others change."""
    modalities = np.ones((4, 2), bool)
    modalities[1, lacking] = False
    parts, gradients = parts_and_gradients(multi_label)(CELLS, SOUNDS, modalities)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((parts, gradients)))
    inputs = [CELLS.copy(), SOUNDS.copy()]
    inputs[lacking][1] = 3
    same, _ = parts_and_gradients(multi_label)(*inputs, modalities)
    assert jax.tree.all(jax.tree.map(np.array_equal, parts, same))
    inputs[1 - lacking][1] = np.random.default_rng(2).normal(size=inputs[1 - lacking][1].shape)
    changed, _ = parts_and_gradients(multi_label)(*inputs, modalities)
    needs = {'correspondence', 'mismatched_uniform', 'mismatched_mil', 'attention'}
    needs |= {'audio'} if lacking else {'visual', 'frame_mil'}
    assert {name for name in parts if parts[name] == changed[name]} == needs
    complete, _ = parts_and_gradients(multi_label)(*inputs, np.ones((4, 2), bool))
    assert not any(complete[name] == changed[name] for name in needs)


def test_pairs_of_complete_clips_keep_their_loss_beside_a_clip_without_sound():
    """Clip 1 is in no pair: those left are (0, 3), (3, 2), (0, 2) and (2, 0), of which the first share their label."""
    modalities = np.ones((4, 2), bool)
    modalities[1, 1] = False
    model = tiny.make_model(stop_gradient_evidence=False)
    graphdef, state = nnx.split(model)

    @jax.jit
    def pairs(state):
        model = nnx.merge(graphdef, state)
        _, out = model.forward_heads(CELLS, SOUNDS, VALID)
        heard = jnp.einsum('btc,bc->bt', losses.audio_saliency(out, VALID, multi_label=False), LABELS)
        keys = model.space.keys(out['cells'])
        return [
            losses.correspondence(
                model.match(keys, jnp.roll(out['audio'], shift, 0)), jnp.roll(heard, shift, 0), shift == 0
            )
            for shift in range(3)
        ]

    own, one, two = pairs(nnx.as_pure(state))
    expected = (own[0] + own[2] + own[3] + (one[3] + two[0] + two[2]) / 2) / 4
    parts, _ = parts_and_gradients(False)(CELLS, SOUNDS, modalities)
    np.testing.assert_allclose(parts['correspondence'], expected, rtol=1e-5)
