"""Tests kinetics_sounds.py: no class list is chosen silently.

It also covers Kinetics' tables, OGM-GE's lists and the counts of the published lists.
"""

import collections
import re

import clips
import commands
import pytest

from data_prep import cli, kinetics_sounds, published, rows

HEADER = 'label,youtube_id,time_start,time_end,split,is_cc\n'
# Rows of Kinetics-400's train.csv, and one of another split.
TABLE = HEADER + (
    'testifying,---QUuC4vJs,84,94,train,0\n"dribbling basketball",--4-0ihtnBU,58,68,train,0\n'
    'strumming guitar,abcdefghij_,2,12,validate,0\ntickling,_bcdefghij-,0,10,test,0\n'
)


@pytest.fixture
def table(tmp_path):
    """Returns a function that writes a table and returns its path."""

    def write(text=TABLE, name='kinetics.csv'):
        path = tmp_path / 'annotations' / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_the_lists():
    adamml, crisscross = (kinetics_sounds.CLASS_LISTS[name] for name in ('adamml31', 'crisscross32'))
    assert (len(set(adamml)), len(set(crisscross))) == (31, 32)
    assert set(crisscross) - set(adamml) == {'strumming guitar'}
    assert list(adamml) == sorted(adamml) and list(crisscross) == sorted(crisscross)


@pytest.mark.parametrize(
    ('classes', 'expected'),
    [(None, '--classes is missing: papers use different classes'), ('l3net', '--classes=l3net is no list and no file')],
)
def test_no_list_is_chosen_silently(table, classes, expected):
    with pytest.raises(cli.UsageError, match=expected) as caught:
        kinetics_sounds.read(table(), classes)
    assert 'give adamml31 (31 classes), crisscross32 (32 classes), ogmge31 (31 classes), or a text file' in str(
        caught.value
    )


def test_a_table_with_two_lists(table):
    small, large = (kinetics_sounds.read(table(), name) for name in ('adamml31', 'crisscross32'))
    assert [(clip.clip_id, clip.split, clip.labels) for clip in large.clips] == [
        ('--4-0ihtnBU_000058_000068', 'train', ('dribbling basketball',)),
        ('abcdefghij__000002_000012', 'val', ('strumming guitar',)),
        ('_bcdefghij-_000000_000010', 'test', ('tickling',)),
    ]
    assert [clip.clip_id for clip in small.clips] == [large.clips[0].clip_id, large.clips[2].clip_id]
    assert commands.remark(small.remarks, '2 of 4 clips are of the 31 classes')
    assert commands.remark(small.remarks, '29 classes have no clip in the annotations: blowing nose')


def test_a_file_of_classes_sets_their_order(table, tmp_path):
    (tmp_path / 'classes.txt').write_text('tickling\ntestifying\n')
    listing = kinetics_sounds.read(table().parent, str(tmp_path / 'classes.txt'))
    assert listing.classes == ('tickling', 'testifying')
    assert [clip.labels for clip in listing.clips] == [('testifying',), ('tickling',)]


@pytest.mark.parametrize(
    ('row', 'expected'),
    [
        ('singing,abc,0,10,train,0', "kinetics.csv:2: column youtube_id: got 'abc'"),
        ('singing,abcdefghijk,x,10,train,0', "column time_start: got 'x'"),
        ('singing,abcdefghijk,0,10,dev,0', "column split: got 'dev', expected one of train, val, validate"),
    ],
)
def test_faults(table, row, expected):
    with pytest.raises(rows.TableError, match=expected):
        kinetics_sounds.read(table(HEADER + row + '\n'), 'adamml31')


def test_numbers_are_for_the_lists_of_numbers(table, tmp_path):
    with pytest.raises(cli.UsageError, match='--classes=ogmge31 numbers the classes of my_train.txt'):
        kinetics_sounds.read(table(), 'ogmge31')
    path = table('--4-0ihtnBU_000058_000068,10,4\r\n', 'my_train.txt')
    with pytest.raises(cli.UsageError, match='crisscross32 has 32 classes; the lists of OGM-GE number 31, from 0'):
        kinetics_sounds.read(path.parent, 'crisscross32')
    for line, expected in (
        ('--4-0ihtnBU_000058_000068,10,31', "column class: got '31', expected a class from 0 to 30"),
        ('x_1,10,3', "column clip: got 'x_1'"),
    ):
        with pytest.raises(rows.TableError, match=re.escape(expected)):
            kinetics_sounds.read(table(line + '\n', 'my_train.txt'), 'ogmge31')


def test_the_published_lists(annotations, tmp_path):
    folder = annotations / 'kinetics_sounds'
    listing = kinetics_sounds.read(folder, 'ogmge31')
    own = published.write_tables(listing, {}, tmp_path)
    assert collections.Counter(job.split for job in own.jobs) == {'train': 14_799, 'test': 2_597}
    assert own.classes == tuple(f'class {number:02d}' for number in range(31))
    assert len({clip.source for clip in listing.clips}) == 14_799 + 2_597
    numbers = [
        int(line.split(',')[2])
        for name in ('my_train.txt', 'my_test.txt')
        for line in (folder / name).read_text().splitlines()
    ]
    assert [job.labels for job in own.jobs] == [(number,) for number in numbers]
    # The names are those of Kinetics-400's train.csv for two of the clips; the numbers agree with the alphabetical
    # order of adamml31.
    by_name = {clip.clip_id: clip.labels[0] for clip in kinetics_sounds.read(folder, 'adamml31').clips}
    assert by_name['--4-0ihtnBU_000058_000068'] == 'dribbling basketball'
    assert by_name['-00nar1nEPc_000033_000043'] == 'playing harmonica'


def test_the_command(table, tmp_path, capsys):
    """One file has Kinetics' own name, one the list's name, one is a whole video, and one clip is missing."""
    table('--4-0ihtnBU_000058_000068,10,4\n-00nar1nEPc_000003_000013,10,13\n', 'my_train.txt')
    folder = table('-3Mwkq-7TV4_2,10,23\n-74csnCOiUs_0,10,14\n', 'my_test.txt').parent
    clips.write_small(tmp_path / 'videos' / 'dribbling' / '--4-0ihtnBU_000058_000068.mp4')
    clips.write_small(tmp_path / 'videos' / '-3Mwkq-7TV4_000002_000012.mp4')
    clips.write_small(tmp_path / 'videos' / '-00nar1nEPc.mp4', 14)
    flags = [f'--annotations={folder}', f'--videos={tmp_path}/videos', f'--out={tmp_path}/out', '--short_side=16']
    code, _, (error,) = commands.run(kinetics_sounds, capsys, *flags)
    assert code == 2 and 'give adamml31' in error
    assert commands.run(kinetics_sounds, capsys, *flags, '--classes=adamml31')[::2] == (0, [])
    found = commands.records(tmp_path / 'out')
    assert {clip_id: (record.video, record.start, record.labels) for clip_id, record in found.items()} == {
        '--4-0ihtnBU_000058_000068': ('dribbling/--4-0ihtnBU_000058_000068.mp4', 0, (4,)),
        '-00nar1nEPc_000003_000013': ('-00nar1nEPc.mp4', 3, (13,)),
        '-3Mwkq-7TV4_2': ('-3Mwkq-7TV4_000002_000012.mp4', 0, (23,)),
    }
    summary = commands.report(tmp_path / 'out')
    assert list(summary['splits']['test']['skipped']['missing']) == ['-74csnCOiUs_0']
    assert commands.remark(summary['remarks'], 'their numbers are taken as the lines of adamml31')
