"""Tests that the strip of explained clips shows known contributions, and where there is none."""

import dataclasses

import fakes
import numpy as np
import pytest

from configs import common
from data_prep import prepare
from stattn_jax import colours, evaluate, strip
from stattn_jax.data import media, pipeline, source

SEGMENTS, SIDE = 3, strip.SIDE
ROW = strip.CAPTION + SIDE + strip.BARS


def clip(valid=(True, True, True)):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (SEGMENTS, SIDE, SIDE, 3), np.uint8)
    visual, audio = rng.normal(size=(SEGMENTS, 3, 3)), np.array([4.0, -8.0, 0.0])
    visual *= np.array([2.0, 8.0, 1.0])[:, None, None] / visual.sum((1, 2), keepdims=True)
    return strip.StripRow('clip: dog 90%', frames, np.array(valid), visual, audio)


def tile(picture, row, t):
    """The frame of a segment in the strip, and the bars below it."""
    part = picture[row * ROW + strip.CAPTION : (row + 1) * ROW, t * (SIDE + strip.GAP) :][:, :SIDE]
    return part[:SIDE], part[SIDE:]


def test_a_frame_is_the_blend_of_its_pixels_with_the_heat_of_their_cells():
    shown = clip()
    picture = strip.draw([shown, shown])
    assert picture.shape == (2 * ROW + strip.CAPTION, strip.LEAST_WIDTH, 3) and picture.dtype == np.uint8
    heat, _ = colours.overlay(shown.visual, shown.audio)
    large = heat.repeat(SIDE // 3, axis=1).repeat(SIDE // 3, axis=2)
    expected = shown.frames * (1 - large[..., 3:]) + 255 * large[..., 3:] * large[..., :3]
    for row in (0, 1):
        for t in range(SEGMENTS):
            np.testing.assert_allclose(tile(picture, row, t)[0], expected[t], atol=0.51)
    # Where no cell speaks for the class, the frame is itself.
    y, x = (large[0, ..., 3] == 0).nonzero()
    assert len(y) and (tile(picture, 0, 0)[0][y, x] == shown.frames[0, y, x]).all()


def test_bars_have_the_sign_and_the_share_of_the_contributions():
    bars = [tile(strip.draw([clip()]), 0, t)[1] for t in range(SEGMENTS)]
    middle = strip.BARS // 2

    def lengths(t, colour):
        there = (bars[t] == colours.rgb(colour)).all(axis=-1).any(axis=1)
        return there[:middle].sum(), there[middle + 1 :].sum()

    # The longest bar has 15 pixels and stands for 8.
    assert [lengths(t, colours.PICTURE) for t in range(SEGMENTS)] == [(4, 0), (15, 0), (2, 0)]
    assert [lengths(t, colours.SOUND) for t in range(SEGMENTS)] == [(8, 0), (0, 15), (0, 0)]


def test_a_segment_that_is_not_valid_is_grey():
    frame, _ = tile(strip.draw([clip((True, True, False))]), 0, 2)
    assert (frame == colours.rgb(colours.MISSING)).all()


def explained(record, spec=fakes.SPEC, probabilities=(0.1, 0.7, 0.2), classes=fakes.CLASSES):
    info = source.DatasetInfo('fake', classes, False, spec, {}, {}, {}, '')
    t = spec.segments
    return strip.explained(record, np.zeros((t, 4)), np.zeros(t), np.array(probabilities), info, 'squash')


@pytest.mark.parametrize('segments, side', [(10, SIDE), (100, 74), (3600, 1)])
def test_long_clips_have_smaller_frames(segments, side):
    record, spec = fakes.record(0), media.ClipSpec(segments=segments, short_side=24)
    long = dataclasses.replace(record.clip, frames=record.clip.frames[:1] * segments, valid=np.ones(segments, bool))
    row = explained(dataclasses.replace(record, clip=long), spec)
    assert row.frames.shape == (segments, side, side, 3) and row.visual.shape == (segments, 2, 2)
    assert strip.draw([row]).shape[1] < 65536


def test_captions_name_label_and_prediction_in_letters_of_the_font():
    def caption(label, **options):
        return explained(dataclasses.replace(fakes.record(0), labels=(label,)), **options).caption

    assert caption(1) == 'clip0: cat 70%'
    assert caption(2) == 'clip0: dog 20%, predicted cat 70%'
    assert caption(0, classes=('犬', 'Kätzchen', 'кот')) == 'clip0: class 0 10%, predicted Kätzchen 70%'


# ---------------------------------------------------------------------------------------------------------------------
# The strip of an evaluation
# ---------------------------------------------------------------------------------------------------------------------


class Known(evaluate.Evaluator):
    """An evaluator of a network whose rows are known."""

    def __init__(self, data, clips, additive=True):
        config = common.get_config()
        config.data.dir, config.eval.strip_clips = str(data), clips
        super().__init__(None, None, config)
        self.additive = additive

    def _rows(self, state, data, labels_per_clip, by_segment=False):
        rng = np.random.default_rng(1)
        n, t = len(data), data.info.spec.segments
        terms = {'visual': rng.normal(size=(n, 1, t, 9)), 'audio': rng.normal(size=(n, 1, t))}
        return {'logits': rng.normal(size=(n, 3))} | (terms if self.additive else {})

    def _numbers(self, state, data, truth, rows):
        return {'n': len(truth)}


def with_labels_in_the_middle(job, spec):
    record = fakes.make_record(job, spec)
    return dataclasses.replace(record, labels=record.labels if record.clip_id not in ('train0', 'train6') else ())


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Seven clips, of which the first and the last have no label."""
    return fakes.dataset(tmp_path_factory.mktemp('strip') / 'data', 7, 1, with_labels_in_the_middle)


def test_clips_with_labels_are_spread_over_the_split(data):
    known = Known(data, 3)
    numbers, pictures = known.split_with_strip(None, 'train')
    assert numbers == {'n': 7} and list(pictures) == ['explained/train']
    records = source.RecordSource(data, 'train')
    rows = known._rows(None, records, 1)
    for row, i in enumerate((1, 3, 5)):
        frames = pipeline.clip_arrays(records[i], SIDE, 'squash')['frames']
        heat, _ = colours.overlay(rows['visual'][i, 0].reshape(3, 3, 3), rows['audio'][i, 0])
        for t in np.flatnonzero(records[i].clip.valid):
            expected = colours.blend(frames[t], heat[t])
            np.testing.assert_array_equal(tile(pictures['explained/train'], row, t)[0], expected)
    # The split has five clips with labels.
    (large,) = Known(data, 64).split_with_strip(None, 'train')[1].values()
    assert len(large) == 5 * ROW + strip.CAPTION


def test_there_is_no_strip_without_contributions_without_frames_and_if_it_is_not_wanted(data, tmp_path):
    assert Known(data, 3, additive=False).split_with_strip(None, 'train')[1] == {}
    assert Known(data, 0).split_with_strip(None, 'train')[1] == {}
    options = {'classes': fakes.CLASSES, 'spec': fakes.FEATURE_SPEC, 'multi_label': False, 'workers': 0}
    prepare.prepare(tmp_path / 'features', 'fake', fakes.jobs(3, 1), fakes.feature_record, **options)
    assert Known(tmp_path / 'features', 3).split_with_strip(None, 'train') == ({'n': 3}, {})


def test_only_the_first_process_draws(data, monkeypatch):
    monkeypatch.setattr(evaluate.jax, 'process_index', lambda: 1)
    assert Known(data, 3).split_with_strip(None, 'train') == ({'n': 7}, {})
