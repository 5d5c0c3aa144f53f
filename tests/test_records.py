"""Tests of records.py: written records come back, TFDS reads them too, and any damaged byte is found."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys

import fakes
import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from stattn_jax.data import records


def _flat(record):
    """A record as a dict that can be compared with ==."""
    clip = {field.name: getattr(record.clip, field.name) for field in dataclasses.fields(record.clip)}
    clip.update(log_mel=clip['log_mel'].tolist(), valid=clip['valid'].tolist(), log_mel_dtype=clip['log_mel'].dtype)
    return {**{field.name: getattr(record, field.name) for field in dataclasses.fields(record)}, 'clip': clip}


@pytest.mark.parametrize('seed', range(4))
def test_decode_undoes_encode(seed):
    features = records.make_features(fakes.CLASSES, fakes.SPEC)
    record = fakes.record(seed, video='a/b ü.mp4')
    again = records.decode(records.encode(record, features), fakes.SPEC)
    assert _flat(again) == _flat(record)


def test_masks_keep_every_pixel_and_are_made_square_by_the_nearest_pixel():
    pixels = np.random.default_rng(0).random((6, 9)) < 0.5
    mask = records.Mask.of_pixels(1.5, None, pixels)
    np.testing.assert_array_equal(mask.pixels(), pixels)
    # Pixel centres of the square, as indices of rows and columns.
    rows, columns = (((np.arange(4) + 0.5) / 4 * side).astype(int) for side in pixels.shape)
    np.testing.assert_array_equal(mask.pixels(4), pixels[rows][:, columns])
    with pytest.raises(ValueError, match=r'its mask at 0\.5 s is no PNG'):
        records.Mask(0.5, 0, mask.png[:40]).pixels()


def test_records_from_before_masks_existed_can_be_read():
    record = fakes.record(2)
    serialized = records.encode(record, records.make_features(fakes.CLASSES, fakes.SPEC))
    example = tf_example_pb2.Example.FromString(serialized)
    for name in [name for name in example.features.feature if name.startswith('masks/')]:
        del example.features.feature[name]
    old = records.decode(example.SerializeToString(), fakes.SPEC)
    assert len(record.masks) == 2 and _flat(old) == _flat(dataclasses.replace(record, masks=()))


def test_tfds_decodes_the_same_record():
    features = records.make_features(fakes.CLASSES, fakes.SPEC)
    record = fakes.record(11)
    seen = features.deserialize_example_np(records.encode(record, features))
    np.testing.assert_array_equal(seen['log_mel'], record.clip.log_mel)
    np.testing.assert_array_equal(seen['valid'], record.clip.valid)
    assert [frame.shape for frame in seen['frames']] == [(24, 32, 3)] * 3
    assert list(seen['labels']) == list(record.labels)
    assert list(seen['events']['onset']) == [event.onset for event in record.events]
    assert [list(box) for box in seen['boxes']['box']] == [[b.x0, b.y0, b.x1, b.y1] for b in record.boxes]
    assert [png.shape for png in seen['masks']['png']] == [(48, 64, 1)] * 2 and list(seen['masks']['label']) == [1, -1]
    for png, mask in zip(seen['masks']['png'], record.masks):
        np.testing.assert_array_equal(png[..., 0], mask.pixels())
    assert features['events']['modality'].int2str(int(seen['events']['modality'][1])) == record.events[1].modality


def test_bytes_are_the_same_in_every_process():
    code = (
        'import hashlib, fakes; from stattn_jax.data import records; '
        'features = records.make_features(fakes.CLASSES, fakes.SPEC); '
        'print(hashlib.sha256(records.encode(fakes.record(11), features)).hexdigest())'
    )
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(['tests', '.', *sys.path])}
    digests = [
        subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, check=True).stdout for _ in range(3)
    ]
    assert len(set(digests)) == 1
    assert len(digests[0].strip()) == 64


# TFDS 4.9.10 asks protobuf 6 for what protobuf calls deprecated; protobuf 7 does not warn.
@pytest.mark.filterwarnings('ignore:label\\(\\) is deprecated:DeprecationWarning')
def test_directory_opens_with_tfds(tmp_path):
    fakes.dataset(tmp_path / 'd', 9, 2)
    builder = tfds.builder_from_directory(str(tmp_path / 'd'))
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {'train': 9, 'test': 2}
    assert builder.info.splits['train'].shard_lengths == [4, 4, 1]
    assert builder.info.features['labels'].feature.names == list(fakes.CLASSES)
    files = [os.path.basename(path) for path in builder.info.splits['train'].filenames]
    assert all((tmp_path / 'd' / name).exists() for name in files)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec('tensorflow') is None, reason='TensorFlow is not installed (extra test-tf)'
)
def test_tensorflow_reads_decoded_frames(tmp_path):
    """TensorFlow runs in a separate process because this suite never imports it."""
    fakes.dataset(tmp_path / 'd', 3)
    code = (
        'import json, sys, tensorflow_datasets as tfds; '
        'data = tfds.builder_from_directory(sys.argv[1]).as_dataset(split="train"); '
        'print(json.dumps([[e["clip_id"].numpy().decode(), e["frames"].shape.as_list(), '
        'float(e["log_mel"].numpy().sum(dtype="float64"))]'
        ' for e in data]))'
    )
    run = subprocess.run([sys.executable, '-c', code, str(tmp_path / 'd')], capture_output=True, check=True, text=True)
    seen = {clip_id: (frames, total) for clip_id, frames, total in json.loads(run.stdout.splitlines()[-1])}
    for job in fakes.jobs(3):
        mel = fakes.make_record(job, fakes.SPEC).clip.log_mel
        assert seen[job.clip_id] == ([3, 24, 32, 3], pytest.approx(mel.sum(dtype='float64')))
