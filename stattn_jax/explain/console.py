"""What commands that work on many videos print: notes on the files, progress, one line per video, times."""

import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from stattn_jax import progress, run
from stattn_jax.data import video_files


class Clock:
    """Adds up the seconds spent on each named step."""

    def __init__(self, **seconds: float):
        self.seconds = dict(seconds)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def __str__(self):
        return ', '.join(f'{name} {seconds:.1f} s' for name, seconds in self.seconds.items())


def find_videos(arguments: Sequence[str], out: str, own: Sequence[str] = ()) -> list[pathlib.Path]:
    """Returns the videos that --video names, and prints what is left out; raises RunError where there are none.

    Files below `out` with a name in `own` are results of earlier calls, and count only if they are named themselves.
    """
    found, remarks = video_files.find(arguments)
    results = [
        video
        for video in found
        if video.name in own and str(video) not in arguments and pathlib.Path(out).resolve() in video.resolve().parents
    ]
    remarks += [f'left out {len(results)} results of earlier calls in --out={out}'] if results else []
    for remark in remarks:
        print(f'note: {remark}')
    videos = [video for video in found if video not in results]
    if not videos:
        named = ' '.join(f'--video={video_files.printable(argument)}' for argument in arguments)
        raise run.RunError(
            f'{named}: no video file there; expected a file, a folder or a pattern with files of '
            f'{", ".join(video_files.SUFFIXES)}'
        )
    return videos


def counter(what: str, unit: str) -> Callable[[int, int], None]:
    """Returns a function of the numbers of items that are done and of all; each call shows one more as done."""
    line: list[progress.ProgressLine] = []

    def show(done: int, total: int) -> None:
        if not line:
            line.append(progress.ProgressLine(what, total, unit))
        line[0].add(1)
        if done == total:
            line[0].clear()

    return show


def say(line: str) -> None:
    """Prints a line above the progress line."""
    _print(line, sys.stdout)


def fail(error: Exception | str, code: int) -> int:
    """Prints an error as one line above the progress line and returns the exit code."""
    _print('error: ' + ' '.join(str(error).split()), sys.stderr)
    return code


def _print(line: str, file) -> None:
    if sys.stderr.isatty():
        # Removes the progress line, which its next item prints again.
        print('\r\x1b[K', end='', file=sys.stderr, flush=True)
    print(line, file=file, flush=True)
