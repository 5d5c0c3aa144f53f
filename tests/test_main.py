"""Tests of the main command: its exit codes, and its one-line error messages that name the fault and the remedy."""

import json
import re
import shutil

import fakes
import numpy as np
import pytest
import runs

from stattn_jax import run

CONFIG = f'--config={runs.ROOT}/configs/synthetic.py'


def refused(capsys, *flags, code=2):
    """Runs the command, asserts that it exits with `code` and one line on stderr, and returns that line."""
    capsys.readouterr()
    assert runs.run_main(*flags) == code
    output, errors = capsys.readouterr()
    assert output == '' and errors.startswith('error: ') and errors.count('\n') == 1 and 'Traceback' not in errors, (
        errors
    )
    return errors


@pytest.fixture
def workdir(tmp_path):
    return f'--workdir={tmp_path / "run"}'


@pytest.mark.parametrize(
    'flags, words',
    [
        (['--config.train.stepz=3'], ['no field train.stepz; expected one of', 'did you mean train.steps']),
        (['--config.train.stepz', '3'], ['train.stepz', 'train.steps']),
        (['--config.trian.steps=3'], ['trian.steps', 'did you mean train.steps']),
        (['--config.seed=1', '--config.qqq=3'], ['no field qqq; expected one of', 'fields, such as']),
        (['--config.train.steps=abc'], ['config.train.steps=abc', 'int']),
        (['--config.train.steps=1.5'], ['config.train.steps=1.5', 'int']),
        (['--config.optim.lr=fast'], ['config.optim.lr=fast', 'float']),
        (['--config.train=3'], ['config.train=3']),
        (['--mode=trian'], ['--mode=trian', 'train|eval']),
        (['--bogus=1'], ["'bogus'", '--help']),
        (['surplus'], ["['surplus']", '--NAME=VALUE']),
        ([], ['config.data.dir is not set', '--config.data.dir=DIR']),
        (['--processes=2'], ['--coordinator=None --processes=2', 'all three']),
        (['--coordinator=localhost:1', '--processes=2', '--process=2'], ['--process=2', 'one less']),
    ],
)
def test_wrong_flag_is_named(workdir, capsys, flags, words):
    error = refused(capsys, CONFIG, workdir, *flags)
    for word in words:
        assert word in error


@pytest.mark.parametrize('config', ['synthetic', 'own', 'vggsound'])
def test_data_that_are_not_there_are_named_with_the_way_to_make_them(workdir, tmp_path, capsys, config):
    missing = tmp_path / 'nothing'
    error = refused(capsys, f'--config={runs.ROOT}/configs/{config}.py', workdir, f'--config.data.dir={missing}')
    assert f"'{missing}' does not exist" in error and 'data_prep.folder' in error
    assert not (tmp_path / 'run').exists()


def test_missing_flags_are_named(workdir, capsys):
    assert '--workdir' in refused(capsys, CONFIG)
    assert '--config' in refused(capsys, workdir)


def test_config_file_that_is_not_there(workdir, capsys):
    for extra in ((), ('--config.seed=1',)):
        error = refused(capsys, '--config=configs/nope.py', workdir, *extra)
        assert "'configs/nope.py'" in error and 'configs/own.py' in error


BAD_CONFIGS = [
    ('int("x")', ["ValueError: invalid literal for int() with base 10: 'x'; mend that file"]),
    ('1/0', ['bad.py:1: ZeroDivisionError']),
    ('import nonsense', ["bad.py:1: ModuleNotFoundError: No module named 'nonsense'"]),
    ('def f(:', ['bad.py: SyntaxError']),
    ('x = 1', ['expected a file with a function get_config that returns a ConfigDict; it has none']),
    ('def get_config(): return {}', ['expected a file with a function get_config that returns a ConfigDict']),
    ('def get_config(): return None', ['its get_config returns NoneType']),
    ('open("nofile")', ["'nofile'; mend that file"]),
    ('from configs import mine', ["cannot import name 'mine'", 'goes before yours: give yours another name']),
]


@pytest.mark.parametrize('text, words', BAD_CONFIGS, ids=[text for text, _ in BAD_CONFIGS])
def test_a_config_file_that_fails_is_one_line(workdir, tmp_path, capsys, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'bad.py').write_text(text + '\n')
    for extra in ((), ('--config.seed=1',)):
        error = refused(capsys, '--config=bad.py', workdir, *extra)
        assert 'bad.py' in error
        for word in words:
            assert word in error


@pytest.mark.parametrize(
    'value, expected',
    [
        ('mine', "there is no file 'mine', but mine.py; give --config=mine.py"),
        (
            'configs/own.py:small',
            "there is no file 'configs/own.py' here; the one that comes with the package is given",
        ),
        ('oen.py', '(did you mean own?); expected a file such as configs/own.py, or a name of ave, '),
        ('', 'the name is empty; expected a file'),
        ('.', "'.' is a folder; expected a file"),
    ],
)
def test_a_config_elsewhere_is_named(workdir, tmp_path, capsys, monkeypatch, value, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine.py').touch()
    assert expected in refused(capsys, f'--config={value}', workdir)


def test_a_config_beside_a_folder_named_like_ours(workdir, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / '__init__.py').touch()
    (tmp_path / 'configs' / 'mine.py').write_text('from configs import common\nget_config = common.get_config\n')
    assert 'config.data.dir is not set' in refused(capsys, '--config=configs/mine.py', workdir)


def test_unknown_variant_of_a_config(workdir, capsys):
    error = refused(capsys, f'--config={runs.ROOT}/configs/own.py:huge', workdir)
    assert 'own.py:huge: the variants are "" and small, tiny' in error


def test_evaluation_needs_a_trained_workdir(workdir, tiny_data, tmp_path, capsys):
    error = refused(capsys, *runs.make_flags(tmp_path / 'run', tiny_data), '--mode=eval')
    assert str(tmp_path / 'run') in error and 'checkpoints' in error


def test_evaluation_with_another_config_is_refused(trained, tiny_data, capsys):
    error = refused(capsys, *runs.make_flags(trained, tiny_data, model__frame_size=32), '--mode=eval')
    assert 'model.frame_size is 32, was 16' in error


def test_evaluation_of_other_classes_is_refused(trained, tmp_path, capsys):
    other = fakes.dataset(tmp_path / 'fake', train=1)
    error = refused(capsys, *runs.make_flags(trained, other), '--mode=eval')
    assert f'config.data.dir={other} has other classes' in error


@pytest.mark.parametrize(
    'fields, words',
    [
        ({'train__batch': 12}, 'global batch 12 does not split over 8 devices; expected a multiple of 8'),
        ({'eval__batch': 12}, 'global batch 12 does not split over 8 devices'),
        ({'seed': -1}, 'config.seed is -1; expected 0 to 2147483647'),
        ({'parallel': 'pjit'}, "config.parallel is 'pjit'; expected one of jit, pmap"),
        ({'data__fit': 'pad'}, "config.data.fit is 'pad'; expected one of squash, crop"),
        ({'model__visual': 'vgg'}, "config.model.visual is 'vgg'; expected one of tiny, "),
        ({'train__save_every_steps': 0}, 'config.train.save_every_steps is 0; expected 1 or more'),
        ({'data__split': 'trian'}, "has no split 'trian'; it has test, train, val"),
        ({'eval__splits': 'tset'}, "config.eval.splits names ['tset']"),
    ],
)
def test_wrong_value_is_named_before_anything_is_written(tiny_data, tmp_path, capsys, fields, words):
    assert words in refused(capsys, *runs.make_flags(tmp_path / 'run', tiny_data, **fields))
    assert not (tmp_path / 'run').exists()


def test_damaged_data_are_a_failure(tiny_data, tmp_path, capsys):
    data = tmp_path / 'data'
    shutil.copytree(tiny_data, data)
    shard = next(data.glob('*train*.index'))
    fakes.flip_byte(shard, 3)
    assert shard.name in refused(capsys, *runs.make_flags(tmp_path / 'run', data), code=1)


@pytest.mark.parametrize('more', [(), (CONFIG, '--workdir=x')])
def test_help_lists_the_flags_and_the_fields(capsys, more):
    assert runs.run_main('--help', *more) == 0
    output = capsys.readouterr().out
    assert '\n  --config.seed=0\n' in output and '\n  --config.data.dir=\n' in output
    comment = "the whole frame made square, or 'crop': its central square"
    assert f'\n  --config.data.fit=squash\n      {comment}\n' in output
    assert 'python -m stattn_jax.main --config' in output and '--workdir' in output and '--coordinator' in output


@pytest.mark.parametrize(
    'flags',
    [
        (CONFIG, '--workdir=a', '--workdir=b'),
        (CONFIG, '--workdir=a', '--config.seed=1', '--config.seed', '2'),
        (CONFIG, CONFIG, '--workdir=a'),
    ],
)
def test_a_flag_twice_is_refused(capsys, flags):
    assert ' is given twice, ' in refused(capsys, *flags)


def test_evaluation_needs_only_the_workdir(trained, tmp_path, capsys, quick_compile):
    workdir = tmp_path / 'run'
    shutil.copytree(trained, workdir)
    (workdir / 'eval_test.json').unlink()
    (workdir / run.TRAINING_DISTANCE).unlink()
    assert runs.run_main('--mode=eval', '--workdir', workdir, "--config.eval.splits=('test',)") == 0
    again, before = (json.loads((path / 'eval_test.json').read_text()) for path in (workdir, trained))
    distances = [dict(np.load(path / run.TRAINING_DISTANCE)) for path in (workdir, trained)]
    assert distances[0]['step'] == distances[1]['step'] == before['checkpoint/step']
    np.testing.assert_allclose(distances[0]['audio_mean'], distances[1]['audio_mean'], atol=1e-4)
    assert again == pytest.approx(before, abs=1e-6)
    out = capsys.readouterr().out
    assert re.search(r'accuracy +[0-9.]+%', out) and 'eval_test.json' in out
    error = refused(capsys, '--mode=eval', f'--workdir={workdir}', '--config.data.dri=x')
    assert 'config has no field data.dri; expected one of' in error


def test_evaluation_of_moved_data_is_one_line(trained, tmp_path, capsys):
    workdir = tmp_path / 'run'
    shutil.copytree(trained, workdir)
    config = json.loads((workdir / 'config.json').read_text())
    config['data']['dir'] = str(tmp_path / 'old')
    (workdir / 'config.json').write_text(json.dumps(config))
    error = refused(capsys, '--mode=eval', f'--workdir={workdir}')
    assert f'the data in {tmp_path / "old"}, which is no folder here' in error and '--config.data.dir=DIR' in error


def test_evaluation_without_config_of_no_run_is_one_line(tmp_path, capsys):
    error = refused(capsys, '--mode=eval', f'--workdir={tmp_path}')
    assert f'--workdir={tmp_path} has no config.json' in error and 'expected that of a training run' in error
    assert '--workdir is missing' in refused(capsys, '--mode=eval')


@pytest.mark.slow
def test_a_finished_run_is_lengthened(trained, tiny_data, tmp_path, capsys, quick_compile):
    workdir = tmp_path / 'run'
    shutil.copytree(trained, workdir)
    flags = runs.make_flags(workdir, tiny_data, train__steps=12)
    assert runs.run_main(*flags) == 0
    output = capsys.readouterr().out
    assert output.startswith('lengthened at step 10, from 10 to 12 steps: the learning rate follows the schedule of 12')
    record, config = (json.loads((workdir / name).read_text()) for name in ('run.json', 'config.json'))
    assert record['lengthened'] == [{'at_step': 10, 'from': 10, 'to': 12}] and config['train']['steps'] == 12
    assert list(runs.metrics(workdir)) == list(range(1, 13))
    assert json.loads((workdir / 'eval_test.json').read_text()) != json.loads((trained / 'eval_test.json').read_text())
    assert 'train.steps is 11, was 12' in refused(capsys, *runs.make_flags(workdir, tiny_data, train__steps=11))


def test_evaluation_writes_the_numbers_of_training_again(trained, tiny_data, tmp_path, capsys, quick_compile):
    workdir = tmp_path / 'run'
    shutil.copytree(trained, workdir)
    for path in workdir.glob('eval_*.json'):
        path.unlink()
    assert runs.run_main(*runs.make_flags(workdir, tiny_data), '--mode=eval') == 0
    out = capsys.readouterr().out
    assert re.search(r'accuracy +[0-9.]+%', out) and 'eval_test.json' in out
    for split in ('val', 'test'):
        again, before = (json.loads((path / f'eval_{split}.json').read_text()) for path in (workdir, trained))
        assert again == pytest.approx(before, abs=1e-6)
    assert sorted(path.name for path in workdir.glob('eval_*.json')) == ['eval_test.json', 'eval_val.json']
