"""Tests ave.py: the file without a header in the official split, duplicates, and the row of length zero.

It also covers --clean, and preparation from videos and from features.
"""

import collections

import clips
import commands
import h5py
import numpy as np
import pytest

from data_prep import ave, cli, published, rows, verify

# These are rows of the published file: one of length zero, and ids that occur twice, one of them in two splits.
ROWS = [
    'Church bell&RUhOCu3LNXM&good&0&10',
    'Church bell&MH3m4AwEcRY&good&6&8',
    'Church bell&VWi2ENBuTbw&good&0&0',
    'Male speech, man speaking&-ccciEuH9FE&good&5&10',
    'Male speech, man speaking&0qvQIuQoODo&good&1&4',
    'Frying (food)&2OGM1Phf4EA&good&0&7',
    'Female speech, woman speaking&-ccciEuH9FE&good&5&10',
    'Female speech, woman speaking&0qvQIuQoODo&good&1&4',
]
ORDERS = {'train': [6, 0, 3, 2, 4], 'val': [1], 'test': [7, 5]}
CLASSES = ('Church bell', 'Male speech, man speaking', 'Frying (food)', 'Female speech, woman speaking')


@pytest.fixture
def files(tmp_path):
    """Returns a function that writes annotation and order files and returns their folder."""

    def write(lines=ROWS, orders=ORDERS):
        folder = tmp_path / 'annotations'
        folder.mkdir(exist_ok=True)
        (folder / 'Annotations.txt').write_text('\n'.join(lines) + '\n')
        for split, order in orders.items():
            with h5py.File(folder / f'{split}_order.h5', 'w') as file:
                file['order'] = np.asarray(order, np.int64)
        return folder

    return write


def test_rows_and_orders(files):
    listing = ave.read(files())
    assert listing.classes == CLASSES
    assert [(clip.clip_id, clip.split) for clip in listing.clips] == [
        ('RUhOCu3LNXM_0', 'train'), ('MH3m4AwEcRY_1', 'val'), ('VWi2ENBuTbw_2', 'train'), ('-ccciEuH9FE_3', 'train'),
        ('0qvQIuQoODo_4', 'train'), ('2OGM1Phf4EA_5', 'test'), ('-ccciEuH9FE_6', 'train'), ('0qvQIuQoODo_7', 'test'),
    ]  # fmt: skip
    assert listing.events[1] == ('MH3m4AwEcRY_1', 'Church bell', 6, 8, 'both')
    assert 'VWi2ENBuTbw_2' not in {event[0] for event in listing.events} and len(listing.events) == 7
    assert commands.remark(listing.remarks, '1 rows of no length', 'line 3 VWi2ENBuTbw_2')
    assert commands.remark(listing.remarks, '2 ids occur in several rows', '-ccciEuH9FE, 0qvQIuQoODo')
    assert commands.remark(listing.remarks, '1 of them are in several splits', '0qvQIuQoODo')
    assert [clip.payload for clip in listing.clips] == [{'file': 'main', 'row': row} for row in range(8)]


def test_the_copy_with_a_header_gives_the_same(files):
    plain = ave.read(files())
    copy = ave.read(files(['Category&VideoID&Quality&StartTime&EndTime', *ROWS]))
    assert (copy.classes, copy.clips, copy.events) == (plain.classes, plain.clips, plain.events)
    assert commands.remark(copy.remarks, 'has a header')


def test_clean_leaves_out_clips_in_several_splits(files):
    listing = ave.read(files(), clean=True)
    assert [clip.clip_id[-1] for clip in listing.clips] == list('012356')
    assert {event[0][-1] for event in listing.events} == set('01356')
    assert listing.classes == CLASSES
    assert commands.remark(listing.remarks, '2 clips left out by --clean', '0qvQIuQoODo_4, 0qvQIuQoODo_7')


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        ({'lines': [*ROWS, 'Truck&abcdefghijk&good&0&10']}, 'hold 8 rows from 0 to 7; expected 0 to 8'),
        ({'lines': ROWS[:7]}, 'expected 0 to 6'),
        ({'orders': {**ORDERS, 'test': [7, 5, 6]}}, 'test_order.h5: 1 rows are there twice or in another order too'),
        ({'orders': {**ORDERS, 'test': [7, 5, 7]}}, 'test_order.h5: 1 rows are there twice'),
        ({'orders': {'train': range(8)}}, 'val_order.h5 cannot be read'),
    ],
)
def test_other_orders_are_refused(files, change, expected):
    with pytest.raises(cli.UsageError, match=expected):
        ave.read(files(**change))


@pytest.mark.parametrize(
    ('line', 'expected'),
    [
        ('Truck&abc&good&0&10', "Annotations.txt:9: column id: got 'abc'"),
        ('Truck&abcdefghijk&good&0&11', "column end: got '11', expected seconds, at most 10"),
        ('Truck&abcdefghijk&good&8&6', "column end: got '6', expected start, 8, or more"),
        ('Truck,abcdefghijk,good,0,10', '1 cells, expected 5'),
    ],
)
def test_faults(files, line, expected):
    with pytest.raises(rows.TableError, match=expected):
        ave.read(files([*ROWS, line]))


def test_the_published_files(annotations, tmp_path):
    folder = annotations / 'ave'
    listing = ave.read(folder)
    own = published.write_tables(listing, {}, tmp_path)
    assert collections.Counter(job.split for job in own.jobs) == {'train': 3339, 'val': 402, 'test': 402}
    assert (len(own.classes), own.classes[0], own.classes[27], own.multi_label) == (
        28,
        'Church bell',
        'Mandolin',
        False,
    )
    assert commands.remark(listing.remarks, '1 rows of no length', 'line 27 VWi2ENBuTbw_26')
    assert commands.remark(listing.remarks, '45 ids occur in several rows')
    assert commands.remark(listing.remarks, '18 of them are in several splits')
    with h5py.File(folder / 'mil_labels.h5') as file:
        labels = file['avadataset'][:]
    assert [job.labels for job in own.jobs] == [(label,) for label in labels.argmax(1)]
    with h5py.File(folder / 'test_order.h5') as file:
        assert [int(job.clip_id[12:]) for job in own.jobs if job.split == 'test'] == sorted(file['order'][:])
    # Shares of seconds that are background: train 16.9 %, val 18.2 %, test 17.8 %; 141 clips of test have some
    # background, and 144 of val.
    for split, share, partial in (('train', 16.9, None), ('val', 18.2, 144), ('test', 17.8, 141)):
        seconds = np.array([sum(e.offset - e.onset for e in job.events) for job in own.jobs if job.split == split])
        assert round(100 * (1 - seconds.mean() / 10), 1) == share
        assert partial in (None, (seconds < 10).sum())


def test_clean_on_the_published_files(annotations):
    official, clean = (ave.read(annotations / 'ave', clean=clean) for clean in (False, True))
    by_split = {split: {clip.source for clip in clean.clips if clip.split == split} for split in ave.SPLITS}
    assert (
        not by_split['train'] & by_split['val']
        and not by_split['train'] & by_split['test']
        and not by_split['val'] & by_split['test']
    )
    left_out = {clip.clip_id for clip in official.clips} - {clip.clip_id for clip in clean.clips}
    # They are the clips of 18 ids, one of which occurs three times.
    assert (len(left_out), len({clip_id[:11] for clip_id in left_out})) == (37, 18)
    assert collections.Counter(clip.split for clip in clean.clips) == {'train': 3320, 'val': 392, 'test': 394}


def test_the_command_with_videos(files, tmp_path, capsys):
    """Two rows of one id share its video; verify reports a leak if they are in two splits, and --clean removes it."""
    for name in ('RUhOCu3LNXM', 'MH3m4AwEcRY', '0qvQIuQoODo', 'Y2OGM1Phf4EA'):
        clips.write_small(tmp_path / 'videos' / 'AVE' / f'{name}.mp4')
    flags = [f'--annotations={files()}', f'--videos={tmp_path}/videos', '--short_side=16']
    assert commands.run(ave, capsys, *flags, f'--out={tmp_path}/official')[::2] == (0, [])
    (leak,) = verify.verify(tmp_path / 'official').leaks
    assert "'AVE/0qvQIuQoODo.mp4'" in leak
    assert commands.report(tmp_path / 'official')['splits']['test']['used'] == 2
    assert commands.run(ave, capsys, *flags, f'--out={tmp_path}/clean', '--clean')[::2] == (0, [])
    assert verify.verify(tmp_path / 'clean').leaks == []
    found = commands.records(tmp_path / 'clean')
    assert list(found) == ['2OGM1Phf4EA_5', 'RUhOCu3LNXM_0', 'MH3m4AwEcRY_1']
    assert found['2OGM1Phf4EA_5'].video == 'AVE/Y2OGM1Phf4EA.mp4'
    summary = commands.report(tmp_path / 'clean')
    assert list(summary['splits']['train']['skipped']['missing']) == ['VWi2ENBuTbw_2', '-ccciEuH9FE_3', '-ccciEuH9FE_6']
    assert commands.remark(summary['remarks'], '2 clips left out by --clean')


@pytest.fixture(scope='module')
def made_features(tmp_path_factory):
    """Writes AVE's feature files for eight rows and two background clips.

    Row r is r everywhere, and row r of the noisy files is 100 + r.
    """
    folder = tmp_path_factory.mktemp('features')
    for suffix, first, count in (('', 0, 8), ('_noisy', 100, 2)):
        with (
            h5py.File(folder / f'audio_feature{suffix}.h5', 'w') as audio,
            h5py.File(folder / f'visual_feature{suffix}.h5', 'w') as visual,
        ):
            heard = audio.create_dataset('avadataset', (count, 10, 128), np.float64)
            seen = visual.create_dataset('avadataset', (count, 10, 7, 7, 512), np.float32)
            for row in range(count):
                heard[row] = seen[row] = first + row
    labels = np.zeros((2, len(CLASSES) + 1), np.float32)
    labels[:, -1] = 1
    with h5py.File(folder / 'labels_noisy.h5', 'w') as file:
        file['avadataset'] = labels
    return folder


@pytest.fixture
def feature_files(made_features, tmp_path):
    """Makes a folder of links to the feature files."""
    folder = tmp_path / 'features'
    folder.mkdir()
    for path in made_features.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def test_the_command_with_features(files, feature_files, tmp_path, capsys):
    flags = [f'--annotations={files()}', f'--features={feature_files}', '--clean']
    assert commands.run(ave, capsys, *flags, f'--out={tmp_path}/out')[::2] == (0, [])
    found = commands.records(tmp_path / 'out')
    values = {clip_id: (record.clip.visual[3, 2, 1, 5], record.clip.audio[9, 7]) for clip_id, record in found.items()}
    rows_of = {clip_id: int(clip_id.rpartition('_')[2]) + 100 * clip_id.startswith('background') for clip_id in found}
    assert values == {clip_id: (row, row) for clip_id, row in rows_of.items()}
    assert sorted(rows_of.values()) == [0, 1, 2, 3, 5, 6, 100, 101]
    assert [found[f'background_00{i}'].labels for i in range(2)] == [(), ()]
    assert found['MH3m4AwEcRY_1'].labels == (0,) and found['MH3m4AwEcRY_1'].events[0].onset == 6
    summary = commands.report(tmp_path / 'out')
    assert summary['splits']['train']['used'] == 6
    assert commands.remark(summary['remarks'], '2 background clips without a label added to train')


def test_without_background_features(files, feature_files, tmp_path, capsys):
    for path in feature_files.glob('*_noisy.h5'):
        path.unlink()
    flags = [f'--annotations={files()}', f'--features={feature_files}', '--clean']
    assert commands.run(ave, capsys, *flags, f'--out={tmp_path}/out')[0] == 0
    assert len(commands.records(tmp_path / 'out')) == 6
    assert commands.remark(commands.report(tmp_path / 'out')['remarks'], 'no background clips')


def test_features_of_other_rows_are_refused(files, feature_files, tmp_path, capsys):
    folder = files([*ROWS, 'Truck&abcdefghijk&good&0&10'], {**ORDERS, 'val': [1, 8]})
    flags = [f'--annotations={folder}', f'--features={feature_files}', f'--out={tmp_path}/out']
    code, _, (error,) = commands.run(ave, capsys, *flags)
    assert code == 2 and '8 clips, expected 9, as many as Annotations.txt has rows' in error
    (feature_files / 'audio_feature_noisy.h5').unlink()
    (feature_files / 'audio_feature.h5').rename(feature_files / 'audio_feature_noisy.h5')
    (feature_files / 'audio_feature.h5').symlink_to((feature_files / 'audio_feature_noisy.h5').readlink())
    code, _, (error,) = commands.run(ave, capsys, f'--annotations={files()}', *flags[1:])
    assert code == 2 and 'hold [2, 8] clips; expected as many' in error


@pytest.mark.parametrize('sources', [[], ['--videos=.', '--features=.']])
def test_videos_or_features(files, sources, tmp_path, capsys):
    code, _, (error,) = commands.run(ave, capsys, f'--annotations={files()}', f'--out={tmp_path}/out', *sources)
    assert code == 2 and 'videos' in error and 'features' in error


def test_flags_for_videos_are_refused_with_features(files, feature_files, tmp_path, capsys):
    flags = [f'--annotations={files()}', f'--features={feature_files}', f'--out={tmp_path}/out']
    code, _, (error,) = commands.run(ave, capsys, *flags, '--segments=10')
    assert code == 2 and '--segments=10 is for videos' in error
