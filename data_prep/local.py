"""Writes shards with several processes of this machine.

work.py defines the work of a process; beam.py runs on many machines. A worker that is ended by a signal is replaced,
and its shard is begun anew; a clip with which that happens twice is left out.
"""

import collections
import multiprocessing
import signal
import traceback
from multiprocessing import connection
from typing import Any

from data_prep import work
from stattn_jax.data import processes
from stattn_jax.progress import ProgressLine

# The number of workers that may die with one clip, or before their first, until that is taken for its fault.
_TRIES = 2
_SPAWN = multiprocessing.get_context('spawn')


def run(maker: work.Maker, todo: list[work.Shard], progress: ProgressLine, workers: int) -> None:
    """Writes the shards with `workers` processes, or in this one if there are none.

    Raises:
      PrepareError: workers die before they begin with a clip, or a shard cannot be written.
    """
    if not workers:
        for shard in todo:
            count = _Count(progress)
            work.write(maker, shard, begin=count.begin)
            count.end(shard)
        return
    processes.single_threaded()
    pool = _Pool(maker, todo, progress)
    try:
        pool.start(min(workers, len(todo)))
        pool.work()
    finally:
        pool.stop()


class _Count:
    """Counts the clips of a shard that are done: each one when the next one is begun."""

    def __init__(self, progress: ProgressLine):
        self._progress, self._begun, self._done = progress, False, 0

    def begin(self, clip: str) -> None:
        self._add(int(self._begun))
        self._begun = True

    def end(self, shard: work.Shard) -> None:
        self._add(len(shard.jobs) - self._done)

    def undo(self) -> None:
        self._add(-self._done)

    def _add(self, clips: int) -> None:
        self._done += clips
        self._progress.add(clips)


class _Worker:
    """A process that writes one shard after the other; `clip` is the id of the clip at work, if it has begun one."""

    def __init__(self, maker: work.Maker):
        self.pipe, child_pipe = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_work, args=(maker, child_pipe))
        self.process.start()
        child_pipe.close()
        self.shard: work.Shard | None = None
        self.clip: str | None = None
        self.count: _Count | None = None

    def give(self, shard: work.Shard, aside: dict[str, str], count: _Count) -> None:
        self.shard, self.clip, self.count = shard, None, count
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

    def __init__(self, maker: work.Maker, todo: list[work.Shard], progress: ProgressLine):
        self._progress = progress
        self._maker, self._waiting = maker, collections.deque(todo)
        self._workers: dict[Any, _Worker] = {}
        self._deaths: collections.Counter[tuple[str, str | None]] = collections.Counter()
        self._aside: dict[str, dict[str, str]] = collections.defaultdict(dict)

    def start(self, workers: int) -> None:
        for _ in range(workers):
            self._occupy(_Worker(self._maker))

    def work(self) -> None:
        """Returns when every shard is finished."""
        while self._workers:
            for pipe in connection.wait(list(self._workers)):
                worker = self._workers[pipe]
                try:
                    kind, content = worker.pipe.recv()
                except (EOFError, OSError):
                    self._replace(worker)
                    continue
                if kind == 'clip':
                    worker.clip = content
                    worker.count.begin(content)
                elif kind == 'error':
                    raise content
                else:
                    worker.count.end(worker.shard)
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
        worker.give(shard, self._aside[shard.name], _Count(self._progress))

    def _replace(self, dead: _Worker) -> None:
        del self._workers[dead.pipe]
        code = dead.end()
        if code == -signal.SIGINT:
            # Ctrl-C reaches all processes of a terminal, sometimes a worker first.
            raise KeyboardInterrupt
        shard, clip, end = dead.shard, dead.clip, _end(code)
        dead.count.undo()
        self._deaths[shard.name, clip] += 1
        again = self._deaths[shard.name, clip] < _TRIES
        if clip is None:
            if not again:
                raise work.PrepareError(
                    f'a worker process {end} before it began with {shard.name} (out of memory?); nothing finished is '
                    'lost: run the same command again, with fewer --workers'
                )
        else:
            self._progress.note(
                f'a worker process {end} at clip {clip!r} of {shard.name}; '
                f'{"it is tried once more" if again else "the clip is left out"}'
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
    processes.start_worker()
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
