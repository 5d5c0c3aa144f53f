"""Tests the command that explains video files: its files, its messages, and one bad file among good ones."""

import csv
import json
import re
import shutil

import jsonschema
import numpy as np
import pytest
import runs

import stattn_jax
from data_prep import scenes
from stattn_jax.data import decode, media, source
from stattn_jax.explain import __main__ as command
from stattn_jax.explain import console, explain_videos, record_files
from stattn_jax.explain.explanation import GroundTruth
from stattn_jax.explain.result import Explanation

pytestmark = pytest.mark.usefixtures('quick_compile')
FILES = [f'explanation.{kind}' for kind in console.KINDS]
# Encoding each video twice takes most of a test's time, so tests of other files leave these two out.
FEW = '--files=json,npz,png'


def explain(workdir, out, *videos, flags=()):
    videos = [f'--video={video}' for video in videos]
    return command.main(['explain', f'--workdir={workdir}', f'--out={out}', *videos, *flags])


@pytest.fixture(scope='module')
def videos(tmp_path_factory, scene_video):
    """Makes good and bad files: a second scene, a text file named .mp4, half a file, one without audio."""
    folder = tmp_path_factory.mktemp('videos')
    (folder / 'text.mp4').write_text('not a video\n')
    (folder / 'half.mp4').write_bytes(scene_video.read_bytes()[: scene_video.stat().st_size // 2])
    runs.make_video(folder / 'silent.mp4', 1, sound=False)
    runs.make_video(folder / 'second.mp4', 1)
    return folder


@pytest.fixture(scope='module')
def explained(trained, scene_video, tmp_path_factory):
    """Returns the folder of one explained video."""
    out = tmp_path_factory.mktemp('explained') / 'made' / 'here'
    assert explain(trained, out, scene_video) == 0
    return out


def test_figures_for_papers_are_written_if_they_are_named(trained, scene_video, tmp_path):
    assert explain(trained, tmp_path, scene_video, flags=('--files=pdf,svg',)) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ['explanation.pdf', 'explanation.svg']
    assert (tmp_path / 'explanation.pdf').read_bytes().startswith(b'%PDF')
    assert b'<svg' in (tmp_path / 'explanation.svg').read_bytes()[:500]


def test_files_are_there_and_their_terms_add_up(explained):
    assert sorted(path.name for path in explained.iterdir()) == sorted(FILES)
    assert max(record_files.check(explained / 'explanation.json').values()) <= record_files.TOLERANCE
    loaded = Explanation.load_npz(explained / 'explanation.npz')
    assert loaded.residual()[1] <= 1e-5
    assert (explained / 'explanation.png').read_bytes().startswith(b'\x89PNG')
    assert (explained / 'explanation.html').read_text().lower().startswith('<!doctype html>')
    assert (explained / 'explanation.mp4').read_bytes()[4:8] == b'ftyp'
    assert (explained / 'explanation.vtt').read_text().startswith('WEBVTT')
    assert len((explained / 'explanation.csv').read_text().splitlines()) == 1 + runs.SEGMENTS
    assert command.main(['explain', f'--check={explained / "explanation.json"}']) == 0


def test_record_names_its_video_and_its_model(explained, trained, scene_video):
    record = json.loads((explained / 'explanation.json').read_text())
    assert record['media']['file'] == scene_video.name and record['media']['duration'] == pytest.approx(6, abs=0.1)
    assert record['classes'] == list(scenes.CLASSES) and record['geometry']['grid'] == [6, 2, 2]
    assert record['model']['step'] == json.loads((trained / 'eval_test.json').read_text())['checkpoint/step']
    assert sum(record['probabilities']) == pytest.approx(1, abs=1e-5)
    assert (record['media']['height'], record['media']['width']) == (64, 64)


def test_record_fits_its_schema_and_holds_every_optional_part(explained):
    schema = json.loads((runs.ROOT / 'docs' / 'explanation.schema.json').read_text())
    record = json.loads((explained / 'explanation.json').read_text())
    jsonschema.Draft202012Validator(schema).validate(record)
    assert record['media']['fps'] == pytest.approx(4, abs=0.1) and record['media']['rate'] == scenes.RATE
    assert record['media']['end'] == record['media']['start'] + record['media']['duration']
    assert record['trust']['shifted_sound']['by_segments'] == runs.SEGMENTS // 2
    assert record['media']['file_duration'] == pytest.approx(runs.SEGMENTS, abs=0.1)
    measured = record['trust']['training_distance']
    # Eight of the sixteen training clips are held out, so that a limit for 1 % of clips needs more of them.
    assert (measured['held_out_clips'], measured['false_alarm_rate']) == (8, pytest.approx(2 / 9))
    assert all(measured[name]['distance'] > 0 and measured[name]['threshold'] > 0 for name in ('visual', 'audio'))
    loaded = Explanation.load_npz(explained / 'explanation.npz')
    assert loaded.removed_cells.shape == (10, runs.SEGMENTS, 2, 2) and np.abs(loaded.removed_cells).max() > 0
    assert loaded.removed_classes == tuple(row['label'] for row in loaded.top(10))


def test_command_reads_the_same_input_as_evaluation(explained, tiny_data):
    # The same scene is the first record of the test split, so only the codecs make a difference.
    loaded = Explanation.load_npz(explained / 'explanation.npz')
    record = source.RecordSource(tiny_data, 'test')[0]
    assert np.corrcoef(loaded.log_mel.astype(float).ravel(), record.clip.log_mel.astype(float).ravel())[0, 1] > 0.97
    assert loaded.valid.all()


def test_bad_videos_are_named_and_the_good_ones_done(trained, scene_video, videos, tmp_path, capsys):
    names = ('text', 'half', 'silent', 'second')
    assert (
        explain(
            trained,
            tmp_path,
            scene_video,
            *(videos / f'{name}.mp4' for name in names),
            tmp_path / 'none.mp4',
            flags=('--files=json,html',),
        )
        == 1
    )
    output, errors = capsys.readouterr()
    # A clip without sound is explained by its frames.
    for good in ('scene', 'silent', 'second'):
        files = sorted(path.name for path in (tmp_path / good).iterdir())
        assert files == ['done.json', 'explanation.html', 'explanation.json']
        assert output.count(f'{good}.mp4: ') == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ['index.html', 'scene', 'second', 'silent']
    index = (tmp_path / 'index.html').read_text()
    assert 'href="scene/explanation.html"' in index and 'href="second/explanation.html"' in index
    lines = [line for line in errors.splitlines() if line.startswith('error: ')]
    assert len(lines) == 3 and [name in line for name, line in zip(('text', 'half', 'none'), lines)] == [True] * 3
    assert '3 explanations, 3 of 6 videos explained, 3 failed' in output
    for name, reason in zip(('text', 'half', 'none'), ('not_a_video', 'truncated', 'missing')):
        assert re.search(f'{name}.mp4</th><td class="reason">{reason}<', index), name


def test_a_folder_goes_on_where_it_was_stopped(trained, scene_video, tmp_path, capsys, monkeypatch):
    folder, out = tmp_path / 'clips', tmp_path / 'out'
    for name in ('a/clip.mp4', 'b/clip.mp4', 'c.mp4'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scene_video, folder / name)
    (folder / 'notes.txt').touch()
    explained = []
    explain_one, model = explain_videos._explain, stattn_jax.load(trained)
    # Restored and compiled once for all calls of the command.
    monkeypatch.setattr(explain_videos, 'load', lambda workdir: model)

    def stop_at_the_second(job, video, out):
        if len(explained) == 1:
            raise KeyboardInterrupt
        explained.append(video.relative_to(folder).as_posix())
        return explain_one(job, video, out)

    monkeypatch.setattr(explain_videos, '_explain', stop_at_the_second)
    assert explain(trained, out, folder, flags=('--files=json',)) == 130
    output, errors = capsys.readouterr()
    assert 'left out 1 other files' in output and 'stopped, 2 videos left; the same command goes on' in errors

    def fail_at_the_last(job, video, out):
        explained.append(video.relative_to(folder).as_posix())
        if video.name == 'c.mp4':
            raise MemoryError('too large')
        return explain_one(job, video, out)

    monkeypatch.setattr(explain_videos, '_explain', fail_at_the_last)
    assert explain(trained, out, folder, flags=('--files=json',)) == 1
    output, errors = capsys.readouterr()
    assert explained == ['a/clip.mp4', 'b/clip.mp4', 'c.mp4'] and '1 of 3 videos are explained already' in output
    assert 'c.mp4: failed: MemoryError: too large' in errors and 'Traceback' not in errors
    # Each folder has a name of its own, and the entries of the first call are in the index.
    index = (out / 'index.html').read_text()
    assert re.findall('href="(.*?json)"', index) == [f'{x}_clip.mp4/explanation.json' for x in 'ab']
    # Other options are other files, --overwrite repeats what is there, and a file that is gone is made again.
    (out / 'a_clip.mp4' / 'explanation.json').unlink()
    explained.clear()
    assert explain(trained, out, f'{folder}/*/*.mp4', flags=('--files=json',)) == 0
    assert explained == ['a/clip.mp4']
    assert explain(trained, out, f'{folder}/*/*.mp4', flags=('--files=json', '--overwrite')) == 0
    assert explain(trained, out, f'{folder}/*/*.mp4', flags=('--files=csv',)) == 0
    assert explained == ['a/clip.mp4'] + ['a/clip.mp4', 'b/clip.mp4'] * 2


def test_two_runs_are_compared(trained, scene_video, tmp_path, capsys):
    other = tmp_path / 'other'
    shutil.copytree(trained, other)
    out = tmp_path / 'out'
    assert explain(trained, out, scene_video, flags=(f'--workdir={other}', '--files=json')) == 0
    assert sorted(path.name for path in out.iterdir()) == ['comparison.html', 'comparison.json', 'other', 'trained']
    record = json.loads((out / 'comparison.json').read_text())
    assert record['runs'] == ['trained', 'other'] and record['attention_correlation'] == 1
    assert 'correlation of the attention +1.00' in capsys.readouterr().out
    assert 'href="other/explanation.json"' in (out / 'comparison.html').read_text()


def test_network_is_compiled_once_for_all_videos(trained, scene_video):
    model = stattn_jax.load(trained)
    first, again = model.explain(scene_video), model.explain(scene_video)
    assert model._forward._cache_size() == model._counterfactuals._cache_size() == 1
    np.testing.assert_array_equal(first.logits, again.logits)
    assert first.source == scene_video


def test_several_videos_go_through_one_program(trained, scene_video, videos, monkeypatch):
    model = stattn_jax.load(trained)
    monkeypatch.setattr(type(model), 'batch', 2)
    several = model.explain([scene_video, videos / 'second.mp4', scene_video])
    assert model._forward._cache_size() == 1
    alone = model.explain(videos / 'second.mp4')
    np.testing.assert_allclose(several[1].logits, alone.logits, atol=1e-5)
    np.testing.assert_array_equal(several[0].logits, several[2].logits)
    assert [e.media['file'] for e in several] == ['scene.mp4', 'second.mp4', 'scene.mp4']
    assert np.abs(several[0].logits - several[1].logits).max() > 1e-4


def test_arrays_are_explained_as_their_record_is(trained):
    model, scene = stattn_jax.load(trained), scenes.make_scene('events', runs.SEGMENTS, (0, 2, 0))
    frames = scenes.draw(scene, np.arange(runs.SEGMENTS) + 0.5, 64)
    e = model.explain_arrays(frames, scenes.sound(scene), scenes.RATE)
    clip = media.clip_from_arrays(frames, scenes.sound(scene), model.spec, scenes.RATE)
    np.testing.assert_array_equal(e.log_mel, clip.log_mel)
    assert e.source is None and e.media['file'] == 'arrays' and e.residual()[1] <= 1e-5
    assert (e.media['start'], e.media['end'], e.media['rate']) == (0, runs.SEGMENTS, scenes.RATE)
    with pytest.raises(ValueError, match='give uint8'):
        model.explain_arrays(frames[1:], scenes.sound(scene))


def test_stretch_of_a_video(trained, scene_video, tmp_path, capsys):
    assert explain(trained, tmp_path, scene_video, flags=('--start=1', '--end=4', FEW)) == 0
    record = json.loads((tmp_path / 'explanation.json').read_text())
    assert record['media']['start'] == 1 and record['media']['duration'] == pytest.approx(3, abs=0.1)
    assert record['valid_segments'] == [True] * 3 + [False] * 3 and record['media']['notes'] == ['short']
    assert 'note: The clip is short: segments without data are ignored.' in capsys.readouterr().out
    audio = np.array(record['maps'][0]['audio'])
    assert (audio[3:] == 0).all() and (audio[:3] != 0).any()


def test_truth_and_label_are_drawn(trained, scene_video, tmp_path, monkeypatch):
    scene = scenes.make_scene('events', runs.SEGMENTS, (0, 2, 0))
    label = scenes.CLASSES[scene.label]
    tables = tmp_path / 'tables'
    tables.mkdir()
    rows = [
        f'scene,{label},{scene.event[0]},{scene.event[1]},both',
        f'other,{label},0,1,both',
        'scene,another,2,3,both',
    ]
    (tables / 'events.csv').write_text('\n'.join(['clip_id,label,onset,offset,modality', *rows]) + '\n')
    (tables / 'boxes.csv').write_text(f'clip_id,time,label,x0,y0,x1,y1\nscene,0.5,{label},0.1,0.2,0.3,0.4\n')
    drawn = []
    save = Explanation.save_figure
    monkeypatch.setattr(
        Explanation,
        'save_figure',
        lambda self, path, *options: (drawn.append(options), save(self, path, *options)),
    )
    shown = (f'--label={label}', '--files=png')
    assert explain(trained, tmp_path / 'out', scene_video, flags=(*shown, f'--truth={tables}')) == 0
    assert explain(trained, tmp_path / 'bare', scene_video, flags=shown) == 0
    onset, offset = scene.event
    interval = (onset, min(offset, runs.SEGMENTS))
    assert drawn[0] == (label, GroundTruth([interval], [(0.5, 0.1, 0.2, 0.3, 0.4)])) and drawn[1] == (label, None)
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['explanation.png']
    pictures = [(tmp_path / name / 'explanation.png').read_bytes() for name in ('out', 'bare')]
    assert pictures[0] != pictures[1]


def refused(capsys, *arguments, **options):
    assert explain(*arguments, **options) == 2
    output, errors = capsys.readouterr()
    assert output == '' and errors.startswith('error: ') and errors.count('\n') == 1, errors
    return errors


def test_wrong_use_is_one_line(trained, scene_video, videos, tmp_path, capsys):
    error = refused(capsys, trained, tmp_path, scene_video, flags=('--label=green cros',))
    assert '--label=green cros' in error and 'green cross' in error
    assert 'checkpoints' in refused(capsys, tmp_path, tmp_path, scene_video)
    assert '--video' in refused(capsys, trained, tmp_path)
    assert '--start=soon' in refused(capsys, trained, tmp_path, scene_video, flags=('--start=soon',))
    for flag in ('--files=gif', '--files=', '--hop=2', '--top_windows=1'):
        assert flag.split('=')[0] in refused(capsys, trained, tmp_path, scene_video, flags=(flag,))
    assert '--hop=7' in refused(capsys, trained, tmp_path, scene_video, flags=('--long', '--hop=7'))
    assert '--hop=0' in refused(capsys, trained, tmp_path, scene_video, flags=('--long', '--hop=0'))
    assert "['surplus']" in refused(capsys, trained, tmp_path, scene_video, flags=('surplus',))
    assert '--truth' in refused(capsys, trained, tmp_path, scene_video, flags=(f'--truth={videos}',))
    assert 'no video file there' in refused(capsys, trained, tmp_path, f'{tmp_path}/*.mp4')
    three = [f'--workdir={trained}'] * 2
    assert '3 --workdir flags' in refused(capsys, trained, tmp_path, scene_video, flags=three)
    assert 'is given twice' in refused(capsys, trained, tmp_path, scene_video, flags=three[1:])
    other = (f'--workdir={tmp_path}', '--long')
    assert '--long' in refused(capsys, trained, tmp_path, scene_video, flags=other)
    assert list(tmp_path.iterdir()) == []


def test_truth_of_another_shape_is_named(trained, scene_video, tmp_path, capsys):
    (tmp_path / 'events.csv').write_text('clip_id,label,onset\nscene,x,1\n')
    error = refused(capsys, trained, tmp_path / 'out', scene_video, flags=(f'--truth={tmp_path}',))
    assert str(tmp_path / 'events.csv') in error and 'offset' in error


def test_help_lists_the_flags(capsys):
    assert command.main(['explain', '--help']) == 0
    assert '--video' in capsys.readouterr().out


def test_stretch_that_holds_nothing_is_named(trained, scene_video, tmp_path, capsys):
    assert explain(trained, tmp_path, scene_video, flags=('--start=30',)) == 1
    assert 'scene.mp4' in capsys.readouterr().err and list(tmp_path.iterdir()) == []


@pytest.fixture(scope='module')
def long_video(tmp_path_factory):
    """Makes a video of sixteen seconds: the first scene repeated, and cut at the end."""
    scene = scenes.make_scene('events', runs.SEGMENTS, (0, 2, 0))
    frames = np.tile(scenes.draw(scene, np.arange(runs.SEGMENTS * 4) / 4, 64), (3, 1, 1, 1))[:64]
    path = tmp_path_factory.mktemp('long') / 'long.mp4'
    media.write_video(path, frames, 4, np.tile(scenes.sound(scene), 3)[: 16 * scenes.RATE], scenes.RATE)
    return path


def test_all_of_a_long_video(trained, long_video, tmp_path, capsys):
    flags = ('--long', '--top_windows=2', '--files=json,html,npz')
    assert explain(trained, tmp_path, long_video, flags=flags) == 0
    output = capsys.readouterr().out
    timeline = json.loads((tmp_path / 'timeline.json').read_text())
    assert [window['start'] for window in timeline['windows']] == [0, 3, 6, 9, 10]
    assert timeline['windows_left_out'] == 3 and 'the 2 most probable are explained, 3 left out' in output
    best = {label: x for label, x in zip(timeline['shown_classes'], timeline['windows'][0]['probabilities'])}
    assert max(best.values()) == pytest.approx(timeline['windows'][0]['probability'])
    rows = list(csv.DictReader((tmp_path / 'timeline.csv').read_text().splitlines()))
    assert len(rows) == len(timeline['rows']) == 16
    folders = sorted(path.parent for path in tmp_path.glob('*/explanation.json'))
    index, page = ((tmp_path / name).read_text() for name in ('index.html', 'timeline.html'))
    links = re.findall('href="(window.*?)"', index)
    assert len(folders) == 2 and links == [f'{folder.name}/explanation.html' for folder in folders]
    assert 'href="timeline.html"' in index and set(links) <= set(re.findall('href="(.*?)"', page))
    assert re.search(r'long.mp4, 0:\d\d to 0:\d\d<', index)
    assert decode.MediaFile(tmp_path / 'timeline.mp4').duration == pytest.approx(16, abs=0.2)
    for folder, k in zip(folders, sorted(timeline['windows_explained'])):
        window, loaded = timeline['windows'][k], Explanation.load_npz(folder / 'explanation.npz')
        assert folder.name == f'window_{window["start"]:07.1f}s' and loaded.media['start'] == window['start']
        assert loaded.top(1)[0]['label'] == window['label']
        assert loaded.top(1)[0]['logit'] == pytest.approx(window['logit'], abs=1e-5)
        rows = [row for row in timeline['rows'] if row['window'] == k]
        for row in rows:
            t = round(row['start'] - window['start'])
            assert row['sound'] == pytest.approx(loaded.contributions()[2][t], abs=1e-5)
            assert row['picture'] == pytest.approx(loaded.contributions()[1][t].sum(), abs=1e-5)
    assert command.main(['explain', f'--check={folders[0] / "explanation.json"}']) == 0


def test_without_long_a_note_names_the_part_that_is_explained(trained, long_video, tmp_path, capsys):
    assert explain(trained, tmp_path, long_video, flags=('--files=csv',)) == 0
    output = capsys.readouterr().out
    assert 'note: Only the first 6 s of ' in output
    assert ' are explained; a timeline (--long) shows the whole video.' in output
    assert re.search(r'\ntime: imports \d+\.\d s, restore .* s, decode .* s, model .* s, files .* s\n', output)
