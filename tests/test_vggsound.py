"""Tests of vggsound.py.

They cover both forms of the annotations, every name of a video, leaks between train and test, and the counts of the
published files.
"""

import csv
import json
import re

import clips
import commands
import pytest

from data_prep import cli, published, rows, vggsound

# Rows of the published files, and train clips beside them: one source video has a clip in each split, and one has two.
TEST = '0_8-g2rof7E_000049.mp4,"heart sounds, heartbeat"\r\nglLQrEijrKg_000300.mp4,playing hammond organ\r\n'
TRAIN = (
    'glLQrEijrKg_000010.mp4,playing hammond organ\r\n-0123456789_000000.mp4,eletric blender running\r\n'
    '-0123456789_000500.mp4,dog barking\r\n'
)
WHOLE = (
    '0_8-g2rof7E,49,"heart sounds, heartbeat",test\nglLQrEijrKg,300,playing hammond organ,test\n'
    'glLQrEijrKg,10,playing hammond organ,train\n-0123456789,0,eletric blender running,train\n-0123456789,500,dog '
    'barking,train\n'
)
STAT = (
    'playing hammond organ,1,music\r\n"heart sounds, heartbeat",1,people\r\neletric blender running,1,home\r\ndog '
    'barking,1,animals\r\nzebra braying,2,animals\r\n'
)


@pytest.fixture
def annotation_files(tmp_path):
    """Returns a function that writes annotation files and returns their folder."""

    def write(**texts):
        folder = tmp_path / 'annotations'
        folder.mkdir(exist_ok=True)
        for name, text in texts.items():
            (folder / f'{name}.csv').write_bytes(text.encode())
        return folder

    return write


def listed(listing):
    return sorted((clip.clip_id, clip.split, clip.labels) for clip in listing.clips)


def test_one_file_and_two_give_the_same_listing(annotation_files, tmp_path):
    two = vggsound.read(annotation_files(train=TRAIN, test=TEST))
    assert listed(two) == [
        ('-0123456789_000000', 'train', ('eletric blender running',)),
        ('-0123456789_000500', 'train', ('dog barking',)),
        ('0_8-g2rof7E_000049', 'test', ('heart sounds, heartbeat',)),
        ('glLQrEijrKg_000010', 'train', ('playing hammond organ',)),
        ('glLQrEijrKg_000300', 'test', ('playing hammond organ',)),
    ]
    folder = annotation_files(vggsound=WHOLE, stat=STAT)
    for path in (folder, folder / 'vggsound.csv'):
        one = vggsound.read(path)
        assert listed(one) == listed(two)
        assert one.classes == (
            'dog barking',
            'eletric blender running',
            'heart sounds, heartbeat',
            'playing hammond organ',
            'zebra braying',
        )
    assert two.classes == one.classes[:4]
    assert commands.remark(two.remarks, '4 classes where VGGSound has 309')
    assert commands.remark(two.remarks, '5 clips of 3 source videos; 2 source videos give several clips')
    assert commands.remark(two.remarks, '1 test clips whose source video gives training clips too: glLQrEijrKg_000300')


def test_a_clip_listed_several_times(annotation_files):
    again = (
        'glLQrEijrKg,300,playing hammond organ,train\n-0123456789,0,eletric blender running,train\n-0123456789,500,dog '
        'howling,train\n'
    )
    listing = vggsound.read(annotation_files(vggsound=again + WHOLE))
    assert sorted(clip.clip_id for clip in listing.clips) == sorted({clip.clip_id for clip in listing.clips})
    clip = {clip.clip_id: clip for clip in listing.clips}
    assert clip['glLQrEijrKg_000300'].split == 'test'
    assert clip['-0123456789_000500'].labels == ('dog howling',)
    remark = commands.remark(listing.remarks, '3 clips listed several times')
    assert 'glLQrEijrKg_000300 (contradicting), -0123456789_000000, -0123456789_000500 (contradicting)' in remark


@pytest.mark.parametrize(
    ('texts', 'expected'),
    [
        ({'vggsound': 'abc,1,dog,train\n'}, "vggsound.csv:1: column id: got 'abc'"),
        ({'vggsound': 'glLQrEijrKg,1.5,dog,train\n'}, "column start: got '1.5', expected a whole second"),
        ({'vggsound': 'glLQrEijrKg,1,dog,val\n'}, "column split: got 'val', expected train or test"),
        ({'vggsound': 'glLQrEijrKg,1,a, b,train\n'}, '5 cells, expected 4 (id,start,label,split)'),
        ({'test': 'glLQrEijrKg.mp4,dog\n'}, "column file: got 'glLQrEijrKg.mp4', expected a file such as"),
        (
            {'test': 'glLQrEijrKg_000300.mp4,dog\n', 'stat': STAT},
            "column label: got 'dog', expected a class of stat.csv",
        ),
    ],
)
def test_faults(annotation_files, texts, expected):
    with pytest.raises(rows.TableError, match=re.escape(expected)):
        vggsound.read(annotation_files(**texts))


def test_a_folder_without_annotations(tmp_path):
    with pytest.raises(cli.UsageError, match='holds no vggsound.csv, train.csv or test.csv'):
        vggsound.read(tmp_path)


def test_val_takes_whole_source_videos_and_only_from_train():
    made = [
        published.ListedClip(f'{i:011d}_{j:06d}', f'{i:011d}', 'test' if i % 10 == 0 else 'train', ('x',), ())
        for i in range(3000)
        for j in (0, 9)
    ]
    listing = published.Listing(('x',), list(made))
    vggsound.carve_val(listing, 0.1)
    by_split = {
        split: {clip.source for clip in listing.clips if clip.split == split} for split in ('train', 'val', 'test')
    }
    assert by_split['test'] == {clip.source for clip in made if clip.split == 'test'}
    assert not by_split['train'] & by_split['val']
    # The count is binomial, 2700 videos at 0.1; it must lie within five standard deviations.
    assert abs(len(by_split['val']) - 270) < 5 * 15.6
    assert commands.remark(listing.remarks, f'{2 * len(by_split["val"])} clips of whole source videos')
    larger = published.Listing(('x',), list(made))
    vggsound.carve_val(larger, 0.2)
    assert by_split['val'] < {clip.source for clip in larger.clips if clip.split == 'val'}
    vggsound.carve_val(untouched := published.Listing(('x',), list(made)), 0.0)
    assert (untouched.clips, untouched.remarks) == (made, [])


def test_a_training_list_with_test_clips_is_refused_unless_they_are_dropped(annotation_files, tmp_path):
    folder = annotation_files(vggsound=WHOLE)
    path, boxes = tmp_path / 'list.txt', tmp_path / 'vggss.json'
    boxes.write_text(
        json.dumps([{'file': 'glLQrEijrKg_000300', 'class': 'playing hammond organ', 'bbox': [[0, 0, 1, 1]]}])
    )
    path.write_bytes(b'-0123456789_000000\r\n0_8-g2rof7E_000049.mp4\r\nglLQrEijrKg_000300\r\nxxxxxxxxxxx_000001\r\n')
    with pytest.raises(cli.UsageError) as caught:
        vggsound.restrict_train(vggsound.read(folder), path, boxes, drop=False)
    assert 'names 2 clips of the test split and 1 of VGG-SS (the first: 0_8-g2rof7E_000049, glLQrEijrKg_000300' in str(
        caught.value
    )
    listing = vggsound.read(folder)
    vggsound.restrict_train(listing, path, boxes, drop=True)
    assert [clip.clip_id for clip in listing.clips if clip.split == 'train'] == ['-0123456789_000000']
    assert sum(clip.split == 'test' for clip in listing.clips) == 2
    assert commands.remark(listing.remarks, '4 names, 1 of 3 training clips kept')
    assert commands.remark(listing.remarks, 'are test clips and left out: 0_8-g2rof7E_000049, glLQrEijrKg_000300')
    assert commands.remark(listing.remarks, 'are in no annotation: xxxxxxxxxxx_000001')


def test_the_published_test_split(annotations):
    listing = vggsound.read(annotations / 'vggsound')
    assert len(listing.clips) == 15_446
    assert {clip.split for clip in listing.clips} == {'test'}
    with open(annotations / 'vggsound' / 'stat.csv', newline='') as file:
        assert listing.classes == tuple(sorted(name for name, *_ in csv.reader(file)))
    assert len(listing.classes) == 309
    count = [sum(clip.labels == (name,) for clip in listing.clips) for name in listing.classes]
    assert (min(count), max(count), count.count(49)) == (49, 50, 4)
    assert sum(',' in name for name in listing.classes) == 23
    assert commands.remark(listing.remarks, '15446 clips of 14851 source videos')


def test_the_command(annotation_files, tmp_path, capsys):
    """Videos under four names are found, and one is missing.

    Boxes and labels by modality arrive at the records of test clips.
    """
    folder = annotation_files(vggsound=WHOLE, stat=STAT)
    videos = tmp_path / 'videos'
    whole = clips.write_small(videos / 'a' / 'glLQrEijrKg.mp4', 22)
    for name in ('0_8-g2rof7E_49000_59000', '-0123456789_000000_000010'):
        (videos / f'{name}.mp4').write_bytes(whole.read_bytes())
    clips.write_small(videos / 'glLQrEijrKg_000300.mp4')
    boxes = [
        {'file': 'glLQrEijrKg_000300', 'class': 'playing hammond organ', 'bbox': [[0, 0.25, 1, 1], [0.5, 0.5, 0.5, 1]]}
    ]
    (tmp_path / 'vggss.json').write_text(json.dumps(boxes))
    (tmp_path / 'vggsounder.csv').write_text(
        'video_id,label,modality,background_music,static_image,voice_over\n0_8-g2rof7E_000049,dog '
        'barking,A,True,False,True\n'
    )
    flags = [
        f'--annotations={folder}',
        f'--videos={videos}',
        f'--vggss={tmp_path}/vggss.json',
        f'--vggsounder={tmp_path}/vggsounder.csv',
    ]
    code, out, errors = commands.run(vggsound, capsys, *flags, f'--out={tmp_path}/out', '--short_side=16')
    assert (code, errors) == (0, [])
    found = commands.records(tmp_path / 'out')
    assert {clip_id: (record.video, record.start) for clip_id, record in found.items()} == {
        '-0123456789_000000': ('-0123456789_000000_000010.mp4', 0),
        '0_8-g2rof7E_000049': ('0_8-g2rof7E_49000_59000.mp4', 0),
        'glLQrEijrKg_000010': ('a/glLQrEijrKg.mp4', 10),
        'glLQrEijrKg_000300': ('glLQrEijrKg_000300.mp4', 0),
    }
    assert found['glLQrEijrKg_000010'].clip.notes == () and found['0_8-g2rof7E_000049'].clip.notes == ('long',)
    assert [(box.time, box.y0, box.label) for box in found['glLQrEijrKg_000300'].boxes] == [(5.0, 0.25, 3)]
    (presence,) = found['0_8-g2rof7E_000049'].presence
    assert (presence.label, presence.modality, presence.flags) == (0, 'audio', ('background_music', 'voice_over'))
    summary = commands.report(tmp_path / 'out')
    assert list(summary['splits']['train']['skipped']['missing']) == ['-0123456789_000500']
    assert summary['splits']['test'].get('skipped') == {}
    remark = commands.remark(summary['remarks'], '4 video files; 4 of 5 clips are there')
    assert f'remark: {remark}\n' in out
    # The tables are complete: data_prep.folder would make the same of them.
    own = [row.split(',')[0] for row in (tmp_path / 'out' / 'tables' / 'clips.csv').read_text().splitlines()]
    assert own[0] == 'clip_id' and len(own) == 6


def test_too_few_clips_are_an_error(annotation_files, tmp_path, capsys):
    folder = annotation_files(vggsound=WHOLE)
    for name in ('glLQrEijrKg_000300', '-0123456789_000000'):
        clips.write_small(tmp_path / 'videos' / f'{name}.mp4')
    flags = [f'--annotations={folder}', f'--videos={tmp_path}/videos', f'--out={tmp_path}/out', '--short_side=16']
    code, _, errors = commands.run(vggsound, capsys, *flags, '--require=0.9')
    assert code == 1 and '0.9' in errors[0]
    assert commands.run(vggsound, capsys, *flags, '--require=2')[0] == 0
