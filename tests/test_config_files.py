"""Tests that names of configs on the command line become paths and that nothing else changes."""

import sys

import pytest

from stattn_jax import config_files


def test_names_are_those_of_the_folder():
    assert {'own', 'vggsound', 'synthetic', 'study'} <= set(config_files.names())


@pytest.mark.parametrize('given, found', [
    ('own', '{folder}/own.py'),
    ('own:small', '{folder}/own.py:small'),
    ('synthetic:lopsided,gpu', '{folder}/synthetic.py:lopsided,gpu'),
    ('configs/own.py:small', 'configs/own.py:small'),
    ('mine', 'mine'),
    ('', ''),
])  # fmt: skip
def test_a_name_becomes_the_path_of_its_file(given, found):
    assert config_files.find(given) == found.format(folder=config_files.FOLDER)


def test_a_file_of_that_name_in_the_current_folder_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'own').touch()
    assert config_files.find('own:small') == 'own:small'


def test_only_the_value_of_config_is_looked_up():
    own = f'{config_files.FOLDER}/own.py'
    argv = ['main', '--config=own', '--workdir=own', '--config.seed=3']
    assert config_files.find_in(argv) == ['main', f'--config={own}', '--workdir=own', '--config.seed=3']
    assert config_files.find_in(['main', '--config', 'own']) == ['main', '--config', own]
    assert config_files.find_in(['main', '--config']) == ['main', '--config']


def test_the_path_of_imports_is_left_as_it_was():
    before = list(sys.path)
    with config_files.importable():
        assert sys.path[0] == str(config_files.FOLDER.parent)
    assert sys.path == before
