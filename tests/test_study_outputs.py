"""Tests the study's tables: numbers against the metrics, verdicts, missing values, and agreement of the files."""

import csv
import json
import shutil

import measured
import numpy as np
import pytest

from stattn_jax.metrics import bootstrap, classification, events, paired
from stattn_jax.study import outputs, report, results, sentences
from stattn_jax.study.table_format import Column, Estimate, Table


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return measured.write(tmp_path_factory.mktemp('study'))


@pytest.fixture(scope='module')
def runs(folder):
    return outputs.load(folder)


@pytest.fixture(scope='module')
def made(runs):
    return {table.name: table for table in outputs.make(runs, measured.scores())}


def cell(table, column, *labels):
    """The cell of the row that begins with these labels."""
    c = [column.name for column in table.columns].index(column)
    return next(row[c] for row in table.rows if row[: len(labels)] == labels)


def stack(runs, row, name):
    return np.stack([run.arrays[name] for run in runs if run.row == row])


def test_runs_come_in_the_order_of_the_groups_and_half_written_ones_not_at_all(folder, tmp_path):
    shutil.copytree(folder, tmp_path / 'copy')
    (tmp_path / 'copy/runs/events/stan-0/measures.npz').unlink()
    (tmp_path / 'copy/runs/events/han-2/measures.json').unlink()
    found = outputs.load(tmp_path / 'copy')
    assert [run.group for run in found] == sorted(
        (run.group for run in found), key=['ours', 'representation', 'intrinsic', 'ablation'].index
    )
    expected = [f'events/{row}-{seed}' for row in measured.ROWS for seed in (0, 1, 2)]
    assert sentences.coverage(found, expected) == '19 of 21 runs are complete; missing: events/stan-0, events/han-2.'
    assert sentences.coverage(found, ['events/stan-1']) == '1 of 1 runs are complete.'


def test_runs_of_other_test_clips_are_refused(tmp_path):
    measured.write_run(tmp_path, 'events', 'stan', 0, n=30)
    measured.write_run(tmp_path, 'events', 'cam', 0, n=31)
    with pytest.raises(ValueError, match='events/stan-0 and events/cam-0 were measured on different test clips'):
        outputs.load(tmp_path)


def test_accuracy_is_the_mean_of_clips_and_trainings(runs, made):
    table, correct = made['recognition'], {row: stack(runs, row, 'correct') for row in ('stan', 'film')}
    found = cell(table, 'accuracy', 'film')
    assert found.value == pytest.approx(correct['film'].mean(), abs=1e-12) and (found.n, found.seeds) == (40, 3)
    assert found[:5] == tuple(bootstrap.mean(correct['film']))
    assert cell(table, 'parameters', 'film') == 12349 and cell(table, 'training', 'film').value == 101


def test_average_precision_of_drawn_clips_is_that_of_the_clips_repeated():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 12)
    # The logits are rounded so that clips tie.
    logits = rng.normal(size=(12, 3)).round(0)
    of_draws = results.ap_of_draws(logits, labels)
    scores = events.log_probabilities(logits, binary=False)
    for _ in range(20):
        clips = rng.integers(0, 12, 12)
        truth = np.eye(3)[labels[clips]]
        expected = classification.mean_average_precision(scores[clips], truth, '')['map']
        assert of_draws(clips) == pytest.approx(expected, abs=1e-12)


def test_map_of_a_row_is_the_mean_of_its_trainings(runs, made):
    truth = np.eye(4)[runs[0].arrays['labels']]
    each = [
        classification.mean_average_precision(events.log_probabilities(logits, binary=False), truth, '')['map']
        for logits in stack(runs, 'cam', 'logits')
    ]
    found = cell(made['recognition'], 'mAP', 'cam')
    assert found.value == pytest.approx(np.mean(each), abs=1e-12) and found.low < found.value < found.high


def test_pointing_on_strata_beside_chance(runs, made):
    partial = runs[0].arrays['partial']
    hits = stack(runs, 'cam', 'own/time')[:, partial]
    found = cell(made['pointing'], 'time, partial events', 'cam', 'own')
    assert found[:5] == tuple(bootstrap.mean(hits)) and found.n == partial.sum() and found.skipped == 0
    less = cell(made['tests'], 'when', 'cam')
    assert less[:3] == paired.compare(stack(runs, 'stan', 'terms/time')[:, partial], hits)[:3]
    blind, best = (row for row in made['pointing'].rows if row[0].startswith('chance'))
    assert blind[3].value == pytest.approx(runs[0].arrays['chance/space'].mean()) and best[3].value == 0.31
    # In the joint game, the best answer known without a run is the blind guess.
    assert best[8] == blind[8]
    assert [row[1] for row in made['pointing'].rows if row[0] == 'stan'] == ['terms', 'attention']
    assert cell(made['pointing'], 'space', 'audio_only', 'grad_cam') is None
    assert not [row for row in made['pointing'].rows if row[0] == 'mbt']


def test_clips_without_a_value_are_left_out_and_counted(runs, made):
    found = cell(made['faithfulness'], 'AOPC at the features', 'cam', 'own')
    aopc = stack(runs, 'cam', 'own/aopc')
    assert found.value == pytest.approx(aopc[:, :16].mean()) and (found.n, found.skipped) == (16, 24)
    less, test = cell(made['tests'], 'faithfulness', 'cam'), paired.compare(stack(runs, 'stan', 'terms/aopc'), aopc)
    assert less[:3] == test[:3] and (less.n, less.skipped, less.verdict) == (16, 24, 'ahead')


def test_the_tests_of_a_column_are_corrected_together(runs, made):
    table = made['tests']
    assert [row[0] for row in table.rows] == ['audio_only', 'film', 'mbt', 'cam', 'han']
    correct = {row: stack(runs, row, 'correct') for row in ('stan', *(row[0] for row in table.rows))}
    each = [paired.compare(correct['stan'], correct[row[0]]) for row in table.rows]
    c = table.column('accuracy')
    assert [row[c].p for row in table.rows] == pytest.approx(paired.holm([one.p for one in each]))
    for row, one in zip(table.rows, each, strict=True):
        word = 'level' if row[c].p >= 0.05 else 'ahead' if one.value > 0 else 'behind'
        assert row[c].verdict == word and row[c][:3] == one[:3]
    # A network without an explanation has no place, time and order to compare.
    assert table.rows[2][2:] == (None, None, None) and {row[c].verdict for row in table.rows} == {'ahead', 'level'}


def test_choices_stand_beside_the_accuracy_of_each_trial(made):
    table = made['choices']
    assert table.rows[0][1] == 'optim.lr 0.001' and [column.name for column in table.columns[2:]] == [
        'optim.lr 0.0005',
        'optim.lr 0.001',
    ]
    assert [found.value for found in table.rows[0][2:]] == [0.5, 0.8]


def test_controls_are_of_the_same_training(runs, made):
    own, shifted = (stack(runs, 'film', f'grad_cam/feature/{name}') for name in ('difference', 'shifted'))
    found = cell(made['removal'], 'less shifted map', 'feature', 'film', 'grad_cam')
    assert found[:3] == paired.compare(own - shifted, np.zeros((1, own.shape[1])))[:3] and found.verdict == 'ahead'
    assert found.seeds == 3
    assert cell(made['removal'], 'less random map', 'feature', 'cam', 'own') is None
    assert made['removal'].columns[0].name == 'removed' and {row[0] for row in made['removal'].rows} == set(
        measured.SETTINGS
    )


def test_explanations_of_one_network_are_compared_training_by_training(runs, made):
    gap = stack(runs, 'stan', 'terms/aopc') - stack(runs, 'stan', 'grad_cam/aopc')
    found = cell(made['explainers-difference'], 'AOPC at the features', 'stan', 'grad_cam')
    assert found[:3] == paired.compare(gap, np.zeros((1, gap.shape[1])))[:3] and found.verdict == 'ahead'
    # A row with one explanation has nothing to compare; grad_cam stands for a network without its own map.
    assert {row[0] for row in made['explainers'].rows} == {'stan', 'film'}
    assert cell(made['explainers-difference'], 'space', 'film', 'gradient_input') is not None
    assert not [row for row in made['explainers-difference'].rows if row[:2] == ('film', 'grad_cam')]


def test_the_cascade_runs_from_heads_to_trunks_for_every_network(runs, made):
    assert [column.name for column in made['sanity-cascade'].columns[3:]] == ['heads', 'time', 'projections', 'trunks']
    found = cell(made['sanity-cascade'], 'trunks', 'han', 'own')
    assert found[:5] == tuple(bootstrap.mean(stack(runs, 'han', 'sanity/own/randomised/trunks')))
    assert cell(made['sanity-cascade'], 'time', 'han', 'own') is None


def test_each_comparison_of_the_cascade_has_a_table_and_no_place_among_other_checks(runs, made):
    found = cell(made['sanity-cascade-ssim'], 'heads', 'han', 'own')
    assert found[:5] == tuple(bootstrap.mean(stack(runs, 'han', 'sanity/own/randomised_ssim/heads')))
    assert 'sanity-cascade-magnitude' not in made
    assert [c.name for c in made['sanity'].columns[3:]] == ['silence', 'foreign sound', 'other class', 'mirror', 'roll']


def test_measures_of_stan_alone_are_means_over_trainings(made):
    assert cell(made['inside'], 'value', 'time/alpha')[:3] == (1.0, 1.0, 1.0)
    found = cell(made['inside'], 'value', 'space/alpha')
    assert found.value == pytest.approx(0.1) and found.low == 0 and found.high == pytest.approx(0.2)


def test_rates_known_by_their_count_get_the_interval_of_so_many_clips(made):
    found = cell(made['leaks'], '... undecided', 'stan')
    hits = np.tile(np.arange(20) < 15, (3, 1)).astype(float)
    assert found[:5] == tuple(bootstrap.mean(hits)) and found.seeds == 3
    assert cell(made['leaks'], '... undecided', 'film') is None


def test_ablations_stand_beside_stan(runs, made):
    found = cell(made['ablations'], 'STAN less this, accuracy', 'shared_time')
    test = paired.compare(*(stack(runs, row, 'correct') for row in ('stan', 'shared_time')))
    assert found[:3] == test[:3]
    assert [row[0] for row in made['ablations'].rows] == ['stan', 'shared_time']
    without = [run for run in runs if run.group != 'ablation']
    assert 'ablations' not in [table.name for table in outputs.make(without, measured.scores())]
    alone = [run for run in runs if run.group == 'ablation']
    [table] = [table for table in outputs.make(alone, measured.scores()) if table.name == 'ablations']
    assert [row[0] for row in table.rows] == ['shared_time']


def test_every_number_over_clips_has_an_interval_and_its_counts(made):
    for table in made.values():
        for row in table.rows:
            for found in row:
                if isinstance(found, Estimate) and found.n:
                    assert found.low <= found.value + 1e-9 and found.value <= found.high + 1e-9 and found.seeds, (
                        table.name,
                        row,
                    )


def test_csv_parses_back_to_the_same_numbers(made):
    for table in made.values():
        rows = list(csv.DictReader(table.csv().splitlines()))
        assert len(rows) == len(table.rows)
        for row, parsed in zip(table.rows, rows, strict=True):
            for column, found in zip(table.columns, row, strict=True):
                if isinstance(found, Estimate):
                    assert (
                        float(parsed[column.name]) == found.value
                        and parsed.get(f'{column.name} verdict', '') == found.verdict
                    )
                    low = parsed[f'{column.name} low']
                    assert (
                        (float(low) == found.low and int(parsed[f'{column.name} n']) == found.n)
                        if low
                        else np.isnan(found.low)
                    )
                else:
                    assert parsed[column.name] == ('' if found is None else str(found))


def test_numbers_as_people_read_them():
    columns = (Column('row'), Column('a', 'percent'), Column('b', 'points'), Column('c', 'count'))
    rows = (
        ('stan', Estimate(0.97, 0.95, 0.991, 40, 0, 3), None, 1234567),
        ('a|b', Estimate(0.5, 0.4, 0.6, 40, 0, 1), Estimate(-0.0001, -0.2, 0.1, 39, 1, 2, 0.4, 'level'), None),
        ('film', None, Estimate(0.1, 0.05, 0.2, 40, 0, 3, 0.0004, 'ahead'), 7),
    )
    lines = Table('x', 'events', 'X', '', columns, rows).markdown().replace('\N{NO-BREAK SPACE}', ' ').splitlines()
    assert lines[0] == '| row | a, n 40 | b | c |'
    assert lines[2] == '| STAN (ours) | 97.0 % [95.0, 99.1] | – | 1,234,567 |'
    assert lines[3] == '| a/b | 50.0 % [40.0, 60.0] (1 of 2 trainings) | +0.0 [−20.0, 10.0] n 39 p 0.40 level | – |'
    assert lines[4] == '| film | – | +10.0 [5.0, 20.0] n 40 p < 0.001 ahead | 7 |'.replace('film', 'FiLM')


def table_of_words(variant, **cells):
    """A table of tests in which each network has these words, None for what was not measured."""
    measures = ('accuracy', 'where', 'when')
    rows = tuple(
        (row, *(word and Estimate(0.1, 0, 0.2, 9, 0, 1, 0.5, word) for word in words)) for row, words in cells.items()
    )
    return Table('tests', variant, '', '', (Column('row'), *(Column(m, 'points', True) for m in measures)), rows)


def test_a_sentence_for_each_network_lists_where_stan_is_ahead_level_and_behind():
    one = table_of_words('events', film=('ahead', 'ahead', 'level'), cam=('level', None, 'behind'))
    assert sentences.relations([one]) == [
        'In accuracy and where STAN is ahead of FiLM. In when it is level with it.',
        'In accuracy STAN is level with CAM. In when it is behind it.',
    ]
    other = table_of_words('binding', film=('ahead', 'level', 'ahead'), cam=('ahead', 'ahead', 'ahead'))
    assert sentences.relations([one, other]) == [
        'In accuracy, where (events) and when (binding) STAN is ahead of FiLM. '
        'In where (binding) and when (events) it is level with it.',
        'In accuracy (binding), where and when (binding) STAN is ahead of CAM. '
        'In accuracy (events) it is level with it. In when (events) it is behind it.',
    ]


def test_one_sentence_states_the_results_of_stan(made):
    text = sentences.ours(list(made.values()), 'events')
    where = ' '.join(made['pointing'].rows[0][3].text('percent'))
    best = made['pointing'].rows[-1][3].text('percent')[0]
    assert text.startswith('STAN on events (40 test clips, 3 trainings): it names the class of 9')
    assert f'its strongest cell is on the object in {where} (chance {best}); ' in text
    assert text.endswith('(a blind order ' + made['faithfulness'].rows[0][5].text('number')[0] + ').')


def test_without_stan_or_explanations_there_are_the_tables_that_can_be(tmp_path):
    measured.write(tmp_path, rows=('mbt', 'cam'), seeds=(0,))
    runs = outputs.load(tmp_path)
    made = {table.name: table for table in outputs.make(runs, {})}
    assert not {'tests', 'choices', 'explainers'} & set(made) and sentences.ours(list(made.values()), 'events') == ''
    outputs.write(runs, {}, tmp_path, {'expected': ['events/stan-0', 'events/mbt-0']})
    assert 'missing: events/stan-0' in (tmp_path / 'results.md').read_text()


def test_all_files_are_written_and_agree(folder, runs, made):
    facts = {
        'expected': ['events/stan-0', 'events/stan-7'],
        'commit': 'abc',
        'versions': {'jax': '1.2'},
        'wall_seconds': 3725.0,
    }
    outputs.write(runs, measured.scores(), folder, facts)
    study = json.loads((folder / 'study.json').read_text())
    assert (
        study['coverage'] == '1 of 2 runs are complete; missing: events/stan-7.'
        and facts['expected']
        and len(study['runs']) == 21
    )
    assert {table['name'] for table in study['tables']} == set(made)
    assert {path.stem for path in (folder / 'tables').glob('*.csv')} == {table.stem for table in made.values()}
    assert (folder / 'tables/events-recognition.csv').read_text() == made['recognition'].csv()
    text, appendix = ((folder / name).read_text() for name in ('results.md', 'appendix.md'))
    assert all(table.markdown() in appendix for table in made.values())
    assert '- commit: abc\n- versions: jax 1.2\n- wall time: 1:02:05' in text
    linked = [path for path in (folder / 'figures').glob('*.png') if f'(figures/{path.name})' in text]
    assert len(linked) == report.FIGURES and all(
        (path in linked) != (f'(figures/{path.name})' in appendix) for path in (folder / 'figures').glob('*.png')
    )
    page = (folder / 'report.html').read_text()
    assert len(study['relations']) == 5
    for sentence in study['relations']:
        assert sentence in text and sentence.replace("'", '&#x27;') in page
