"""Tests config_checks.py: values that no run can have are refused in one line, and old names of fields are read."""

import pytest

from configs import common
from stattn_jax import config_checks
from stattn_jax.command import RunError


def changed(**fields):
    config = common.get_config()
    config.update_from_flattened_dict({name.replace('__', '.'): value for name, value in fields.items()})
    return config


@pytest.mark.parametrize('name', config_checks.POSITIVE_FIELDS)
def test_counts_below_one_are_refused(name):
    with pytest.raises(RunError, match=f'config.{name} is 0; expected 1 or more'):
        config_checks.check(changed(**{name.replace('.', '__'): 0}))


@pytest.mark.parametrize('name', config_checks.CHOICES)
def test_unknown_choices_are_refused_with_the_known_ones(name):
    with pytest.raises(RunError, match=f"config.{name} is 'foo'; expected one of .*{config_checks.CHOICES[name][-1]}"):
        config_checks.check(changed(**{name.replace('.', '__'): 'foo'}))


def test_width_must_split_over_the_heads():
    with pytest.raises(RunError, match='config.model.width is 512; expected a multiple of config.model.heads, 3'):
        config_checks.check(changed(model__heads=3))
    config_checks.check(common.get_config())


@pytest.mark.parametrize('fields, message', [
    ({'model__kind': 'cam', 'model__null_cell': False},
     "config.model.null_cell is False, an ablation .* kind is 'cam'"),
    ({'model__kind': 'mbt', 'model__hidden': 6}, "config.model.hidden is 6; expected a multiple of 4 for kind 'mbt'"),
    ({'model__guided': False}, 'config.loss.correspondence is 1.0; expected 0 with config.model.guided=False'),
    ({'model__guided': False, 'loss__correspondence': 0.0},
     'config.loss.mismatched_uniform is 1.0; expected 0 with config.model.guided=False'),
    ({'model__null_cell': False}, 'config.loss.correspondence is 1.0; expected 0 with config.model.null_cell=False'),
    ({'eval__strip_clips': -1}, 'config.eval.strip_clips is -1; expected 0 .no strip of clips. to 64'),
    ({'eval__strip_clips': 65}, 'config.eval.strip_clips is 65; expected 0 .no strip of clips. to 64'),
    ({'train__accumulate': 0}, 'config.train.accumulate is 0; expected 1 or more'),
    ({'train__accumulate': 5}, 'train.accumulate is 5; expected a divisor of config.train.batch, 64, '),
    ({'loss__negatives': 8, 'train__accumulate': 8},
     'negatives is 8; expected fewer than the clips of a micro-batch, 8, .*negatives=7'),
    ({'loss__negatives': 0}, 'config.loss.negatives is 0; expected 1 or more with config.loss.correspondence 1.0'),
    ({'loss__negatives': 9, 'train__batch': 9},
     'negatives is 9; expected fewer than config.train.batch, 9.*negatives=8'),
])  # fmt: skip
def test_options_that_a_kind_or_an_ablation_cannot_have_are_refused(fields, message):
    with pytest.raises(RunError, match=message):
        config_checks.check(changed(**fields))


def test_ablations_with_losses_that_fit_are_welcome():
    config_checks.check(changed(model__guided=False, loss__correspondence=0.0, loss__mismatched_uniform=0.0))
    config_checks.check(changed(model__null_cell=False, loss__correspondence=0.0))
    config_checks.check(changed(model__kind='mbt'))
