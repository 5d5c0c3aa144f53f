"""Tests the record of a run, its TensorBoard events and its console line."""

import errno
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import simplejpeg
from tensorboardX.proto import event_pb2
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from stattn_jax import evaluate, run
from stattn_jax.runtime import summaries


def record(workdir):
    return [json.loads(line) for line in (workdir / summaries.METRICS_FILE).read_text().splitlines()]


def read_events(workdir):
    """Yields every event of TensorBoard's files."""
    for path in sorted((workdir / 'tensorboard').iterdir()):
        data, offset = path.read_bytes(), 0
        while offset < len(data):
            length = int.from_bytes(data[offset : offset + 8], 'little')
            event = event_pb2.Event.FromString(data[offset + 12 : offset + 12 + length])
            offset += length + 16
            yield event


def events(workdir):
    """(step, tag, value) of every scalar, and the steps at which a resumed run hides earlier events."""
    scalars, purges = [], []
    for event in read_events(workdir):
        scalars += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        if event.HasField('session_log') and event.session_log.status == event_pb2.SessionLog.START:
            purges.append(event.step)
    return scalars, purges


def test_the_record_and_the_events_are_on_disk_after_each_write(tmp_path, capsys):
    writer = summaries.Writer(tmp_path)
    try:
        writer.write(1, {'train/loss': 0.5, 'train/lr': 1e-3}, console='step 1')
        assert record(tmp_path) == [{'step': 1, 'train/loss': 0.5, 'train/lr': 1e-3}]
        writer.write(2, {'train/loss': 0.25})
        assert record(tmp_path)[1] == {'step': 2, 'train/loss': 0.25}
        assert len(events(tmp_path)[0]) == 3
    finally:
        writer.close()
    writer.close()
    scalars, purges = events(tmp_path)
    assert [(step, tag) for step, tag, _ in scalars] == [(1, 'train/loss'), (1, 'train/lr'), (2, 'train/loss')]
    assert [value for *_, value in scalars] == pytest.approx([0.5, 1e-3, 0.25])
    assert purges == []
    assert capsys.readouterr().out == 'step 1\n'


def test_values_that_json_lacks_can_be_read_back(tmp_path):
    writer = summaries.Writer(tmp_path)
    writer.write(3, {'a': float('nan'), 'b': float('inf'), 'c': -float('inf'), 'd': None, 'e': 1})
    writer.close()

    def strict(name):
        raise AssertionError(f'{name} is not JSON')

    line = json.loads((tmp_path / summaries.METRICS_FILE).read_text(), parse_constant=strict)
    assert line == {'step': 3, 'a': 'nan', 'b': 'inf', 'c': '-inf', 'd': None, 'e': 1.0}
    assert float(line['b']) == float('inf')
    assert events(tmp_path)[0] == [(3, 'e', 1.0)]


@pytest.mark.parametrize(('torn', 'dropped'), [('', 2), ('{"step": 5, "lo', 3), ('{"step": 5}', 3), ('{"step": 3}', 2)])
def test_resuming_drops_the_steps_that_will_be_done_again(tmp_path, torn, dropped):
    writer = summaries.Writer(tmp_path)
    for step in (1, 2, 3, 4, 4):
        writer.write(step, {'loss': step / 10})
    writer.close()
    with (tmp_path / summaries.METRICS_FILE).open('a') as file:
        file.write(torn)
    writer = summaries.Writer(tmp_path)
    assert writer.truncate(3) == dropped
    writer.write(4, {'loss': 9.0})
    writer.close()
    assert [line['step'] for line in record(tmp_path)] == [1, 2, 3] + [3] * (torn == '{"step": 3}') + [4]
    assert record(tmp_path)[-1]['loss'] == 9.0
    assert events(tmp_path)[1] == [4]
    assert not list(tmp_path.glob('*.part'))


def test_a_resumed_run_evaluates_again_at_its_end(tmp_path):
    writer = summaries.Writer(tmp_path)
    writer.write(2, {'val/classification/top1': 0.5})
    writer.write(2, {'eval_test/classification/top1': 0.5})
    assert writer.truncate(2) == 1
    writer.close()
    assert record(tmp_path) == [{'step': 2, 'val/classification/top1': 0.5}]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    (tmp_path / summaries.METRICS_FILE).write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl line 2 is 'nonsense'; expected a JSON object.*remove"):
        summaries.Writer(tmp_path).truncate(1)


def test_other_processes_write_nothing(tmp_path, capsys):
    writer = summaries.Writer(tmp_path / 'run', process_index=1)
    assert writer.truncate(0) == 0
    writer.write(1, {'loss': 1.0}, console='line')
    writer.close()
    assert not (tmp_path / 'run').exists()
    assert capsys.readouterr().out == ''


def test_progress_is_the_hand_count(monkeypatch):
    clock = iter([100.0, 110.0, 110.0, 130.0, 131.0])
    monkeypatch.setattr(summaries.time, 'perf_counter', lambda: next(clock))
    monkeypatch.setitem(summaries.perf.PEAKS, jax.devices()[0].device_kind, (1e12, 1e12))
    progress = summaries.Progress(total_steps=100, global_batch=32, devices=jax.devices()[:2])
    progress.start(10, waited=3.0)
    # 20 steps in 10 s, of which 2.5 s were spent waiting; 70 steps are left.
    scalars = progress.measure(30, waited=5.5, flops=2e11)
    assert scalars == pytest.approx(
        {
            'perf/clips_per_second': 64.0,
            'perf/step_ms': 500.0,
            'perf/wait_percent': 25.0,
            'perf/mfu_percent': 20.0,
            'perf/eta_seconds': 35.0,
        }
    )
    line = progress.line(30, {'train/loss': 1.23456, 'train/lr': 3e-4, **scalars})
    assert line == 'step  30/100  loss 1.2346  lr 3.00e-04  64.0 clips/s  wait 25%  mfu 20.0%  eta 0:35'
    # The next window starts where the last one ended.
    scalars = progress.measure(50, waited=5.5, flops=None)
    assert (scalars['perf/step_ms'], scalars['perf/wait_percent']) == pytest.approx((1000.0, 0.0))
    assert 'mfu' not in progress.line(50, {'train/loss': float('nan'), 'train/lr': 0.0, **scalars})


def test_the_first_step_which_compiles_has_no_rate_and_no_time_left():
    progress = summaries.Progress(total_steps=100, global_batch=32, devices=jax.devices()[:1])
    progress.start(1, waited=3.0)
    scalars = progress.measure(1, waited=3.0, flops=None)
    assert scalars == {}
    assert progress.line(1, {'train/loss': 2.0, 'train/lr': 0.0, **scalars}) == 'step   1/100  loss 2.0000  lr 0.00e+00'


@pytest.mark.parametrize('name', ['metrics.jsonl', 'tensorboard'])
def test_a_full_disk_is_raised_to_the_run(tmp_path, monkeypatch, name):
    writer = summaries.Writer(tmp_path)
    writer.write(1, {'loss': 1.0})

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    holder = writer._events if name == 'tensorboard' else writer
    real = holder._file
    monkeypatch.setattr(holder, '_file', types.SimpleNamespace(write=full, flush=full, close=full))
    with pytest.raises(OSError, match=f'No space left on device: .*{name}'):
        writer.write(2, {'loss': 1.0})
    with pytest.raises(OSError, match=f'No space left on device: .*{name}'):
        writer.close()
    real.close()


def test_imports_neither_tensorflow_nor_torch_and_warns_of_nothing(tmp_path):
    program = (
        'import sys\nfrom stattn_jax.runtime import checkpoint, parallel, perf, summaries\n'
        'writer = summaries.Writer(sys.argv[1])\nwriter.write(1, {"a": 1.0})\nwriter.close()\n'
        'print(sorted(m for m in ("tensorflow", "torch", "tensorboard") if m in sys.modules))'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'error', '-c', program, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout == '[]\n'
    assert done.stderr == ''


def values_of(workdir):
    """Every value of the events that is not a scalar, by its tag."""
    found = {}
    for event in read_events(workdir):
        found |= {value.tag: value for value in event.summary.value if value.HasField('metadata')}
    return found


def test_tensorboard_gets_the_config_as_text_and_as_hyperparameters(tmp_path):
    config = {'optim.lr': 1e-3, 'model.kind': 'stan', 'data.extract': False, 'eval.splits': (), 'data.dir': None}
    writer = summaries.Writer(tmp_path, config=config, metrics=['val/classification/top1'])
    writer.write(1, {'train/loss': 0.5})
    writer.close()
    found = values_of(tmp_path)
    text = found['config/text_summary'].tensor.string_val[0].decode()
    assert '| optim.lr | `0.001` |\n' in text and '| data.dir | `None` |\n' in text
    session = HParamsPluginData.FromString(found['_hparams_/session_start_info'].metadata.plugin_data.content)
    fields = session.session_start_info.hparams
    assert fields['optim.lr'].number_value == 1e-3 and fields['model.kind'].string_value == 'stan'
    assert fields['data.extract'].bool_value is False and fields['eval.splits'].string_value == '()'
    experiment = HParamsPluginData.FromString(found['_hparams_/experiment'].metadata.plugin_data.content).experiment
    assert [info.name.tag for info in experiment.metric_infos] == ['val/classification/top1']
    assert {info.name for info in experiment.hparam_infos} == set(config)
    assert [tag for _, tag, _ in events(tmp_path)[0]] == [*found, 'train/loss']


def pictures(workdir):
    """(step, tag, image) of every picture of the events, decoded."""
    found = []
    for event in read_events(workdir):
        for value in event.summary.value:
            if value.HasField('image'):
                image = simplejpeg.decode_jpeg(value.image.encoded_image_string)
                assert image.shape == (value.image.height, value.image.width, value.image.colorspace)
                found.append((event.step, value.tag, image))
    return found


def test_pictures_go_to_tensorboard_and_to_weights_and_biases_but_not_to_the_record(tmp_path, wandb):
    shown = np.indices((40, 60)).sum(0)[..., None] + np.array([0, 50, 100], np.uint8)
    for index in (0, 1):
        writer = summaries.Writer(tmp_path, index, wandb='project')
        writer.write(3, {'val/a': 0.5}, pictures={'explained/val': shown.astype(np.uint8)})
        writer.close()
    assert record(tmp_path) == [{'step': 3, 'val/a': 0.5}]
    ((step, tag, image),) = pictures(tmp_path)
    assert (step, tag) == (3, 'explained/val')
    np.testing.assert_allclose(image.astype(int), shown, atol=6)
    ((_, step, values),) = [call for call in wandb if call[0] == 'log']
    assert step == 3 and list(values) == ['val/a', 'explained/val']
    np.testing.assert_array_equal(values['explained/val'].pixels, shown)


def test_a_run_shows_explained_clips_at_each_evaluation(trained):
    found = pictures(trained)
    assert [(step, tag) for step, tag, _ in found] == [(5, 'explained/val'), (10, 'explained/val')]
    loaded = run.load(trained, parallel_kind='jit', devices=jax.devices()[:1])
    evaluator = evaluate.Evaluator(loaded.graphdef, loaded.strategy, loaded.config)
    _, expected = evaluator.split_with_strip(loaded.state, 'val')
    (written,) = [image for step, _, image in found if step == loaded.step]
    difference = np.abs(written.astype(int) - expected['explained/val'])
    assert written.shape == expected['explained/val'].shape and difference.mean() < 2


@pytest.fixture
def wandb(monkeypatch):
    """A module in the place of wandb; returns the calls that it gets."""
    calls = []

    def init(**options):
        calls.append(('init', options))
        return types.SimpleNamespace(
            log=lambda values, step: calls.append(('log', step, values)), finish=lambda: calls.append(('finish',))
        )

    class Image:
        def __init__(self, pixels):
            self.pixels = pixels

    monkeypatch.setitem(sys.modules, 'wandb', types.SimpleNamespace(init=init, Image=Image))
    return calls


def test_weights_and_biases_gets_the_same_numbers_and_a_resumed_run_keeps_its_id(tmp_path, wandb):
    for step in (1, 2):
        writer = summaries.Writer(tmp_path / 'run', config={'optim.lr': 0.1}, wandb='project')
        writer.write(step, {'train/loss': 0.5, 'unknown': None, 'overflow': float('inf')})
        writer.write(step, {'val/classification/top1': 0.75})
        writer.close()
        writer.close()
    (_, first), *logged, end = wandb[:4]
    assert first['project'] == 'project' and first['name'] == 'run' and first['config'] == {'optim.lr': 0.1}
    assert logged == [('log', 1, {'train/loss': 0.5}), ('log', 1, {'val/classification/top1': 0.75})]
    assert end == ('finish',)
    assert wandb[4] == ('init', first) and first['resume'] == 'allow'


def test_other_processes_and_runs_without_a_project_do_not_reach_weights_and_biases(tmp_path, wandb):
    for options in ({'process_index': 1, 'wandb': 'project'}, {}):
        writer = summaries.Writer(tmp_path, **options)
        writer.write(1, {'loss': 1.0})
        writer.close()
    assert wandb == []
