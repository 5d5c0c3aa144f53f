"""Tests `python -m data_prep NAME`: every command is listed, and an unknown name gives one line."""

import importlib
import pathlib
import subprocess
import sys
import warnings

import pytest
import runs

from data_prep import __main__ as prepare


def test_every_command_of_the_package_is_listed():
    modules = pathlib.Path(prepare.__file__).parent.glob('*.py')
    commands = {path.stem for path in modules if "if __name__ == '__main__'" in path.read_text()}
    assert set(prepare.COMMANDS) == commands - {'__main__'}


@pytest.mark.parametrize('argv, code', [([], 2), (['--help'], 0)])
def test_help_lists_the_commands(argv, code, capsys):
    assert prepare.main(['prepare', *argv]) == code
    output = capsys.readouterr().out
    assert all(f'\n  {name} ' in output for name in prepare.COMMANDS)


def test_another_name_is_one_line(capsys):
    assert prepare.main(['prepare', 'vggsounds']) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: there is no command 'vggsounds'; expected one of folder, synthetic")


def test_the_command_gets_the_arguments_behind_its_name():
    run = subprocess.run(
        [sys.executable, '-m', 'data_prep', 'verify', 'nowhere'], cwd=runs.ROOT, capture_output=True, text=True
    )
    (line,) = run.stderr.splitlines()
    assert run.returncode == 2 and 'nowhere' in line


@pytest.mark.parametrize('name', prepare.COMMANDS)
def test_help_shows_every_flag(name, capsys, monkeypatch):
    """The command is run as a program, since absl's own help leaves out flags that other modules define."""
    monkeypatch.setattr(sys, 'argv', ['prepare', name, '--help'])
    with pytest.raises(SystemExit) as caught, warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # the module is imported already
        prepare.main()
    output = capsys.readouterr().out
    assert caught.value.code == 0
    for flag in importlib.import_module(f'data_prep.{name}').FLAGS:
        assert f'--{flag}:' in output or f'--[no]{flag}:' in output
