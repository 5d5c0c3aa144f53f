"""Tests that processes read clips in order, and that a process that crashes costs only its own video."""

import pathlib

import clips
import crashing
import numpy as np
import pytest

from stattn_jax.data import media, processes

SPEC = media.ClipSpec(segments=4, short_side=48)


@pytest.mark.parametrize('workers', [0, 1])
def test_clips_come_in_order_and_errors_among_them(tmp_path, workers):
    videos = [clips.write_twenty(tmp_path / 'twenty.mp4'), tmp_path / 'missing.mp4', tmp_path / 'twenty.mp4']
    found = list(processes.read_clips(videos, SPEC, workers, ahead=2))
    assert [video for video, _ in found] == videos
    assert found[1][1].reason == 'missing'
    expected = media.read_clip(videos[0], SPEC)
    for i in (0, 2):
        assert found[i][1].frames == expected.frames
        np.testing.assert_array_equal(found[i][1].log_mel, expected.log_mel)


def test_a_crash_costs_one_video(monkeypatch):
    monkeypatch.setattr(processes, '_read', crashing.read)
    videos = [pathlib.Path(name) for name in ('a', 'b', 'crash', 'c', 'd', 'e')]
    found = list(processes.read_clips(videos, SPEC, workers=1, ahead=3))
    assert [video for video, _ in found] == videos
    assert [error.reason for _, error in found] == ['missing', 'missing', 'crashed', 'missing', 'missing', 'missing']
