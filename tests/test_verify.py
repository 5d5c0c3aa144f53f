"""Tests of verify.py: a valid directory passes with the right counts; any damage is named with exit code 1."""

import dataclasses
import json
import shutil
import sys

import fakes
import pytest

from data_prep import cli, prepare, verify
from stattn_jax.data import records, source, tfrecord


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    return fakes.dataset(tmp_path_factory.mktemp('verify') / 'd', 10, 2)


@pytest.fixture
def copy(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / 'd')


def _run(directory, capsys, *options):
    capsys.readouterr()
    verify.FLAGS.unparse_flags()
    code = cli.exit_code(['verify', str(directory), *options], verify.main, verify.FLAGS, '', positional=1)
    return code, capsys.readouterr()


def test_sound_directory(sound, capsys):
    code, output = _run(sound, capsys)
    assert code == 0
    lines = [line.split() for line in output.out.splitlines()]
    assert lines[1] == ['test', 'train']
    assert lines[2:4] == [['clips', '2', '10'], ['of', 'wanted', '2', '10']]
    assert lines[-4:-1] == [['bell', '1', '4'], ['cat', '1', '3'], ['dog', '0', '3']]
    assert output.out.endswith('12 records, all checksums match\n')


def _prepare(out, jobs, make_record, spec=fakes.SPEC):
    prepare.prepare(
        out, 'fake', jobs, make_record, classes=fakes.CLASSES, spec=spec, multi_label=False, workers=0, shard_size=4
    )
    return out


def test_counts_of_annotations(tmp_path):
    _prepare(tmp_path / 'd', [prepare.Job(f'c{i}', 'train', (0,)) for i in range(5)], _numbered)
    finding = verify.verify(tmp_path / 'd')
    assert finding.problems == []
    made = [fakes.record(i) for i in range(5)]
    assert finding.events == {'train': sum(len(record.events) for record in made)}
    assert finding.boxes == {'train': sum(len(record.boxes) for record in made)}
    assert finding.presence == {'train': 2}
    assert finding.masks == {'train': sum(len(record.masks) for record in made)}


def test_masks_that_cannot_be_read_are_named(tmp_path):
    _prepare(tmp_path / 'd', [prepare.Job('c2', 'train', (0,))], _with_broken_mask)
    (problem,) = verify.verify(tmp_path / 'd').problems
    assert problem.startswith("clip 'c2': its mask at 1.5 s is no PNG") and 'prepare the data again' in problem


def _with_broken_mask(job, spec):
    record = _numbered(job, spec)
    return dataclasses.replace(record, masks=(*record.masks[:1], records.Mask(1.5, 0, record.masks[1].png[:40])))


def _numbered(job, spec):
    number = int(job.clip_id[1:])
    presence = (records.Presence(1, 'audio', ('voice_over',)),) if number > 2 else ()
    return dataclasses.replace(fakes.record(number, job.clip_id), presence=presence)


def test_features_and_clips_without_a_label(tmp_path, capsys):
    jobs = [dataclasses.replace(job, labels=job.labels if i % 2 else ()) for i, job in enumerate(fakes.jobs(6, 1))]
    out = _prepare(tmp_path / 'd', jobs, fakes.feature_record, fakes.FEATURE_SPEC)
    code, output = _run(out, capsys)
    assert code == 0
    assert output.out.splitlines()[0].endswith(', 2 segments of 1 s, features: numbers of a generator')
    assert ['(no', 'label)', '1', '3'] in [line.split() for line in output.out.splitlines()]


def test_used_of_wanted(tmp_path, capsys):
    jobs = [dataclasses.replace(job, payload='bad' if job.clip_id == 'train3' else None) for job in fakes.jobs(6)]
    code, output = _run(_prepare(tmp_path / 'd', jobs, fakes.make_record), capsys)
    lines = [line.split() for line in output.out.splitlines()]
    assert code == 0 and lines[2:4] == [['clips', '5'], ['of', 'wanted', '6']]


def test_leaks_fail_unless_they_are_allowed(tmp_path, capsys):
    jobs = [dataclasses.replace(job, video='x.mp4', start=float(i % 5)) for i, job in enumerate(fakes.jobs(5, 1))]
    out = _prepare(tmp_path / 'd', jobs, fakes.make_record)
    line = "leak: the stretch from 0 s of 'x.mp4' is in split 'test' and in split 'train'\n"
    code, output = _run(out, capsys)
    assert code == 1 and line in output.out
    assert output.err == (
        f'error: {out}: 1 leak found, see above; --allow_leaks accepts them where the published split is so\n'
    )
    code, output = _run(out, capsys, '--allow_leaks')
    assert code == 0 and line in output.out and output.err == ''
    code, _ = _run(out, capsys)
    assert code == 1


def test_flipped_byte_names_file_offset_and_record(copy, capsys):
    shard = copy / 'fake-train.tfrecord-00001-of-00003'
    offset = tfrecord.read_index(shard)[2]
    fakes.flip_byte(shard, offset + 300)
    code, output = _run(copy, capsys)
    assert code == 1
    assert f'problem: {shard}: record 2 at byte {offset} is damaged' in output.out
    assert "problem: fake-train.tfrecord-00001-of-00003: clip 'train6' is missing" in output.out
    assert "split 'train': 9 records can be read, stattn.json says 10" in output.out
    assert output.err == f'error: {copy}: 3 problems found, see above\n'


@pytest.mark.parametrize(
    ('damage', 'expected'),
    [
        (
            lambda d: (d / 'fake-test.tfrecord-00000-of-00001').unlink(),
            'fake-test.tfrecord-00000-of-00001: no such file',
        ),
        (lambda d: (d / 'fake-test.tfrecord-00000-of-00001.index').unlink(), '.index: no such file'),
        (lambda d: fakes.flip_byte(d / 'fake-test.tfrecord-00000-of-00001.index', 3), 'the index is damaged'),
        (lambda d: (d / 'fake-test.tfrecord-00000-of-00002').touch(), 'does not belong to this data set'),
        (lambda d: (d / 'features.json').unlink(), 'features.json: no such file'),
        (lambda d: shutil.rmtree(d / 'prepare'), 'cannot be named'),
    ],
)
def test_damaged_files(copy, damage, expected):
    damage(copy)
    assert any(expected in problem for problem in verify.verify(copy).problems)


def test_another_fingerprint(copy):
    path = copy / source.INFO_FILE
    content = json.loads(path.read_text())
    content['classes'][0] = 'gong'
    path.write_text(json.dumps(content))
    (problem,) = verify.verify(copy).problems
    assert 'its fingerprint is not that of these shards' in problem


def _overwrite(directory, shard, made):
    """Puts other records into a shard, with valid checksums."""
    features = records.make_features(fakes.CLASSES, fakes.SPEC)
    tfrecord.write_shard(directory / shard, [records.encode(record, features) for record in made])


def test_leaks_and_duplicates_are_named(copy):
    test_shard = 'fake-test.tfrecord-00000-of-00001'
    train = fakes.record(1, 'train3', video='x.mp4')
    _overwrite(copy, test_shard, [train, train, dataclasses.replace(train, clip_id='other')])
    shutil.rmtree(copy / 'prepare')
    _overwrite(
        copy, 'fake-train.tfrecord-00002-of-00003', [fakes.record(1, 'a', 'x.mp4'), fakes.record(2, 'b', 'x.mp4')]
    )
    finding = verify.verify(copy)
    assert "clip 'train3' is in split 'test' twice" in finding.problems
    assert "clip 'train3' is in split 'test' and in split 'train'" in finding.problems
    assert finding.leaks == ["the stretch from 0.25 s of 'x.mp4' is in split 'test' and in split 'train'"]


def test_missing_and_foreign_clips_are_named(copy):
    made = [fakes.make_record(job, fakes.SPEC) for job in fakes.jobs(10)[8:]]
    _overwrite(copy, 'fake-train.tfrecord-00002-of-00003', [made[0], dataclasses.replace(made[1], clip_id='x')])
    problems = '\n'.join(verify.verify(copy).problems)
    assert "fake-train.tfrecord-00002-of-00003: clip 'train9' is missing" in problems
    assert "clip 'x' was never put there by its preparation" in problems


@pytest.mark.parametrize(('arguments', 'code'), [([], 2), (['a', 'b'], 2), (['nowhere'], 2), (['--nope', 'a'], 2)])
def test_exit_codes(arguments, code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['verify', *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.run(verify.main, verify.FLAGS, '', positional=1)
    assert caught.value.code == code
    assert len(capsys.readouterr().err.splitlines()) == 1
