"""Tests the command that predicts many videos: its rows are the explanations' numbers, and it goes on when repeated."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
import runs

import stattn_jax
from stattn_jax.explain.explanation import strongest_cell
from stattn_jax.predict import __main__ as command
from stattn_jax.predict import predict_videos, predictions

pytestmark = pytest.mark.usefixtures('quick_compile')


@pytest.fixture(scope='module')
def videos(tmp_path_factory, scene_video):
    """Makes a folder with two good videos, one of them below it, a text file named .mp4 and another file."""
    folder = tmp_path_factory.mktemp('videos')
    (folder / 'deep').mkdir()
    shutil.copy(scene_video, folder / 'scene.mp4')
    runs.make_video(folder / 'deep' / 'second.mp4', 1)
    (folder / 'text.mp4').write_text('not a video\n')
    (folder / 'notes.txt').touch()
    return folder


def predict(workdir, out, *videos, flags=('--workers=0', '--batch=2')):
    videos = [f'--video={video}' for video in videos]
    return command.main(['predict', f'--workdir={workdir}', f'--out={out}', *videos, *flags])


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope='module')
def predicted(trained, videos, tmp_path_factory):
    """Returns the rows of the folder as JSON Lines."""
    out = tmp_path_factory.mktemp('predicted') / 'made' / 'predictions.jsonl'
    assert predict(trained, out, videos) == 1
    assert [path.name for path in out.parent.iterdir()] == ['predictions.jsonl']
    return rows_of(out)


def test_rows_are_the_numbers_of_the_explanations(predicted, trained, videos):
    model = stattn_jax.load(trained)
    names = ('deep/second.mp4', 'scene.mp4', 'text.mp4')
    assert [row['video'] for row in predicted] == [str(videos / name) for name in names]
    for row in predicted[:2]:
        e = model.explain(row['video'])
        probabilities = [row['probabilities'][label] for label in e.classes]
        np.testing.assert_allclose(probabilities, e.probabilities, atol=1e-5)
        assert list(row['probabilities']) == sorted(e.classes, key=lambda label: -row['probabilities'][label])
        assert (row['label'], row['error'], row['notes']) == (e.top(1)[0]['label'], None, list(e.media['notes']))
        _, visual, audio = e.contributions()
        sums = visual.sum(axis=(1, 2)) + audio
        t = int(sums.argmax())
        assert row['strongest_segment'] == {'start': t, 'end': t + 1, 'evidence': pytest.approx(sums[t], abs=1e-5)}
        cell, expected = row['strongest_cell'], strongest_cell(visual)
        assert (cell and (cell['start'], cell['row'], cell['column'])) == expected


def test_the_strongest_cell_has_its_place_in_the_frame(trained, videos):
    model = stattn_jax.load(trained)
    clip, visual = model.read(videos / 'scene.mp4').clip, np.full((runs.SEGMENTS, 4), -1.0)
    predictor = predict_videos.Predictor(model, 1)
    assert predictor._cell(clip, visual) is None
    visual[4, 1] = 0.5
    assert predictor._cell(clip, visual) == {'start': 4, 'end': 5, 'row': 0, 'column': 1, 'x': 0.75, 'y': 0.25}


def test_a_video_that_cannot_be_read_has_a_row_with_the_reason(predicted):
    failed = predicted[2]
    assert failed['error'].startswith('not_a_video: ') and failed['probabilities'] == {}
    assert failed['label'] is failed['probability'] is failed['strongest_cell'] is None


@pytest.mark.parametrize('kind', ['csv', 'parquet'])
@pytest.mark.parametrize('top', [None, 2])
def test_tables_have_a_column_for_each_number(predicted, tmp_path, kind, top):
    classes = sorted(predicted[0]['probabilities'])
    rows = [row | {'probabilities': dict(list(row['probabilities'].items())[:top])} for row in predicted]
    out = tmp_path / f'table.{kind}'
    predictions.write(out, iter(rows), classes, top)
    if kind == 'csv':
        found = list(csv.DictReader(out.read_text().splitlines()))
    else:
        parquet = pytest.importorskip('pyarrow.parquet')
        found = parquet.read_table(out).to_pylist()
    assert list(found[0]) == list(predictions.columns(classes, top))
    first = predicted[0]
    assert found[0]['label'] == first['label'] and int(found[0]['cell_row']) == first['strongest_cell']['row']
    assert float(found[0]['segment_evidence']) == first['strongest_segment']['evidence']
    for k, (label, probability) in enumerate(list(first['probabilities'].items())[:top], 1):
        if top:
            assert found[0][f'class_{k}'] == label and float(found[0][f'probability_{k}']) == probability
        else:
            assert float(found[0][f'probability: {label}']) == probability
    assert found[2]['error'].startswith('not_a_video') and found[2]['probability'] in ('', None)


def test_it_goes_on_where_it_was_stopped(predicted, trained, videos, tmp_path, monkeypatch, capsys):
    out, done = tmp_path / 'p.jsonl', []

    def stop_after_one(options, predictor, todo, clock):
        for video, row in rows(options, predictor, todo, clock):
            done.append(video.name)
            yield video, row
            raise KeyboardInterrupt

    rows = predict_videos._rows
    monkeypatch.setattr(predict_videos, '_rows', stop_after_one)
    assert predict(trained, out, videos) == 130 and not out.exists()
    assert 'the same command goes on' in capsys.readouterr().err
    monkeypatch.setattr(predict_videos, '_rows', rows)
    journal = tmp_path / 'p.jsonl.partial'
    # The process may have been killed within a line.
    journal.write_bytes(journal.read_bytes() + b'{"video": {"pa')
    assert predict(trained, out, videos, flags=('--workers=0', '--top=1')) == 2
    assert 'was begun by another model or with other flags' in capsys.readouterr().err
    assert predict(trained, out, videos) == 1
    assert done == ['second.mp4'] and '1 of 3 videos are predicted already' in capsys.readouterr().out
    for row, expected in zip(rows_of(out), predicted, strict=True):
        assert (row['video'], row['label'], row['error']) == tuple(expected[k] for k in ('video', 'label', 'error'))
    assert [path.name for path in tmp_path.iterdir()] == ['p.jsonl']


def test_a_broken_clip_among_others_costs_only_itself(trained, videos, tmp_path, monkeypatch):
    """A clip that the network cannot take is tried alone, after the batch that it is in."""
    clip_arrays = predict_videos.pipeline.clip_arrays
    model = stattn_jax.load(trained)
    broken = model.read(videos / 'scene.mp4').clip.frames

    def sometimes(clip, *rest):
        if clip.frames == broken:
            raise MemoryError('too large')
        return clip_arrays(clip, *rest)

    monkeypatch.setattr(predict_videos.pipeline, 'clip_arrays', sometimes)
    assert predict(trained, tmp_path / 'p.jsonl', videos) == 1
    errors = [row['error'] for row in rows_of(tmp_path / 'p.jsonl')]
    assert errors[:2] == [None, 'failed: MemoryError: too large']


def refused(capsys, *arguments, **options):
    assert predict(*arguments, **options) == 2
    output, errors = capsys.readouterr()
    assert errors.startswith('error: ') and errors.count('\n') == 1, errors
    return errors


def test_wrong_use_is_one_line(trained, videos, tmp_path, capsys, monkeypatch):
    out = tmp_path / 'p.csv'
    assert '--video is missing' in refused(capsys, trained, out)
    assert 'ends with .csv, .jsonl, .parquet' in refused(capsys, trained, tmp_path / 'p.xlsx', videos)
    assert '--top' in refused(capsys, trained, out, videos, flags=('--top=0',))
    assert 'no video file there' in refused(capsys, trained, out, f'{videos}/*.avi')
    assert 'checkpoints' in refused(capsys, tmp_path, out, videos)
    out.write_text('precious')
    assert 'exists already' in refused(capsys, trained, out, videos) and out.read_text() == 'precious'
    monkeypatch.setitem(sys.modules, 'pyarrow.parquet', None)
    assert 'pip install pyarrow' in refused(capsys, trained, tmp_path / 'p.parquet', videos)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['p.csv']


def test_help_lists_the_flags(capsys):
    assert command.main(['predict', '--help']) == 0
    assert '--batch' in capsys.readouterr().out
