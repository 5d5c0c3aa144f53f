"""Tests the archive of a study's results: what comes out of it counts as done, in another folder too."""

import json
import subprocess
import sys
import tarfile

import numpy as np
import runs
import studies

from stattn_jax.study import plan

TOOL = runs.ROOT / 'tools' / 'pack_study.py'


def write_results(config, workdir):
    """Writes results of every trial and entry, without training."""
    for trial in plan.trials(config, workdir):
        studies.write_trial(trial, 0.5)
    (entry,) = studies.entries(config, workdir)
    entry.folder.mkdir(parents=True)
    entry.result.write_text(json.dumps({'key': entry.key, 'run': {'command': str(workdir), 'seed': 0}}))
    np.savez_compressed(entry.folder / plan.ARRAYS, correct=np.array([1.0, np.nan]), logits=np.eye(2))
    (entry.folder / 'log.txt').write_text('not packed')


def pack(workdir, out):
    command = [sys.executable, TOOL, f'--workdir={workdir}', f'--out={out}']
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_unpacked_results_are_done_and_equal(tmp_path):
    config, here, there = studies.config('stan'), tmp_path / 'here', tmp_path / 'there'
    write_results(config, here)
    assert pack(here, tmp_path / 'first').returncode == pack(here, tmp_path / 'second').returncode == 0
    archive = tmp_path / 'first' / 'events.tar.xz'
    assert archive.read_bytes() == (tmp_path / 'second' / 'events.tar.xz').read_bytes()
    with tarfile.open(archive) as packed:
        assert not any('log.txt' in name for name in packed.getnames())
        packed.extractall(there, filter='data')
    assert all(map(plan.is_done, plan.trials(config, there)))
    (before,), (after,) = studies.entries(config, here), studies.entries(config, there)
    assert plan.is_done(after) and json.loads(after.result.read_text())['run'] == {'seed': 0}
    arrays = [np.load(entry.folder / plan.ARRAYS) for entry in (before, after)]
    assert sorted(arrays[0]) == sorted(arrays[1])
    for name in arrays[0]:
        np.testing.assert_array_equal(*(some[name] for some in arrays))


def test_a_folder_without_results_is_one_line(tmp_path):
    done = pack(tmp_path, tmp_path / 'out')
    assert done.returncode == 2 and done.stderr.startswith(f'error: {tmp_path} holds no measured network')
    assert not (tmp_path / 'out').exists()
