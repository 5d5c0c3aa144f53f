"""The JSON alone adds up, keeps its published schema and reveals a changed number; the npz restores everything."""

import dataclasses
import json

import jsonschema
import numpy as np
import pytest
import runs
from random_record import H, W, make

from stattn_jax.explain import __main__ as command
from stattn_jax.explain import half_cells, record_files
from stattn_jax.explain.result import Explanation

SCHEMA = json.loads((runs.ROOT / 'docs' / 'explanation.schema.json').read_text(encoding='utf-8'))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def written(tmp_path, record, label=None):
    record.save_json(tmp_path / 'e.json', label)
    return json.loads((tmp_path / 'e.json').read_text(encoding='utf-8'))


def with_finer_map(classes=3):
    record, _ = make(classes=classes)
    random = np.random.default_rng(2).normal(size=(*record.visual.shape[:2], 2 * H, 2 * W))
    finer = half_cells.adding_up(random, record.visual).astype(np.float32)
    return dataclasses.replace(record, visual_finer=finer)


@pytest.mark.parametrize('scale', [1.0, 50.0])
@pytest.mark.parametrize('multi_label', [False, True])
def test_the_json_alone_adds_up(tmp_path, scale, multi_label):
    record, logits = make(scale=scale, mean_scores=np.ones((2, 3)), multi_label=multi_label)
    read = written(tmp_path, record)
    errors = record_files.check(tmp_path / 'e.json')
    assert set(errors) == {'sum', 'attention', 'removed_units', 'probabilities'} and max(errors.values()) <= 1e-5
    assert read['schema'] == record_files.SCHEMA == SCHEMA['$id']
    assert read['media']['file'] == 'häm.mp4' and read['model']['step'] == 7
    np.testing.assert_allclose(read['logits'], logits, rtol=1e-5, atol=1e-6)
    row = next(row for row in read['maps'] if row['label'] == 'class 1')
    np.testing.assert_allclose(row['visual'], record.visual[1], rtol=1e-6)
    np.testing.assert_allclose(row['attention_in_time']['audio'], record.beta[1, :, 1], rtol=1e-6)
    np.testing.assert_allclose(row['removed_units_exact']['visual'], record.removed_units('class 1')[0], rtol=1e-6)
    k = record.removed_classes.index('class 1')
    np.testing.assert_allclose(row['removed_cells_exact'], record.removed_cells[k], rtol=1e-6)
    assert read['valid_segments'] == [True, True, True, False]
    assert read['additivity']['max_relative_error'] <= 1e-5


@pytest.mark.parametrize('classes', [1, 3, 14])
def test_the_json_keeps_its_schema(tmp_path, classes):
    VALIDATOR.check_schema(SCHEMA)
    VALIDATOR.validate(written(tmp_path, make(classes=classes)[0]))
    bare = dataclasses.replace(make(classes=classes)[0], removed_classes=(), trust={})
    VALIDATOR.validate(written(tmp_path, bare))
    VALIDATOR.validate(written(tmp_path, with_finer_map(classes)))


def test_the_schema_refuses_missing_and_invalid_fields(tmp_path):
    read = written(tmp_path, make()[0])
    for wrong in (
        {'frames': []},
        {'schema': 'stattn_jax.explanation/1'},
        {'media': {**read['media'], 'fps': '25'}},
        {'trust': {'silence': {}}},
        {'maps': [{**read['maps'][0], 'audio': None}]},
    ):
        assert not VALIDATOR.is_valid(read | wrong), wrong
    for name in read:
        assert not VALIDATOR.is_valid({key: value for key, value in read.items() if key != name}), name


def test_target_and_runner_up(tmp_path):
    record, logits = make(classes=14)
    worst = record.classes[int(logits.argmin())]
    best = record.top(1)[0]['label']
    target = written(tmp_path, record, worst)['target']
    assert target['label'] == worst and target['contrast']['other'] == best
    margin = (
        target['contrast']['reference'] + np.sum(target['contrast']['visual']) + np.sum(target['contrast']['audio'])
    )
    assert margin == pytest.approx(logits.min() - logits.max(), rel=1e-5)
    assert target['sentence'] == record.sentence(worst)
    assert written(tmp_path, record)['target']['label'] == best
    assert written(tmp_path, make(classes=1)[0])['target']['contrast'] is None


def test_the_json_lists_classes_with_maps_and_counts_those_without(tmp_path):
    record, logits = make(classes=14)
    read = written(tmp_path, record)
    best = [row['label'] for row in record.top(10)]
    assert read['classes_with_maps'] == best == [row['label'] for row in read['maps']]
    assert read['classes_without_maps'] == 4 and len(read['classes']) == len(read['logits']) == 14
    worst = record.classes[int(logits.argmin())]
    read = written(tmp_path, record, worst)
    assert read['classes_with_maps'] == [*best, worst] and read['classes_without_maps'] == 3
    # For a target that is not among the best classes, no cell was removed; the values are null, not filled in.
    assert [row['removed_cells_exact'] is None for row in read['maps']] == [False] * 10 + [True]


CHANGES = {
    'finer': lambda read: read['maps'][1]['visual_finer'][0][1].__setitem__(2, 0.25),
    'sum': lambda read: read['maps'][1]['visual'][0][0].__setitem__(0, read['maps'][1]['visual'][0][0][0] + 0.25),
    'contrast': lambda read: read['target']['contrast']['audio'].__setitem__(
        0, read['target']['contrast']['audio'][0] + 0.25
    ),
    'attention': lambda read: read['maps'][2].__setitem__('bias', read['maps'][2]['bias'] + 0.25),
    'removed_units': lambda read: read['maps'][0]['removed_units_exact']['audio'].__setitem__(3, 0.25),
    'probabilities': lambda read: read['probabilities'].__setitem__(0, read['probabilities'][0] + 0.25),
}


@pytest.mark.parametrize('kind', CHANGES)
def test_check_finds_a_changed_number(tmp_path, capsys, kind):
    read = written(tmp_path, with_finer_map())
    assert command.main(['explain', '--check', str(tmp_path / 'e.json')]) == 0
    assert ': ok (' in capsys.readouterr().out
    CHANGES[kind](read)
    (tmp_path / 'e.json').write_text(json.dumps(read), encoding='utf-8')
    errors = record_files.check(tmp_path / 'e.json')
    found = {name for name, error in errors.items() if error > record_files.TOLERANCE}
    # A wrong bias breaks no sum of terms, but it breaks every value computed from attention and scores.
    assert found == {'finer': {'sum'}, 'contrast': {'sum'}, 'attention': {'attention', 'removed_units'}}.get(
        kind, {kind}
    )
    assert command.main(['explain', f'--check={tmp_path / "e.json"}']) == 1
    output = capsys.readouterr().out
    assert 'DOES NOT ADD UP' in output and output.count('\n') == 1


def test_files_that_cannot_be_checked_are_named(tmp_path, capsys):
    (tmp_path / 'other.json').write_text('{"schema": "other/3"}', encoding='utf-8')
    (tmp_path / 'list.json').write_text('[]', encoding='utf-8')
    (tmp_path / 'cut.json').write_text('{"schema": ', encoding='utf-8')
    (tmp_path / 'empty.json').write_text(f'{{"schema": "{record_files.SCHEMA}"}}', encoding='utf-8')
    expected = {
        'other': "schema 'other/3', expected 'stattn_jax.explanation/4' or 'stattn_jax.explanation/3'",
        'list': 'schema None',
        'cut': 'expected an explanation.json',
        'empty': "KeyError('maps')",
        'missing': 'No such file',
    }
    for name, text in expected.items():
        assert command.main(['explain', f'--check={tmp_path / name}.json']) == 1
        output, error = capsys.readouterr()
        assert output == '' and error.count('\n') == 1 and text in error and f'{name}.json' in error


def test_the_npz_gives_everything_back(tmp_path):
    record, _ = make(classes=12, mean_scores=np.ones((2, 12)))
    record.save_npz(tmp_path / 'e.npz')
    read = Explanation.load_npz(tmp_path / 'e.npz')
    for field in dataclasses.fields(record):
        want, got = getattr(record, field.name), getattr(read, field.name)
        if isinstance(want, np.ndarray):
            assert want.dtype == got.dtype and np.array_equal(want, got), field.name
        else:
            assert want == got, field.name
    np.testing.assert_array_equal(read.removed_units(), record.removed_units())


def test_both_files_hold_the_finer_map(tmp_path):
    record = with_finer_map()
    read = written(tmp_path, record)
    for row in read['maps']:
        expected = record.visual_finer[record.class_index(row['label'])]
        np.testing.assert_allclose(row['visual_finer'], expected, rtol=1e-6)
        total = row['reference'] + np.sum(row['visual_finer']) + np.sum(row['audio'])
        assert total == pytest.approx(row['logit'], abs=1e-5)
    record.save_npz(tmp_path / 'e.npz')
    np.testing.assert_array_equal(Explanation.load_npz(tmp_path / 'e.npz').visual_finer, record.visual_finer)


def test_records_without_a_finer_map_are_read(tmp_path):
    """Schema 3 is schema 4 without the finer map."""
    record, _ = make()
    read = written(tmp_path, record) | {'schema': 'stattn_jax.explanation/3'}
    for row in read['maps']:
        assert row.pop('visual_finer') is None
    (tmp_path / 'e.json').write_text(json.dumps(read), encoding='utf-8')
    assert max(record_files.check(tmp_path / 'e.json').values()) <= record_files.TOLERANCE
    record.save_npz(tmp_path / 'e.npz')
    with np.load(tmp_path / 'e.npz') as file:
        arrays = {name: file[name] for name in file if name != 'visual_finer'}
    header = json.loads(str(arrays['header'])) | {'schema': 'stattn_jax.explanation/3'}
    np.savez(tmp_path / 'old.npz', **arrays | {'header': np.array(json.dumps(header))})
    old = Explanation.load_npz(tmp_path / 'old.npz')
    np.testing.assert_array_equal(old.visual, record.visual)
    assert old.visual_finer.size == 0
    np.testing.assert_array_equal(old.painted(1), record.visual[1])
