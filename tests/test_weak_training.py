"""Tests weakly supervised training at full size.

Planted features with known ground truth are learned from clip labels alone, on the CPU in minutes.
"""

import functools
import json
import subprocess
import sys

import commands
import numpy as np
import planted
import pytest
import runs

from data_prep import ave, features, prepare
from stattn_jax.data import records

pytestmark = pytest.mark.slow


def trained(config, data, workdir, **fields):
    """The numbers of a run started as a user starts it, with optimisations; it takes a minute."""
    flags = [f'--config.{name}={value}' for name, value in ({'data.dir': data, 'data.threads': 2} | fields).items()]
    command = [sys.executable, '-m', 'stattn_jax.main', f'--config=configs/{config}.py', f'--workdir={workdir}', *flags]
    subprocess.run(command, cwd=runs.ROOT, check=True, timeout=600)
    return json.loads((workdir / 'eval_test.json').read_text())


def test_ave_seconds_are_found_from_clip_labels(tmp_path, capsys):
    rows = planted.make_rows(1000)
    order = np.random.default_rng(0).permutation(1000).tolist()
    splits = {'train': order[:800], 'val': order[800:900], 'test': order[900:]}
    planted.write_ave(tmp_path / 'ave', rows, splits, background=40)
    flags = (f'--annotations={tmp_path / "ave"}', f'--features={tmp_path / "ave"}', f'--out={tmp_path / "data"}')
    assert commands.run(ave, capsys, *flags)[0] == 0
    fields = {'train.steps': 200, 'train.batch': 32, 'train.eval_every_steps': 100, 'model.width': 128}
    numbers = trained('ave_features', tmp_path / 'data', tmp_path / 'run', **fields)
    assert numbers['segments/accuracy'] >= 0.9
    assert numbers['segments/accuracy'] >= numbers['segments/accuracy_true_label_everywhere'] + 0.1
    assert numbers['segments/accuracy_partial'] >= 0.9


def test_llp_modalities_and_seconds_are_found_from_clip_labels(tmp_path):
    rng = np.random.default_rng(5)
    labels = {
        f'v{i:010d}': sorted(rng.choice(25, size=rng.choice([1, 2, 3], p=[0.4, 0.55, 0.05]), replace=False).tolist())
        for i in range(1200)
    }
    events = planted.write_llp(tmp_path / 'llp', labels, 25)
    jobs = []
    for i, (video, own) in enumerate(labels.items()):
        split = 'train' if i < 900 else 'val' if i < 1000 else 'test'
        there = tuple(records.Event(c, float(on), float(off), modality) for c, modality, on, off in events[video])
        jobs.append(
            prepare.Job(video, split, tuple(own), events=() if split == 'train' else there, payload={'id': video})
        )
    prepare.prepare(
        tmp_path / 'data', 'llp', jobs, functools.partial(features.npy_record, str(tmp_path / 'llp')),
        classes=tuple(f'c{i}' for i in range(25)),
        spec=features.LLP_SPEC, multi_label=True, workers=0,
    )  # fmt: skip
    fields = {'train.steps': 600, 'train.batch': 32, 'train.eval_every_steps': 300, 'model.width': 128}
    numbers = trained('llp_features', tmp_path / 'data', tmp_path / 'run', **fields)
    for name in ('segment_type', 'segment_event', 'event_type', 'event_event'):
        assert numbers[f'parsing/{name}'] >= 0.9
        # The true labels of each modality without the seconds give less.
        assert numbers[f'parsing/{name}'] >= numbers[f'parsing_modality_labels/{name}'] + 0.1
