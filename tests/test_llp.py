"""Tests llp.py: names with decimals and _, empty intervals, versions of a file, and videos and features."""

import collections
import re

import clips
import commands
import numpy as np
import pytest

from data_prep import llp, published, rows

# Rows of the published files with their irregularities: a decimal start, an id with _, a label twice, an id that is 10
# characters long.
TRAIN = 'BjCEufrlXm4_20_30\tSpeech,Dog\nAP0061o0Nvk_101.8_111.8\tCello\n'
VAL = 'D_EG4Cs_MEU_30_40\tFrying_(food),Speech\nH5WcJwyjxIg_2_12\tBaby_cry_infant_cry\n'
TEST = 'LcFWKgFphXI_20_30\tClapping,Clapping\nBaue01N86wE_10_20\tDog\n'
AUDIO = (
    'D_EG4Cs_MEU_30_40\t0\t4\tSpeech\nD_EG4Cs_MEU_30_40\t3\t6\tSpeech\nD_EG4Cs_MEU_30_40\t0\t4\tSpeech\n'
    'H5WcJwyjxIg_2_12\t0\t0\tBaby_cry_infant_cry\nLcFWKgFphXI_20_30\t9\t0\tClapping\n'
    'LcFWKgFphXI_20_30\t2\t10\tClapping\n'
    '19jWnmYnlD8_30_400\t0\t10\tClapping\n'
)
VISUAL = 'D_EG4Cs_MEU_30_40\t0\t4\tSpeech\n17iGUal2M_10_20\t0\t10\tSinging\n'


@pytest.fixture
def files(tmp_path):
    """Returns a function that writes the annotation files and returns their folder."""

    def write(train=TRAIN, val=VAL, test=TEST, audio=AUDIO, visual=VISUAL):
        folder = tmp_path / 'annotations'
        folder.mkdir(exist_ok=True)
        for split, text in {'train': train, 'val': val, 'test': test}.items():
            (folder / llp.WEAK[split]).write_text('filename\tevent_labels\n' + text)
        for modality, text in {'audio': audio, 'visual': visual}.items():
            (folder / llp.DENSE[modality]).write_text('filename\tonset\toffset\tevent_labels\n' + text)
        return folder

    return write


def test_clips_and_events(files):
    listing = llp.read(files())
    assert [(clip.clip_id, clip.source, clip.split, clip.labels) for clip in listing.clips] == [
        ('BjCEufrlXm4_20_30', 'BjCEufrlXm4', 'train', ('Speech', 'Dog')),
        ('AP0061o0Nvk_101.8_111.8', 'AP0061o0Nvk', 'train', ('Cello',)),
        ('D_EG4Cs_MEU_30_40', 'D_EG4Cs_MEU', 'val', ('Frying_(food)', 'Speech')),
        ('H5WcJwyjxIg_2_12', 'H5WcJwyjxIg', 'val', ('Baby_cry_infant_cry',)),
        ('LcFWKgFphXI_20_30', 'LcFWKgFphXI', 'test', ('Clapping',)),
        ('Baue01N86wE_10_20', 'Baue01N86wE', 'test', ('Dog',)),
    ]
    assert listing.multi_label
    assert listing.events == [
        ('D_EG4Cs_MEU_30_40', 'Speech', 0, 4, 'audio'),
        ('D_EG4Cs_MEU_30_40', 'Speech', 3, 6, 'audio'),
        ('LcFWKgFphXI_20_30', 'Clapping', 2, 10, 'audio'),
        ('D_EG4Cs_MEU_30_40', 'Speech', 0, 4, 'visual'),
    ]


@pytest.mark.parametrize(
    'words',
    [
        ('1 rows of AVVP_test_pd.csv name a label twice', 'line 2 Clapping,Clapping'),
        (
            '2 empty or inverted intervals of AVVP_eval_audio.csv left out: ',
            'line 5 H5WcJwyjxIg_2_12 0-0 Baby',
            'line 6 LcFWKgFphXI_20_30 9-0',
        ),
        ('1 rows of AVVP_eval_audio.csv repeat another exactly', 'line 4 D_EG4Cs_MEU_30_40 0-4 Speech'),
        ('1 names of AVVP_eval_audio.csv are not in val or test', '19jWnmYnlD8_30_400 (lines 8)'),
        ('1 names of AVVP_eval_visual.csv are not in val or test', '17iGUal2M_10_20 (lines 3)'),
        ('2 clips have no audio event (1 in val, 1 in test): Baue01N86wE_10_20, H5WcJwyjxIg_2_12',),
        ('3 clips have no visual event (1 in val, 2 in test)',),
        ('SHA-256', 'neither the version of April 2024 nor the one before'),
    ],
)
def test_each_quirk_is_a_remark(files, words):
    assert commands.remark(llp.read(files()).remarks, *words)


def test_the_file_before_it_was_mended_is_known_by_its_size(files):
    folder = files()
    path = folder / 'AVVP_eval_audio.csv'
    path.write_bytes(path.read_bytes().ljust(134_360, b'\n'))
    assert commands.remark(llp.read(folder).remarks, '134360 bytes', 'three rows are broken: fetch it anew')


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        ({'train': 'BjCEufrlXm4_20\tSpeech\n'}, "AVVP_train.csv:2: column filename: got 'BjCEufrlXm4_20'"),
        (
            {'train': 'BjCEufrlXm4_20_30\tSpeech,dog\n'},
            "column event_labels: got 'Speech,dog', expected some of the 25",
        ),
        ({'audio': 'D_EG4Cs_MEU_30_40\t0\t11\tSpeech\n'}, "column offset: got '11', expected seconds, at most 10"),
        ({'visual': 'D_EG4Cs_MEU_30_40\t0\t4\tspeech\n'}, "column event_labels: got 'speech', expected one of the 25"),
    ],
)
def test_faults(files, change, expected):
    with pytest.raises(rows.TableError, match=re.escape(expected)):
        llp.read(files(**change))


def test_the_published_files(annotations, tmp_path):
    folder = annotations / 'llp'
    listing = llp.read(folder)
    own = published.write_tables(listing, {}, tmp_path)
    assert collections.Counter(job.split for job in own.jobs) == {'train': 10_000, 'val': 649, 'test': 1_200}
    assert (len(own.classes), listing.multi_label) == (25, True)
    count = collections.Counter(own.classes[label] for job in own.jobs for label in job.labels)
    assert (count['Speech'], count['Violin_fiddle'], count['Telephone_bell_ringing']) == (5978, 1689, 118)
    # One row has its single label twice: 4,648 clips have one label, where counting commas gives 4,647.
    assert collections.Counter(len(job.labels) for job in own.jobs) == {1: 4648, 2: 6895, 3: 263, 4: 39, 5: 3, 7: 1}
    assert sum('.' in clip.clip_id for clip in listing.clips) == 5
    for words in (
        ('6 empty or inverted intervals of AVVP_eval_audio.csv', 'line 3770 8DF2PxdT5tE_390_400 9-0 Cheering'),
        ('8 rows of AVVP_eval_audio.csv repeat another exactly',),
        (
            '8 names of AVVP_eval_audio.csv are not in val or test',
            '17iGUal2M_10_20',
            '19jWnmYnlD8_30_400',
            'CSWQ_HzQ_10_20',
        ),
        ('7 names of AVVP_eval_visual.csv are not in val or test',),
        ('191 clips have no visual event',),
        ('134355 bytes', llp.MENDED_SHA256, 'the version of April 2024'),
    ):
        assert commands.remark(listing.remarks, *words)


def test_the_published_seconds(annotations):
    """The events cover exactly the seconds that the rows of the files cover, as a loop over their lines confirms."""
    listing = llp.read(annotations / 'llp')
    annotated = {clip.clip_id for clip in listing.clips if clip.split != 'train'}
    for modality, name in llp.DENSE.items():
        expected = set()
        for line in (annotations / 'llp' / name).read_text().splitlines()[1:]:
            clip_id, onset, offset, label = line.split('\t')
            if clip_id in annotated:
                expected |= {(clip_id, label, second) for second in range(int(onset), int(offset))}
        events = [event for event in listing.events if event[4] == modality]
        assert {(e[0], e[1], second) for e in events for second in range(int(e[2]), int(e[3]))} == expected


def test_the_command_with_videos(files, tmp_path, capsys):
    """A file named by the video id or by the clip is the clip itself; files with other names are found as well."""
    for name in ('BjCEufrlXm4', 'AP0061o0Nvk_101.8_111.8', 'D_EG4Cs_MEU_000030', 'YLcFWKgFphXI'):
        clips.write_small(tmp_path / 'videos' / f'{name}.mp4')
    flags = [f'--annotations={files()}', f'--videos={tmp_path}/videos', f'--out={tmp_path}/out', '--short_side=16']
    assert commands.run(llp, capsys, *flags)[::2] == (0, [])
    found = commands.records(tmp_path / 'out')
    assert sorted(found) == ['AP0061o0Nvk_101.8_111.8', 'BjCEufrlXm4_20_30', 'D_EG4Cs_MEU_30_40', 'LcFWKgFphXI_20_30']
    record = found['BjCEufrlXm4_20_30']
    assert (record.labels, record.video, record.start) == ((0, 3), 'BjCEufrlXm4.mp4', 0)
    assert [(e.label, e.onset, e.offset, e.modality) for e in found['D_EG4Cs_MEU_30_40'].events] == [
        (0, 0, 4, 'audio'), (0, 3, 6, 'audio'), (0, 0, 4, 'visual'),
    ]  # fmt: skip
    assert list(commands.report(tmp_path / 'out')['splits']['test']['skipped']['missing']) == ['Baue01N86wE_10_20']


def test_the_command_with_features(files, tmp_path, capsys):
    """Missing and damaged feature files are counted in the same way as missing and damaged videos."""
    folder = tmp_path / 'features'
    for name, shape in (('vggish', (10, 128)), ('res152', (80, 2048)), ('r2plus1d_18', (10, 512))):
        (folder / name).mkdir(parents=True)
        for number, video in enumerate(('BjCEufrlXm4', 'D_EG4Cs_MEU', 'LcFWKgFphXI', 'Baue01N86wE')):
            np.save(folder / name / f'{video}.npy', np.full(shape, number + 1, np.float32))
    np.save(folder / 'res152' / 'Baue01N86wE.npy', np.zeros((79, 2048), np.float32))
    flags = [f'--annotations={files()}', f'--features={folder}', f'--out={tmp_path}/out']
    assert commands.run(llp, capsys, *flags)[::2] == (0, [])
    found = commands.records(tmp_path / 'out')
    assert {clip_id: record.clip.visual[4, 0, 0, 2559] for clip_id, record in found.items()} == {
        'BjCEufrlXm4_20_30': 1, 'D_EG4Cs_MEU_30_40': 2, 'LcFWKgFphXI_20_30': 3,
    }  # fmt: skip
    splits = commands.report(tmp_path / 'out')['splits']
    assert list(splits['test']['skipped']['bad_features']) == ['Baue01N86wE_10_20']
    assert list(splits['val']['skipped']['missing']) == ['H5WcJwyjxIg_2_12']
    (folder / 'vggish' / 'BjCEufrlXm4.npy').unlink()
    flags[-1] = f'--out={tmp_path}/kept'
    assert commands.run(llp, capsys, *flags, '--silent=keep')[::2] == (0, [])
    kept = commands.records(tmp_path / 'kept')
    assert kept.keys() == found.keys()
    clip = kept['BjCEufrlXm4_20_30'].clip
    assert clip.notes == ('no_sound',) and clip.arrays()['modalities'].tolist() == [True, False]
    assert clip.visual[4, 0, 0, 2559] == 1 and not clip.audio.any()
