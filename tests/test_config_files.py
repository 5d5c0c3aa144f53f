"""Tests that names of configs on the command line become paths and that nothing else changes."""

import importlib
import sys
import types

import pytest

from configs import common
from stattn_jax import config_files
from stattn_jax.config_files import fields


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


def test_another_package_of_this_name_is_set_aside(monkeypatch):
    theirs = {name: types.ModuleType(name) for name in ('configs', 'configs.common')}
    for name in [name for name in sys.modules if name.partition('.')[0] == 'configs']:
        monkeypatch.delitem(sys.modules, name)
    for name, module in theirs.items():
        monkeypatch.setitem(sys.modules, name, module)
    with config_files.importable():
        assert importlib.import_module('configs.common').__file__ == str(config_files.FOLDER / 'common.py')
    assert {name: sys.modules[name] for name in theirs} == theirs


SOURCE = """
def get_config():
    config = ConfigDict()
    config.seed = 0  # of everything
    # Where the
    # data are.
    config.data = ConfigDict({'dir': None, 'fit': 'crop'})  # or 'squash'
    config.optim = ConfigDict(
        {
            'lr': 1.0,
            # Steps.
            'steps': 3,  # one or more
        }
        # Factors.
        | {'visual_lr': 1.0, 'audio_lr': 1.0}
    )
    return config


def tiny(config):
    config.seed = 1  # not this
"""


def test_comments_of_fields():
    assert fields.read_comments(SOURCE) == {
        'seed': 'of everything',
        'data.dir': 'Where the data are.',
        'data.fit': "or 'squash'",
        'optim.steps': 'Steps. one or more',
        'optim.visual_lr': 'Factors.',
    }


def test_every_field_is_described():
    lines = fields.describe().splitlines()
    config = fields.flatten(common.get_config().to_dict())
    assert [sum(line.startswith(f'  --config.{name}=') for line in lines) for name in config] == [1] * len(config)
    assert len(lines) > len(config) + 10


def test_the_path_of_imports_is_left_as_it_was():
    before = list(sys.path)
    with config_files.importable():
        assert sys.path[0] == str(config_files.FOLDER.parent)
    assert sys.path == before
