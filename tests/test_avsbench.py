"""Tests avsbench.py and avsbench_masks.py on small files with the published names: every subset, and faults."""

import avsbench_files
import commands
import numpy as np
import pytest
from PIL import Image

from data_prep import avsbench, avsbench_masks
from stattn_jax.data import pipeline, source
from stattn_jax.metrics import masks


@pytest.fixture
def prepare(tmp_path, capsys):
    """Returns a function that prepares a folder, and returns exit code, output and error lines; it writes to `out`."""

    def run(folder, subset, *flags, out='out'):
        own = (f'--data={folder}', f'--subset={subset}', f'--out={tmp_path / out}', '--short_side=64')
        return commands.run(avsbench, capsys, *own, *flags)

    return run


def test_s4(prepare, tmp_path):
    folder = avsbench_files.write_s4(tmp_path / 'Single-source', {'train': 3, 'val': 2, 'test': 2})
    code, output, errors = prepare(folder, 's4')
    assert (code, errors) == (0, [])
    info = source.DatasetInfo.load(tmp_path / 'out')
    assert info.classes == avsbench_files.CATEGORIES and not info.multi_label and info.spec.segments == 5
    assert (tmp_path / 'out/tables/classes.txt').read_text().split() == list(avsbench_files.CATEGORIES)
    records = commands.records(tmp_path / 'out')
    assert len(records) == 7 and records['trainclip1'].labels == (1,)
    assert [mask.time for mask in records['trainclip1'].masks] == [0.5]
    test = records['testclip1']
    assert [(mask.time, mask.label) for mask in test.masks] == [(t + 0.5, 1) for t in range(5)]
    assert test.clip.valid.all() and test.clip.notes == () and test.video.endswith('testclip1.wav')
    shown = pipeline.clip_arrays(test, 32, 'squash')['frames'][2, ..., 0] > 128
    np.testing.assert_array_equal(test.masks[2].pixels(), shown)


def test_ms3_takes_the_classes_of_a_network_and_has_empty_masks(prepare, tmp_path):
    folder = avsbench_files.write_ms3(tmp_path / 'Multi-sources', {'train': 1, 'val': 1, 'test': 2})
    code, _, errors = prepare(folder, 'ms3')
    assert code == 2 and '--classes=FILE' in errors[0] and 'tables/classes.txt' in errors[0]
    assert not (tmp_path / 'out').exists()
    classes = tmp_path / 'classes.txt'
    classes.write_text('dog_barking\nplaying_piano\n')
    assert prepare(folder, 'ms3', f'--classes={classes}')[0] == 0
    record = commands.records(tmp_path / 'out')['test_1']
    assert record.labels == () and [mask.label for mask in record.masks] == [None] * 5
    area = [int(mask.pixels().sum()) for mask in record.masks]
    assert area == [8 * 16] * 3 + [0, 0]


def test_the_semantic_set_has_a_mask_of_each_class(prepare, tmp_path):
    clips = [
        ('v1s', 'a', 'train'),
        ('v1m', 'b', 'train'),
        ('v2', 'c', 'val'),
        ('v1s', 'd', 'test'),
        ('v2', 'e', 'test'),
    ]
    folder = avsbench_files.write_semantic(tmp_path / 'AVSS', clips)
    strange = Image.open(folder / 'v2/e/labels_rgb/3.png')
    strange.putpixel((0, 31), (1, 2, 3))
    strange.save(folder / 'v2/e/labels_rgb/3.png')
    code, _, errors = prepare(folder, 'semantic')
    assert (code, errors) == (0, [])
    assert source.DatasetInfo.load(tmp_path / 'out').classes == ('dog', 'piano', 'violin')
    records = commands.records(tmp_path / 'out')
    assert records['v1s_a'].labels == (0,) and records['v1m_b'].labels == (0, 2)
    assert [(m.time, m.label) for m in records['v1m_b'].masks[:4]] == [(0.5, 0), (0.5, 2), (1.5, 0), (1.5, 2)]
    assert len(records['v1s_a'].masks) == 1 and len(records['v2_e'].masks) == 20
    # Clips of five seconds fill half of the segments.
    assert records['v1s_d'].clip.valid.tolist() == [True] * 5 + [False] * 5
    assert records['v1s_d'].clip.notes == ('short',) and records['v1s_d'].clip.duration == 5
    assert records['v2_c'].clip.valid.all()
    remarks = commands.report(tmp_path / 'out')['remarks']
    assert 'v2_e (1 pixels)' in commands.remark(remarks, '1 clips have masks with colours of no class')


def test_without_its_palette_the_semantic_set_is_binary(prepare, tmp_path):
    folder = avsbench_files.write_semantic(tmp_path / 'AVSS', [('v1m', 'b', 'train'), ('v1m', 'c', 'test')])
    (folder / 'label2idx.json').unlink()
    assert '--classes=FILE' in prepare(folder, 'semantic')[2][0]
    (tmp_path / 'classes.txt').write_text('dog\nviolin\n')
    assert prepare(folder, 'semantic', f'--classes={tmp_path / "classes.txt"}')[0] == 0
    record = commands.records(tmp_path / 'out')['v1m_c']
    assert [mask.label for mask in record.masks] == [None] * 5 and record.masks[0].pixels().sum() == 2 * 8 * 32


def test_palette_is_that_of_pascal_voc():
    colours = {index: avsbench_masks.colour_of(index) for index in (0, 1, 2, 3, 4, 7, 8, 70)}
    # The published colours of VOC's classes; class 70 is 0b1000110.
    assert {index: (code >> 16, code >> 8 & 255, code & 255) for index, code in colours.items()} == {
        0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 7: (128, 128, 128),
        8: (64, 0, 0), 70: (32, 128, 128),
    }  # fmt: skip


@pytest.mark.parametrize('fit', pipeline.FITS)
@pytest.mark.parametrize('square', [True, False])
def test_masks_lie_where_the_frames_show_the_object(prepare, tmp_path, fit, square):
    """The bright object of each frame, as the network gets it, covers exactly the cells of its mask."""
    clips = [('v1s', f'clip{i}', 'test') for i in range(4)]
    folder = avsbench_files.write_semantic(tmp_path / 'AVSS', clips, size=(64, 128))
    assert prepare(folder, 'semantic', f'--square={square}')[0] == 0
    for record in commands.records(tmp_path / 'out').values():
        frames = pipeline.clip_arrays(record, 16, fit)['frames']
        affine = pipeline.frame_affine(record.clip.height, record.clip.width, fit)
        for mask in record.masks:
            shown = frames[int(mask.time), ..., 0] > 128
            np.testing.assert_array_equal(masks.cells_in_mask((16, 16), mask.pixels(masks.SIDE), affine), shown)
            assert shown.any()


def test_missing_and_unreadable_files_are_counted_and_named(prepare, tmp_path):
    folder = avsbench_files.write_s4(tmp_path / 'Single-source', {'train': 2, 'val': 2, 'test': 5})
    data = folder / 's4_data'
    (data / 'gt_masks/test/dog_barking/testclip0/testclip0_4.png').unlink()
    (data / 'gt_masks/test/dog_barking/testclip0/.DS_Store').write_text('x')
    (data / 'audio_wav/test/playing_piano/testclip1.wav').unlink()
    (data / 'visual_frames/test/dog_barking/testclip2/testclip2_5.png').unlink()
    broken = data / 'gt_masks/test/playing_piano/testclip3/testclip3_1.png'
    broken.write_bytes(broken.read_bytes()[:40])
    code, output, _ = prepare(folder, 's4')
    assert code == 0
    report = commands.report(tmp_path / 'out')
    skipped = report['splits']['test']['skipped']
    assert skipped['missing'].keys() == {'testclip1', 'testclip2'}
    assert 'testclip2_5.png' in skipped['missing']['testclip2'] and skipped['unreadable'].keys() == {'testclip3'}
    assert 'testclip0_4.png' in commands.remark(report['remarks'], '1 masks are missing')
    assert '.DS_Store' in commands.remark(report['remarks'], '1 files are in folders of masks')
    kept = commands.records(tmp_path / 'out')
    assert [mask.time for mask in kept['testclip0'].masks] == [0.5, 1.5, 2.5, 4.5]
    assert prepare(folder, 's4', '--silent=keep', out='kept')[0] == 0
    assert 'no_sound' in commands.records(tmp_path / 'kept')['testclip1'].clip.notes


def test_short_sound_and_frames_of_several_sizes(prepare, tmp_path):
    folder = avsbench_files.write_s4(tmp_path / 'Single-source', {'train': 3})
    avsbench_files.tone(folder / 's4_data/audio_wav/train/dog_barking/trainclip0.wav', 0, 3.6)
    inside = 'train/playing_piano/trainclip1/trainclip1_2.png'
    avsbench_files.save(folder / 's4_data/visual_frames' / inside, avsbench_files.frame(0, 16, 32))
    assert prepare(folder, 's4')[0] == 0
    records = commands.records(tmp_path / 'out')
    assert records['trainclip0'].clip.valid.tolist() == [True] * 4 + [False] and 'trainclip1' not in records
    assert 'differ in size' in str(commands.report(tmp_path / 'out')['splits']['train']['skipped'])


@pytest.mark.parametrize(
    'subset, name, content, expected',
    [
        ('s4', 's4_meta_data.csv', 'name,start,split\na,0,test\n', 'column category is missing'),
        ('s4', 's4_meta_data.csv', 'name,start,category,split\na,0,dog,tset\n', "got 'tset', expected one of train"),
        ('s4', 's4_meta_data.csv', 'name,start,category,split\n../a,0,dog,test\n', "got '../a', expected a name"),
        ('ms3', 'ms3_meta_data.csv', 'video,split\na,test\na,test\n', "got 'a', expected a name that is there once"),
        ('ms3', 'ms3_meta_data.csv', 'video,split\n', 'lists no clips'),
        ('semantic', 'metadata.csv', 'uid,label,split\na,v3,test\n', "got 'v3', expected one of v1s, v1m, v2"),
    ],
)
def test_faults_of_the_lists(prepare, tmp_path, subset, name, content, expected):
    (tmp_path / name).write_text(content)
    code, _, errors = prepare(tmp_path, subset)
    assert code == 2 and expected in errors[0] and name in errors[0]


@pytest.mark.parametrize('content', ['{"a": 1, "b": 1}', '[1]', '{"a": "x"}', '{'])
def test_faults_of_the_palette(prepare, tmp_path, content):
    folder = avsbench_files.write_semantic(tmp_path / 'AVSS', [('v1m', 'b', 'test')])
    (folder / 'label2idx.json').write_text(content)
    code, _, errors = prepare(folder, 'semantic')
    assert code == 2 and 'label2idx.json' in errors[0] and 'expected' in errors[0]


def test_flags_that_do_not_fit(prepare, tmp_path):
    folder = avsbench_files.write_s4(tmp_path / 'Single-source', {'train': 1})
    assert 'one frame a second' in prepare(folder, 's4', '--segments=10')[2][0]
    (tmp_path / 'classes.txt').write_text('cat\n')
    error = prepare(folder, 's4', f'--classes={tmp_path / "classes.txt"}')[2][0]
    assert 'dog_barking of the list is missing' in error
    assert 's4_meta_data.csv: cannot be read' in prepare(tmp_path, 's4')[2][0]
