"""Runs the networks of a study in parallel, each in its own resumable process, and prints a progress line for each.

Each network is trained and measured in its own process on one thread: two such processes on two cores finish about 1.5
times as many networks as one process on both cores, and the memory of a process is freed when it ends.
"""

import collections
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import ml_collections

from stattn_jax import command, progress, run
from stattn_jax.runtime import perf
from stattn_jax.study import plan

LOG = 'log.txt'
ONE_THREAD = '--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1'


def is_done(entry: plan.Entry, measure: ml_collections.ConfigDict) -> bool:
    """Whether the entry was measured with exactly this config."""
    path = entry.folder / plan.NUMBERS
    return path.exists() and json.loads(path.read_text())['key'] == entry.key(measure)


def make_data(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Makes, or completes, the data of each variant that does not name its own; raises RunError if that fails."""
    for variant, fields in config.variants.items():
        folder = plan.data_folder(variant, workdir)
        if fields.run.data.dir or (folder / 'stattn.json').exists():
            continue
        flags = [f'--{name}={value}' for name, value in fields.make.items()]
        print(f'making the data of {variant} in {folder}', flush=True)
        words = [sys.executable, '-m', 'data_prep.synthetic', f'--out={folder}', '--sounds', *flags]
        command.check_exit(subprocess.run(words, stdout=subprocess.DEVNULL).returncode, 'making the data')


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

    def __init__(self, arguments: list[str], workers: int, threads: bool):
        """Stores the command's `arguments`, which each process gets together with --only=ENTRY.

        `threads`: whether each process may use several threads.
        """
        self._arguments, self._workers = arguments, workers
        flags = os.environ.get('XLA_FLAGS', '')
        one = {} if threads else {'XLA_FLAGS': f'{flags} {ONE_THREAD}'.strip()}
        self._environment = perf.LARGE_PAGES | os.environ | one
        self._running: dict[subprocess.Popen, tuple[plan.Entry, float]] = {}
        self._stopped: int | None = None

    def work(self, waiting: list[plan.Entry], total: int, wall: WallTime) -> tuple[list[plan.Entry], int | None]:
        """Runs the entries; returns those that failed, and the signal that stopped the work or None."""
        previous = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        queue, failed, done = collections.deque(waiting), [], total - len(waiting)
        clock = Clock()
        try:
            while self._running or (queue and not self._stopped):
                while queue and len(self._running) < self._workers and not self._stopped:
                    self._start(queue.popleft())
                for process in [p for p in self._running if p.poll() is not None]:
                    entry, began = self._running.pop(process)
                    if self._stopped:
                        continue
                    done += 1
                    wall.keep()
                    if process.returncode:
                        failed.append(entry)
                    else:
                        clock.add(entry, time.perf_counter() - began)
                    left = clock.left([*queue, *(e for e, _ in self._running.values())], self._workers)
                    print(f'[{done}/{total}] {_progress_line(entry, process.returncode)}  eta {left}', flush=True)
                time.sleep(0.2)
        finally:
            # After an error, such as a full disk, no process goes on alone.
            for process in self._running:
                process.terminate()
                process.wait()
            for number, handler in previous.items():
                signal.signal(number, handler)
        return failed, self._stopped

    def _start(self, entry: plan.Entry) -> None:
        entry.folder.mkdir(parents=True, exist_ok=True)
        with open(entry.folder / LOG, 'a') as log:
            words = [sys.executable, '-m', 'stattn_jax.study', *self._arguments, f'--only={entry.name}']
            # In a separate session, Ctrl-C reaches the process only through `_stop`, as the SIGTERM at which it saves.
            process = subprocess.Popen(
                words, env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._running[process] = (entry, time.perf_counter())

    def _stop(self, number, frame) -> None:
        self._stopped = number
        for process in self._running:
            process.terminate()


class Clock:
    """Records how long the entries of a study take, and estimates the time left."""

    def __init__(self):
        self._seconds = collections.defaultdict(list)

    def add(self, entry: plan.Entry, seconds: float) -> None:
        self._seconds[entry.variant].append(seconds)

    def left(self, entries: list[plan.Entry], workers: int) -> str:
        """Returns the estimated time left with this many workers, or '?' before the first entry has finished.

        An entry is expected to take the mean time of its variant, or of all entries if none of the variant has
        finished.
        """
        everything = [seconds for of_variant in self._seconds.values() for seconds in of_variant]
        if not everything:
            return '?'
        guesses = (self._seconds[entry.variant] or everything for entry in entries)
        return progress.format_seconds(sum(sum(guess) / len(guess) for guess in guesses) / workers)


def _progress_line(entry: plan.Entry, code: int) -> str:
    """Returns one line about an entry: its main numbers, or the last line of its log if it failed."""
    if code:
        lines = (entry.folder / LOG).read_text().strip().splitlines() or ['']
        return f'{entry.name}: FAILED with exit code {code}: {lines[-1]} (all of it: {entry.folder / LOG})'
    found = json.loads((entry.folder / plan.NUMBERS).read_text())
    numbers = found['numbers']
    rates = [
        f'{word} {numbers[name]:.1%}'
        for word, name in (('accuracy', 'classification/top1'), ('where', 'pointing/space'), ('when', 'pointing/time'))
        if name in numbers
    ]
    seconds = progress.format_seconds(found['train_seconds'] + found['measure_seconds'])
    return f'{entry.name}: {", ".join(rates)}  ({seconds})'
