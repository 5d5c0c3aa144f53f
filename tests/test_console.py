"""Tests which videos a command takes: not its own results, and one line where there are none."""

import pytest

from stattn_jax import run
from stattn_jax.explain import console


def test_own_results_are_no_videos_unless_they_are_named(tmp_path, capsys):
    out = tmp_path / 'out'
    for name in ('a.mp4', 'explanation.mp4', 'out/a/explanation.mp4', 'out/b.mp4'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    own = ('explanation.mp4',)
    found = console.find_videos([str(tmp_path)], str(out), own)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ['a.mp4', 'explanation.mp4', 'out/b.mp4']
    assert f'left out 1 results of earlier calls in --out={out}' in capsys.readouterr().out
    named = out / 'a' / 'explanation.mp4'
    assert console.find_videos([str(named)], str(out), own) == [named]


def test_no_video_is_one_line(tmp_path):
    with pytest.raises(run.RunError, match=r'no video file there; expected a file, a folder or a pattern'):
        console.find_videos([f'{tmp_path}/*.mp4', '\udcff'], str(tmp_path))
