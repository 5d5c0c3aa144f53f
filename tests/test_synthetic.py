"""Tests the command that makes the synthetic data set: records against scenes, and videos against records."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from data_prep import cli, scenes, scenes_binding, synthetic, tables
from stattn_jax.data import media, source


def command(*flags):
    synthetic.FLAGS.unparse_flags()
    return cli.exit_code(['synthetic', *map(str, flags)], synthetic.main, synthetic.FLAGS, synthetic.__doc__)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp('synthetic') / 'events'
    assert (
        command(
            f'--out={out}',
            '--train=2',
            '--val=1',
            '--test=3',
            '--videos=2',
            '--sounds',
            '--segments=6',
            '--seed=7',
            '--workers=0',
        )
        == 0
    )
    return out


def records_of(out, split):
    data = source.RecordSource(out, split)
    return [data[i] for i in range(len(data))]


def pixels(jpeg):
    return simplejpeg.decode_jpeg(jpeg).astype(float)


def test_info_describes_the_requested_data(made):
    info = source.DatasetInfo.load(made)
    assert info.splits == {'train': 2, 'val': 1, 'test': 3} and info.name == 'synthetic_events'
    assert info.classes == scenes.CLASSES and not info.multi_label and info.spec.segments == 6


def test_records_hold_the_truth_of_their_scenes(made):
    for number, record in enumerate(records_of(made, 'test')):
        scene = scenes.make_scene('events', 6, (7, 2, number))
        assert record.clip_id == f'test_{number:06d}' and record.labels == (scene.label,)
        (event,) = record.events
        assert (event.label, event.onset, event.offset, event.modality) == (scene.label, *scene.event, 'both')
        assert [box.time for box in record.boxes] == [t + 0.5 for t in range(*scene.event)]
        for box in record.boxes:
            np.testing.assert_allclose((box.x0, box.y0, box.x1, box.y1), scene.box(box.time), atol=1e-6)
        drawn = scenes.draw(scene, np.arange(6) + 0.5, synthetic.SIZE)
        assert np.abs(pixels(record.clip.frames[3]) - drawn[3]).mean() < 8
        assert record.clip.valid.all() and record.clip.duration == 6


def test_splits_and_seeds_give_different_clips(made, tmp_path):
    firsts = {records_of(made, split)[0].clip.log_mel.tobytes() for split in ('train', 'val', 'test')}
    assert len(firsts) == 3
    flags = ('--train=1', '--test=1', '--segments=6', '--workers=0')
    assert (
        command(f'--out={tmp_path / "same"}', '--seed=7', *flags)
        == command(f'--out={tmp_path / "other"}', '--seed=8', *flags)
        == 0
    )
    same, other = (records_of(tmp_path / name, 'train')[0] for name in ('same', 'other'))
    assert same.clip.frames == records_of(made, 'train')[0].clip.frames
    assert same.clip.log_mel.tobytes() == records_of(made, 'train')[0].clip.log_mel.tobytes()
    assert other.clip.frames != same.clip.frames
    assert sorted(source.DatasetInfo.load(tmp_path / 'same').splits) == ['test', 'train']


def test_videos_match_the_records(made):
    spec = source.DatasetInfo.load(made).spec
    for record in records_of(made, 'test')[:2]:
        clip = media.read_clip(made / 'videos' / f'{record.clip_id}.mp4', spec)
        assert clip.valid.all() and clip.notes == () and clip.duration == pytest.approx(6, abs=0.1)
        assert (clip.height, clip.width) == (256, 256)
        mels = [x.astype(float).ravel() for x in (clip.log_mel, record.clip.log_mel)]
        assert np.corrcoef(*mels)[0, 1] > 0.98
        for mine, theirs in zip(clip.frames, record.clip.frames, strict=True):
            small = np.asarray(Image.open(io.BytesIO(mine)).resize((64, 64), Image.Resampling.BOX), float)
            # The grain of the picture (3 % of full scale) is sampled anew, which leaves 27 dB.
            assert 10 * np.log10(255**2 / np.mean((small - pixels(theirs)) ** 2)) > 22


def test_tables_beside_the_videos_are_those_of_folder(made):
    videos = made / 'videos'
    found = tables.read_tables(videos / 'clips.csv', videos / 'events.csv', videos / 'boxes.csv')
    assert [job.clip_id for job in found.jobs] == ['test_000000', 'test_000001'] and not found.multi_label
    for job, record in zip(found.jobs, records_of(made, 'test')):
        assert [found.classes[i] for i in job.labels] == [scenes.CLASSES[i] for i in record.labels]
        assert [(e.onset, e.offset) for e in job.events] == [(e.onset, e.offset) for e in record.events]
        theirs = [(b.time, b.x0, b.y0, b.x1, b.y1) for b in record.boxes]
        np.testing.assert_allclose([(b.time, b.x0, b.y0, b.x1, b.y1) for b in job.boxes], theirs, atol=1e-6)
        assert (videos / job.video).exists()
    assert sorted(path.name for path in videos.iterdir()) == ['boxes.csv', 'clips.csv', 'events.csv'] + [
        f'test_00000{i}.mp4' for i in range(2)
    ]


def test_sounds_are_those_of_the_records(made):
    sounds = np.load(made / 'sounds-test.npy', mmap_mode='r')
    assert sounds.dtype == np.int16 and sounds.shape == (3, 6 * scenes.RATE)
    spec = source.DatasetInfo.load(made).spec
    for number, (wave, record) in enumerate(zip(sounds, records_of(made, 'test'), strict=True)):
        np.testing.assert_array_less(
            np.abs(wave / 32767 - scenes.sound(scenes.make_scene('events', 6, (7, 2, number)))), 0.51 / 32767
        )
        found = media.log_mel(
            wave / np.float32(32767), media.MEL_PRESETS[spec.mel], spec.segments, spec.segment_seconds
        )
        # int16 adds noise of 1.1e-4 to each of a band's magnitudes, compared with the 0.01 that the logarithm adds; the
        # record is float16.
        errors = np.abs(found - record.clip.log_mel.astype(np.float32))
        assert errors.max() < 0.04 and errors.mean() < 1e-3
    assert [path.name for path in made.glob('sounds*')] == ['sounds-test.npy']


def test_wrong_use_is_one_line(tmp_path, capsys):
    assert command(f'--out={tmp_path / "x"}', '--test=2', '--videos=3') == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and '--videos=3' in error and '--test=3' in error and not (tmp_path / 'x').exists()


def test_lopsided_writes_ten_segments(tmp_path):
    out = tmp_path / 'lopsided'
    assert command(f'--out={out}', '--variant=lopsided', '--train=1', '--test=1', '--workers=0') == 0
    assert source.DatasetInfo.load(out).spec.segments == 10
    assert not (out / 'videos').exists() and not (out / synthetic.SOUNDS_FILE).exists()


def test_binding_names_colours_and_boxes_the_source(tmp_path):
    out = tmp_path / 'binding'
    assert command(f'--out={out}', '--variant=binding', '--train=1', '--test=3', '--videos=1', '--workers=0') == 0
    info = source.DatasetInfo.load(out)
    assert info.spec.segments == 8 and info.classes == scenes_binding.CLASSES and info.name == 'synthetic_binding'
    for number, record in enumerate(records_of(out, 'test')):
        scene = scenes_binding.make_scene(8, (0, 2, number))
        assert record.labels == (scene.label,) and [(e.onset, e.offset) for e in record.events] == [scene.event]
        for box in record.boxes:
            frame = pixels(record.clip.frames[int(box.time)]) / 255
            inside = frame[int(box.y0 * 64) : int(box.y1 * 64) + 1, int(box.x0 * 64) : int(box.x1 * 64) + 1]
            wanted = np.array(scenes_binding.COLOURS[scenes_binding.CLASSES[scene.label]])
            assert (np.abs(inside - wanted).max(-1) < 0.25).mean() > 0.15
    found = tables.read_tables(*(out / 'videos' / f'{name}.csv' for name in ('clips', 'events', 'boxes')))
    assert set(found.classes) <= set(scenes_binding.CLASSES)
