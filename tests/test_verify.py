"""verify.py: a sound directory passes with the right counts; every kind of damage is named and the exit code is 1."""

import dataclasses
import json
import shutil
import sys

import fakes
import pytest
from absl import flags

from data_prep import cli, prepare, verify
from stattn_jax.data import records, source, tfrecord


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    return fakes.dataset(tmp_path_factory.mktemp('verify') / 'd', 10, 2)


@pytest.fixture
def copy(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / 'd')


def _run(directory, capsys):
    code = cli.exit_code(['verify', str(directory)], verify.main, flags.FlagValues(), '', positional=1)
    return code, capsys.readouterr()


def test_sound_directory(sound, capsys):
    code, output = _run(sound, capsys)
    assert code == 0
    lines = [line.split() for line in output.out.splitlines()]
    assert lines[1] == ['test', 'train']
    assert lines[2] == ['clips', '2', '10']
    assert lines[-4:-1] == [['bell', '1', '4'], ['cat', '1', '3'], ['dog', '0', '3']]
    assert output.out.endswith('12 records, all checksums match\n')


def test_counts_of_events_and_boxes(tmp_path):
    jobs = [prepare.Job(f'c{i}', 'train', (0,), payload=None) for i in range(5)]
    prepare.prepare(
        tmp_path / 'd', 'fake', jobs, _numbered, classes=fakes.CLASSES, spec=fakes.SPEC, multi_label=False, workers=1
    )
    finding = verify.verify(tmp_path / 'd')
    assert finding.problems == []
    made = [fakes.record(i) for i in range(5)]
    assert finding.events == {'train': sum(len(record.events) for record in made)}
    assert finding.boxes == {'train': sum(len(record.boxes) for record in made)}


def _numbered(job, spec):
    return fakes.record(int(job.clip_id[1:]), job.clip_id)


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
    """Puts other records into a shard, with sound checksums."""
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
    problems = '\n'.join(verify.verify(copy).problems)
    assert "clip 'train3' is in split 'test' twice" in problems
    assert "clip 'train3' is in split 'test' and in split 'train': a leak" in problems
    assert "the stretch from 0.25 s of 'x.mp4' is in split 'test' and in split 'train': a leak" in problems
    assert '0.5 s' not in problems
    assert problems.count('a leak') == 2


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
        cli.run(verify.main, flags.FlagValues(), '', positional=1)
    assert caught.value.code == code
    assert len(capsys.readouterr().err.splitlines()) == 1
