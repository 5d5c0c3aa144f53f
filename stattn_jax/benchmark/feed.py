"""Measures the input by itself and with the training step: clips per second and the step's waiting time.

This mode needs prepared data (config.data.dir) and the packages that read them.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from stattn_jax import command, evaluate, run
from stattn_jax.benchmark import model
from stattn_jax.data import pipeline, source, tfrecord
from stattn_jax.runtime import parallel


def data_of(config: ml_collections.ConfigDict) -> model.Data:
    """Returns the shape of the clips in config.data.dir; raises RunError where it holds no data or damaged data."""
    try:
        info = source.DatasetInfo.load(config.data.dir)
    except tfrecord.DataError as error:
        raise command.RunError(str(error), code=2 if isinstance(error, tfrecord.NoDataError) else 1) from None
    _, (mel_shape, _) = info.spec.shapes(config.data.frame_size)
    return model.Data(len(info.classes), info.spec.segments, mel_shape[1:])


def measure(
    config: ml_collections.ConfigDict, data: model.Data, case: model.Case, *, steps: int, warmup: int
) -> dict[str, Any]:
    """Reads `steps` batches alone, then trains on as many; returns the measurements in JSON types.

    first_batch_seconds: the time from opening the records to the first batch in host memory.
    wait_share: the fraction of the steps' time that was spent waiting for a batch.
    """
    strategy = parallel.make_strategy(case.strategy)
    strategy.check_batch(case.batch)
    begun = time.perf_counter()
    with _batches(config, case.batch) as batches:
        next(batches)
        first = time.perf_counter() - begun
        alone = _seconds(lambda: next(batches), steps, warmup)
    made = model.build(config, data, case, strategy)
    with _batches(config, case.batch) as batches:
        feed = parallel.prefetch(map(evaluate.device_part, batches), strategy.place_batch)
        with contextlib.closing(feed):
            waited = []

            def advance():
                waited.append(feed.waited)
                return made.advance(next(feed))

            together = _seconds(advance, steps, warmup)
            share = (feed.waited - waited[warmup]) / (together * steps)
    return {
        **dataclasses.asdict(case),
        'mode': 'fed',
        'first_batch_seconds': first,
        'input_clips_per_second': case.batch / alone,
        'clips_per_second': case.batch / together,
        'wait_share': share,
        **strategy.describe(),
    }


def _batches(config, batch: int):
    """Opens a stream of this process's training batches."""
    data, options = source.RecordSource(config.data.dir, config.data.split), run.input_options(config)
    return contextlib.closing(pipeline.train_batches(data, global_batch=batch, seed=config.seed, **options))


def _seconds(call: Callable[[], Any], steps: int, warmup: int) -> float:
    """Returns the mean seconds of a call over `steps` consecutive calls; the mean, since batches arrive in bursts."""
    for _ in range(warmup):
        jax.block_until_ready(call())
    start = time.perf_counter()
    for _ in range(steps):
        result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / steps
