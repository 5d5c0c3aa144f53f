"""Writes shards with several processes of this machine.

work.py defines the work of a process; beam.py runs on many machines. A worker that is ended by a signal is replaced,
and its shard is begun anew; a clip with which that happens twice is left out.
"""

import collections
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from multiprocessing import connection

from data_prep import extras, work

# The number of workers that may die with one clip, or before their first, until that is taken for its fault.
_TRIES = 2
_SPAWN = multiprocessing.get_context('spawn')


def run(maker: work.Maker, todo: list[work.Shard], progress: work.Progress, workers: int) -> None:
    """Writes the shards with `workers` processes, or in this one if there are none.

    Raises:
      PrepareError: workers die before they begin with a clip, or a shard cannot be written.
    """
    if not workers:
        for shard in todo:
            work.write(maker, shard)
            progress(len(shard.jobs))
        return
    # Read by the workers' BLAS, whose threads would compete for the same cores (measured: 71 ms of CPU for a small clip
    # instead of 16).
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
    pool = _Pool(maker, todo)
    try:
        pool.start(min(workers, len(todo)))
        for shard in pool.finished():
            progress(len(shard.jobs))
    finally:
        pool.stop()


class _Worker:
    """A process that writes one shard after the other; `clip` is the id of the clip at work, if it has begun one."""

    def __init__(self, maker: work.Maker):
        self.pipe, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_work, args=(maker, theirs))
        self.process.start()
        theirs.close()
        self.shard = self.clip = None

    def give(self, shard: work.Shard, aside: dict[str, str]) -> None:
        self.shard, self.clip = shard, None
        try:
            self.pipe.send((shard, aside))
        except OSError:
            # The worker is dead, which reading from the pipe shows next.
            return

    def end(self) -> int:
        """Ends the process and returns its exit code, negative for a signal."""
        self.pipe.close()
        self.process.join()
        return self.process.exitcode


class _Pool:
    """Workers and the shards that they have not finished."""

    def __init__(self, maker: work.Maker, todo: list[work.Shard]):
        self._maker, self._waiting, self._workers = maker, collections.deque(todo), {}
        self._deaths, self._aside = collections.Counter(), collections.defaultdict(dict)

    def start(self, workers: int) -> None:
        for _ in range(workers):
            self._occupy(_Worker(self._maker))

    def finished(self) -> Iterator[work.Shard]:
        """Yields every shard once it is finished."""
        while self._workers:
            for pipe in connection.wait(list(self._workers)):
                worker = self._workers[pipe]
                try:
                    kind, content = pipe.recv()
                except (EOFError, OSError):
                    self._replace(worker)
                    continue
                if kind == 'clip':
                    worker.clip = content
                elif kind == 'error':
                    raise content
                else:
                    yield worker.shard
                    self._occupy(worker)

    def stop(self) -> None:
        for worker in self._workers.values():
            worker.process.terminate()
            worker.end()

    def _occupy(self, worker: _Worker) -> None:
        """Gives a worker the next shard, or ends it."""
        if not self._waiting:
            self._workers.pop(worker.pipe, None)
            worker.end()
            return
        self._workers[worker.pipe] = worker
        shard = self._waiting.popleft()
        worker.give(shard, self._aside[shard.name])

    def _replace(self, dead: _Worker) -> None:
        del self._workers[dead.pipe]
        code = dead.end()
        if code == -signal.SIGINT:
            # Ctrl-C reaches all processes of a terminal, sometimes a worker first.
            raise KeyboardInterrupt
        shard, clip, end = dead.shard, dead.clip, _end(code)
        self._deaths[shard.name, clip] += 1
        again = self._deaths[shard.name, clip] < _TRIES
        if clip is None:
            if not again:
                raise work.PrepareError(
                    f'a worker process {end} before it began with {shard.name} (out of memory?); nothing finished is '
                    'lost: run the same command again, with fewer --workers'
                )
        else:
            extras.load('tqdm', 'prep').tqdm.write(
                f'a worker process {end} at clip {clip!r} of {shard.name}; '
                f'{"it is tried once more" if again else "the clip is left out"}',
                file=sys.stderr,
            )
            if not again:
                self._aside[shard.name][clip] = f'the process that read it {end}'
        self._waiting.appendleft(shard)
        self._occupy(_Worker(self._maker))


def _end(code: int) -> str:
    if code >= 0:
        return f'ended with exit code {code}'
    known = code in {-number for number in signal.valid_signals()}
    return f'was ended by {signal.Signals(-code).name if known else f"signal {-code}"}'


def _work(maker: work.Maker, pipe: connection.Connection) -> None:
    """Writes the shards that come through the pipe until it is closed."""
    _start_worker()
    while True:
        try:
            shard, aside = pipe.recv()
        except EOFError:
            return
        try:
            work.write(maker, shard, aside, lambda clip: pipe.send(('clip', clip)))
        except Exception as error:
            error.add_note(traceback.format_exc())
            pipe.send(('error', error))
        else:
            pipe.send(('done', None))


def _start_worker() -> None:
    """Makes a worker exit at once on Ctrl-C and with its parent, which other processes than daemons outlive."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def follow_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()
