"""Tests of pipeline.py.

The order is a function of (seed, step), every evaluation record counts once, and frames keep their geometry.
"""

import contextlib
import io
import itertools
import subprocess
import sys

import fakes
import jax
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from stattn_jax.data import media, pipeline, source, tfrecord
from stattn_jax.runtime import parallel

SIZE = {'frame_size': 16, 'fit': 'squash'}


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
    return fakes.dataset(tmp_path_factory.mktemp('pipeline') / 'd', 10, 7)


@pytest.fixture(scope='module')
def train(directory):
    return source.RecordSource(directory, 'train')


@pytest.fixture(scope='module')
def test_split(directory):
    return source.RecordSource(directory, 'test')


def _take(count, *arguments, **options):
    with contextlib.closing(pipeline.train_batches(*arguments, **{**SIZE, **options})) as batches:
        return list(itertools.islice(batches, count))


def _assert_same(left, right):
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert value.dtype == right[name].dtype
        np.testing.assert_array_equal(value, right[name], err_msg=name)


def test_rows_are_the_records_they_name(train):
    (batch,) = _take(1, train, global_batch=4, seed=0)
    shapes = {name: (value.dtype.name, value.shape) for name, value in batch.items()}
    assert shapes == {
        'frames': ('uint8', (4, 3, 16, 16, 3)),
        'log_mel': ('float16', (4, *fakes.SPEC.mel_shape)),
        'valid': ('bool', (4, 3)),
        'modalities': ('bool', (4, 2)),
        'labels': ('float32', (4, 3)),
        'weight': ('float32', (4,)),
        'index': ('int32', (4,)),
    }
    for row, number in enumerate(batch['index']):
        record = train[number]
        arrays = pipeline.clip_arrays(record, **SIZE)
        for name in ('frames', 'log_mel', 'valid'):
            np.testing.assert_array_equal(batch[name][row], arrays[name])
        assert np.flatnonzero(batch['labels'][row]).tolist() == list(record.labels)
    assert batch['weight'].tolist() == [1] * 4


def test_each_epoch_is_a_permutation_of_its_own(train):
    # 10 records in batches of 4: the ends of epochs fall inside batches.
    stream = np.concatenate([batch['index'] for batch in _take(15, train, global_batch=4, seed=3)])
    epochs = stream.reshape(6, 10)
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_seeds_differ(train):
    first, second = (
        np.concatenate([b['index'] for b in _take(5, train, global_batch=4, seed=seed)]) for seed in (0, 1)
    )
    assert (first != second).any()


@pytest.mark.parametrize('count', [1, 2, 4])
@pytest.mark.parametrize('threads', [0, 1, 3])
def test_global_batch_is_the_same_for_any_processes_and_threads(train, count, threads):
    whole = _take(4, train, global_batch=8, seed=5)
    parts = [
        _take(4, train, global_batch=8, seed=5, process_index=p, process_count=count, threads=threads)
        for p in range(count)
    ]
    for step, batch in enumerate(whole):
        joined = {name: np.concatenate([part[step][name] for part in parts]) for name in batch}
        _assert_same(joined, batch)


@pytest.mark.parametrize('processes, devices', [(1, 1), (1, 4), (2, 2), (4, 1)])
def test_a_micro_batch_has_the_same_clips_on_any_processes_and_devices(train, processes, devices):
    (whole,) = _take(1, train, global_batch=24, seed=5)
    options = {'process_count': processes, 'local_devices': devices, 'micro_batches': 3, 'threads': 2}
    parts = [_take(1, train, global_batch=24, seed=5, process_index=p, **options)[0] for p in range(processes)]
    rows = np.concatenate([part['index'] for part in parts])
    by_device = rows.reshape(processes * devices, 3, -1)
    np.testing.assert_array_equal(by_device.swapaxes(0, 1).ravel(), whole['index'])


def test_micro_batches_that_do_not_split_over_the_devices_are_refused(train):
    with pytest.raises(ValueError, match='global batch 24 must be a multiple of 5 micro-batches on each of 2 devices'):
        _take(1, train, global_batch=24, seed=0, local_devices=2, micro_batches=5)


def test_a_batch_on_the_device_keeps_its_memory_while_later_ones_are_read(train):
    place = parallel.make_strategy('jit', jax.local_devices()[:1]).place_batch
    with contextlib.closing(pipeline.train_batches(train, global_batch=4, seed=0, threads=2, **SIZE)) as batches:
        placed = [place(next(batches)) for _ in range(3)]
        seen = {next(batches)['frames'].ctypes.data for _ in range(20)}
    # On a CPU the arrays stay in the memory of the batches, while the memory of other batches is reused.
    held = {x['frames'].unsafe_buffer_pointer() for x in placed}
    assert len(held) == 3 and len(seen) < 10 and not held & seen
    for ours, other in zip(placed, _take(3, train, global_batch=4, seed=0)):
        _assert_same(jax.device_get(ours), other)


@pytest.mark.parametrize('threads, together', [(0, 6), (1, 6), (2, 3), (3, 2), (8, 1)])
def test_rows_that_a_thread_takes_at_a_time_divide_the_batch(train, threads, together):
    assert pipeline._Rows(24, 1, 2, threads).together == together
    batches = _take(3, train, global_batch=24, seed=0, threads=threads, process_index=1, process_count=2)
    for ours, one in zip(batches, _take(3, train, global_batch=24, seed=0, threads=1)):
        _assert_same(ours, {name: x[12:] for name, x in one.items()})


@pytest.mark.parametrize('start', [1, 3, 7])
def test_start_step_skips_exactly(train, start):
    whole = _take(start + 2, train, global_batch=4, seed=5, process_index=1, process_count=2)
    resumed = _take(2, train, global_batch=4, seed=5, process_index=1, process_count=2, start_step=start)
    for left, right in zip(resumed, whole[start:], strict=True):
        _assert_same(left, right)


def test_start_far_away_is_reached_without_reading_up_to_it(train):
    (batch,) = _take(1, train, global_batch=4, seed=5, start_step=2**30)
    assert batch['weight'].sum() == 4


def test_a_split_smaller_than_the_batch_repeats(train):
    (batch,) = _take(1, train, global_batch=25, seed=0)
    counts = np.bincount(batch['index'], minlength=10)
    assert counts.sum() == 25
    assert set(counts) == {2, 3}


@pytest.mark.parametrize('count', [1, 2, 4])
@pytest.mark.parametrize('global_batch', [4, 8, 12])
def test_eval_counts_every_record_once(test_split, global_batch, count):
    parts = []
    for p in range(count):
        batches = pipeline.eval_batches(
            test_split, global_batch=global_batch, process_index=p, process_count=count, **SIZE
        )
        with contextlib.closing(batches):
            parts.append(list(batches))
    assert {len(part) for part in parts} == {-(-7 // global_batch)}
    assert {batch['frames'].shape for part in parts for batch in part} == {(global_batch // count, 3, 16, 16, 3)}
    index = np.concatenate([np.concatenate([part[step]['index'] for part in parts]) for step in range(len(parts[0]))])
    weight = np.concatenate([np.concatenate([part[step]['weight'] for part in parts]) for step in range(len(parts[0]))])
    assert index[:7].tolist() == list(range(7))
    assert (index[7:] == -1).all()
    np.testing.assert_array_equal(weight, index >= 0)
    padding = [batch for part in parts for batch in part if (batch['index'] < 0).any()]
    for batch in padding:
        empty = batch['index'] < 0
        assert all(not batch[name][empty].any() for name in ('frames', 'log_mel', 'valid', 'labels', 'weight'))


def test_wrong_batch_fit_and_empty_split_are_refused(train, test_split, monkeypatch):
    with pytest.raises(ValueError, match='global batch 6 must be a positive multiple of the number of processes, 4'):
        pipeline.train_batches(train, global_batch=6, seed=0, process_count=4, **SIZE)
    with pytest.raises(ValueError, match="fit is 'stretch', expected one of squash, crop"):
        pipeline.eval_batches(train, global_batch=4, frame_size=16, fit='stretch')
    monkeypatch.setitem(test_split.info.splits, 'test', 0)
    with pytest.raises(tfrecord.DataError, match="split 'test' holds no clips"):
        pipeline.eval_batches(test_split, global_batch=4, **SIZE)


def test_damaged_record_stops_the_batches_with_its_place(tmp_path):
    directory = fakes.dataset(tmp_path / 'd', 6)
    fakes.flip_byte(directory / 'fake-train.tfrecord-00001-of-00002', 700)
    damaged = source.RecordSource(directory, 'train')
    with (
        contextlib.closing(pipeline.eval_batches(damaged, global_batch=2, **SIZE)) as batches,
        pytest.raises(tfrecord.DataError, match='fake-train.tfrecord-00001-of-00002: record 0 at byte 0 is damaged'),
    ):
        list(batches)


def _gradient_clip(height, width, jpeg_height, jpeg_width):
    """A clip whose red channel is x and green channel is y of the frame, both 0 to 250."""
    y, x = np.meshgrid(
        (np.arange(jpeg_height) + 0.5) / jpeg_height, (np.arange(jpeg_width) + 0.5) / jpeg_width, indexing='ij'
    )
    frame = np.stack([x * 250, y * 250, np.full_like(x, 100)], -1).round().astype(np.uint8)
    jpeg = simplejpeg.encode_jpeg(frame, quality=100, colorsubsampling='444')
    mel = np.zeros(fakes.SPEC.mel_shape, np.float16)
    return media.Clip([jpeg] * 3, mel, np.ones(3, bool), height, width, 3.0, ())


@pytest.mark.parametrize('fit', pipeline.FITS)
@pytest.mark.parametrize(('height', 'width'), [(120, 200), (200, 120), (96, 96)])
@pytest.mark.parametrize('frame_size', [32, 48, 96])
def test_frame_affine_maps_a_pixel_to_its_place_in_the_video(height, width, fit, frame_size):
    frames = pipeline.clip_arrays(_gradient_clip(2 * height, 2 * width, height, width), frame_size, fit)['frames']
    x_scale, x_offset, y_scale, y_offset = pipeline.frame_affine(2 * height, 2 * width, fit)
    centre = (np.arange(frame_size) + 0.5) / frame_size
    inner = slice(2, -2)  # the resampling filter is cut off at the frame's edge
    expected_x = np.broadcast_to((x_offset + x_scale * centre) * 250, (frame_size, frame_size))
    expected_y = np.broadcast_to(((y_offset + y_scale * centre) * 250)[:, None], (frame_size, frame_size))
    np.testing.assert_allclose(frames[0, inner, inner, 0], expected_x[inner, inner], atol=4)
    np.testing.assert_allclose(frames[0, inner, inner, 1], expected_y[inner, inner], atol=4)


def test_crop_keeps_the_aspect_and_squash_keeps_the_frame():
    assert pipeline.frame_affine(90, 160, 'squash') == (1, 0, 1, 0)
    x_scale, x_offset, y_scale, y_offset = pipeline.frame_affine(90, 160, 'crop')
    assert x_scale * 160 == pytest.approx(y_scale * 90)
    assert (x_offset + x_scale / 2, y_offset + y_scale / 2) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize('stored, left, top', [((64, 86), 11, 0), ((85, 64), 0, 10)])
def test_a_crop_that_needs_no_resizing_is_cut_to_the_nearest_pixel(stored, left, top):
    clip = _gradient_clip(*(10 * side for side in stored), *stored)
    frames = pipeline.clip_arrays(clip, 64, 'crop')['frames']
    np.testing.assert_array_equal(frames[0], simplejpeg.decode_jpeg(clip.frames[0])[top : top + 64, left : left + 64])


def test_stored_squares_are_whole_frames_made_square():
    """Stored squares equal whole frames that squash makes square on reading; a crop of them equals the source's."""
    x = np.linspace(0, 255, 160).astype(np.uint8)
    frames = np.broadcast_to(x[None, None, :, None], (3, 90, 160, 3))
    square, whole = (
        media.clip_from_arrays(
            frames, np.zeros(48000, np.float32), media.ClipSpec(segments=3, short_side=64, square=kind)
        )
        for kind in (True, False)
    )
    assert simplejpeg.decode_jpeg_header(square.frames[0])[:2] == (64, 64) and (square.height, square.width) == (
        90,
        160,
    )
    for fit in ('squash', 'crop'):
        one, other = (pipeline.clip_arrays(clip, 64, fit)['frames'].astype(int) for clip in (square, whole))
        assert np.abs(one - other).max() <= 4


def test_a_crop_of_a_stored_square_is_not_decoded_smaller_than_it_needs():
    """At half the stored size, a crop of a wide picture needs more than half of the square's columns."""
    stripes = np.broadcast_to(
        (np.arange(1280) // 14 % 2 * 255).astype(np.uint8)[None, None, :, None], (3, 720, 1280, 3)
    )
    spec = media.ClipSpec(segments=3, short_side=256, square=True, jpeg_quality=100)
    clip = media.clip_from_arrays(stripes, np.zeros(48000, np.float32), spec)
    whole = Image.fromarray(simplejpeg.decode_jpeg(clip.frames[0])[:, 56:200])
    contrast = np.asarray(whole.resize((112, 112), Image.Resampling.BILINEAR)).std()
    # Decoded to half its size, 72 columns wide, it keeps 0.69 of the contrast.
    assert pipeline.clip_arrays(clip, 112, 'crop')['frames'].std() > 0.85 * contrast


def test_shrinking_averages_instead_of_dropping_pixels():
    """A one-pixel checkerboard has mean 128; a resampler that skips pixels would return stripes."""
    board = np.indices((128, 128)).sum(0) % 2 * 255
    jpeg = simplejpeg.encode_jpeg(
        np.repeat(board[..., None], 3, -1).astype(np.uint8), quality=100, colorsubsampling='444'
    )
    mel = np.zeros(fakes.SPEC.mel_shape, np.float16)
    clip = media.Clip([jpeg] * 3, mel, np.ones(3, bool), 128, 128, 3.0, ())
    for size in (16, 40):
        frames = pipeline.clip_arrays(clip, size, 'squash')['frames'].astype(float)
        assert frames.mean() == pytest.approx(127.5, abs=2)
        assert frames[:, 4:-4, 4:-4].std() < 3


def test_full_size_frames_are_the_jpeg_pixels():
    clip = _gradient_clip(64, 64, 64, 64)
    frames = pipeline.clip_arrays(clip, 64, 'crop')['frames']
    np.testing.assert_array_equal(frames[0], simplejpeg.decode_jpeg(clip.frames[0]))
    np.testing.assert_allclose(frames[0], np.asarray(Image.open(io.BytesIO(clip.frames[0]))), atol=2)  # another decoder


def test_clip_and_record_go_one_way():
    record = fakes.record(4)
    _assert_same(pipeline.clip_arrays(record, **SIZE), pipeline.clip_arrays(record.clip, **SIZE))


def test_an_iterator_left_open_is_silent_at_exit(directory):
    code = (
        'import sys; from stattn_jax.data import pipeline, source; '
        'split = source.RecordSource(sys.argv[1], "train"); '
        'batches = pipeline.train_batches(split, global_batch=4, seed=0, frame_size=16, fit="crop"); '
        'print(next(batches)["index"].shape)'
    )
    run = subprocess.run(
        [sys.executable, '-c', code, str(directory)], check=False, capture_output=True, text=True, timeout=300
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, '(4,)\n', '')
