"""The engine that turns jobs into a data set directory; folder.py and synthetic.py feed it.

A shard is the unit of work. Which clips go into which shard is fixed by the jobs alone, each shard is written whole
by one process and takes its final name last, and its outcome (`prepare/SHARD.json`: clips used, skipped with reason,
notes) is written after it. So the bytes do not depend on the number of workers, and a run that was stopped continues:
shards with an outcome are kept, the rest is made. Read next: folder.py, or report.py for what is written at the end.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import itertools
import json
import multiprocessing
import os
import pathlib
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import tqdm

from data_prep import report
from stattn_jax.data import media, records, source, tfrecord

PLAN_FILE = 'plan.json'
_SHARD_CLIPS = 128

MakeRecord = Callable[['Job', records.Spec], records.ClipRecord]


class PrepareError(Exception):
    """Preparation cannot start or go on; the message is one line with the fix."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A clip to make: what the tables (or a generator) say about it.

    `labels` are class indices, `start` and `end` seconds of the video (None: its ends). `payload` is for the maker's
    own use. All of it must be picklable and JSON-able, since a hash of it tells one plan from another.
    """

    clip_id: str
    split: str
    labels: tuple[int, ...]
    events: tuple[records.Event, ...] = ()
    boxes: tuple[records.Box, ...] = ()
    video: str = ''
    start: float | None = None
    end: float | None = None
    payload: Any = None
    presence: tuple[records.Presence, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A shard to write; everything a worker needs."""

    directory: pathlib.Path
    name: str
    jobs: list[Job]
    make_record: MakeRecord
    classes: tuple[str, ...]
    spec: records.Spec

    @property
    def path(self) -> pathlib.Path:
        return self.directory / self.name


def prepare(
    out: str | os.PathLike,
    name: str,
    jobs: list[Job],
    make_record: MakeRecord,
    *,
    classes: tuple[str, ...],
    spec: records.Spec,
    multi_label: bool,
    workers: int | None = None,
    shard_size: int | None = None,
) -> source.DatasetInfo:
    """Makes every job's record and writes them as a data set into `out`; goes on there if the same plan was stopped.

    Args:
      name: of the data set; becomes the first part of the shards' names.
      make_record: a function of a module (workers import it), or a functools.partial of one. It raises media.MediaError
        for a clip that cannot be used, which is counted and named by reason, and the run goes on; anything else stops it.
      workers: processes; 1 stays in this one. Default: as many as there are CPUs.
      shard_size: clips a shard. Default: at most 128, fewer for a small split, so that it still makes several shards.

    Raises:
      PrepareError: `out` holds something else, a worker died, or a split has no usable clip.
    """
    out = pathlib.Path(out)
    if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
        raise PrepareError(
            f'data set name {name!r}: expected lower-case letters, digits and _, beginning with a letter'
        )
    if not jobs:
        raise PrepareError(f'there are no clips to prepare for {out}')
    splits = {split: [job for job in jobs if job.split == split] for split in sorted({job.split for job in jobs})}
    shards = {
        split: [_Shard(out, *part, make_record, classes, spec) for part in _parts(name, split, members, shard_size)]
        for split, members in splits.items()
    }
    todo = list(itertools.chain.from_iterable(shards.values()))
    plan = {
        'format': source.FORMAT,
        'name': name,
        'classes': list(classes),
        'multi_label': multi_label,
        'spec': spec.to_json(),
        'shards': {shard.name: len(shard.jobs) for shard in todo},
        'clips': _hash(jobs),
    }
    with _locked(out):
        _claim(out, plan)
        todo = [shard for shard in todo if not _is_done(shard)]
        kept = len(jobs) - sum(len(shard.jobs) for shard in todo)
        if kept:
            print(
                f'{kept} of {len(jobs)} clips are there already and stay as they are; delete {out} first if the videos have changed'
            )
        with tqdm.tqdm(total=len(jobs), initial=kept, unit='clip', desc=f'preparing {name}') as progress:
            for shard in _run(todo, workers or os.cpu_count()):
                progress.update(len(shard.jobs))
        names = {split: [shard.name for shard in members] for split, members in shards.items()}
        info = _finish(out, name, names, classes, multi_label, spec)
    print(f'the data set is in {out}; train on it: --config.data.dir={out}')
    return info


def _parts(name: str, split: str, jobs: list[Job], size: int | None) -> list[tuple[str, list[Job]]]:
    """Cuts a split into shards: (name, jobs) of each. A function of the jobs alone, so a later run cuts the same way."""
    size = size or min(_SHARD_CLIPS, max(8, -(-len(jobs) // 16)))
    count = -(-len(jobs) // size)
    return [(tfrecord.shard_name(name, split, i, count), jobs[i * size : (i + 1) * size]) for i in range(count)]


def _finish(out, name, shards, classes, multi_label, spec) -> source.DatasetInfo:
    """Writes report and metadata once every shard is there; a split without a single clip is an error."""
    for leftover in itertools.chain(out.glob('*.tmp-*'), (out / report.WORK_DIR).glob('*.tmp-*')):
        leftover.unlink()
    outcomes = {split: [report.read_outcome(out, shard) for shard in names] for split, names in shards.items()}
    summary = report.summarize(outcomes)
    report.write_json(out / report.REPORT_FILE, summary)
    print(report.table(summary))
    for split, counts in summary.items():
        if not counts['used']:
            # Forgotten, so that the same command tries again once the cause (often a wrong folder) is mended.
            for shard in shards[split]:
                report.outcome_path(out, shard).unlink()
            reasons = ', '.join(f'{len(clips)} {reason}' for reason, clips in counts['skipped'].items())
            first = next(f'{clip}: {detail}' for clips in counts['skipped'].values() for clip, detail in clips.items())
            raise PrepareError(
                f'split {split!r} has no usable clip ({reasons}; the first: {first}); mend them and run the same command again'
            )
    wanted = {split: counts['wanted'] for split, counts in summary.items()}
    return report.write_info(out, name, shards, classes=classes, multi_label=multi_label, spec=spec, wanted=wanted)


@contextlib.contextmanager
def _locked(out: pathlib.Path) -> Iterator[None]:
    """Makes the directory and keeps a second run out of it; the lock goes with the process, however it ends."""
    try:
        (out / report.WORK_DIR).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrepareError(f'--out={out} cannot be made a directory: {error.strerror} ({error.filename})') from None
    descriptor = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PrepareError(
                f'{out} is being prepared by another process; wait for it, or give another --out'
            ) from None
        yield
    finally:
        os.close(descriptor)


def _claim(out: pathlib.Path, plan: dict) -> None:
    """Refuses a directory that holds something else than (a part of) this plan."""
    path = out / report.WORK_DIR / PLAN_FILE
    if not path.exists():
        others = sorted(entry.name for entry in out.iterdir() if entry.name != report.WORK_DIR)
        if others:
            raise PrepareError(
                f'{out} is not empty (it holds {others[0]!r}) and was not begun by this command; give another --out'
            )
        report.write_json(path, plan)
        return
    begun = json.loads(path.read_text())
    differing = [key for key in plan if begun.get(key) != json.loads(json.dumps(plan[key]))]
    if differing:
        spec = [
            f'{key} {begun["spec"].get(key)} there, {value} now'
            for key, value in plan['spec'].items()
            if begun['spec'].get(key) != value
        ]
        raise PrepareError(
            f'{out} was begun with another plan ({", ".join(spec or differing)} differ); '
            f'give another --out, or delete {out} to begin anew'
        )


def _is_done(shard: _Shard) -> bool:
    paths = (shard.path, tfrecord.index_path(shard.path), report.outcome_path(shard.directory, shard.name))
    return all(path.exists() for path in paths)


def _hash(jobs: list[Job]) -> str:
    digest = hashlib.sha256()
    for job in jobs:
        digest.update(json.dumps(dataclasses.asdict(job), sort_keys=True).encode())
    return digest.hexdigest()


def _run(todo: list[_Shard], workers: int) -> Iterator[_Shard]:
    """Writes the shards and yields each when it is whole."""
    if workers == 1 or len(todo) < 2:
        for shard in todo:
            _write(shard)
            yield shard
        return
    waiting, running = iter(todo), {}
    workers = min(workers, len(todo))
    # Read by the workers' BLAS: its threads would fight over the same cores (measured: 71 ms of CPU a small clip instead of 16).
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
    pool = futures.ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), initializer=_start_worker)
    try:
        while True:
            # No more than the workers can hold, so that a death names few shards and a stop loses little.
            running.update(
                {pool.submit(_write, shard): shard for shard in itertools.islice(waiting, workers - len(running))}
            )
            if not running:
                return
            done, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
            for future in done:
                future.result()
                yield running.pop(future)
    except BrokenProcessPool:
        raise PrepareError(
            f'a worker process died (out of memory?) at work on {", ".join(shard.name for shard in running.values())}; '
            'nothing finished is lost: run the same command again, with fewer --workers'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Lets a worker end at once with Ctrl-C, and with its parent, which an executor's workers outlive otherwise."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def follow_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()


def _write(shard: _Shard) -> None:
    """Writes a shard and then its outcome, which marks it as done."""
    outcome = report.Outcome([], [], [])
    try:
        tfrecord.write_shard(shard.path, _make(shard, outcome))
        report.write_json(report.outcome_path(shard.directory, shard.name), dataclasses.asdict(outcome))
    except OSError as error:
        raise PrepareError(
            f'{shard.path} cannot be written: {error.strerror}; mend that and run the same command again to go on'
        ) from error


def _make(shard: _Shard, outcome: report.Outcome) -> Iterator[bytes]:
    """The shard's records, serialized; notes in `outcome` what became of each clip."""
    features = records.make_features(shard.classes, shard.spec)
    for job in shard.jobs:
        try:
            record = shard.make_record(job, shard.spec)
        except media.MediaError as error:
            outcome.skipped.append((job.clip_id, error.reason, error.detail))
            continue
        except Exception as error:
            raise RuntimeError(
                f'clip {job.clip_id!r} of {shard.name} failed in a way that is not foreseen; please report it'
            ) from error
        outcome.used.append(job.clip_id)
        outcome.notes.extend((job.clip_id, note) for note in record.clip.notes)
        yield records.encode(record, features)
