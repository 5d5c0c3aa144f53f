"""Tests what a run consists of.

These are its fields against those of a run directory (workdir), its data facts, its hashes, and loading it.
"""

import json
import os
import pathlib
import shutil
import subprocess

import jax
import ml_collections
import numpy as np
import pytest

from configs import common
from stattn_jax import config_checks, run
from stattn_jax.data import media, source
from stattn_jax.data.features import FeatureSpec

FACTS = run.DataFacts(('cat', 'dog'), True, media.ClipSpec(segments=3, short_side=32), 'abc')


def begun(workdir, config):
    run.write_json(workdir / run.CONFIG_FILE, config.to_dict())
    return workdir


def changed(**fields):
    config = common.get_config()
    config.update_from_flattened_dict({name.replace('__', '.'): value for name, value in fields.items()})
    return config


def test_same_config_and_a_fresh_workdir_are_welcome(tmp_path):
    run.check_workdir(tmp_path / 'none', common.get_config())
    run.check_workdir(begun(tmp_path, common.get_config()), common.get_config())


def test_every_differing_field_is_named_with_both_values(tmp_path):
    workdir = begun(tmp_path, common.get_config())
    with pytest.raises(run.RunError) as error:
        run.check_workdir(workdir, changed(train__batch=7, model__visual='tiny', seed=3))
    text = str(error.value)
    for part in (
        "model.visual is 'tiny', was 'resnet18'",
        'seed is 3, was 0',
        'train.batch is 7, was 64',
        str(workdir),
    ):
        assert part in text
    assert 'optim' not in text and '\n' not in text and error.value.code == 2


def test_field_that_was_added_since_is_a_difference(tmp_path):
    saved = common.get_config().to_dict()
    del saved['loss']['mismatched_uniform']
    run.write_json(tmp_path / run.CONFIG_FILE, saved)
    with pytest.raises(run.RunError, match='loss.mismatched_uniform is 1.0, was None'):
        run.check_workdir(tmp_path, common.get_config())


def test_fields_that_cannot_change_the_numbers_are_free(tmp_path):
    free = {
        'parallel': 'pmap', 'compile_cache': '/x', 'data__dir': '/y', 'data__threads': 3, 'train__log_every_steps': 7,
        'train__keep': 9, 'eval__batch': 5, 'eval__splits': ('a',), 'eval__shortcut_clips': 2, 'eval__strip_clips': 0,
    }  # fmt: skip
    run.check_workdir(begun(tmp_path, common.get_config()), changed(**free))
    names = set(run.flatten(common.get_config().to_dict()))
    # A free field that no config has would be a typing error.
    assert all(any(name.startswith(field) for name in names) for field in config_checks.FREE_FIELDS)


def test_more_steps_are_no_difference_where_a_run_may_be_lengthened(tmp_path):
    workdir = begun(tmp_path, changed(train__steps=100))
    run.check_workdir(workdir, changed(train__steps=101), lengthen=True)
    for steps, lengthen in ((101, False), (99, True)):
        with pytest.raises(run.RunError, match=f'train.steps is {steps}, was 100'):
            run.check_workdir(workdir, changed(train__steps=steps), lengthen=lengthen)
    with pytest.raises(run.RunError, match=r'another config \(seed is 3, was 0\)'):
        run.check_workdir(workdir, changed(train__steps=101, seed=3), lengthen=True)


def test_each_lengthening_is_recorded(tmp_path):
    workdir = begun(tmp_path, changed(train__steps=1000))
    assert run.lengthened(workdir, changed(train__steps=1000), 1000) == ([], '')
    assert run.lengthened(workdir, changed(train__steps=2000), 0) == ([], '')
    times, line = run.lengthened(workdir, changed(train__steps=2000), 1000)
    assert times == [{'at_step': 1000, 'from': 1000, 'to': 2000}] and '\n' not in line
    assert line.startswith(
        'lengthened at step 1000, from 1000 to 2000 steps: the learning rate follows the schedule of'
    )
    assert '(0.00075, where it was 0)' in line
    run.write_json(begun(workdir, changed(train__steps=2000)) / run.RUN_FILE, {'lengthened': times})
    assert run.lengthened(workdir, changed(train__steps=2000), 1500) == (times, '')
    assert run.lengthened(workdir, changed(train__steps=3000), 2000)[0] == [
        *times,
        {'at_step': 2000, 'from': 2000, 'to': 3000},
    ]


def test_a_saved_config_takes_overrides_as_the_first_one_did(tmp_path):
    config = common.get_config()
    saved = run.saved_config(begun(tmp_path, config))
    assert saved.to_dict() == config.to_dict()
    saved.data.dir, saved.eval.splits = '/x', ('val',)
    assert {name: saved.data.get_type(name) for name in saved.data} == {
        name: config.data.get_type(name) for name in config.data
    }
    for workdir, text in ((tmp_path, '{'), (tmp_path, '[]'), (tmp_path / 'none', None)):
        if text:
            (workdir / run.CONFIG_FILE).write_text(text)
        with pytest.raises(run.RunError, match=f'--workdir={workdir} has no config.json that can be read') as error:
            run.saved_config(workdir)
        assert '\n' not in str(error.value)


def test_the_folders_of_a_saved_config_do_not_depend_on_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workdir = tmp_path / 'run'
    config = changed(data__dir='data', compile_cache='run/compiled')
    (workdir / 'compiled').mkdir(parents=True)
    run.save_config(pathlib.Path('run'), config)
    assert config.data.dir == 'data'
    saved = run.saved_config('run')
    assert (saved.data.dir, saved.compile_cache) == (str(tmp_path / 'data'), str(workdir / 'compiled'))
    # A folder of the run is moved with it.
    workdir.rename(tmp_path / 'moved')
    monkeypatch.chdir('/')
    saved = run.saved_config(tmp_path / 'moved')
    assert (saved.data.dir, saved.compile_cache) == (str(tmp_path / 'data'), str(tmp_path / 'moved' / 'compiled'))
    run.save_config(tmp_path / 'moved', common.get_config())
    assert run.saved_config(tmp_path / 'moved').data.dir == common.get_config().data.dir


def test_batches_that_do_not_split_over_the_devices_are_refused():
    assert len(run.make_strategy(common.get_config(), 64, 16).devices) == 8
    with pytest.raises(run.RunError, match='global batch 20 does not split over 8 devices'):
        run.make_strategy(common.get_config(), 64, 20)


def test_data_facts_survive_json():
    record = json.loads(json.dumps(FACTS.to_json()))
    assert run.DataFacts.from_json(record) == FACTS


def test_data_facts_are_those_of_the_data_set(tiny_data):
    info = source.DatasetInfo.load(tiny_data)
    facts = run.DataFacts.of(info)
    assert facts == run.DataFacts(info.classes, False, info.spec, info.fingerprint)


def test_config_hash_is_one_of_every_field_and_of_nothing_else():
    hashes = [
        run.config_hash(config)
        for config in (common.get_config(), common.get_config(), changed(loss__mismatched_uniform=0.5))
    ]
    assert hashes[0] == hashes[1] != hashes[2]
    reordered = ml_collections.ConfigDict(dict(reversed(common.get_config().to_dict().items())))
    assert run.config_hash(reordered) == hashes[0]


def test_config_hash_is_that_of_the_saved_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'run' / 'features').mkdir(parents=True)
    for folder in ('data', 'run/features'):
        given, absolute = changed(data__dir=folder), changed(data__dir=str(tmp_path / folder))
        run.save_config(tmp_path / 'run', given)
        assert run.config_hash(given) == run.config_hash(absolute) == run.config_hash(run.saved_config('run'))


def test_parameter_hash_sees_one_bit():
    state = {'params': {'a': np.ones(3, np.float32)}, 'rest': {'b': np.zeros(2)}, 'step': 4}
    other = {**state, 'params': {'a': np.nextafter(state['params']['a'], 2, dtype=np.float32)}}
    assert run.parameter_hash(state) == run.parameter_hash({**state, 'step': 5}) != run.parameter_hash(other)


def test_flatten_names_every_leaf():
    assert run.flatten({'a': {'b': 1, 'c': {'d': None}}, 'e': ()}) == {'a.b': 1, 'a.c.d': None, 'e': ()}


def test_json_appears_only_when_whole(tmp_path):
    path = tmp_path / 'x.json'
    run.write_json(path, {'a': 1})
    with pytest.raises(TypeError):
        run.write_json(path, {'a': object()})
    assert json.loads(path.read_text()) == {'a': 1}


def test_commit_is_none_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(run, '__file__', str(tmp_path / 'run.py'))
    monkeypatch.setenv('GIT_CEILING_DIRECTORIES', str(tmp_path.parent))
    assert run.git_commit() is None
    git = ['git', '-c', 'user.name=a', '-c', 'user.email=a@b', '-C', str(tmp_path)]
    for words in (['init', '-q'], ['commit', '-q', '--allow-empty', '-m', 'x']):
        subprocess.run([*git, *words], check=True, env=os.environ)
    commit = run.git_commit()
    assert len(commit) == 12
    (tmp_path / 'file').touch()
    assert run.git_commit() == commit + '+'


def test_versions_name_every_package_of_a_run():
    assert set(run.versions()) == set(run.PACKAGES) and run.versions()['jax'] == jax.__version__


def test_load_takes_the_best_checkpoint_and_leaves_a_live_save_alone(trained, tmp_path):
    workdir = tmp_path / 'run'
    shutil.copytree(trained, workdir)
    # Orbax writes a checkpoint under this name until it is complete.
    saving = workdir / run.CHECKPOINTS / '12.orbax-checkpoint-tmp'
    shutil.copytree(workdir / run.CHECKPOINTS / '10', saving)
    loaded = run.load(str(workdir), parallel_kind='jit', devices=jax.devices()[:1])
    assert saving.exists()
    record = json.loads((workdir / 'eval_val.json').read_text())
    assert loaded.step == record['checkpoint/step'] and loaded.config.to_dict()['train']['steps'] == 10
    assert int(loaded.state['step']) == loaded.step and len(loaded.strategy.devices) == 1


@pytest.mark.parametrize('content', [(), ('checkpoints',)])
def test_load_without_a_checkpoint_names_the_missing_checkpoint(tmp_path, content):
    for name in content:
        (tmp_path / name).mkdir()
        run.write_json(tmp_path / run.CONFIG_FILE, common.get_config().to_dict())
    with pytest.raises(run.RunError, match='checkpoint') as error:
        run.load(str(tmp_path))
    assert error.value.code == 2


def test_options_of_the_config_reach_the_model(quick_compile):
    config = changed(model__visual='tiny', model__audio='tiny', model__width=8, model__hidden=4, model__heads=2)
    _, state, _, schedule = run.make_state(config, FACTS, None)
    assert state['params']['visual_head'].shape == (8, 2) and state['score_mean'].shape == (2, 2)
    assert float(schedule(config.optim.warmup_steps)) == pytest.approx(config.optim.lr)
    assert float(schedule(config.train.steps)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize('spec, cells', [
    (media.ClipSpec(segments=2, short_side=32), (64 // 8) ** 2), (FeatureSpec(2, 1.0, (3, 5, 8), 4, 'x'), 15),
])  # fmt: skip
def test_avels_code_is_built_for_the_frames_of_the_data(spec, cells):
    config = common.tiny(common.get_config())
    config.model.kind = 'avel_code'
    if isinstance(spec, FeatureSpec):
        common.features(config)
    _, state, *_ = run.make_state(config, run.DataFacts(('a', 'b'), False, spec, ''), None, abstract=True)
    assert state['params']['of_seen']['kernel'].shape == (config.model.width, cells) and 'score_mean' not in state


def test_classes_are_binary_with_several_labels_or_where_configured():
    config = common.get_config()
    facts = [run.DataFacts(('a', 'b'), several, media.ClipSpec(), '') for several in (False, True)]
    assert [run.is_binary(config, f) for f in facts] == [False, True]
    config.loss.multi_label = True
    assert run.is_binary(config, facts[0])


def test_a_run_of_another_version_is_named_with_the_fields_that_it_lacks(tmp_path):
    config = common.get_config().to_dict()
    del config['loss']['multi_label']
    (tmp_path / run.CHECKPOINTS).mkdir()
    (tmp_path / run.CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(run.RunError, match='another version: its config.json lacks loss.multi_label; train again'):
        run.load(str(tmp_path))
