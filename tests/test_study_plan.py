"""Tests the study's plan: its networks, configs and order, and what counts as a different result."""

import pathlib

import pytest
import studies

from configs import study
from stattn_jax import run
from stattn_jax.models import KINDS
from stattn_jax.study import plan

WORKDIR = pathlib.Path('study')


def test_every_kind_is_in_the_study_on_every_variant_with_three_seeds():
    entries = plan.entries(study.get_config(), WORKDIR)
    for variant in ('events', 'lopsided', 'binding'):
        kinds = [e.config.model.kind for e in entries if e.variant == variant and e.group != 'ablation']
        assert sorted(kinds) == sorted([*KINDS] * 3)
    assert len({e.name for e in entries}) == len(entries)
    assert [e.seed for e in entries] == sorted(e.seed for e in entries)


def test_rows_of_a_variant_differ_in_nothing_but_their_fields():
    config = study.get_config()
    for entry in plan.entries(config, WORKDIR):
        plain, own = (run.flatten(c.to_dict()) for c in (config.variants[entry.variant].run, entry.config))
        named = run.flatten(config.rows[entry.row].fields.to_dict())
        differing = {name for name in own if own[name] != plain[name]} - {'seed', 'data.dir'}
        assert differing == {name for name in named if named[name] != plain[name]}
        assert {name: own[name] for name in named} == named


def test_the_quick_study_is_ours_and_five_others():
    entries = plan.entries(study.get_config('quick'), WORKDIR)
    assert [e.row for e in entries][:1] == ['stan'] and len(entries) == 6
    assert {e.seed for e in entries} == {0}


def test_data_of_ones_own_is_used():
    config = studies.config('stan')
    assert plan.entries(config, WORKDIR)[0].config.data.dir == str(WORKDIR / 'data' / 'events')
    config.variants.events.run.data.dir = 'mine'
    assert plan.entries(config, WORKDIR)[0].config.data.dir == 'mine'


def test_a_key_follows_everything_that_the_numbers_depend_on():
    def key(change=lambda config: None):
        config = studies.config('stan')
        change(config)
        return plan.entries(config, WORKDIR)[0].key(config.measure)

    assert key() == key()
    changes = [
        lambda c: c.measure.update({'clips': 3}),
        lambda c: c.variants.events.run.train.update({'steps': 5}),
        lambda c: setattr(c, 'seeds', (1,)),
        lambda c: (
            c.rows.stan.fields.update({'model': {'null_cell': True}})
            or c.rows.stan.fields.update({'model': {'heads': 2}})
        ),
    ]
    assert len({key(), *map(key, changes)}) == len(changes) + 1


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda row: row.update({'group': 'theirs'}), "config.rows.stan.group is 'theirs'"),
        (lambda row: row.update({'variants': ('event',)}), 'did you mean events'),
        (lambda row: row.update({'fields': {'model': {'kinds': 'cam'}}}), 'config.rows.stan.fields'),
        (lambda row: row.update({'fields': {'model': {'kind': 'vam'}}}), 'config.model.kind'),
    ],
)
def test_rows_that_cannot_be_are_told_in_one_line(change, words):
    config = studies.config('stan')
    change(config.rows.stan)
    with pytest.raises(run.RunError, match=words) as error:
        plan.entries(config, WORKDIR)
    assert '\n' not in str(error.value)


def test_an_unknown_explainer_is_refused_before_anything_is_trained():
    config = studies.config('stan')
    config.measure.explainers = ('grad_cam', 'rises')
    with pytest.raises(run.RunError, match="config.measure.explainers names 'rises'; expected some of gradient_input"):
        plan.entries(config, WORKDIR)
