"""Measures opening a large data set of tiny records: seconds up to its first batch, and bytes read to open it.

`python -m benchmarks.input --records=200000`. The shards, indexes and their number are those that data_prep would make;
only the clips are tiny, and all alike. stattn_jax/data/tfrecord.py defines the index, and source.py opens the data.
"""

import contextlib
import itertools
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks import rounds
from data_prep import report
from stattn_jax import evaluate
from stattn_jax.data import media, pipeline, records, source, tfrecord
from stattn_jax.runtime import parallel

# Clips that data_prep puts into a shard of a large split.
_SHARD_CLIPS = 128
_SPEC = media.ClipSpec(segments=1, segment_seconds=0.1, short_side=8)


def make(out: pathlib.Path, count: int) -> None:
    """Writes a data set directory of `count` equal records of one segment.

    A record holds a JPEG of 8 pixels and its log-mel, some 2 KB.
    """
    frames, sound = np.zeros((_SPEC.segments, 8, 8, 3), np.uint8), np.zeros(1600, np.float32)
    record = records.ClipRecord('clip', media.clip_from_arrays(frames, sound, _SPEC), (0,))
    serialized = records.encode(record, records.make_features(('nothing',), _SPEC))
    shards = -(-count // _SHARD_CLIPS)
    names = [tfrecord.shard_name('many', 'train', i, shards) for i in range(shards)]
    for i, name in enumerate(names):
        tfrecord.write_shard(out / name, itertools.repeat(serialized, min(_SHARD_CLIPS, count - i * _SHARD_CLIPS)))
    report.write_info(
        out, 'many', {'train': names}, classes=('nothing',), multi_label=False, spec=_SPEC, wanted={'train': count}
    )


def open_and_read(data: pathlib.Path, batch: int, threads: int) -> dict[str, float]:
    """Returns seconds to open a data set, seconds to its first batch on the device, and bytes read to open it.

    Both times start before opening. The bytes are None where the system does not report them.
    """
    place = parallel.make_strategy('jit', jax.local_devices()[:1]).place_batch
    before, begun = _bytes_read(), time.perf_counter()
    opened = source.RecordSource(data, 'train')
    seconds, after = time.perf_counter() - begun, _bytes_read()
    batches = pipeline.train_batches(
        opened, global_batch=batch, seed=0, threads=threads, frame_size=_SPEC.short_side, fit='squash'
    )
    with (
        contextlib.closing(batches),
        contextlib.closing(parallel.prefetch(map(evaluate.device_part, batches), place)) as feed,
    ):
        jax.block_until_ready(next(feed))
        first = time.perf_counter() - begun
    return {'open': seconds, 'first_batch': first, 'bytes': None if before is None else after - before}


def measure(count: int, batch: int, threads: int, times: int) -> dict[str, Any]:
    """Makes the records in a temporary folder and opens them, once uncached and then `times` more; JSON types only.

    The first time no page of them is in memory.
    """
    with tempfile.TemporaryDirectory(prefix='stattn-many-') as folder:
        data = pathlib.Path(folder)
        make(data, count)
        sizes = {path: path.stat().st_size for path in data.iterdir()}
        _forget(sizes)
        first = open_and_read(data, batch, threads)
        again = [open_and_read(data, batch, threads) for _ in range(times)]
    index = sum(size for path, size in sizes.items() if path.suffix == tfrecord.INDEX_SUFFIX)
    return {
        'records': count,
        'shards': -(-count // _SHARD_CLIPS),
        'bytes': sum(sizes.values()),
        'index_bytes': index,
        'opening_read_bytes': first['bytes'],
        'cold': {'open_seconds': first['open'], 'first_batch_seconds': first['first_batch']},
        'again': {f'{name}_seconds': rounds.spread([one[name] for one in again]) for name in ('open', 'first_batch')},
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yields the result of `measure` as lines of text."""
    yield (
        f'{found["records"]} records in {found["shards"]} shards, {found["bytes"] / 1e6:.0f} MB, of them '
        f'{found["index_bytes"] / 1e6:.2f} MB index'
    )
    read = found['opening_read_bytes']
    yield 'opening read ' + ('an unknown number of bytes' if read is None else f'{read / 1e6:.2f} MB')
    cold, again = found['cold'], found['again']
    yield (
        f'not in memory: opened in {cold["open_seconds"]:.3f} s, first batch after {cold["first_batch_seconds"]:.3f} '
        's; '
        f'in memory: {rounds.shown(again["open_seconds"], ".3f")} s and '
        f'{rounds.shown(again["first_batch_seconds"], ".3f")} s'
    )


def _bytes_read() -> int | None:
    """Returns the bytes that this process has requested from the system so far; None if that is not reported."""
    try:
        return int(pathlib.Path('/proc/self/io').read_text().split()[1])
    except OSError:
        return None


def _forget(paths) -> None:
    """Drops files from the page cache, where the system can."""
    if not hasattr(os, 'posix_fadvise'):
        return
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
