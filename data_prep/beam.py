"""Shards by an Apache Beam pipeline, on this machine or on many. Needs the extra `beam`; imported only where it is
asked for.

Every worker must have this program installed and see the data set's directory (and the videos) under the same absolute
path: a shared file system. What a worker leaves there is what a local process leaves, byte for byte, so that either
runner goes on
where the other was stopped. Read next: work.py (what a worker does), local.py (one machine, without Beam).
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

# Seconds between two looks at which shards are there.
_WATCH = 1.0
# Beam appends the step's name to a worker's message, and carries it as text from other processes.
_WORKER_ERROR = re.compile(r'\bPrepareError: (.*?)(?: \[while running .*)?$', re.MULTILINE)


def parse(options: list[str]) -> pipeline_options.PipelineOptions:
    """Beam's own options; without `--runner` FnApiRunner, the direct runner that fetches no program from the network.

    Raises:
      UsageError: Beam refuses one.
    """
    usage = io.StringIO()
    try:
        # argparse prints a few hundred lines and exits.
        with contextlib.redirect_stderr(usage):
            parsed = pipeline_options.PipelineOptions(options)
            parsed.get_all_options()
            standard = parsed.view_as(pipeline_options.StandardOptions)
            standard.runner = standard.runner or 'FnApiRunner'
            apache_beam.Pipeline(options=parsed)
    except (SystemExit, ValueError, ImportError) as error:
        lines = (usage.getvalue() if isinstance(error, SystemExit) else str(error)).splitlines()
        raise work.UsageError(f'Beam refuses its options {" ".join(options)}: {lines[-1]}') from None
    return parsed


def run(
    maker: work.Maker, todo: list[work.Shard], progress: work.Progress, options: pipeline_options.PipelineOptions
) -> None:
    """Writes the shards as a pipeline and waits for it; the directory of `maker` must be one that all workers see.

    Raises:
      PrepareError: a shard cannot be written, or the pipeline failed.
    """
    if not todo:
        return
    maker = dataclasses.replace(maker, directory=maker.directory.absolute())
    # Bytes need none of Beam's coders, and keep 200,000 clips small: the elements travel inside the pipeline's graph.
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
    # A bundle that failed is tried again as a whole.
    if not work.is_done(maker, shard):
        work.write(maker, shard)


def _wait(pipeline: apache_beam.Pipeline) -> None:
    """Runs a pipeline to its end; Ctrl-C ends it too, where it runs elsewhere."""
    try:
        result = pipeline.run()
    except RuntimeError as error:
        # In this process Beam wraps what a worker raises, Ctrl-C included.
        if str(error).startswith('KeyboardInterrupt'):
            raise KeyboardInterrupt from None
        raise
    try:
        result.wait_until_finish()
    except KeyboardInterrupt:
        result.cancel()
        raise


def _failure(error: Exception) -> Exception:
    """A worker's own line where there is one; a bug keeps its traceback."""
    text = f'{type(error).__name__}: {error}'
    line = _WORKER_ERROR.search(text)
    if line:
        return work.PrepareError(line[1])
    if 'in a way that is not foreseen' in text:
        return error
    return work.PrepareError(
        f'the Beam pipeline failed ({text.strip().splitlines()[-1]}); nothing finished is lost: '
        "see the runner's log, mend the cause and run the same command again"
    )


@contextlib.contextmanager
def _watched(maker: work.Maker, todo: list[work.Shard], progress: work.Progress) -> Iterator[None]:
    """Reports the shards that appear while the body runs: no runner tells how far it is, but the directory does."""
    waiting, stop = list(todo), threading.Event()

    def look():
        for shard in [shard for shard in waiting if work.is_done(maker, shard)]:
            waiting.remove(shard)
            progress(len(shard.jobs))

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
