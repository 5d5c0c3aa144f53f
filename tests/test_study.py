"""Tests the study's command at toy size: stopping, continuing, a failed network, and the files it writes."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import runs
import studies

from stattn_jax.study import jobs, plan

TWO_ROWS = """
from configs import study

def get_config():
    config = study.get_config('quick')
    for row in set(config.rows) - {'stan', 'late_sum'}:
        del config.rows[row]
    return config
"""


def flags(workdir, *more, config=f'{runs.ROOT}/configs/study.py:quick'):
    return ['stattn_jax.study', f'--config={config}', f'--workdir={workdir}', '--workers=2', *studies.as_flags(), *more]


def entry(variant, row='stan', folder=None):
    return plan.Entry(variant, row, 0, 'ours', None, None, folder, folder, folder)


def trial(variant):
    return plan.Trial(variant, 'stan', 0, {}, None, None)


def test_time_left_is_that_of_the_kind_and_variant_or_else_of_the_variant_or_of_all():
    clock = jobs.Clock()
    assert clock.left([entry('events')], [], 1) == '?'
    for work, seconds in ((entry('events'), 10), (entry('events'), 20), (entry('binding'), 60), (trial('events'), 40)):
        clock.add(work, seconds)
    assert clock.left([entry('events')] * 4, [], 2) == '0:30'
    assert clock.left([trial('events')], ['events'] * 2, 1) == '1:10'
    assert clock.left([trial('binding')] * 2, [], 2) == '1:00'
    assert clock.left([entry('lopsided')] * 2, [], 1) == '1:05'
    assert clock.left([], [], 2) == '0:00'


def test_wall_time_is_kept_over_starts_those_that_were_killed_too(tmp_path, monkeypatch):
    now = iter((100.0, 103.0, 107.0, 500.0, 501.0))
    monkeypatch.setattr(jobs.time, 'perf_counter', lambda: next(now))
    killed = jobs.WallTime(tmp_path / 'wall.json')
    assert [killed.keep(), killed.keep()] == [3.0, 7.0]
    assert jobs.WallTime(tmp_path / 'wall.json').keep() == 8.0
    assert json.loads((tmp_path / 'wall.json').read_text()) == {'seconds': 8.0}


def test_an_error_of_the_study_ends_its_processes(tmp_path, monkeypatch):
    made = [entry('events', row, tmp_path / row) for row in ('stan', 'cam')]
    work = jobs.Jobs([], workers=2, one_core=True)
    started = []

    def start(new):
        if started:
            raise OSError(28, 'No space left on device')
        started.append(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']))
        work._running[started[0]] = (new, 0.0, None)

    monkeypatch.setattr(work, '_start', start)
    with pytest.raises(OSError):
        work.work(made, 0, [], jobs.WallTime(tmp_path / 'wall.json'))
    assert started[0].returncode == -signal.SIGTERM


@pytest.mark.skipif(not jobs.cores(), reason='needs a system that assigns cores')
def test_each_process_has_a_core_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, 'cores', lambda: sorted(os.sched_getaffinity(0))[:2])
    before, work = os.sched_getaffinity(0), jobs.Jobs([], workers=3, one_core=True)
    for row in ('stan', 'cam', 'mil'):
        work._start(entry('events', row, tmp_path / row))
    used = [os.sched_getaffinity(process.pid) for process in work._running]
    for process in work._running:
        process.kill()
        process.wait()
    assert all(len(some) == 1 for some in used) and used[2] == used[0]
    assert len(used[0] | used[1]) == min(2, len(before)) and os.sched_getaffinity(0) == before


def test_results_of_another_config_are_not_done(tmp_path):
    config = studies.config('stan')
    (made,) = studies.entries(config, tmp_path)
    assert not plan.is_done(made)
    made.folder.mkdir(parents=True)
    made.result.write_text(json.dumps({'key': made.key}))
    assert plan.is_done(made)
    config.measure.clips += 1
    assert not plan.is_done(made)


@pytest.mark.parametrize(
    'more, words',
    [
        ('--only=events/stan-7', '--only=events/stan-7 is no part of this study'),
        ('--config.measure.clip=3', 'config has no field measure.clip; expected one of'),
        ('--workers=0', 'expected'),
    ],
)
def test_wrong_use_is_one_line(more, words, tmp_path):
    process = runs.start(*flags(tmp_path / 'study', more))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    (line,) = [line for line in errors.splitlines() if line.startswith('error')]
    assert words in line or more.startswith('--workers')
    assert not (tmp_path / 'study' / 'runs').exists()


@pytest.mark.slow
def test_the_quick_study_stopped_and_continued_writes_its_report(tmp_path):
    workdir = tmp_path / 'study'
    process = runs.start(*flags(workdir))
    while process.poll() is None and not list(workdir.glob(f'runs/*/*/{plan.NUMBERS}')):
        time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert 'run the same command again' in runs.finish(process)
    done = {path.parent.name for path in workdir.glob(f'runs/*/*/{plan.NUMBERS}')}
    assert 1 <= len(done) < 6 and not (workdir / 'report.html').exists()
    kept = {name: (workdir / 'runs/events' / name / 'measures.npz').stat().st_mtime_ns for name in done}

    output = runs.finish(runs.start(*flags(workdir)))
    assert f'6 trials, 6 of them done; 6 networks, {len(done)} of them done' in output
    assert '[12/12]' in output and 'eta' in output
    assert {name: (workdir / 'runs/events' / name / 'measures.npz').stat().st_mtime_ns for name in done} == kept
    study = json.loads((workdir / 'study.json').read_text())
    commits = {run['run']['git_commit'] or 'unknown' for run in study['runs']}
    assert study['facts']['commit_of_the_networks'] == sorted(commits)
    assert {run['row'] for run in study['runs']} == {'stan', 'late_sum', 'concat', 'cam', 'mil', 'avel_paper'}
    tables = {path.stem: list(csv.reader(path.read_text().splitlines())) for path in (workdir / 'tables').glob('*.csv')}
    assert tables and all(len(rows) > 1 for rows in tables.values())
    for page in ('report', 'appendix'):
        text = (workdir / f'{page}.html').read_text()
        assert 'STAN' in text and 'http://' not in text and 'https://' not in text
    assert len(study['relations']) == 5
    assert list((workdir / 'figures').glob('*.png')) and list((workdir / 'examples/events').glob('*.png'))


@pytest.mark.slow
def test_a_network_that_fails_is_named_and_the_others_go_on(tmp_path):
    workdir = tmp_path / 'study'
    broken = workdir / 'trials/events/late_sum-0/training'
    broken.mkdir(parents=True)
    (broken / 'config.json').write_text('{"seed": 5}')
    (tmp_path / 'two_rows.py').write_text(TWO_ROWS)
    process = runs.start(*flags(workdir, config=tmp_path / 'two_rows.py'))
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 1, errors
    assert 'events/late_sum-trial0: FAILED with exit code 2' in output and 'was trained by another version' in output
    assert '[3/3]' in output and (workdir / 'report.html').exists()
    assert '1 of 2' in (workdir / 'results.md').read_text()
