"""Tests that windows cover a long video without a gap and that each row comes from the nearest window.

Windows hold the same data as a clip of their seconds, and memory stays bounded.
"""

import csv
import json
import types

import clips
import numpy as np
import pytest
import simplejpeg

from stattn_jax.data import media
from stattn_jax.explain import long

SPEC = media.ClipSpec(segments=4, short_side=48)


class Stub:
    """A stand-in for a Model whose outputs can be predicted.

    The class of a window depends on the number of its first frame (divided by 10, modulo 5), and its terms are the
    numbers of its segments' frames.
    """

    spec, batch, identity = SPEC, 3, {'step': 1}
    trained = types.SimpleNamespace(facts=types.SimpleNamespace(classes=tuple('abcde')))

    def __init__(self):
        self.calls, self.explained = [], []

    def record(self, windows, size):
        self.calls.append((len(windows), size))
        arrays = {name: np.zeros((size, 5)) for name in ('logits', 'probabilities')}
        arrays |= {'visual': np.zeros((size, 5, 4, 2)), 'audio': np.zeros((size, 5, 4))}
        for b, clip in enumerate(windows):
            numbers = np.array(clips.numbers(clip))
            c = int(numbers[clip.valid][0]) // 10 % 5
            arrays['logits'][b, c] = numbers[clip.valid][0] + 1
            arrays['probabilities'][b, c] = 1 / (1 + abs(numbers[clip.valid][0] - 42))
            arrays['visual'][b, c] = numbers[:, None] / 2
            arrays['audio'][b, c] = -numbers
        return arrays, {}

    def explain_readings(self, readings, *, finer):
        self.explained += readings
        return [reading.media['start'] for reading in readings]


@pytest.fixture(scope='module')
def twenty(tmp_path_factory):
    return clips.write_twenty(tmp_path_factory.mktemp('long') / 'twenty.mp4')


@pytest.mark.parametrize(
    ('total', 'segments', 'hop', 'starts'),
    [
        (10, 4, 2, [0, 2, 4, 6]),
        (11, 4, 2, [0, 2, 4, 6, 7]),
        (4, 4, 2, [0]),
        (2, 4, 2, [0]),
        (9, 4, 4, [0, 4, 5]),
        (5, 4, 1, [0, 1]),
    ],
)
def test_windows_cover_everything_and_end_with_the_video(total, segments, hop, starts):
    assert long.window_starts(total, segments, hop) == starts


def test_rows_come_from_the_nearest_window(twenty):
    model, progress = Stub(), []
    timeline = long.explain(model, twenty, None, 2, None, None, lambda *now: progress.append(now))
    assert timeline.hop == 2 and len(timeline.windows) == 9 and len(timeline.rows) == 20
    assert model.calls == [(3, 3)] * 3 and progress == [(k + 1, 9) for k in range(9)]
    for g, row in enumerate(timeline.rows):
        # Windows begin at 0, 2, .. 16 with their middle 2 later. The expected window is the one whose middle is nearest
        # to the segment's, or the first of equals.
        want = int(np.argmin([abs(2 * k + 2 - (g + 0.5)) for k in range(9)]))
        assert (row['start'], row['end'], row['window']) == (g, g + 1, want)
        # The frame of segment g is number 10 g + 5.
        assert row['label'] == 'abcde'[2 * want % 5]
        assert row['picture'] == pytest.approx(10 * g + 5, abs=1) and row['sound'] == pytest.approx(-10 * g - 5, abs=1)
        assert row['probability'] == timeline.windows[want]['probability']
    assert [(w['start'], w['end']) for w in timeline.windows[:2]] == [(0, 4), (2, 6)]
    # Frame 45 is the first of window 2, which is the most probable one; its neighbour follows.
    assert timeline.explanations == {2: 4.0, 1: 2.0} and timeline.windows_left_out == 7
    assert model.explained[0].media['notes'] == [] and model.explained[0].media['end'] == 8


def test_windows_equal_a_clip_of_the_same_seconds(twenty):
    model = Stub()
    long.explain(model, twenty, 3, 20, 0.5, 15.0, None)
    assert len(model.explained) == 5
    for reading in model.explained:
        start = reading.media['start']
        alone = media.read_clip(twenty, SPEC, start, min(15.0, start + 4))
        assert clips.numbers(reading.clip) == clips.numbers(alone)
        np.testing.assert_array_equal(reading.clip.valid, alone.valid)
        # The resampler begins at different samples.
        np.testing.assert_allclose(reading.clip.log_mel[alone.valid], alone.log_mel[alone.valid], atol=0.3)
        assert np.abs(reading.clip.log_mel - alone.log_mel)[alone.valid].mean() < 5e-3
    assert sorted(r.media['start'] for r in model.explained) == [0.5, 3.5, 6.5, 9.5, 11.5]


def test_a_short_video_is_one_padded_window(twenty):
    model = Stub()
    timeline = long.explain(model, twenty, None, 5, 17.5, None, None)
    assert len(timeline.windows) == 1 and len(timeline.rows) == 3 and model.calls == [(1, 1)]
    clip = model.explained[0].clip
    # Half a segment at the end counts as one.
    assert clip.valid.tolist() == [True, True, True, False] and clip.notes == ('short',)
    assert not simplejpeg.decode_jpeg(clip.frames[3]).any()
    np.testing.assert_allclose(clip.log_mel[3], np.log(0.01), atol=2e-3)


def test_gaps_and_omitted_windows_are_reported(tmp_path):
    """Video lasts 14 s, audio only the first 5: the clips of seconds 8 to 12 and 12 to 14 have no audio."""
    path = clips.encode(
        tmp_path / 'gap.mkv', clips.numbered(140), np.arange(140) / 10, clips.noise(5)[None], codec='pcm_s16le'
    )
    model = Stub()
    timeline = long.explain(model, path, None, 20, None, None, None)
    assert [row['window'] is None for row in timeline.rows] == [False] * 5 + [True] * 9
    assert timeline.segments_without_data == 9
    with_data = [k for k, window in enumerate(timeline.windows) if window['label'] is not None]
    assert with_data == [0, 1, 2] and timeline.windows_left_out == 0 and sorted(timeline.explanations) == with_data
    timeline.save_json(tmp_path / 't.json')
    read = json.loads((tmp_path / 't.json').read_text())
    assert read['segments_without_data'] == 9 and read['windows_left_out'] == 0
    timeline.save_csv(tmp_path / 't.csv')
    rows = list(csv.DictReader((tmp_path / 't.csv').read_text().splitlines()))
    assert list(rows[0]) == ['start', 'end', 'window', 'label', 'probability', 'picture', 'sound']
    assert rows[2]['label'] == timeline.rows[2]['label'] and float(rows[2]['sound']) == timeline.rows[2]['sound']
    assert rows[9] == {'start': '9.0', 'end': '10.0'} | dict.fromkeys(list(rows[0])[2:], '')


def test_impossible_hops_counts_and_intervals_are_refused(twenty, tmp_path):
    for hop in (0, 5):
        with pytest.raises(ValueError, match=f'hop is {hop}; expected 1 to 4 segments'):
            long.explain(Stub(), twenty, hop, 5, None, None, None)
    with pytest.raises(ValueError, match='top_windows is -1; expected 0 or more'):
        long.explain(Stub(), twenty, None, -1, None, None, None)
    with pytest.raises(media.MediaError, match='empty_interval: 30 s to 20'):
        long.explain(Stub(), twenty, None, 5, 30.0, None, None)
    assert long.explain(Stub(), twenty, None, 0, None, None, None).explanations == {}


def test_a_video_without_sound_is_explained_by_its_picture(tmp_path):
    path = tmp_path / 'mute.mp4'
    media.write_video(path, clips.numbered(100), 10, None)
    model = Stub()
    timeline = long.explain(model, path, None, 5, None, None, None)
    assert timeline.media['notes'] == ['no_sound'] and timeline.segments_without_data == 0
    assert model.explained and all('no_sound' in reading.media['notes'] for reading in model.explained)
