"""Explaining video files by the command: what it writes, what it says, and what one bad file among good ones does."""

import json
import shutil

import numpy as np
import pytest
import runs

from data_prep import scenes
from stattn_jax.data import source
from stattn_jax.explain import __main__ as command
from stattn_jax.explain import explanation

pytestmark = pytest.mark.usefixtures('quick_compile')
FILES = ('explanation.json', 'explanation.npz', 'explanation.png')


def explain(workdir, out, *videos, flags=()):
    videos = [f'--video={video}' for video in videos]
    return command.main(['explain', f'--workdir={workdir}', f'--out={out}', *videos, *flags])


@pytest.fixture(scope='module')
def videos(tmp_path_factory, scene_video):
    """Good and bad files: a second scene, a text called .mp4, half a file, one without sound."""
    folder = tmp_path_factory.mktemp('videos')
    (folder / 'text.mp4').write_text('not a video\n')
    (folder / 'half.mp4').write_bytes(scene_video.read_bytes()[: scene_video.stat().st_size // 2])
    runs.make_video(folder / 'silent.mp4', 1, sound=False)
    runs.make_video(folder / 'second.mp4', 1)
    return folder


@pytest.fixture(scope='module')
def explained(trained, scene_video, tmp_path_factory):
    """The folder of one explained video."""
    out = tmp_path_factory.mktemp('explained') / 'made' / 'here'
    assert explain(trained, out, scene_video) == 0
    return out


def test_files_are_there_and_their_terms_add_up(explained):
    assert sorted(path.name for path in explained.iterdir()) == sorted(FILES)
    assert explanation.check(explained / 'explanation.json') <= 1e-5
    loaded = explanation.Explanation.load_npz(explained / 'explanation.npz')
    assert loaded.residual()[1] <= 1e-5
    assert (explained / 'explanation.png').read_bytes().startswith(b'\x89PNG')


def test_record_says_of_which_video_by_which_model(explained, trained, scene_video):
    record = json.loads((explained / 'explanation.json').read_text())
    assert record['media']['file'] == scene_video.name and record['media']['duration'] == pytest.approx(6, abs=0.1)
    assert record['classes'] == list(scenes.CLASSES) and record['geometry']['grid'] == [6, 2, 2]
    assert record['model']['step'] == json.loads((trained / 'eval_test.json').read_text())['checkpoint/step']
    assert sum(record['probabilities']) == pytest.approx(1, abs=1e-5)
    assert (record['media']['height'], record['media']['width']) == (64, 64)


def test_command_sees_what_evaluation_saw(explained, tiny_data):
    # The same scene is the first record of the test split; only the codecs lie between.
    loaded = explanation.Explanation.load_npz(explained / 'explanation.npz')
    record = source.RecordSource(tiny_data, 'test')[0]
    assert np.corrcoef(loaded.log_mel.astype(float).ravel(), record.clip.log_mel.astype(float).ravel())[0, 1] > 0.97
    assert loaded.valid.all()


def test_bad_videos_are_named_and_the_good_ones_done(trained, scene_video, videos, tmp_path, capsys):
    names = ('text', 'half', 'silent', 'second')
    assert (
        explain(trained, tmp_path, scene_video, *(videos / f'{name}.mp4' for name in names), tmp_path / 'none.mp4') == 1
    )
    output, errors = capsys.readouterr()
    for good in ('scene', 'second'):
        assert sorted(path.name for path in (tmp_path / good).iterdir()) == sorted(FILES)
        assert f'{good}.mp4: ' in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ['scene', 'second']
    lines = [line for line in errors.splitlines() if line.startswith('error: ')]
    assert (
        len(lines) == 4
        and [name in line for name, line in zip(('text', 'half', 'silent', 'none'), lines)] == [True] * 4
    )
    assert output.count('sum of contributions against logit') == 2


def test_network_is_compiled_once_for_all_videos(trained, scene_video):
    model = command.load(str(trained))
    first, again = model.explain(scene_video), model.explain(scene_video)
    assert model._forward._cache_size() == 1
    np.testing.assert_array_equal(first.logits, again.logits)


def test_stretch_of_a_video(trained, scene_video, tmp_path, capsys):
    assert explain(trained, tmp_path, scene_video, flags=('--start=1', '--end=4')) == 0
    record = json.loads((tmp_path / 'explanation.json').read_text())
    assert record['media']['start'] == 1 and record['media']['duration'] == pytest.approx(3, abs=0.1)
    assert record['valid_segments'] == [True] * 3 + [False] * 3 and record['media']['notes'] == ['short']
    assert 'note: the clip is short' in capsys.readouterr().out
    audio = np.array(record['maps'][0]['audio'])
    assert (audio[3:] == 0).all() and (audio[:3] != 0).any()


def test_truth_and_label_are_drawn(trained, scene_video, tmp_path, monkeypatch):
    scene = scenes.make_scene('easy', runs.SEGMENTS, (0, 2, 0))
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
    save = explanation.Explanation.save_png
    monkeypatch.setattr(
        explanation.Explanation,
        'save_png',
        lambda self, path, **options: (drawn.append(options), save(self, path, **options)),
    )
    assert explain(trained, tmp_path / 'out', scene_video, flags=(f'--label={label}', f'--truth={tables}')) == 0
    assert explain(trained, tmp_path / 'bare', scene_video, flags=(f'--label={label}',)) == 0
    assert drawn[0]['label'] == label
    assert (
        drawn[0]['truth'] == explanation.Truth([scene.event], [(0.5, 0.1, 0.2, 0.3, 0.4)]) and drawn[1]['truth'] is None
    )
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
    assert "['surplus']" in refused(capsys, trained, tmp_path, scene_video, flags=('surplus',))
    assert '--truth' in refused(capsys, trained, tmp_path, scene_video, flags=(f'--truth={videos}',))
    twin = tmp_path / 'scene.mp4'
    shutil.copy(scene_video, twin)
    assert 'same name' in refused(capsys, trained, tmp_path / 'out', scene_video, twin)
    assert not (tmp_path / 'out').exists()


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
