"""Tests the study's plan: its networks, configs and order, and what counts as a different result."""

import pathlib

import fakes
import ml_collections
import pytest
import studies

from configs import study
from stattn_jax import run
from stattn_jax.models import KINDS
from stattn_jax.study import choice, plan

WORKDIR = pathlib.Path('study')


def test_every_kind_is_in_the_study_on_every_variant_with_three_seeds():
    entries = studies.entries(study.get_config(), WORKDIR)
    for variant in ('events', 'lopsided', 'binding'):
        kinds = [e.config.model.kind for e in entries if e.variant == variant and e.group != 'ablation']
        assert sorted(kinds) == sorted([*KINDS] * 3)
    assert len({e.name for e in entries}) == len(entries)
    assert [e.seed for e in entries] == sorted(e.seed for e in entries)


def test_rows_of_a_variant_differ_in_nothing_but_their_fields():
    config = study.get_config()
    for entry in studies.entries(config, WORKDIR):
        plain, own = (run.flatten(c.to_dict()) for c in (config.variants[entry.variant].run, entry.config))
        named = run.flatten(config.rows[entry.row].fields.to_dict())
        differing = {name for name in own if own[name] != plain[name]} - {'seed', 'data.dir', 'optim.lr', 'eval.splits'}
        assert differing == {name for name in named if named[name] != plain[name]}
        assert {name: own[name] for name in named} == named


def test_the_quick_study_is_ours_and_five_others():
    entries = studies.entries(study.get_config('quick'), WORKDIR)
    assert [e.row for e in entries][:1] == ['stan'] and len(entries) == 6
    assert {e.seed for e in entries} == {0}


def test_data_of_ones_own_is_used_and_divided_where_it_has_no_validation_clips(tmp_path):
    config = studies.config('stan')
    assert studies.entries(config, WORKDIR)[0].config.data.dir == str(WORKDIR / 'data' / 'events')
    config.variants.events.run.data.dir = str(tmp_path)
    fakes.write_info(tmp_path, splits={'train': 4, 'val': 2, 'test': 2})
    assert studies.entries(config, WORKDIR)[0].clips == tmp_path
    fakes.write_info(tmp_path, splits={'train': 4, 'test': 2})
    (entry,) = studies.entries(config, WORKDIR)
    assert entry.clips == WORKDIR / 'data/events/divided' and entry.config.data.dir == str(entry.clips)
    config.variants.events.run.data.extract = True
    (entry,) = studies.entries(config, WORKDIR)
    assert entry.config.data.dir == str(WORKDIR / 'data/events/features')
    assert entry.clips == WORKDIR / 'data/events/divided'


def test_data_that_the_study_cannot_compare_are_refused(tmp_path):
    config = study.get_config('own')
    with pytest.raises(run.RunError, match='config.variants.own.run.data.dir is not set; expected a directory'):
        plan.trials(config, WORKDIR)
    config.variants.own.run.data.dir = str(tmp_path)
    for options, words in (
        ({'splits': {'train': 4}}, 'has no split test'),
        ({'splits': {'train': 4, 'test': 2}, 'multi_label': True}, 'several labels'),
    ):
        fakes.write_info(tmp_path, **options)
        with pytest.raises(run.RunError, match=words):
            plan.trials(config, WORKDIR)


def test_every_row_has_the_same_trials_and_the_ablations_have_the_choice_of_stan():
    config = study.get_config()
    config.grid.optim.weight_decay = (1e-2, 1e-1)
    trials = plan.trials(config, WORKDIR)
    of_row = {}
    for trial in trials:
        of_row.setdefault((trial.variant, trial.row), []).append(trial.values)
        assert trial.config.eval.splits == ('val',) and trial.config.optim.lr == trial.values['optim.lr']
    assert len(of_row) == 45 and all(values == plan.combinations(config.grid) for values in of_row.values())
    assert len(plan.combinations(config.grid)) == 6
    chosen = {}
    for trial in trials:
        if trial.number == (4 if trial.row == 'stan' else 1):
            score = choice.Score(trial.variant, trial.row, trial.number, trial.values, 'val', 1.0, 1.0)
            chosen[trial.variant, trial.row] = score
    for entry in plan.entries(config, WORKDIR, chosen):
        values = plan.combinations(config.grid)[4 if entry.row == 'stan' or entry.group == 'ablation' else 1]
        assert (entry.config.optim.lr, entry.config.optim.weight_decay) == tuple(values.values())
        assert entry.config.eval.splits == ('test',)
        tried = entry.seed == 0 and entry.group != 'ablation'
        assert ('trials' in entry.workdir.parts) == tried
    del chosen['events', 'mbt']
    names = [entry.name for entry in plan.entries(config, WORKDIR, chosen)]
    absent = [name for name in plan.names_of_entries(config) if name not in names]
    assert absent == ['events/mbt-0', 'events/mbt-1', 'events/mbt-2']


@pytest.mark.parametrize(
    'grid, words',
    [
        ({'optim': {'lr': ()}}, r'config.grid.optim.lr is \(\); expected a tuple'),
        ({'optim': {'rate': (1,)}}, 'config.grid: '),
    ],
)
def test_a_grid_that_cannot_be_is_refused(grid, words):
    config = studies.config('stan')
    config.grid = ml_collections.ConfigDict(grid)
    with pytest.raises(run.RunError, match=words):
        plan.trials(config, WORKDIR)


def score(accuracy, precision=0.5, split='val', number=0):
    return choice.Score('events', 'cam', number, {'optim.lr': number}, split, accuracy, precision)


def test_the_best_accuracy_on_validation_clips_is_chosen():
    scores = [score(0.5), score(None, None, number=1), score(0.7, 0.6, number=2), score(0.7, 0.8, number=3)]
    assert choice.choose(scores).number == 3
    assert choice.choose([*scores, score(0.7, 0.8, number=4)]).number == 3
    assert choice.choose([score(None, None)]) is None and choice.choose([]) is None


@pytest.mark.parametrize('split', ['test', 'train'])
def test_nothing_is_chosen_on_other_clips(split):
    with pytest.raises(ValueError, match=f"scored on the split '{split}'; expected 'val'"):
        choice.choose([score(0.5), score(0.9, split=split)])


def test_a_row_chooses_when_all_of_its_trials_are_done(tmp_path):
    config = studies.config('stan', 'cam')
    config.grid.optim.lr = (1e-3, 2e-3)
    trials = plan.trials(config, tmp_path)
    for number, trial in enumerate(trials[:-1]):
        studies.write_trial(trial, number / 10)
    (key,) = choice.read(trials)
    assert key == ('events', 'stan') and choice.choose(choice.read(trials)[key]).values == {'optim.lr': 2e-3}
    # A result of other settings counts as missing.
    trials[0].config.train.steps += 1
    assert choice.read(trials) == {}


def test_a_key_follows_everything_that_the_numbers_depend_on():
    def key(change=lambda config: None):
        config = studies.config('stan')
        change(config)
        return studies.entries(config, WORKDIR)[0].key

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


def test_a_study_that_is_moved_keeps_its_results(tmp_path):
    config = studies.config('stan')
    here, there = (studies.entries(config, folder)[0] for folder in (WORKDIR, tmp_path / 'moved'))
    assert here.config.data.dir != there.config.data.dir and here.key == there.key
    here, there = (plan.trials(config, folder)[0] for folder in (WORKDIR, tmp_path / 'moved'))
    assert here.key == there.key
    # Data elsewhere are known by their own path.
    fakes.write_info(tmp_path, splits={'train': 4, 'val': 2, 'test': 2})
    config.variants.events.run.data.dir = str(tmp_path)
    own = studies.entries(config, WORKDIR)[0].key
    assert own != here.key and own == studies.entries(config, tmp_path / 'moved')[0].key


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda row: row.update({'group': 'theirs'}), "config.rows.stan.group is 'theirs'"),
        (lambda row: row.update({'variants': ('event',)}), 'did you mean events'),
        (lambda row: row.update({'fields': {'model': {'kinds': 'cam'}}}), 'config.rows.stan.fields'),
        (lambda row: row.update({'fields': {'model': {'kind': 'vam'}}}), 'config.model.kind'),
    ],
)
def test_impossible_rows_give_one_line(change, words):
    config = studies.config('stan')
    change(config.rows.stan)
    with pytest.raises(run.RunError, match=words) as error:
        studies.entries(config, WORKDIR)
    assert '\n' not in str(error.value)


def test_an_unknown_explainer_is_refused_before_anything_is_trained():
    config = studies.config('stan')
    config.measure.explainers = ('grad_cam', 'rises')
    with pytest.raises(run.RunError, match="config.measure.explainers names 'rises'; expected some of gradient_input"):
        studies.entries(config, WORKDIR)
