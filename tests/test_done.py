"""Tests that only a video whose files are all there, for the same video, model and options, counts as explained."""

import pytest
from pages import record

from stattn_jax.explain import done, index


@pytest.fixture
def outcome(tmp_path):
    (tmp_path / 'clip').mkdir()
    (tmp_path / 'clip' / 'explanation.html').touch()
    return done.VideoResult(
        [index.explained_clip(record(), 'clip/explanation.html', 'dog')],
        ['clip/explanation.html'],
        ('clip.mp4', 'clip/timeline.html'),
    )


def test_an_outcome_is_read_back_for_the_same_key_only(tmp_path, outcome):
    folder = tmp_path / 'clip'
    assert done.read(folder, tmp_path, {'a': 1}) is None
    done.write(folder, {'a': 1}, outcome)
    assert done.read(folder, tmp_path, {'a': 1}) == outcome
    assert done.read(folder, tmp_path, {'a': 2}) is None
    (folder / 'explanation.html').unlink()
    assert done.read(folder, tmp_path, {'a': 1}) is None


@pytest.mark.parametrize('text', ['', '{"key": {"a": 1}, "files": [', '[]', '{"key": {"a": 1}, "files": []}', 'null'])
def test_broken_files_count_as_not_done(tmp_path, outcome, text):
    (tmp_path / 'clip' / done.FILE).write_text(text)
    assert done.read(tmp_path / 'clip', tmp_path, {'a': 1}) is None


def test_a_video_is_forgotten_before_it_is_explained_anew(tmp_path, outcome):
    done.write(tmp_path / 'clip', {}, outcome)
    done.forget(tmp_path / 'clip')
    done.forget(tmp_path / 'clip')
    assert done.read(tmp_path / 'clip', tmp_path, {}) is None
