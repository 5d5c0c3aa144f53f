"""Tests `python -m data_prep NAME`: every command is listed, and an unknown name gives one line."""

import pathlib
import subprocess
import sys

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
