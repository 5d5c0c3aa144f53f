"""Tests of prepare.py.

The bytes are the same for any number of workers and after any interruption; skipped clips are counted and named.
"""

import dataclasses
import fcntl
import json
import os
import pathlib
import signal
import time

import fakes
import pytest

from data_prep import local, prepare, verify, work
from stattn_jax import progress
from stattn_jax.data import media, records, source, tfrecord


def _with_payload(jobs, **payloads):
    return [dataclasses.replace(job, payload=payloads.get(job.clip_id)) for job in jobs]


def _prepare(out, jobs, **options):
    options = {
        'workers': 0,
        'shard_size': 4,
        'multi_label': False,
        'classes': fakes.CLASSES,
        'spec': fakes.SPEC,
        **options,
    }
    return prepare.prepare(out, 'fake', jobs, fakes.make_record, **options)


def test_bytes_do_not_depend_on_workers(tmp_path):
    trees = [fakes.tree(fakes.dataset(tmp_path / f'w{workers}', 13, 3, workers=workers)) for workers in (0, 1, 2)]
    assert trees[0].keys() == trees[1].keys()
    assert trees[0] == trees[1] == trees[2]
    assert sum('tfrecord' in name and not name.startswith('prepare') for name in trees[0]) == 2 * 5


@pytest.mark.parametrize('workers', [0, 2])
def test_sigkill_then_the_same_command_gives_the_same_bytes(tmp_path, workers):
    whole, broken = fakes.dataset(tmp_path / 'whole', 40, 4), tmp_path / 'broken'
    code, _ = fakes.stopped(broken, signal.SIGKILL, 3, f'--workers={workers}')
    assert code == -signal.SIGKILL
    assert not (broken / source.INFO_FILE).exists()
    with pytest.raises(tfrecord.NoDataError, match='not finished'):
        source.RecordSource(broken, 'train')
    finished = {name: (broken / name).stat().st_mtime_ns for name in fakes.finished(broken)}
    assert 3 <= len(finished) < 11
    # A shard under its final name is always complete.
    assert all(len(tfrecord.read_index(path)) for path in broken.glob('*-of-000??'))
    fakes.dataset(broken, 40, 4)
    assert fakes.tree(broken) == fakes.tree(whole)
    assert {name: (broken / name).stat().st_mtime_ns for name in finished} == finished


@pytest.mark.parametrize('workers', [0, 2])
def test_ctrl_c_says_how_to_continue(tmp_path, workers):
    code, errors = fakes.stopped(tmp_path / 'd', signal.SIGINT, 1, f'--workers={workers}')
    assert code == 130
    assert (
        errors.splitlines()[-1] == 'error: stopped; run the same command again (a preparation goes on where it stopped)'
    )
    assert 'Traceback' not in errors


def test_a_damaged_shard_that_is_deleted_is_made_anew_alone(tmp_path):
    out = fakes.dataset(tmp_path / 'd', 10)
    before, times = fakes.tree(out), {path: path.stat().st_mtime_ns for path in out.glob('*-of-0000?')}
    victim = out / 'fake-train.tfrecord-00001-of-00003'
    victim.unlink()
    fakes.dataset(out, 10)
    assert fakes.tree(out) == before
    assert [path for path, stamp in times.items() if path.stat().st_mtime_ns != stamp] == [victim]


def test_skipped_clips_are_counted_and_named(tmp_path, capsys):
    jobs = _with_payload(fakes.jobs(6, 2), train1='bad', train5='bad')
    info = _prepare(tmp_path / 'd', jobs)
    assert info.splits == {'test': 2, 'train': 4}
    train = source.RecordSource(tmp_path / 'd', 'train')
    assert [train[i].clip_id for i in range(4)] == ['train0', 'train2', 'train3', 'train4']
    assert info.wanted == {'test': 2, 'train': 6}
    summary = json.loads((tmp_path / 'd' / 'prepare_report.json').read_text())['splits']
    assert (summary['train']['wanted'], summary['train']['used']) == (6, 4)
    assert summary['train']['skipped'] == {
        'no_sound': {'train1': 'has no audio stream', 'train5': 'has no audio stream'}
    }
    short = [train[i].clip_id for i in range(4) if 'short' in train[i].clip.notes]
    assert summary['train']['notes'] == ({'short': short} if short else {})
    printed = capsys.readouterr().out
    assert f'skipped in train: 2 no_sound ({media.REASONS["no_sound"]})\n  train1: has no audio stream\n' in printed


def test_table_has_a_column_for_each_common_fate(tmp_path, capsys):
    fates = {'train0': 'bad', 'train1': 'missing', 'train2': 'missing', 'train3': 'silent', 'train4': 'damaged'}
    _prepare(tmp_path / 'd', _with_payload(fakes.jobs(9), **fates))
    made = [fakes.make_record(job, fakes.SPEC).clip.notes for job in fakes.jobs(9)[3:]]
    short = sum('short' in notes for notes in made)
    head, row = [line.split() for line in capsys.readouterr().out.splitlines()[:2]]
    assert head == 'split wanted used missing unreadable silent short other notes'.split()
    assert row == ['train', '9', '6', '2', '1', '1', str(short), '1', 'damaged']


def test_remarks_are_printed_and_kept(tmp_path, capsys):
    remarks = ['list.csv: 2 rows are empty', 'list.csv: line 7 is there twice']
    _prepare(tmp_path / 'd', fakes.jobs(2), remarks=remarks)
    remarks.append("1 of 3 classes cannot be learned, since no usable clip has them: 'dog'")
    assert json.loads((tmp_path / 'd' / 'prepare_report.json').read_text())['remarks'] == remarks
    assert capsys.readouterr().out.startswith(''.join(f'remark: {remark}\n' for remark in remarks))
    # Remarks are not part of the plan.
    _prepare(tmp_path / 'd', fakes.jobs(2))
    assert json.loads((tmp_path / 'd' / 'prepare_report.json').read_text())['remarks'] == remarks[2:]


@pytest.mark.parametrize(('require', 'enough'), [(0.5, True), (0.51, False), (11, True), (12, False), (1.0, False)])
def test_require(tmp_path, capsys, require, enough):
    # 1 of 2 and 10 of 10 are used.
    jobs = _with_payload(fakes.jobs(10, 2), test1='bad')
    out = tmp_path / 'd'
    if not enough:
        with pytest.raises(prepare.PrepareError) as caught:
            _prepare(out, jobs, require=require)
        assert str(caught.value) == (
            f'--require={require}: too few clips can be used: test 1 of 2, train 10 of 10 (1 no_sound); '
            'the same command with a lower --require goes on with these at once'
        )
        assert 'skipped in test: 1 no_sound' in capsys.readouterr().out
        assert (out / 'prepare_report.json').exists() and not (out / source.INFO_FILE).exists()
        before = {path: path.stat().st_mtime_ns for path in out.glob('*-of-0000?')}
        assert _prepare(out, jobs, require=0.5).splits == {'test': 1, 'train': 10}
        assert {path: path.stat().st_mtime_ns for path in before} == before
    else:
        assert _prepare(out, jobs, require=require).splits == {'test': 1, 'train': 10}


def test_require_takes_the_decimal_number_that_was_typed(tmp_path):
    # In floats, 0.07 * 100 is more than 7.
    jobs = _with_payload(fakes.jobs(100), **{f'train{i}': 'bad' for i in range(93)})
    assert _prepare(tmp_path / 'd', jobs, shard_size=None, require=0.07).splits == {'train': 7}


def test_more_than_there_is_cannot_be_required(tmp_path):
    with pytest.raises(prepare.PrepareError, match='--require=11: only 10 clips are listed at all'):
        _prepare(tmp_path / 'd', fakes.jobs(10), require=11)
    assert not (tmp_path / 'd').exists()


def test_tables_of_the_command_are_not_in_the_way(tmp_path):
    folder = tmp_path / 'd' / 'tables'
    folder.mkdir(parents=True)
    (folder / 'clips.csv').write_text('clip_id\n')
    _prepare(tmp_path / 'd', fakes.jobs(4))
    (folder / 'events.csv').write_text('clip_id\n')
    _prepare(tmp_path / 'd', fakes.jobs(4))
    assert verify.verify(tmp_path / 'd').problems == []


def test_two_hundred_thousand_jobs_are_hashed_in_seconds(tmp_path):
    # A tenth of the jobs is hashed; hashing them makes the plan of a run in which everything is done already.
    jobs = [
        dataclasses.replace(
            job, video=f'{i:011d}.mp4', events=(records.Event(0, 0.0, 5.0, 'both'),) * 2, start=float(i % 60)
        )
        for i, job in enumerate(fakes.jobs(20_000))
    ]
    begun = time.process_time()
    digest = prepare._hash(jobs)
    assert time.process_time() - begun < 2
    assert prepare._hash(jobs) == digest
    assert prepare._hash([*jobs[:-1], dataclasses.replace(jobs[-1], events=())]) != digest


def test_a_shard_whose_clips_are_all_skipped_is_empty_and_harmless(tmp_path):
    jobs = _with_payload(fakes.jobs(6), **{f'train{i}': 'bad' for i in range(4)})
    _prepare(tmp_path / 'd', jobs)
    train = source.RecordSource(tmp_path / 'd', 'train')
    assert [train[i].clip_id for i in range(len(train))] == ['train4', 'train5']


def test_a_split_without_a_usable_clip_is_an_error_that_can_be_mended(tmp_path):
    marker = _with_payload(fakes.jobs(4, 2), test0='bad', test1='bad')
    with pytest.raises(prepare.PrepareError) as caught:
        _prepare(tmp_path / 'd', marker)
    assert "split 'test' has no usable clip (2 no_sound; the first: test0: has no audio stream)" in str(caught.value)
    assert not (tmp_path / 'd' / source.INFO_FILE).exists()
    # The next run tries only that split again.
    assert fakes.finished(tmp_path / 'd') == ['fake-train.tfrecord-00000-of-00001']


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'spec': media.ClipSpec(segments=4, short_side=24)}, 'segments 3 there, 4 now'),
        ({'classes': (*fakes.CLASSES, 'owl')}, 'classes differ'),
        ({'jobs': fakes.jobs(5)}, 'clips differ'),
        ({'shard_size': 3}, 'shards differ'),
    ],
)
def test_another_plan_is_refused(tmp_path, change, message):
    out = tmp_path / 'd'
    _prepare(out, fakes.jobs(6))
    before = fakes.tree(out)
    with pytest.raises(prepare.PrepareError, match=message) as caught:
        _prepare(out, **{'jobs': fakes.jobs(6), **change})
    assert 'give another --out, or delete' in str(caught.value)
    assert fakes.tree(out) == before


def test_a_directory_with_other_things_is_refused(tmp_path):
    (tmp_path / 'thesis.tex').write_text('x')
    with pytest.raises(prepare.PrepareError, match="is not empty \\(it holds 'thesis.tex'\\)"):
        fakes.dataset(tmp_path, 2)
    with pytest.raises(NotADirectoryError, match='thesis.tex'):
        fakes.dataset(tmp_path / 'thesis.tex' / 'd', 2)


def test_a_second_run_at_the_same_time_is_refused(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(prepare.PrepareError, match='is being prepared by another process'):
        fakes.dataset(tmp_path, 2)
    os.close(descriptor)
    fakes.dataset(tmp_path, 2)


def test_a_worker_that_dies_once_is_replaced_and_nothing_is_lost(tmp_path, capsys):
    jobs = _with_payload(fakes.jobs(12), train6=('die once', str(tmp_path / 'marker')))
    assert _prepare(tmp_path / 'd', jobs, workers=2).splits == {'train': 12}
    assert fakes.tree(tmp_path / 'd') == fakes.tree(_whole(tmp_path, jobs))
    expected = "a worker process was ended by SIGKILL at clip 'train6' of fake-train.tfrecord-00001-of-00003"
    assert f'{expected}; it is tried once more' in capsys.readouterr().err


def _whole(folder, jobs):
    _prepare(folder / 'whole', jobs)
    return folder / 'whole'


@pytest.mark.parametrize('workers', [1, 2, None])
def test_a_clip_that_kills_its_worker_is_set_aside(tmp_path, capsys, workers):
    jobs = _with_payload(fakes.jobs(12), train5='bad', train6='segfault', train7='segfault', train8='exit')
    assert _prepare(tmp_path / 'd', jobs, workers=workers).splits == {'train': 8}
    summary = json.loads((tmp_path / 'd' / 'prepare_report.json').read_text())['splits']['train']
    detail = 'the process that read it was ended by SIGSEGV'
    assert summary['skipped']['crashed'] == {
        'train6': detail,
        'train7': detail,
        'train8': 'the process that read it ended with exit code 3',
    }
    assert "was ended by SIGSEGV at clip 'train7' of" in capsys.readouterr().err
    assert [train.clip_id for train in source.RecordSource(tmp_path / 'd', 'train')][4:] == [
        'train4', 'train9', 'train10', 'train11'
    ]  # fmt: skip
    assert not list((tmp_path / 'd').glob('*.tmp-*'))


def test_workers_that_die_before_a_clip_stop_the_run(tmp_path):
    class Undelivered:
        def __reduce__(self):
            return os._exit, (7,)

    jobs = _with_payload(fakes.jobs(2), train0=Undelivered())
    line = progress.ProgressLine('preparing', 2)
    with pytest.raises(prepare.PrepareError, match='ended with exit code 7 before it began with fake-train'):
        local.run(work.Maker(tmp_path, fakes.make_record, (), fakes.SPEC), [work.Shard('fake-train', jobs)], line, 2)


@pytest.mark.parametrize('workers', [0, 2])
def test_an_unforeseen_exception_is_the_reason_of_its_clip(tmp_path, workers):
    jobs = _with_payload(fakes.jobs(12), train6='bug')
    assert _prepare(tmp_path / 'd', jobs, workers=workers).splits == {'train': 11}
    summary = json.loads((tmp_path / 'd' / 'prepare_report.json').read_text())['splits']['train']
    assert summary['skipped'] == {'failed': {'train6': 'ZeroDivisionError:'}}


def test_a_full_disk_is_named(tmp_path, full_disk):
    full_disk(lambda name: 'fake-test.tfrecord' in name)
    with pytest.raises(prepare.PrepareError, match='of-00001.index: No space left on device; free some space'):
        fakes.dataset(tmp_path / 'd', 2)


def test_fingerprint_follows_records_and_classes(tmp_path):
    def fingerprint(name, **options):
        return _prepare(tmp_path / name, **{'jobs': fakes.jobs(6), **options}).fingerprint

    base = fingerprint('base')
    assert fingerprint('again') == base
    others = [
        fingerprint('fewer', jobs=fakes.jobs(5)),
        fingerprint('classes', classes=('bell', 'cat', 'owl')),
        fingerprint('relabelled', jobs=[dataclasses.replace(fakes.jobs(6)[0], labels=(2,)), *fakes.jobs(6)[1:]]),
    ]
    assert len({base, *others}) == 4


def test_default_shards_follow_the_size_of_the_split(tmp_path):
    for clips, shards in ((5, 1), (30, 4)):
        info = _prepare(tmp_path / str(clips), fakes.jobs(clips), shard_size=None)
        assert info.shards == {'train': shards}


@pytest.mark.parametrize('name', ['Own', '1own', 'a-b', ''])
def test_bad_name(tmp_path, name):
    with pytest.raises(prepare.PrepareError, match='data set name'):
        prepare.prepare(
            tmp_path, name, fakes.jobs(1), fakes.make_record, classes=fakes.CLASSES, spec=fakes.SPEC, multi_label=False
        )


def test_work_continues_in_a_moved_directory(tmp_path):
    fakes.dataset(tmp_path / 'a', 6)
    pathlib.Path(tmp_path / 'a').rename(tmp_path / 'b')
    fakes.dataset(tmp_path / 'b', 6)
    assert len(source.RecordSource(tmp_path / 'b', 'train')) == 6
