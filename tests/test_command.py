"""Tests command.py: old names in a config are read, a config of another kind is refused, errors are one line."""

import errno
import sys

import pytest
import runs
from absl import flags

from data_prep import work
from stattn_jax import command, main, renamed
from stattn_jax.benchmark import __main__ as benchmark
from stattn_jax.data import tfrecord
from stattn_jax.runtime import checkpoint
from stattn_jax.study import __main__ as study
from stattn_jax.weights import errors

OF_A_RUN = """
from configs import common

def get_config():
    config = common.tiny(common.get_config())
    config.loss.swap = 0.25
    config.train.best_metric = 'leak/n'
    config.eval.leak_clips = 5
    return config
"""
OF_A_STUDY = """
from configs import study

def get_config():
    config = study.get_config('quick')
    config.variants.events.run.loss.swap = 0.25
    config.rows.stan.fields = {'loss': {'match': 0.5}}
    return config
"""
COMMANDS = {
    main: (OF_A_RUN, '', ['--workdir=none']),
    benchmark: (OF_A_RUN, '', []),
    study: (OF_A_STUDY, 'variants.events.run.', ['--workdir=none']),
}


@pytest.fixture(autouse=True)
def new_process():
    renamed._notice.cache_clear()


def parsed(module, path, *words):
    """Returns the config that a command reads."""
    values = module.make_flags()
    config = getattr(module, 'CONFIG', command.ConfigFlag())
    found = []

    def body(values):
        found.append(values.config)
        return 0

    argv = ['command', f'--config={path}', *COMMANDS[module][2], *words]
    assert command.run(argv, '', values, body, config=config) == 0
    return found[0]


@pytest.mark.parametrize('module', COMMANDS)
def test_every_command_reads_old_names_with_one_notice(module, tmp_path, capsys):
    text, prefix, _ = COMMANDS[module]
    (tmp_path / 'old.py').write_text(text)
    config = parsed(module, tmp_path / 'old.py')
    (notice,) = capsys.readouterr().err.splitlines()
    assert notice.startswith(f'notice: {tmp_path}/old.py: ') and 'more likewise' in notice
    of_run = config.variants.events.run if prefix else config
    assert of_run.loss.mismatched_uniform == 0.25 and 'swap' not in of_run.loss
    if prefix:
        assert config.rows.stan.fields.to_dict() == {'loss': {'correspondence': 0.5}}
    else:
        assert of_run.train.best_metric == 'shortcut/n' and of_run.eval.shortcut_clips == 5


@pytest.mark.parametrize('module', COMMANDS)
@pytest.mark.parametrize('field', ['loss.swap', 'loss.mismatched_uniform'])
def test_the_command_line_comes_after_the_file_by_either_name(module, field, tmp_path, capsys):
    text, prefix, _ = COMMANDS[module]
    (tmp_path / 'old.py').write_text(text)
    flag = f'--config.{prefix}{field}'
    for words in ([f'{flag}=0.75'], [flag, '0.75'], [flag[1:], '0.75']):
        config = parsed(module, tmp_path / 'old.py', *words)
        of_run = config.variants.events.run if prefix else config
        assert of_run.loss.mismatched_uniform == 0.75


def test_an_old_metric_on_the_command_line_gets_the_present_name(capsys):
    config = parsed(benchmark, 'own', '--config.train.best_metric=leak/n', '--noconfig.loss.binary')
    assert config.train.best_metric == 'shortcut/n' and config.loss.multi_label is False
    assert capsys.readouterr().err.count('notice: ') == 2


@pytest.mark.parametrize('module', COMMANDS)
def test_the_config_of_another_command_is_refused_in_one_line(module, capsys):
    name, lacking = ('own', 'seeds, variants, rows') if module is study else ('study', 'data')
    assert runs.run_here(module.main, f'--config={name}', *COMMANDS[module][2]) == 2
    output, error = capsys.readouterr()
    assert output == '' and error.count('\n') == 1
    assert f'error: --config={name} lacks ' in error and lacking in error and 'expected a config such as' in error


@pytest.mark.parametrize('module', COMMANDS)
def test_a_missing_config_is_named(module, capsys):
    assert runs.run_here(module.main, *COMMANDS[module][2]) == 2
    assert capsys.readouterr().err.startswith('error: --config is missing; expected one such as --config=configs/')


def test_a_variant_of_a_study_that_is_no_run_is_refused(tmp_path, capsys):
    text = OF_A_STUDY.replace('    return', '    del config.variants.events.run.optim\n    return')
    (tmp_path / 'mine.py').write_text(text)
    assert runs.run_here(study.main, f'--config={tmp_path}/mine.py', f'--workdir={tmp_path}') == 2
    assert 'config.variants.events.run lacks optim; expected the config of a run' in capsys.readouterr().err


def test_a_config_file_with_a_class_of_its_own(tmp_path):
    """A dataclass with annotations as strings looks up the module that it is defined in."""
    text = (
        'from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass Size:\n    side: int\n'
    )
    (tmp_path / 'mine.py').write_text(text + OF_A_RUN)
    assert parsed(benchmark, tmp_path / 'mine.py').loss.mismatched_uniform == 0.25
    assert 'config_file' in sys.modules


@pytest.fixture
def values():
    made = flags.FlagValues()
    flags.DEFINE_string('out', None, '', flag_values=made)
    flags.DEFINE_bool('square', True, '', flag_values=made)
    flags.DEFINE_multi_string('video', None, '', flag_values=made)
    flags.DEFINE_list('files', [], '', flag_values=made)
    return made


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        (['--out=a', '--out=b'], '--out is given twice, a and b; expected once; --help lists the flags'),
        (['--out', 'a', '-out=a'], '--out is given twice, a and a'),
        (['--square', '--nosquare'], '--square is given twice, '),
        (['--nosquare', '--square=true'], '--square is given twice, '),
        (['--files=a', '--files=b'], '--files is given twice, '),
        (['--unknown=1', '--unknown=1'], "Unknown command line flag 'unknown'"),
        (['a'], "['a'] on the command line is not a flag"),
    ],
)
def test_a_flag_twice_is_refused(values, words, expected, capsys):
    assert command.run(['command', *words], '', values, lambda _: 0) == 2
    error = capsys.readouterr().err
    assert f'error: {expected}' in error and error.count('\n') == 1


@pytest.mark.parametrize(
    'words', [['--video=a', '--video=b', '--out=a'], ['--square', '--out=--square'], ['--out', 'out']]
)
def test_a_flag_once_or_of_several_values_is_welcome(values, words):
    # A second command in one process begins anew.
    for _ in range(2):
        assert command.run(['command', *words], '', values, lambda _: 0) == 0


@pytest.mark.parametrize('words', [['--config', 'own:tiny'], ['-config', 'own:tiny'], ['-config=own:tiny']])
def test_the_config_in_every_form_of_a_flag(words):
    found = []
    argv = ['command', '--config.seed', '3', *words, '--config.train.steps=7']
    body = lambda values: found.append(values.config) or 0
    assert command.run(argv, '', benchmark.make_flags(), body, config=command.ConfigFlag()) == 0
    assert (found[0].seed, found[0].train.steps, found[0].model.visual) == (3, 7, 'tiny')


@pytest.mark.parametrize(
    ('error', 'code', 'expected'),
    [
        (checkpoint.CheckpointError('it is\ndamaged'), 1, 'it is damaged'),
        (tfrecord.NoDataError('no data'), 2, 'no data'),
        (tfrecord.DataError('cut off'), 1, 'cut off'),
        (errors.WeightsError('no weights'), 2, 'no weights'),
        (work.PrepareError('no clips'), 1, 'no clips'),
        (work.UsageError('--x'), 2, '--x'),
        (command.RunError('no run'), 2, 'no run'),
        (command.RunError('failed', 1), 1, 'failed'),
        (OSError(errno.ENOSPC, 'No space left on device', 'x.json'), 1, 'x.json: No space left on device; free some'),
        (KeyError('wrong use'), 2, 'wrong use'),
        (KeyboardInterrupt(), 130, 'stopped'),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else '',
)
def test_expected_errors_are_one_line_and_an_exit_code(values, error, code, expected, capsys):
    def body(_):
        raise error

    assert command.run(['command'], '', values, body, wrong_use=KeyError) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ') and expected in line


def test_a_bug_keeps_its_traceback(values):
    def body(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command.run(['command'], '', values, body)


def test_an_error_clears_the_progress_line_of_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr('sys.stderr.isatty', lambda: True)
    assert command.fail('x', 1) == 1
    assert capsys.readouterr().err == '\r\x1b[Kerror: x\n'
