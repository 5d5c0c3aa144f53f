"""Worker processes that read videos: how they start, and clips read by several of them, in order.

A file at which FFmpeg crashes ends its worker process and no other: its clip becomes an error.
"""

import collections
import concurrent.futures
import itertools
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool

from stattn_jax.data import media

_SPAWN = multiprocessing.get_context('spawn')


def start_worker() -> None:
    """Makes a worker exit at once on Ctrl-C and with its parent, which other processes than daemons outlive."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def follow_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()


def single_threaded() -> None:
    """Keeps the BLAS of processes that start later to one thread, so that they do not compete for the same cores.

    Measured: 71 ms of CPU for a small clip instead of 16.
    """
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')


def read_clips(
    videos: Iterable[pathlib.Path], spec: media.ClipSpec, workers: int, ahead: int
) -> Iterator[tuple[pathlib.Path, media.Clip | media.MediaError]]:
    """Yields each video with the clip at its beginning, or with the error that it has, in the order given.

    `workers` processes read at most `ahead` videos before they are asked for; with 0 workers this process reads them.
    """
    if not workers:
        yield from ((video, _read(video, spec)) for video in videos)
        return
    single_threaded()
    left = iter(videos)
    while True:
        with _pool(workers) as pool:
            waiting: collections.deque = collections.deque()
            try:
                for video in itertools.chain(left, [None] * ahead):
                    if video is not None:
                        waiting.append((video, None))
                        waiting[-1] = video, pool.submit(_read, video, spec)
                    if waiting and (video is None or len(waiting) >= ahead):
                        yield waiting[0][0], waiting[0][1].result()
                        waiting.popleft()
                return
            except BrokenProcessPool:
                interrupted = list(waiting)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        yield from ((video, _finished(future) or _read_alone(video, spec)) for video, future in interrupted)


def _pool(workers: int) -> concurrent.futures.ProcessPoolExecutor:
    return concurrent.futures.ProcessPoolExecutor(workers, mp_context=_SPAWN, initializer=start_worker)


def _read(video: pathlib.Path, spec: media.ClipSpec) -> media.Clip | media.MediaError:
    try:
        return media.read_clip(video, spec, keep_lacking=True)
    except media.MediaError as error:
        return error


def _finished(future: concurrent.futures.Future | None) -> media.Clip | media.MediaError | None:
    if future is None or not future.done() or future.cancelled() or future.exception() is not None:
        return None
    return future.result()


def _read_alone(video: pathlib.Path, spec: media.ClipSpec) -> media.Clip | media.MediaError:
    """Reads a video by a process of its own, since one of those that were read at the same time ended a process."""
    with _pool(1) as pool:
        try:
            return pool.submit(_read, video, spec).result()
        except BrokenProcessPool:
            return media.MediaError('crashed', 'the process that read it ended', video)
