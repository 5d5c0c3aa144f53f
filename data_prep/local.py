"""Writes shards with several processes of this machine.

work.py defines the work of a process; beam.py runs on many machines.
"""

import itertools
import multiprocessing
import os
import signal
import threading
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool

from data_prep import work


def run(maker: work.Maker, todo: list[work.Shard], progress: work.Progress, workers: int) -> None:
    """Writes the shards with `workers` processes; 1 stays in this process.

    Raises:
      PrepareError: a worker died, or a shard cannot be written.
    """
    if workers == 1 or len(todo) < 2:
        for shard in todo:
            work.write(maker, shard)
            progress(len(shard.jobs))
        return
    waiting, running = iter(todo), {}
    workers = min(workers, len(todo))
    # Read by the workers' BLAS, whose threads would compete for the same cores (measured: 71 ms of CPU for a small clip
    # instead of 16).
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
    pool = futures.ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), initializer=_start_worker)
    try:
        while True:
            # No more shards are submitted than the workers can process, so that a worker's death names few shards and a
            # stop loses little.
            running.update(
                {
                    pool.submit(work.write, maker, shard): shard
                    for shard in itertools.islice(waiting, workers - len(running))
                }
            )
            if not running:
                return
            done, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
            for future in done:
                future.result()
                progress(len(running.pop(future).jobs))
    except BrokenProcessPool:
        raise work.PrepareError(
            f'a worker process died (out of memory?) at work on {", ".join(shard.name for shard in running.values())}; '
            'nothing finished is lost: run the same command again, with fewer --workers'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Makes a worker exit at once on Ctrl-C and with its parent, which an executor's workers otherwise outlive."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def follow_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()
