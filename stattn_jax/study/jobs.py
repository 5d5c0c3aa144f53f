"""Runs the trainings of a study in parallel, each in its own resumable process, and prints a progress line for each.

Each network is trained and measured in its own process, whose memory is freed when it ends. On a CPU under Linux, each
process has a core of its own: XLA starts as many threads as there are cores to run on, and the threads of two processes
on two cores wait for each other (a step takes 1.3 times as long, docs/log.md, 2026-11-28).
"""

import collections
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np

from stattn_jax import progress, run
from stattn_jax.runtime import perf
from stattn_jax.study import plan

LOG = 'log.txt'
Work = plan.Trial | plan.Entry


def cores() -> list[int]:
    """Returns the numbers of the CPU cores that this process may run on; [] where the system does not assign cores."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_setaffinity') else []


class WallTime:
    """Wall time of a study over all its starts, in seconds, kept in a file.

    A killed start counts up to the last network that finished in it.
    """

    def __init__(self, path: pathlib.Path):
        self._path, self._began = path, time.perf_counter()
        self._before = json.loads(path.read_text())['seconds'] if path.exists() else 0.0

    def keep(self) -> float:
        """Writes the time so far, and returns it."""
        seconds = self._before + time.perf_counter() - self._began
        run.write_json(self._path, {'seconds': seconds})
        return seconds


class Jobs:
    """The processes of a study: `work` starts them, waits, and reports; a stop signal ends them after saving."""

    def __init__(self, arguments: list[str], workers: int, one_core: bool):
        """Stores the command's `arguments`, which each process gets together with --only=ENTRY.

        `one_core`: whether each process runs on one CPU core, where the system assigns cores.
        """
        self._arguments, self._workers = arguments, workers
        self._cores = cores() if one_core else []
        self._environment = perf.LARGE_PAGES | os.environ
        # What each process does, when it began, and its core.
        self._running: dict[subprocess.Popen, tuple[Work, float, int | None]] = {}
        self._clock = Clock()
        self._stopped: int | None = None

    def work(self, waiting: Sequence[Work], done: int, later: Sequence[str], wall: WallTime) -> int | None:
        """Runs trials or entries, and returns the signal that stopped the work or None.

        `done`: how many trials and entries of the study are done; `later`: the variants of those that follow these.
        """
        previous = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        queue, total = collections.deque(waiting), done + len(waiting) + len(later)
        try:
            while self._running or (queue and not self._stopped):
                while queue and len(self._running) < self._workers and not self._stopped:
                    self._start(queue.popleft())
                for process in [p for p in self._running if p.poll() is not None]:
                    work, began, _ = self._running.pop(process)
                    if self._stopped:
                        continue
                    done += 1
                    wall.keep()
                    if not process.returncode:
                        self._clock.add(work, time.perf_counter() - began)
                    waiting_still = [*queue, *(work for work, *_ in self._running.values())]
                    left = self._clock.left(waiting_still, later, self._workers)
                    print(f'[{done}/{total}] {_progress_line(work, process.returncode)}  eta {left}', flush=True)
                time.sleep(0.2)
        finally:
            # After an error, such as a full disk, no process goes on alone.
            for process in self._running:
                process.terminate()
                process.wait()
            for number, handler in previous.items():
                signal.signal(number, handler)
        return self._stopped

    def _start(self, work: Work) -> None:
        work.folder.mkdir(parents=True, exist_ok=True)
        with open(work.folder / LOG, 'a') as log, self._core() as core:
            words = [sys.executable, '-m', 'stattn_jax.study', *self._arguments, f'--only={work.name}']
            # In a separate session, Ctrl-C reaches the process only through `_stop`, as the SIGTERM at which it saves.
            process = subprocess.Popen(
                words, env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._running[process] = (work, time.perf_counter(), core)

    @contextlib.contextmanager
    def _core(self) -> Iterator[int | None]:
        """Keeps this thread, and the processes that it starts, to the core with the fewest running processes."""
        if not self._cores:
            yield None
            return
        used = collections.Counter(core for *_, core in self._running.values())
        core, before = min(self._cores, key=lambda number: used[number]), os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})
        try:
            yield core
        finally:
            os.sched_setaffinity(0, before)

    def _stop(self, number, frame) -> None:
        self._stopped = number
        for process in self._running:
            process.terminate()


class Clock:
    """Records how long the trials and entries of a study take, and estimates the time left."""

    def __init__(self):
        self._seconds = collections.defaultdict(list)

    def add(self, work: Work, seconds: float) -> None:
        self._seconds[type(work), work.variant].append(seconds)

    def left(self, waiting: Sequence[Work], later: Sequence[str], workers: int) -> str:
        """Returns the estimated time left with this many workers, or '?' before the first one has finished.

        `later`: the variants of entries that are not in `waiting` yet. Each is expected to take the mean time of its
        kind and variant, or else of its variant, or else of all.
        """
        everything = [seconds for some in self._seconds.values() for seconds in some]
        if not everything:
            return '?'
        kinds = [*((type(work), work.variant) for work in waiting), *((plan.Entry, variant) for variant in later)]
        return progress.format_seconds(sum(self._guess(*kind) or np.mean(everything) for kind in kinds) / workers)

    def _guess(self, kind, variant) -> float:
        of_variant = [s for (_, known), some in self._seconds.items() if known == variant for s in some]
        return float(np.mean(self._seconds.get((kind, variant)) or of_variant or [0]))


def _progress_line(work: Work, code: int) -> str:
    """Returns one line about a trial or an entry: its main numbers, or the last line of its log if it failed."""
    if code:
        lines = (work.folder / LOG).read_text().strip().splitlines() or ['']
        return f'{work.name}: FAILED with exit code {code}: {lines[-1]} (all of it: {work.folder / LOG})'
    found = json.loads(work.result.read_text())
    if isinstance(work, plan.Trial):
        values = ', '.join(f'{name}={value}' for name, value in work.values.items())
        reached = 'the loss was not finite' if found['accuracy'] is None else f'accuracy {found["accuracy"]:.1%}'
        return f'{work.name}: {values}: {reached} on validation clips  ({progress.format_seconds(found["seconds"])})'
    numbers = found['numbers']
    rates = [
        f'{word} {numbers[name]:.1%}'
        for word, name in (('accuracy', 'classification/top1'), ('where', 'pointing/space'), ('when', 'pointing/time'))
        if name in numbers
    ]
    return f'{work.name}: {", ".join(rates)}  ({progress.format_seconds(found["measure_seconds"])} to measure)'
