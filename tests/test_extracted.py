"""Tests extracted features as records and batches: they are read back, and views depend only on seed and position."""

import dataclasses
import json

import fakes
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import verify
from stattn_jax.data import extracted, pipeline, records, source, tfrecord

CASES = [(fakes.SEEN, None), (None, fakes.HEARD), (fakes.SEEN, fakes.HEARD)]


def make(tmp_path, visual=fakes.SEEN, audio=fakes.HEARD, train=6, test=3):
    return fakes.extracted_dataset(tmp_path / 'd', train, test, visual, audio)


def batches(data, **options):
    made = pipeline.train_batches(data, frame_size=16, fit='squash', **{'global_batch': 4, 'seed': 3} | options)
    try:
        return [next(made) for _ in range(6)]
    finally:
        made.close()


# The reason for this filter is given in test_records.py.
@pytest.mark.filterwarnings('ignore:label\\(\\) is deprecated:DeprecationWarning')
@pytest.mark.parametrize('visual, audio', CASES)
def test_records_come_back_and_tfds_opens_them(tmp_path, visual, audio):
    out = make(tmp_path, visual, audio)
    data = source.RecordSource(out, 'train')
    assert len(data) == 6
    for i, job in enumerate(fakes.jobs(6)):
        expected, clip = fakes.extracted_record(job, data.info.spec).clip, data[i].clip
        for name in ('visual', 'audio', 'log_mel', 'valid'):
            np.testing.assert_array_equal(getattr(clip, name), getattr(expected, name))
        assert (clip.frames, clip.notes, clip.duration) == (expected.frames, expected.notes, expected.duration)
    builder = tfds.builder_from_directory(str(out))
    feature = builder.info.features['visual' if visual else 'audio']
    assert feature.shape == (visual or audio).stored(3) and feature.np_dtype == np.float16


@pytest.mark.parametrize('visual, audio', CASES)
def test_spec_survives_json(visual, audio):
    spec = extracted.ExtractedSpec(fakes.SPEC, visual, audio, 'f')
    assert records.spec_from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert (spec.segments, spec.seconds, spec.views) == (3, 3.0, 3 if visual else 1)
    assert spec.channels == (4 if visual else 3, 5 if audio else 1)


@pytest.mark.parametrize('visual, audio', CASES)
def test_batches_hold_features_in_the_place_of_their_input(tmp_path, visual, audio):
    data = source.RecordSource(make(tmp_path, visual, audio), 'test')
    (batch,) = pipeline.eval_batches(data, global_batch=4, frame_size=16, fit='squash')
    shape = {'frames': (4, 3, 2, 2, 4) if visual else (4, 3, 16, 16, 3)}
    shape['log_mel'] = (4, 3, 1, 5) if audio else (4, *fakes.SPEC.mel_shape)
    assert {name: batch[name].shape for name in shape} == shape
    assert batch['frames'].dtype == (np.float16 if visual else np.uint8) and batch['log_mel'].dtype == np.float16
    for i in range(3):
        clip = data[i].clip
        if visual:
            np.testing.assert_array_equal(batch['frames'][i], clip.visual[0])
        if audio:
            np.testing.assert_array_equal(batch['log_mel'][i][:, 0], clip.audio[0])
        alone = pipeline.clip_arrays(data[i], 16, 'squash')
        for name in shape:
            np.testing.assert_array_equal(batch[name][i], alone[name])
    assert not batch['frames'][3].any() and batch['index'][3] == -1


def test_views_are_drawn_by_seed_and_position(tmp_path):
    data = source.RecordSource(make(tmp_path), 'train')
    made = batches(data)
    views = np.concatenate([batch['frames'][:, 0, 0, 0, 0] for batch in made]).astype(int)
    expected = [np.random.default_rng([3, position]).integers(3) for position in range(24)]
    np.testing.assert_array_equal(views, expected)
    for batch in made:
        for row, number in enumerate(batch['index']):
            view = int(batch['frames'][row, 0, 0, 0, 0])
            np.testing.assert_array_equal(batch['frames'][row], data[int(number)].clip.visual[view])
    assert set(views) == {0, 1, 2}
    assert (views != np.concatenate([b['frames'][:, 0, 0, 0, 0] for b in batches(data, seed=4)])).any()


def test_views_do_not_depend_on_resuming_or_on_the_number_of_processes(tmp_path):
    data = source.RecordSource(make(tmp_path), 'train')
    whole = batches(data)
    np.testing.assert_array_equal(batches(data, start_step=2)[0]['frames'], whole[2]['frames'])
    parts = [batches(data, process_index=i, process_count=2, threads=1) for i in (0, 1)]
    for step, batch in enumerate(whole):
        joined = np.concatenate([part[step]['frames'] for part in parts])
        np.testing.assert_array_equal(joined, batch['frames'])


def test_the_other_modality_can_be_taken_away_or_exchanged(tmp_path):
    data = source.RecordSource(make(tmp_path), 'train')
    one, two = data[0].clip, data[1].clip
    assert (one.without_picture().visual == 1).all() and (one.without_picture().audio == one.audio).all()
    swapped = one.with_sound_of(two)
    assert (swapped.audio == two.audio).all() and (swapped.visual == one.visual).all()
    raw = source.RecordSource(make(tmp_path / 'raw', None), 'train')[0]
    black = pipeline.clip_arrays(raw.clip.without_picture(), 16, 'squash')['frames']
    assert not black.any() and pipeline.clip_arrays(raw, 16, 'squash')['frames'].any()


def test_a_missing_or_wrong_black_picture_is_named(tmp_path):
    out = make(tmp_path)
    path = out / extracted.ABSENT_FILE
    assert verify.verify(out).problems == []
    for damage in (lambda: extracted.write_absent(out, np.full((2, 2, 4), np.nan, np.float16)),
                   lambda: extracted.write_absent(out, np.zeros((2, 2, 3), np.float16)),
                   lambda: path.write_bytes(b'no array'), path.unlink):  # fmt: skip
        damage()
        with pytest.raises(tfrecord.DataError, match='absent.npz .*run the same data_prep.extract command again'):
            source.RecordSource(out, 'train')
        assert any('absent.npz' in problem for problem in verify.verify(out).problems)


def test_numbers_that_are_not_finite_and_arrays_of_another_shape_are_found(tmp_path):
    out = make(tmp_path, None, fakes.HEARD)
    info = source.DatasetInfo.load(out)
    spec = dataclasses.replace(info.spec, audio=dataclasses.replace(fakes.HEARD, shape=(4,)))
    path = info.shard_paths(out, 'test')[0]
    offsets = tfrecord.read_index(path)
    with pytest.raises(ValueError, match='cannot reshape'):
        records.decode(tfrecord.read_record(path, offsets, 0), spec)
    made = [source.RecordSource(out, 'test')[i] for i in range(3)]
    audio = made[1].clip.audio.copy()
    audio[0, 1, 2] = np.inf
    made[1] = dataclasses.replace(made[1], clip=dataclasses.replace(made[1].clip, audio=audio))
    features = records.make_features(info.classes, info.spec)
    tfrecord.write_shard(path, (records.encode(record, features) for record in made))
    problems = verify.verify(out).problems
    assert "clip 'test1': its audio holds numbers that are not finite; prepare the data again" in problems
    content = json.loads((out / source.INFO_FILE).read_text())
    content['spec']['audio']['shape'] = [4]
    (out / source.INFO_FILE).write_text(json.dumps(content))
    assert any('record 0: cannot reshape' in problem for problem in verify.verify(out).problems)
