"""Writes shards with an Apache Beam pipeline, on this machine or on many. Needs the extra `beam`.

The module is imported only on demand. Every worker must have this program installed and see the data set's directory
(and the videos) under the same absolute path, on a shared file system. A worker writes the same files as a local
process, byte for byte, so that either runner continues where the other was stopped. work.py defines the work of a
worker, and local.py runs on one machine without Beam.
"""

import contextlib
import dataclasses
import functools
import io
import pickle
import re
import threading
import zlib
from collections.abc import Iterator

import apache_beam
from apache_beam.options import pipeline_options

from data_prep import work
from stattn_jax.progress import ProgressLine

# Interval (s) of the checks for finished shards.
_WATCH = 1.0
# Beam has a runner for Dask, which its list of short names lacks (2.77).
_RUNNERS = {'DaskRunner': 'apache_beam.runners.dask.dask_runner.DaskRunner'}
# Beam appends the step's name to a worker's message, and passes it as text from other processes.
_WORKER_ERROR = re.compile(r'\bPrepareError: (.*?)(?: \[while running .*)?$', re.MULTILINE)


def parse(options: list[str]) -> pipeline_options.PipelineOptions:
    """Parses Beam's own options; the default of `--runner` is FnApiRunner.

    FnApiRunner is the direct runner that downloads no program.

    Raises:
      UsageError: Beam rejects an option.
    """
    usage = io.StringIO()
    try:
        # argparse prints a few hundred lines and exits.
        with contextlib.redirect_stderr(usage):
            parsed = pipeline_options.PipelineOptions(options)
            standard = parsed.view_as(pipeline_options.StandardOptions)
            standard.runner = _RUNNERS.get(standard.runner, standard.runner) or 'FnApiRunner'
            on_dask = standard.runner in _RUNNERS.values()
            if on_dask:
                import distributed  # noqa: F401
            # This imports the runner's module, which declares the options of a runner.
            apache_beam.Pipeline(options=parsed)
            chosen = parsed.get_all_options()
            if on_dask and not (chosen['npartitions'] or chosen['partition_size']):
                # Each shard is a task of its own; the default of Beam is 128 shards that one worker writes in turn.
                return pipeline_options.PipelineOptions([*options, '--dask_partition_size=1'], runner=standard.runner)
    except (SystemExit, ValueError, ImportError) as error:
        lines = (usage.getvalue() if isinstance(error, SystemExit) else str(error)).splitlines()
        missing = isinstance(error, ImportError) and error.name in ('dask', 'distributed')
        fix = '; install it: pip install ".[beam,dask]"' if missing else ''
        raise work.UsageError(f'Beam refuses its options {" ".join(options)}: {lines[-1]}{fix}') from None
    return parsed


def run(
    maker: work.Maker, todo: list[work.Shard], progress: ProgressLine, options: pipeline_options.PipelineOptions
) -> None:
    """Writes the shards with a pipeline and waits for it; all workers must see the directory of `maker`.

    Raises:
      PrepareError: a shard cannot be written, or the pipeline failed.
    """
    if not todo:
        return
    maker = dataclasses.replace(maker, directory=maker.directory.absolute())
    # Bytes need none of Beam's coders and keep 200,000 clips small, because the elements travel inside the pipeline's
    # graph.
    packed = [zlib.compress(pickle.dumps(shard)) for shard in todo]
    pipeline = apache_beam.Pipeline(options=options)
    (
        pipeline
        | 'shards' >> apache_beam.Create(packed)
        | 'spread' >> apache_beam.Reshuffle()
        | 'write' >> apache_beam.Map(functools.partial(_write, maker))
    )
    with _watched(maker, todo, progress):
        try:
            _wait(pipeline)
        except Exception as error:
            raise _failure(error) from error
    lacking = [shard.name for shard in todo if not work.is_done(maker, shard)]
    if lacking:
        raise work.PrepareError(
            f'the Beam pipeline ended, but {len(lacking)} of its {len(todo)} shards are not in {maker.directory} '
            f'(the first: {lacking[0]}); make that a folder that all workers see, and run the same command again'
        )


def _write(maker: work.Maker, packed: bytes) -> None:
    shard = pickle.loads(zlib.decompress(packed))
    # A bundle that failed is retried as a whole, so some of its shards may be finished.
    if not work.is_done(maker, shard):
        work.write(maker, shard)


def _wait(pipeline: apache_beam.Pipeline) -> None:
    """Runs a pipeline to its end; Ctrl-C also stops a pipeline that runs elsewhere."""
    try:
        result = pipeline.run()
    except RuntimeError as error:
        # In this process Beam wraps every exception of a worker, including KeyboardInterrupt.
        if str(error).startswith('KeyboardInterrupt'):
            raise KeyboardInterrupt from None
        raise
    try:
        result.wait_until_finish()
    except KeyboardInterrupt:
        result.cancel()
        raise
    finally:
        if hasattr(result, 'client'):
            # Dask's connection would otherwise last until this process ends.
            result.client.close()


def _failure(error: Exception) -> Exception:
    """Returns the worker's one-line error if there is one; a bug keeps its traceback."""
    text = f'{type(error).__name__}: {error}'
    line = _WORKER_ERROR.search(text)
    if line:
        return work.PrepareError(line[1])
    return work.PrepareError(
        f'the Beam pipeline failed ({text.strip().splitlines()[-1]}); nothing finished is lost: '
        "see the runner's log, mend the cause and run the same command again"
    )


@contextlib.contextmanager
def _watched(maker: work.Maker, todo: list[work.Shard], progress: ProgressLine) -> Iterator[None]:
    """Reports finished shards while the body runs.

    No runner reports its progress, so the directory is checked instead.
    """
    waiting, stop = list(todo), threading.Event()

    def look():
        for shard in [shard for shard in waiting if work.is_done(maker, shard)]:
            waiting.remove(shard)
            progress.add(len(shard.jobs))

    def watch():
        while not stop.wait(_WATCH):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        look()
