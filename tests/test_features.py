"""Tests feature clips: records and pipeline return the content of the published files, and wrong files are reported.

Memory use stays small.
"""

import dataclasses
import functools
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import planted
import pytest
import runs

from data_prep import cli, features, prepare
from stattn_jax.data import media, pipeline, records, source
from stattn_jax.data.features import FeatureSpec

AVE = dataclasses.replace(features.AVE_SPEC, visual=(2, 3, 4), audio=5)


def h5_folder(folder, clips=6, visual=(2, 3, 4), key='avadataset', **options):
    rng = np.random.default_rng(0)
    tables = {
        'visual_feature.h5': rng.gamma(1.0, 50.0, (clips, 10, *visual)),
        'audio_feature.h5': rng.gamma(1.0, 1.0, (clips, 10, 5)).astype(np.float32),
    }
    for name, table in tables.items():
        with h5py.File(folder / name, 'w') as file:
            file.create_dataset(key, data=table, **options)
    return tables


def job(row, which='main', **fields):
    return prepare.Job(f'clip{row}', 'train', (row % 3,), payload={'file': which, 'row': row}, **fields)


@pytest.mark.parametrize('options', [{}, {'chunks': True, 'compression': 'gzip'}], ids=['contiguous', 'compressed'])
def test_rows_of_a_table_come_through_records_and_pipeline(tmp_path, options):
    tables = h5_folder(tmp_path, **options)
    assert features.count_rows(tmp_path, 'main', AVE) == 6
    event = records.Event(1, 2.0, 4.0, 'both')
    jobs = [job(row, events=(event,)) for row in (4, 1, 5)] + [dataclasses.replace(job(2), split='test')]
    make_record = functools.partial(features.h5_record, str(tmp_path))
    out = tmp_path / 'data'
    prepare.prepare(out, 'ave', jobs, make_record, classes=('a', 'b', 'c'), spec=AVE, multi_label=False, workers=0)
    data = source.RecordSource(out, 'train')
    assert data.info.spec == AVE and data.info.wanted == {'train': 3, 'test': 1}
    for i, row in enumerate((4, 1, 5)):
        clip = data[i].clip
        np.testing.assert_array_equal(clip.visual, tables['visual_feature.h5'][row].astype(np.float16))
        np.testing.assert_allclose(clip.audio, tables['audio_feature.h5'][row], rtol=5e-4)
        assert clip.visual.dtype == np.float16 and data[i].events == (event,) and data[i].labels == (row % 3,)
    with_padding = list(pipeline.eval_batches(data, global_batch=2, frame_size=8, fit='squash'))
    assert with_padding[0]['frames'].shape == (2, 10, 2, 3, 4) and with_padding[0]['log_mel'].shape == (2, 10, 1, 5)
    np.testing.assert_array_equal(with_padding[1]['frames'][0], data[2].clip.visual)
    np.testing.assert_array_equal(with_padding[1]['log_mel'][0, :, 0], data[2].clip.audio)
    assert not with_padding[1]['frames'][1].any() and with_padding[1]['index'].tolist() == [2, -1]


def test_the_other_modality_can_be_taken_away_or_exchanged(tmp_path):
    h5_folder(tmp_path)
    one, two = (features.h5_record(str(tmp_path), job(row), AVE).clip for row in (0, 1))
    assert not one.without_picture().visual.any() and (one.without_picture().audio == one.audio).all()
    swapped = one.with_sound_of(two)
    assert (swapped.audio == two.audio).all() and (swapped.visual == one.visual).all()


def test_wrong_tables_are_named_before_the_work(tmp_path):
    with pytest.raises(
        cli.UsageError, match='visual_feature.h5 cannot be read.*expected visual_feature.h5, audio_feature.h5'
    ):
        features.count_rows(tmp_path, 'main', AVE)
    (tmp_path / 'a').mkdir()
    h5_folder(tmp_path / 'a', visual=(2, 3, 5))
    with pytest.raises(cli.UsageError, match=r'holds \(6, 10, 2, 3, 5\); expected \(clips, 10, 2, 3, 4\)'):
        features.count_rows(tmp_path / 'a', 'main', AVE)
    (tmp_path / 'b').mkdir()
    h5_folder(tmp_path / 'b')
    with h5py.File(tmp_path / 'b' / 'audio_feature.h5', 'w') as file:
        file['avadataset'] = np.zeros((5, 10, 5))
    with pytest.raises(cli.UsageError, match=r'hold \[5, 6\] clips; expected as many'):
        features.count_rows(tmp_path / 'b', 'main', AVE)
    (tmp_path / 'c').mkdir()
    h5_folder(tmp_path / 'c')
    with h5py.File(tmp_path / 'c' / 'visual_feature.h5', 'a') as file:
        file['other'] = 1
    with pytest.raises(cli.UsageError, match=r"keys \['avadataset', 'other'\], expected one"):
        features.count_rows(tmp_path / 'c', 'main', AVE)


def test_values_that_are_no_number_are_a_named_fault(tmp_path):
    for value, row in ((np.nan, 0), (1e6, 3)):
        folder = tmp_path / str(row)
        folder.mkdir()
        h5_folder(folder)
        with h5py.File(folder / 'visual_feature.h5', 'a') as file:
            file['avadataset'][row, 2, 1, 1, 1] = value
        with pytest.raises(media.MediaError, match='bad_features: the visual features hold NaN'):
            features.h5_record(str(folder), job(row), AVE)


def test_npy_files_are_averaged_and_joined(tmp_path):
    events = planted.write_llp(tmp_path, {'aaaaaaaaaaa': [0, 2], '-bb_bbbbbbb': [1]}, 3)
    assert set(events) == {'aaaaaaaaaaa', '-bb_bbbbbbb'}
    clip = features.npy_record(
        str(tmp_path), prepare.Job('x', 'test', (1,), payload={'id': '-bb_bbbbbbb'}), features.LLP_SPEC
    ).clip
    frames, motion, sound = (
        np.load(tmp_path / name / '-bb_bbbbbbb.npy') for name in ('res152', 'r2plus1d_18', 'vggish')
    )
    frames[:] += np.arange(80, dtype=np.float32)[:, None]
    np.save(tmp_path / 'res152' / '-bb_bbbbbbb.npy', frames)
    moved = features.npy_record(
        str(tmp_path), prepare.Job('x', 'test', (1,), payload={'id': '-bb_bbbbbbb'}), features.LLP_SPEC
    ).clip
    np.testing.assert_allclose(clip.visual[:, 0, 0, 2048:], motion, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(clip.audio, sound, rtol=1e-3, atol=1e-6)
    shift = np.arange(80).reshape(10, 8).mean(1)[:, None]
    np.testing.assert_allclose(moved.visual[:, 0, 0, :2048], clip.visual[:, 0, 0, :2048] + shift, rtol=2e-3, atol=0.1)
    assert clip.visual.shape == (10, 1, 1, 2560)


@pytest.mark.parametrize('damage, reason, detail', [
    (lambda path: path.unlink(), 'missing', 'res152/aaaaaaaaaaa.npy'),
    (lambda path: path.write_bytes(b'no array'), 'bad_features', 'res152'),
    (lambda path: path.write_bytes(path.read_bytes()[:-1]), 'bad_features', 'res152'),
    (lambda path: np.save(path, np.zeros((40, 2048), np.float32)), 'bad_features',
     r'\(40, 2048\), expected \(80, 2048\)'),
])  # fmt: skip
def test_broken_npy_files_are_counted_not_fatal(tmp_path, damage, reason, detail):
    planted.write_llp(tmp_path, {'aaaaaaaaaaa': [0]}, 3)
    damage(tmp_path / 'res152' / 'aaaaaaaaaaa.npy')
    with pytest.raises(media.MediaError, match=detail) as error:
        features.npy_record(
            str(tmp_path), prepare.Job('x', 'test', (0,), payload={'id': 'aaaaaaaaaaa'}), features.LLP_SPEC
        )
    assert error.value.reason == reason


def test_spec_survives_json():
    assert records.spec_from_json(json.loads(json.dumps(AVE.to_json()))) == AVE
    assert isinstance(records.spec_from_json(media.ClipSpec().to_json()), media.ClipSpec)
    assert FeatureSpec(3, 2.0, (1, 1, 8), 4, 'x').seconds == 6


STREAM = r"""
import re, sys
from data_prep import features, prepare
for row in range(0, 4143, 40):
    job = prepare.Job('x', 'train', (0,), payload={'file': 'main', 'row': row})
    features.h5_record(sys.argv[1], job, features.AVE_SPEC)
# Not getrusage, whose peak outlives exec: it would be that of the tests.
print(re.search(r'VmHWM:\s+(\d+)', open('/proc/self/status').read())[1])
"""


@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='reads the peak of memory from Linux')
def test_a_table_larger_than_memory_is_streamed(tmp_path):
    """Verifies that a hundred rows of both tables as they are published are read within a few megabytes.

    The tables are 8.3 GB of doubles, mostly holes on disk.
    """
    for name, shape in (('visual_feature.h5', (7, 7, 512)), ('audio_feature.h5', (128,))):
        with h5py.File(tmp_path / name, 'w') as file:
            file.create_dataset('avadataset', (4143, 10, *shape), np.float64, chunks=(1, 10, *shape))
    environment = os.environ | {'PYTHONPATH': str(runs.ROOT)}
    run = subprocess.run(
        [sys.executable, '-c', STREAM, tmp_path], env=environment, capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 600_000  # KB; imports alone are about 300 MB
