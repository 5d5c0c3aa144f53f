"""What commands that work on many videos print: notes on the files, a progress bar, one line per video, times."""

import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import tqdm

from stattn_jax import run
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


def find_videos(arguments: Sequence[str]) -> list[pathlib.Path]:
    """Returns the videos that --video names, and prints what is left out; raises RunError where there are none."""
    videos, remarks = video_files.find(arguments)
    for remark in remarks:
        print(f'note: {remark}')
    if not videos:
        raise run.RunError(
            f'--video={" --video=".join(arguments)}: no video file there; expected a file, a folder or a pattern '
            f'with files of {", ".join(video_files.SUFFIXES)}'
        )
    return videos


def progress_bar(shown: bool = True, **options) -> tqdm.tqdm:
    """Returns a bar on stderr with the time left, which is printed less often where it is not a terminal."""
    return tqdm.tqdm(disable=not shown, mininterval=0.1 if sys.stderr.isatty() else 5, dynamic_ncols=True, **options)


def say(line: str) -> None:
    """Prints a line above the progress bar."""
    _print(line, sys.stdout)


def fail(error: Exception | str, code: int) -> int:
    """Prints an error as one line above the progress bar and returns the exit code."""
    _print('error: ' + ' '.join(str(error).split()), sys.stderr)
    return code


def _print(line: str, file) -> None:
    # A bar that no terminal erases would be repeated after each line.
    if sys.stderr.isatty():
        tqdm.tqdm.write(line, file=file)
    else:
        print(line, file=file, flush=True)
