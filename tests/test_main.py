"""Tests of the main command: its exit codes, and its one-line error messages that name the fault and the remedy."""

import json
import shutil

import fakes
import pytest
import runs

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
        (['--config.train.stepz=3'], ['train.stepz', 'near: ', 'train.steps']),
        (['--config.train.stepz', '3'], ['train.stepz', 'train.steps']),
        (['--config.trian.steps=3'], ['trian.steps', 'near: ', 'train.steps']),
        (['--config.seed=1', '--config.qqq=3'], ['no field qqq; it has', 'optim.lr']),
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


def test_help_lists_the_flags(capsys):
    assert runs.run_main('--help') == 0
    output = capsys.readouterr().out
    assert 'python -m stattn_jax.main --config' in output and '--workdir' in output and '--coordinator' in output


def test_evaluation_writes_the_numbers_of_training_again(trained, tiny_data, tmp_path, capsys, quick_compile):
    workdir = tmp_path / 'run'
    shutil.copytree(trained, workdir)
    for path in workdir.glob('eval_*.json'):
        path.unlink()
    assert runs.run_main(*runs.make_flags(workdir, tiny_data), '--mode=eval') == 0
    assert 'classification/top1' in capsys.readouterr().out
    for split in ('val', 'test'):
        again, before = (json.loads((path / f'eval_{split}.json').read_text()) for path in (workdir, trained))
        assert again == pytest.approx(before, abs=1e-6)
    assert sorted(path.name for path in workdir.glob('eval_*.json')) == ['eval_test.json', 'eval_val.json']
