"""Tests the `:pretrained` configs on random weights in the published format.

They cover ten steps, provenance, and the error for a missing file.
"""

import dataclasses
import functools
import json

import activations
import jax
import numpy as np
import pytest
import runs

from data_prep import prepare, scenes, synthetic
from stattn_jax.data import media
from stattn_jax.models.trunks import cnn14, registry
from stattn_jax.runtime import parallel
from stattn_jax.weights import match, safetensors

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('quick_compile')]
CONFIGS = ('vggsound', 'ave', 'kinetics_sounds')
FIELDS = {'data.frame_size': 32, 'model.frame_size': 32, 'data.threads': 1, 'model.width': 16, 'model.hidden': 8}
FIELDS |= {'train.steps': 10, 'train.batch': 8, 'train.log_every_steps': 5, 'train.save_every_steps': 10}
FIELDS |= {
    'train.eval_every_steps': 10,
    'eval.batch': 8,
    'eval.shortcut_clips': 2,
    'optim.warmup_steps': 2,
    'loss.negatives': 1,
}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Clips of six seconds with the log-mel front end that CNN14 reads."""
    out = tmp_path_factory.mktemp('panns') / 'data'
    prepare.prepare(
        out,
        'synthetic_events',
        [synthetic.job('events', 6, 0, split, i) for split, n in {'train': 8, 'test': 2}.items() for i in range(n)],
        functools.partial(synthetic.make_record, 'events'),
        classes=scenes.CLASSES,
        spec=media.ClipSpec(segments=6, short_side=32, mel='panns_16k'),
        multi_label=False,
        workers=0,
    )
    return out


@pytest.fixture(autouse=True, scope='module')
def small():
    """Replaces CNN14 by one with an eighth of its channels, and trains on one of the eight devices of the tests."""
    thin = dataclasses.replace(registry.find('audio', 'cnn14_16k'), build=functools.partial(cnn14.Cnn14, channels=8))
    one_device = functools.partial(parallel.make_strategy, devices=jax.devices()[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cnn14.TRUNKS['audio'], 'cnn14_16k', thin)
        patch.setattr(parallel, 'make_strategy', one_device)
        yield


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Writes random weights under their published names and returns the flags that select them."""
    folder, flags = tmp_path_factory.mktemp('weights'), []
    for modality, name in (('visual', 'resnet50_stride16'), ('audio', 'cnn14_16k')):
        trunk = registry.find(modality, name)
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), match.abstract_state(trunk))
        tensors = {key: activations.drawn(key, *x.shape) for key, x in match.export(zeros, trunk.published).items()}
        safetensors.write_safetensors(folder / f'{name}.safetensors', tensors)
        flags.append(f'--config.model.{modality}_weights={folder / name}.safetensors')
    return flags


@pytest.mark.parametrize('config', CONFIGS)
def test_ten_steps_from_published_weights(config, data, weights, tmp_path):
    flags = [f'--config.{name}={value}' for name, value in (FIELDS | {'data.dir': data}).items()]
    path = runs.ROOT / 'configs' / f'{config}.py'
    assert runs.run_main(f'--config={path}:pretrained', f'--workdir={tmp_path}', *flags, *weights) == 0
    losses = runs.metrics(tmp_path)
    assert set(losses) == {5, 10} and np.isfinite(list(losses.values())).all()
    trunks = json.loads((tmp_path / 'run.json').read_text())['trunks']
    assert [one['trunk'] for one in trunks] == ['resnet50_stride16', 'cnn14_16k']
    assert all(len(one['sha256']) == 64 and one['licence'] for one in trunks)


def test_the_error_of_a_missing_file_says_where_the_weights_come_from(data, tmp_path, capsys):
    flags = [f'--config.{name}={value}' for name, value in (FIELDS | {'data.dir': data}).items()]
    code = runs.run_main(f'--config={runs.ROOT}/configs/vggsound.py:pretrained', f'--workdir={tmp_path}', *flags)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and 'weights/resnet50-11ad3fa6.pth' in line and 'torchvision' in line
