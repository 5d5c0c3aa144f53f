"""Tests that a missing extra is one line, and only where it is needed."""

import os
import subprocess
import sys

import pytest
import runs

from data_prep import extras
from data_prep.work import UsageError

HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == {name!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture
def without(tmp_path):
    """Returns a function that runs `python -m data_prep ARGUMENTS` in a process that lacks a package."""

    def run(name, *arguments):
        (tmp_path / 'sitecustomize.py').write_text(HIDE.format(name=name))
        environment = os.environ | {'PYTHONPATH': os.pathsep.join(map(str, (tmp_path, runs.ROOT)))}
        done = subprocess.run(
            [sys.executable, '-m', *map(str, arguments)], env=environment, capture_output=True, text=True, cwd=tmp_path
        )
        return done.returncode, done.stderr

    return run


def test_ave_without_h5py(without, tmp_path):
    (tmp_path / 'Annotations.txt').write_text('Dog&abcdefghijk&good&0&10\n')
    flags = (f'--annotations={tmp_path}', f'--videos={tmp_path}', f'--out={tmp_path}/out')
    code, errors = without('h5py', 'data_prep.ave', *flags)
    assert code == 2 and errors == (
        'error: the Python package h5py is not installed, which this command needs; install the extra: '
        'pip install ".[prep]" in a checkout, or pip install h5py\n'
    )


@pytest.mark.parametrize('name, module', [('h5py', 'data_prep.ave'), ('h5py', 'data_prep.llp')])
def test_the_help_needs_no_extra(without, name, module):
    assert without(name, module, '--help') == (0, '')


def test_an_error_inside_a_package_is_not_taken_for_its_absence(tmp_path, monkeypatch):
    (tmp_path / 'broken_package.py').write_text('import nothing_of_this_name\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match='nothing_of_this_name'):
        extras.load('broken_package', 'prep')
    with pytest.raises(UsageError, match='the Python package nothing_of_this_name is not installed'):
        extras.load('nothing_of_this_name', 'prep')
