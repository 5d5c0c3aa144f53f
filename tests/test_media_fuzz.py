"""Mutated media files, read as data preparation reads them: no death, no hang, and a reason for each that is not used.

$STATTN_FUZZ is the number of files (default: 300), $STATTN_FUZZ_SEED their seed.
"""

import collections
import json
import os
import subprocess
import sys

import mutated
import pytest

from stattn_jax.data import media

# Reads the files that are named on stdin; a clip that takes longer than a minute ends the process.
_CHILD = """
import json, signal, sys, traceback, warnings
warnings.simplefilter('error')
from data_prep import prepare, published
from stattn_jax.data import media

spec = media.ClipSpec(segments=3, short_side=32)
for line in sys.stdin:
    name, start = json.loads(line)
    print(json.dumps(['begin', name, '']), flush=True)
    signal.alarm(60)
    try:
        record = published.make_record(sys.argv[1], prepare.Job(name, 'train', (0,), video=name, start=start), spec)
        outcome = 'used', ' '.join(record.clip.notes)
    except media.MediaError as error:
        outcome = error.reason, error.detail
    except BaseException:
        outcome = 'traceback', traceback.format_exc()
    print(json.dumps([outcome[0], name, outcome[1]]), flush=True)
"""


def read_all(folder, names):
    """Returns (outcome, detail) of each file, of a file that ends the process ('death', exit code)."""
    jobs = [(name, (None, 1.3, 2.0)[i % 3]) for i, name in enumerate(names)]
    outcomes = {}
    while len(outcomes) < len(jobs):
        left = ''.join(json.dumps(job) + '\n' for job in jobs[len(outcomes) :])
        command = [sys.executable, '-c', _CHILD, str(folder)]
        env = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
        child = subprocess.run(command, input=left, env=env, capture_output=True, text=True, check=False)
        lines = [json.loads(line) for line in child.stdout.splitlines()]
        outcomes |= {name: (outcome, detail) for outcome, name, detail in lines if outcome != 'begin'}
        begun = lines[-1][1] if lines else jobs[len(outcomes)][0]
        if child.returncode:
            outcomes[begun] = ('death', f'{child.returncode} {child.stderr[-500:]}')
    return outcomes


@pytest.mark.slow
def test_every_mutated_file_is_used_or_named(tmp_path):
    count, seed = (
        int(os.environ.get(name, default)) for name, default in (('STATTN_FUZZ', 300), ('STATTN_FUZZ_SEED', 0))
    )
    kinds = mutated.write(tmp_path, count, seed)
    outcomes = read_all(tmp_path, list(kinds))
    print(dict(collections.Counter(outcome for outcome, _ in outcomes.values())))
    bad = {
        f'{name} {kinds[name]}': (outcome, detail)
        for name, (outcome, detail) in outcomes.items()
        if outcome not in ('used', *media.REASONS) or outcome == 'failed'
    }
    assert not bad and len(outcomes) == count
    # The mutations are neither so strong nor so weak that all files meet the same fate.
    assert min(sum(kind == 'used' for kind, _ in outcomes.values()), len({kind for kind, _ in outcomes.values()})) > 3


def test_the_files_are_good_before_they_are_changed(tmp_path):
    for name in mutated.CONTAINERS:
        (tmp_path / f'a.{name}').write_bytes(mutated.make(name))
    outcomes = read_all(tmp_path, [f'a.{name}' for name in mutated.CONTAINERS])
    assert {outcome for outcome, _ in outcomes.values()} == {'used'}
