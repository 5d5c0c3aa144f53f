"""Tests benchmarks/input.py and prepare.py: all compared sides do the same work, and opening reads only the index."""

import collections
import contextlib
import dataclasses
import json
import sys
from concurrent import futures

import av
import numpy as np
import pytest
import runs
import simplejpeg

from benchmarks import input as input_benchmark
from benchmarks import input_many, input_tf, prepare, prepare_frames, rounds
from data_prep import cli
from stattn_jax.data import media, pipeline, source

SPEC = media.ClipSpec(segments=runs.SEGMENTS, short_side=32)


@pytest.fixture(scope='module')
def setting(tiny_data):
    return input_benchmark.Setting(str(tiny_data), 'train', batch=4, threads=2, frame_size=8, fit='squash')


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    """Makes two videos of a scene of six seconds and returns them with their folder.

    One video has a keyframe every ten frames, the other only at its start.
    """
    folder = tmp_path_factory.mktemp('videos')
    return folder, prepare.make_videos(folder, 1, runs.SEGMENTS, 64, [10, 1000])


def run(module, *flags: str) -> int:
    """Runs a command in the style of data_prep's in this process and returns its exit code."""
    module.FLAGS.unparse_flags()
    return cli.exit_code(['command', *flags], module.main, module.FLAGS, module.__doc__)


def test_sides_take_turns_and_ratios_are_those_of_a_round():
    order = []

    def side(name, values):
        return lambda: order.append(name) or next(values)

    found = rounds.alternate({'a': side('a', iter([2.0, 8.0, 9.0])), 'b': side('b', iter([1.0, 2.0, 3.0]))}, 3)
    assert order == list('abbaab')
    assert rounds.ratio(found['a'], found['b']) == {'median': 3, 'low': 2, 'high': 4}


def test_the_bare_side_decodes_the_jpegs_of_the_pipeline(setting, monkeypatch):
    decoded, plain = collections.Counter(), simplejpeg.decode_jpeg

    def noted(jpeg, **options):
        decoded[jpeg, *sorted((name, x) for name, x in options.items() if name != 'buffer')] += 1
        return plain(jpeg, **options)

    with contextlib.closing(setting.open()) as batches:
        expected = [next(batches)['index'] for _ in range(4)][1:]
    monkeypatch.setattr(simplejpeg, 'decode_jpeg', noted)
    reading = input_benchmark.read(setting, lambda batch: batch, 3, warmup=1)
    of_pipeline = dict(decoded)
    np.testing.assert_array_equal(reading.numbers, expected)
    data = source.RecordSource(setting.data, setting.split)
    clips = [data[int(number)].clip.frames for number in np.concatenate(reading.numbers)]
    decoded.clear()
    with futures.ThreadPoolExecutor(2) as pool:
        assert input_benchmark.decode(clips, setting.frame_size, pool) > 0
    assert decoded.total() == 12 * runs.SEGMENTS and set(decoded) <= set(of_pipeline)
    assert sorted(jpeg for jpeg, *_ in decoded.elements()) == sorted(jpeg for frames in clips for jpeg in frames)


def test_input_compares_in_one_run(setting):
    found = input_benchmark.measure(setting, seconds=0.01, count=2, with_tf=False)
    assert found['clips_a_round'] % 4 == 0 and set(found['ratios']) == {'pipeline/decode', 'pipeline/arrays'}
    assert all(spread['median'] > 0 for spread in found['clips_per_second'].values())
    assert found['epoch_end']['longest_near_seconds']['median'] > 0
    assert len(list(input_benchmark.lines(json.loads(json.dumps(found))))) == 7


def test_absent_tensorflow_is_one_line(setting, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'tensorflow', None)
    assert run(input_benchmark, f'--data={setting.data}', '--tf') == 2
    assert 'pip install ".[test_tf]"' in capsys.readouterr().err


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('side', [runs.SIDE, 8])
def test_tf_data_gives_our_clips(setting, side):
    tf = pytest.importorskip('tensorflow', reason='needs TensorFlow: pip install ".[test_tf]"', exc_type=ImportError)
    setting = dataclasses.replace(setting, frame_size=side)
    data = source.RecordSource(setting.data, setting.split)
    path = str(data.info.shard_paths(setting.data, setting.split)[0])
    parse = input_tf.parser(setting, data.info)
    for number, serialized in zip(range(3), tf.data.TFRecordDataset(path)):
        ours, theirs = pipeline.clip_arrays(data[number], side, 'squash'), parse(serialized)
        for name in ('log_mel', 'valid'):
            np.testing.assert_array_equal(theirs[name], ours[name])
        np.testing.assert_array_equal(np.flatnonzero(theirs['labels']), data[number].labels)
        # Both decoders are TurboJPEG; only ours averages when it shrinks.
        distance = np.abs(theirs['frames'].numpy().astype(int) - ours['frames'])
        assert distance.max() == 0 if side == runs.SIDE else distance.mean() < 8
    batch = next(input_tf.batches(setting, data.info))
    with contextlib.closing(setting.open()) as batches:
        assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {
            name: (x.shape, x.dtype) for name, x in next(batches).items() if name in batch
        }


def test_opening_many_records_reads_their_index_alone(tmp_path):
    input_many.make(tmp_path, 300)
    sizes = {path: path.stat().st_size for path in tmp_path.iterdir()}
    index = sum(size for path, size in sizes.items() if path.suffix == '.index')
    found = input_many.open_and_read(tmp_path, batch=4, threads=1)
    assert 0 < found['open'] < found['first_batch'] and index < 0.02 * sum(sizes.values())
    if found['bytes'] is None:
        pytest.skip('this system does not count the bytes that a process reads')
    # Besides the index, stattn.json is read; other threads read hardly anything.
    assert index <= found['bytes'] < index + 20_000 < 0.1 * sum(sizes.values())


@pytest.mark.parametrize('way', [prepare_frames.bare, prepare_frames.bare_skip])
def test_bare_preparation_gives_our_clip(videos, way):
    folder, names = videos
    for (name,) in names.values():
        clip = media.read_clip(folder / name, SPEC)
        jpegs, log_mel = way(folder / name, SPEC)
        assert jpegs == clip.frames
        np.testing.assert_array_equal(log_mel, clip.log_mel)


@pytest.mark.parametrize('way', [prepare_frames.seek, prepare_frames.skip])
def test_every_way_to_the_frames_gives_the_same(videos, way):
    folder, names = videos
    for (name,) in names.values():
        for times in (prepare_frames.centres(SPEC), [0.0, 0.01, 2.5, 2.51, 100.0]):
            expected, found = prepare_frames.whole(folder / name, times), way(folder / name, times)
            assert [frame.pts for frame in found] == [frame.pts for frame in expected]
            for a, b in zip(found, expected):
                np.testing.assert_array_equal(a.to_ndarray(), b.to_ndarray())


def test_keyframes_have_the_configured_distance(videos):
    folder, names = videos
    for distance, (name,) in names.items():
        with av.open(str(folder / name)) as container:
            stream = container.streams.video[0]
            _, keys = prepare_frames._index(container, stream)
            shown = np.round(keys * float(stream.time_base) * prepare.FPS)
        np.testing.assert_array_equal(shown, np.arange(0, runs.SEGMENTS * prepare.FPS, distance))


def test_preparation_compares_in_one_run(videos):
    folder, names = videos
    found = prepare.compare(folder, names[10], SPEC, 1)
    assert set(found['ratios']) == {'bare/record', 'bare_skip/record', 'whole/seek', 'whole/skip'}
    scaled = prepare.scaling(folder, names[10], SPEC, [1], 8, 1)
    assert scaled['clips_per_second']['1']['median'] > 0


@pytest.mark.parametrize(
    'module, flag, words',
    [
        (input_benchmark, '--batch=4', '--data is missing'),
        (input_benchmark, '--data=/nowhere', 'does not exist'),
        (prepare, '--workers=two', '--workers=two; expected whole numbers'),
    ],
)
def test_wrong_use_is_one_line(module, flag, words, capsys):
    assert run(module, flag) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
