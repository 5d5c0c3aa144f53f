"""The parts that commands on many videos share: flags, the videos they name, progress, lines above it, times."""

import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from absl import flags

from stattn_jax import command, progress
from stattn_jax.data import video_files

# Files of an explanation that are written if no others are asked for, and those that are written only if named.
KINDS = ('json', 'npz', 'png', 'html', 'mp4', 'csv', 'vtt')
MORE_KINDS = ('pdf', 'svg')
# The help of --workdir, and where it may be given twice.
WORKDIR = "A trained workdir, the folder of a shared model, 'demo' or 'av_digits'"
WORKDIRS = f'{WORKDIR}; two of them compare two networks on the same videos.'


class StepTimes:
    """Adds up the seconds spent on each named step."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def __str__(self):
        return ', '.join(f'{name} {seconds:.1f} s' for name, seconds in self.seconds.items())


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags --video and --compile_cache."""
    define = command.definers(values)
    define.multi_string(
        'video', None, 'A video file, a folder (every video file below it) or a pattern; may be given several times.'
    )
    define.string(
        'compile_cache', None, 'Folder in which compiled programs are kept; only you should be able to write to it.'
    )


def check_workdirs(workdirs: Sequence[str]) -> None:
    """Raises flags.Error for more than two --workdir flags, and for a run that is given twice."""
    if len(workdirs) > 2:
        raise flags.Error(f'{len(workdirs)} --workdir flags; expected one, or two to compare')
    if len(set(map(os.path.realpath, workdirs))) < len(workdirs):
        raise flags.Error(f'--workdir={workdirs[0]} is given twice; expected one run, or two different ones')


def find_videos(arguments: Sequence[str], out: str, own: Sequence[str] = ()) -> list[pathlib.Path]:
    """Returns the videos that --video names, and prints which files are left out; raises RunError where there are none.

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
        raise command.RunError(
            f'{named}: no video file there; expected a file, a folder or a pattern with files of '
            f'{", ".join(video_files.SUFFIXES)}'
        )
    return videos


def counter(title: str, unit: str) -> Callable[[int, int], None]:
    """Returns a function of the numbers of items that are done and of all; each call shows one more as done."""
    line: list[progress.ProgressLine] = []

    def show(done: int, total: int) -> None:
        if not line:
            line.append(progress.ProgressLine(title, total, unit))
        line[0].add(1)
        if done == total:
            line[0].clear()

    return show


def say(line: str) -> None:
    """Prints a line above the progress line."""
    progress.clear_line()
    print(line, flush=True)
