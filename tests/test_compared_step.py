"""Tests the compared models in the common training step and evaluation: their loss is only the main part and falls."""

import functools
import json

import jax
import numpy as np
import pytest
import runs
import tiny
from tiny import quick_compile  # noqa: F401  autouse

from configs import common
from stattn_jax import evaluate, run
from stattn_jax.data import media
from stattn_jax.models import baselines
from stattn_jax.runtime import parallel
from stattn_jax.training import losses, step
from stattn_jax.training.augment import Augment

FACTS = run.DataFacts(('a', 'b', 'c'), False, media.ClipSpec(), '')
DROP = step.Drop(cell=0.3, segment=0.3, modality=0.5)


def make_config(kind):
    config = common.tiny(common.get_config())
    config.model.update({'kind': kind, 'width': 16, 'hidden': 8, 'frame_size': tiny.SIZE})
    config.optim.update({'lr': 1e-2, 'warmup_steps': 2})
    config.train.steps = 20
    return config


def make_step(kind, strategy, drop=DROP, binary=False):
    graphdef, state, optimiser, _ = run.make_state(make_config(kind), FACTS, strategy.axis)
    pure_step = functools.partial(
        step.train_step,
        graphdef,
        optimiser=optimiser,
        loss=step.Loss(multi_label=binary),
        augment=Augment(),
        drop=drop,
        frame_size=tiny.SIZE,
        axis=strategy.axis,
    )
    return graphdef, pure_step, state


@pytest.mark.parametrize(
    'kind', ['proto', *(pytest.param(kind, marks=pytest.mark.slow) for kind in ('avel_code', 'han'))]
)
def test_the_loss_is_the_main_part_and_falls(kind):
    strategy = parallel.make_strategy('jit', jax.devices()[:1])
    graphdef, pure_step, state = make_step(kind, strategy, drop=step.Drop())
    assert 'score_mean' not in state
    batch, compiled, seen = tiny.make_batch(0, 8), jax.jit(pure_step), []
    first, _ = jax.jit(lambda state: step.forward(graphdef, state, batch, frame_size=tiny.SIZE))(state)
    for _ in range(8):
        state, metrics = compiled(state, batch)
        seen.append(metrics)
    assert {name for name in seen[0] if 'loss' in name} == {'train/loss', 'train/loss_main'}
    assert all(m['train/loss'] == m['train/loss_main'] for m in seen)
    last, _ = step.forward(graphdef, state, batch, frame_size=tiny.SIZE)
    assert first.shape == last.shape == (8, 3)
    # The steps see this batch in training mode, where batch normalisation uses the statistics of the batch itself.
    assert seen[-1]['train/loss'] < 0.9 * seen[0]['train/loss']


@pytest.mark.parametrize('kind', ['audio_only', pytest.param('mbt', marks=pytest.mark.slow)])
def test_four_devices_train_a_compared_model_as_one_does(kind):
    after = []
    for name, count in (('pmap', 4), ('jit', 1)):
        strategy = parallel.make_strategy(name, jax.devices()[:count])
        _, pure_step, state = make_step(kind, strategy, drop=step.Drop(), binary=True)
        compiled, state = strategy.compile(pure_step), strategy.place_state(state)
        for number in range(3):
            state, metrics = compiled(state, strategy.place_batch(tiny.make_batch(number, 8, multi_label=True)))
        after.append(jax.device_get((metrics, state)))
    np.testing.assert_allclose(after[0][0]['train/loss'], after[1][0]['train/loss'], rtol=1e-4)
    assert after[0][1].keys() == after[1][1].keys() == {'params', 'rest', 'opt_state', 'seed', 'step'}


@pytest.mark.parametrize(
    'kind', [pytest.param(kind, marks=pytest.mark.slow if kind == 'mbt' else ()) for kind in baselines.KINDS]
)
def test_a_step_with_removal_keeps_the_tree_of_the_state(kind):
    _, pure_step, state = make_step(kind, parallel.make_strategy('jit', jax.devices()[:1]))
    new, metrics = jax.eval_shape(pure_step, state, tiny.make_batch(0, 4))
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (new, state)]
    assert shapes[0] == shapes[1] and metrics['train/loss'].shape == ()


def test_the_main_part_is_the_cross_entropy_of_the_logits():
    class Other:
        additive = False

    logits, labels = np.array([[1.0, 2.0, 0.0]]), np.array([[0.0, 1.0, 1.0]])
    parts = step.loss_parts(Other(), logits, {}, labels, np.ones((1, 2), bool), step.Loss(), None)
    assert parts.keys() == {'main'}
    expected = losses.classification(logits, labels / 2, multi_label=False)
    np.testing.assert_allclose(parts['main'], expected[0], rtol=1e-6)


@pytest.mark.parametrize('kind, shows', [
    ('cam', ('space', 'time')), pytest.param('han', ('time',), marks=pytest.mark.slow),
    pytest.param('concat', (), marks=pytest.mark.slow),
])  # fmt: skip
def test_a_compared_model_trains_and_is_evaluated_by_the_command(kind, shows, tiny_data, compiled, tmp_path):
    fields = {'model__kind': kind, 'train__steps': 2, 'train__eval_every_steps': 2}
    assert runs.run_main(*runs.make_flags(tmp_path / kind, tiny_data, compile_cache=compiled, **fields)) == 0
    numbers = json.loads((tmp_path / kind / 'eval_test.json').read_text())
    games = {name for name in ('space', 'time') if f'pointing/{name}' in numbers}
    assert games == set(shows) and numbers['classification/n'] == 6 and 'shortcut/audio_only' in numbers
    groups = {name.split('/')[0] for name in numbers}
    assert not groups & {'attention', 'segments', 'parsing'} and 'shortcut/mismatched_audio' not in numbers
    assert 'pointing/space_contribution' not in numbers and 'pointing/time_picture' not in numbers
    loaded = run.load(str(tmp_path / kind), parallel_kind='jit', devices=jax.devices()[:1])
    evaluator = evaluate.Evaluator(loaded.graphdef, loaded.strategy, loaded.config)
    again = evaluator.split(loaded.state, 'test', shortcuts=True)
    assert numbers == pytest.approx({'checkpoint/step': loaded.step, **again}, abs=1e-6)
