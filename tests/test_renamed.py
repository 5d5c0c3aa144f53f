"""renamed.py: old names of config fields and metrics are read, each with one line that says the new name."""

import pytest

from configs import common
from stattn_jax import renamed
from stattn_jax.config_files import fields


@pytest.fixture(autouse=True)
def new_process():
    renamed._notice.cache_clear()


def test_every_new_field_exists_and_no_old_one_does():
    known = fields.flatten(common.get_config().to_dict())
    assert set(renamed.FIELDS.values()) <= set(known) and not set(renamed.FIELDS) & set(known)


def test_arguments_are_renamed_with_a_notice(capsys):
    given = [
        'main',
        '--config=own.py',
        '--config.loss.binary=True',
        '--config.train.steps=3',
        '--config.loss.swap',
        '0',
    ]
    assert renamed.arguments(given) == [
        'main', '--config=own.py', '--config.loss.multi_label=True', '--config.train.steps=3',
        '--config.loss.mismatched_uniform', '0',
    ]  # fmt: skip
    notices = capsys.readouterr().err.splitlines()
    renamed.arguments(given)
    assert (
        capsys.readouterr().err == ''
        and len(notices) == 2
        and notices[0]
        == ('notice: config.loss.binary is called config.loss.multi_label now; version 0.2 will refuse the old name')
    )


def test_a_saved_config_is_renamed_with_one_notice(capsys):
    saved = {'seed': 3, 'loss': {'binary': True, 'match': 2.0, 'audio': 1.0}, 'train': {'best_metric': 'leak/n'}}
    assert renamed.fields(saved, 'RUN/config.json') is saved
    assert saved == {
        'seed': 3,
        'loss': {'multi_label': True, 'correspondence': 2.0, 'audio': 1.0},
        'train': {'best_metric': 'shortcut/n'},
    }
    assert 'RUN/config.json: loss.binary is called loss.multi_label now (2 more' in capsys.readouterr().err


def test_a_saved_config_gets_the_fields_that_were_added_since(capsys):
    saved, row = {'model': {'width': 8}, 'train': {}, 'eval': {}}, {'train': {'steps': 3}}
    renamed.fields(saved, 'x')
    renamed.fields(row, 'x')
    assert saved == {
        'model': {'width': 8, 'layers': 'auto', 'remat': False},
        'train': {'accumulate': 1},
        'eval': {'strip_clips': 4},
    }
    assert row == {'train': {'steps': 3}}
    assert renamed.ADDED.items() <= fields.flatten(common.get_config().to_dict()).items()
    assert capsys.readouterr().err == ''


def test_present_names_give_no_notice(capsys):
    config = common.get_config().to_dict()
    renamed.fields(config, 'x')
    assert config == common.get_config().to_dict() and renamed.arguments(['--config.seed=1']) == ['--config.seed=1']
    assert renamed.metric('classification/top1') == 'classification/top1'
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('old, new', renamed.METRICS.items())
def test_metrics_are_renamed(old, new):
    assert renamed.metric(old) == new
