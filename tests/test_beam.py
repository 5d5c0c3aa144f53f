"""Tests beam.py: a Beam pipeline writes the same shards as local processes, and either continues the other's work."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import types

import fakes
import pytest

from data_prep import prepare, work

pytest.importorskip('apache_beam')
from data_prep import beam  # noqa: E402

PROCESSES = ['--direct_running_mode=multi_processing', '--direct_num_workers=2']


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Returns the files of the data set that fakes.command makes."""
    return fakes.tree(fakes.dataset(tmp_path_factory.mktemp('whole') / 'd', 40, 4))


def test_bytes_are_those_of_local_processes(tmp_path, monkeypatch, whole):
    # Remote workers have another working directory.
    monkeypatch.chdir(tmp_path)
    fakes.dataset('d', 40, 4, beam=[])
    assert fakes.tree(tmp_path / 'd') == whole


@pytest.mark.parametrize('words', [['--runner=beam', '--', *PROCESSES], ['--workers=2']])
def test_killed_at_a_random_moment_the_other_runner_goes_on(tmp_path, whole, words):
    # The Beam command has several processes, and its make_record is defined in its own main module.
    out = tmp_path / 'd'
    code, _ = fakes.stopped(out, signal.SIGKILL, random.randint(3, 8), *words)
    assert code == -signal.SIGKILL
    times = {path: path.stat().st_mtime_ns for name in fakes.finished(out) for path in out.glob(f'{name}*')}
    assert times
    fakes.dataset(out, 40, 4, beam=[] if words == ['--workers=2'] else None)
    assert fakes.tree(out) == whole
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_ctrl_c_says_how_to_continue(tmp_path):
    code, errors = fakes.stopped(tmp_path / 'd', signal.SIGINT, 1, '--runner=beam')
    assert code == 130, errors
    assert 'error: stopped; run the same command again (a preparation goes on where it stopped)\n' in errors


def test_progress_is_counted_once_per_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(beam, '_WATCH', 0.01)
    counts = []
    maker = work.Maker(tmp_path, fakes.slow_record, fakes.CLASSES, fakes.SPEC)
    (tmp_path / 'prepare').mkdir()
    shards = prepare._shards('fake', 'train', fakes.jobs(10), 4)
    beam.run(maker, shards, types.SimpleNamespace(add=counts.append), beam.parse([]))
    assert sorted(counts) == [2, 4, 4]
    assert counts[0] == 4


@pytest.fixture
def workers_find_the_tests(monkeypatch):
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([os.path.dirname(__file__), *sys.path]))


@pytest.mark.parametrize('options', [[], PROCESSES])
def test_errors_of_workers_are_one_line(tmp_path, workers_find_the_tests, options, monkeypatch):
    # A folder is in the place of the shard.
    (tmp_path / 'd' / 'fake-train.tfrecord-00001-of-00003').mkdir(parents=True)
    monkeypatch.setattr(prepare, '_claim', lambda out, plan: None)
    with pytest.raises(prepare.PrepareError) as caught:
        fakes.dataset(tmp_path / 'd', 10, beam=options)
    path = tmp_path / 'd' / 'fake-train.tfrecord-00001-of-00003'
    assert str(caught.value) == (f'{path}: Is a directory; a folder has this name; give another, or remove it')


def test_an_unforeseen_exception_is_the_reason_of_its_clip(tmp_path):
    jobs = [prepare.Job(f'c{i}', 'train', (0,), payload='bug' if i == 5 else None) for i in range(8)]
    options = {'classes': fakes.CLASSES, 'spec': fakes.SPEC, 'multi_label': False, 'shard_size': 4, 'beam': []}
    assert prepare.prepare(tmp_path / 'd', 'fake', jobs, fakes.make_record, **options).splits == {'train': 7}


def test_shards_that_workers_wrote_elsewhere_are_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(beam, '_write', _nothing)
    with pytest.raises(prepare.PrepareError, match='3 of its 3 shards are not in .* a folder that all workers see'):
        fakes.dataset(tmp_path / 'd', 8, 2, beam=[])


def _nothing(maker, packed):
    pass


def test_an_error_of_the_runner_is_one_line():
    java = 'java.lang.RuntimeException: Error received from SDK harness: Traceback\n  File "x.py"\n'
    ours = "data_prep.work.PrepareError: /d/x: No space left; mend that [while running 'write']\n"
    assert str(beam._failure(RuntimeError(f'{java}{ours}\n at org.apache'))) == ('/d/x: No space left; mend that')
    other = beam._failure(RuntimeError('Pipeline job-1 failed in state FAILED: no task slots'))
    assert isinstance(other, prepare.PrepareError)
    assert str(other) == (
        'the Beam pipeline failed (RuntimeError: Pipeline job-1 failed in state FAILED: no task slots); nothing '
        'finished '
        "is lost: see the runner's log, mend the cause and run the same command again"
    )


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--direct_num_workers=two'], 'Beam refuses its options --direct_num_workers=two: .*invalid int value'),
        (['--runner=Flonk'], 'Beam refuses its options --runner=Flonk: Unexpected pipeline runner: Flonk'),
    ],
)
def test_bad_options_are_one_line_and_nothing_is_begun(tmp_path, options, message):
    with pytest.raises(work.UsageError, match=message) as caught:
        fakes.dataset(tmp_path / 'd', 2, beam=options)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / 'd').exists()


def test_without_beam_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, 'data_prep.beam')
    monkeypatch.delattr(sys.modules['data_prep'], 'beam')
    monkeypatch.setitem(sys.modules, 'apache_beam', None)
    with pytest.raises(work.UsageError, match=r'--runner=beam needs Apache Beam; install it: pip install "\.\[beam\]"'):
        fakes.dataset(tmp_path / 'd', 2, beam=[])


def test_beam_is_imported_only_for_the_beam_runner(tmp_path):
    code = (
        'import sys, fakes, pathlib; fakes.dataset(pathlib.Path(sys.argv[1]), 2); assert "apache_beam" not in '
        'sys.modules'
    )
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    subprocess.run([sys.executable, '-c', code, tmp_path / 'd'], env=env, check=True, capture_output=True, timeout=300)


@pytest.fixture
def dask_cluster(workers_find_the_tests, tmp_path):
    """Returns the address of a scheduler, and four workers, each a process of its own on this machine."""
    pytest.importorskip('distributed')
    address_file, started = tmp_path / 'scheduler.json', []

    def start(*words):
        line = [sys.executable, '-m', 'dask', *words, '--host', '127.0.0.1', '--no-dashboard']
        started.append(subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    try:
        start('scheduler', '--port', '0', '--scheduler-file', str(address_file))
        deadline = time.monotonic() + 60
        while not address_file.exists():
            assert started[0].poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        address = json.loads(address_file.read_text())['address']
        for _ in range(4):
            start('worker', address, '--nthreads', '1', '--no-nanny')
        yield address, started[1:]
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_dask_writes_the_same_bytes_and_survives_a_lost_worker(tmp_path, whole, dask_cluster):
    address, workers = dask_cluster
    out = tmp_path / 'd'
    process = fakes.command(out, '--runner=beam', '--', '--runner=DaskRunner', f'--dask_client_address={address}')
    deadline = time.monotonic() + 120
    while len(fakes.finished(out)) < 2:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers[0].kill()
    assert len(fakes.finished(out)) < 11, 'the worker was lost after the last shard'
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 0, errors
    assert fakes.tree(out) == whole


@pytest.mark.slow
def test_each_shard_is_a_task_of_dask_and_errors_are_one_line(tmp_path, dask_cluster, monkeypatch):
    options = ['--runner=DaskRunner', f'--dask_client_address={dask_cluster[0]}']
    assert beam.parse(options).get_all_options()['partition_size'] == 1
    assert beam.parse([*options, '--dask_npartitions=2']).get_all_options()['partition_size'] is None
    path = tmp_path / 'd' / 'fake-train.tfrecord-00001-of-00003'
    path.mkdir(parents=True)
    monkeypatch.setattr(prepare, '_claim', lambda out, plan: None)
    with pytest.raises(prepare.PrepareError) as caught:
        fakes.dataset(tmp_path / 'd', 10, beam=options)
    assert str(caught.value) == f'{path}: Is a directory; a folder has this name; give another, or remove it'


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'distributed', None)
    with pytest.raises(work.UsageError, match=r'install it: pip install "\.\[beam,dask\]"'):
        beam.parse(['--runner=DaskRunner', '--dask_client_address=tcp://127.0.0.1:8786'])
