"""Turns jobs into a data set directory; used by folder.py, synthetic.py and the commands of published data sets.

A shard is the unit of work. The jobs alone determine which clips go into which shard. Each shard is written as a whole
by one process and gets its final name last; its outcome (`prepare/SHARD.json`: clips used, skipped with reason, notes)
is written after it. Therefore the bytes do not depend on the number of workers or on the runner, and a run that was
stopped continues: shards with an outcome are kept, and the others are made. work.py writes a shard, local.py and
beam.py run the workers, and report.py writes the files that are due at the end.
"""

import collections
import contextlib
import fcntl
import fractions
import functools
import hashlib
import itertools
import json
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from data_prep import labels, local, report
from data_prep.work import Job, Maker, MakeRecord, PrepareError, Shard, UsageError, is_done
from stattn_jax import files
from stattn_jax.data import records, source, tfrecord
from stattn_jax.progress import ProgressLine

__all__ = ['Job', 'MakeRecord', 'PrepareError', 'prepare']

PLAN_FILE = 'plan.json'
_SHARD_CLIPS = 128


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
    require: float | int | None = None,
    remarks: Sequence[str] = (),
    beam: list[str] | None = None,
    finish: Callable[[pathlib.Path], None] | None = None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> source.DatasetInfo:
    """Makes every job's record and writes them as a data set into `out`; resumes if the same plan was stopped there.

    Args:
      name: of the data set; becomes the first part of the shards' names.
      make_record: a function of a module (workers import it), or a functools.partial of one. It raises media.MediaError
        for an unusable clip, which is counted and named by reason while the run goes on. So is any other exception but
        PrepareError, which stops the run.
      workers: number of processes. A clip with which one was ended twice by a signal is skipped as 'crashed'. 0: the
        records are made in this process, which such a clip ends. Default: the number of CPUs.
      shard_size: clips per shard. Default: at most 128, fewer for a small split, so that it still makes several shards.
      require: how many clips must be usable: a float is the fraction of each split, an int the number of clips of all
        splits together. It is not part of the plan: finished shards stay, and the same call with a lower value finishes
        at once.
      remarks: lines about the annotation files, printed and kept in the report.
      beam: Beam's own pipeline options, possibly none: a Beam pipeline makes the shards, and `workers` has no effect.
        All workers must then see `out`, and the inputs of `make_record`, under the same path.
      options: settings of `make_record` that change its records; a directory that was begun with others is refused.
      finish: writes any further files into `out`, after all shards are there and before stattn.json is written.

    Raises:
      PrepareError: `out` holds something else, workers die at once, a split has no usable clip, or there are too few of
        them.
      UsageError: Beam is not installed, or rejects its options.
    """
    out = pathlib.Path(out)
    if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
        raise PrepareError(
            f'data set name {name!r}: expected lower-case letters, digits and _, beginning with a letter'
        )
    if not jobs:
        raise PrepareError(f'there are no clips to prepare for {out}')
    if isinstance(require, int) and require > len(jobs):
        raise PrepareError(f'--require={require}: only {len(jobs)} clips are listed at all; give less')
    run = _runner(workers, beam)
    splits = {split: [job for job in jobs if job.split == split] for split in sorted({job.split for job in jobs})}
    shards = {split: _shards(name, split, members, shard_size) for split, members in splits.items()}
    maker = Maker(out, make_record, classes, spec)
    todo = list(itertools.chain.from_iterable(shards.values()))
    plan = {
        'format': source.FORMAT,
        'name': name,
        'classes': list(classes),
        'multi_label': multi_label,
        'spec': spec.to_json(),
        'shards': {shard.name: len(shard.jobs) for shard in todo},
        'clips': _hash(jobs),
        **options,
    }
    with _locked(out):
        _claim(out, plan)
        todo = [shard for shard in todo if not is_done(maker, shard)]
        kept = len(jobs) - sum(len(shard.jobs) for shard in todo)
        if kept:
            print(
                f'{kept} of {len(jobs)} clips are there already and stay as they are; delete {out} first if the videos '
                'have changed'
            )
        line = ProgressLine(f'preparing {name}', len(jobs), done=kept)
        try:
            run(maker, todo, line)
        finally:
            line.clear()
            _remove_leftovers(out)
        names = {split: [shard.name for shard in members] for split, members in shards.items()}
        summary = _report(out, names, jobs, classes, remarks)
        _check_enough(summary, require)
        if finish is not None:
            finish(out)
        wanted = {split: counts['wanted'] for split, counts in summary.items()}
        info = report.write_info(out, name, names, classes=classes, multi_label=multi_label, spec=spec, wanted=wanted)
    print(f'the data set is in {out}; train on it: --config.data.dir={out}')
    return info


def _runner(workers: int | None, options: list[str] | None) -> Callable[[Maker, list[Shard], ProgressLine], None]:
    """Returns the function that writes the shards: by processes of this machine, or by Beam."""
    if options is None:
        return functools.partial(local.run, workers=os.cpu_count() if workers is None else workers)
    try:
        from data_prep import beam
    except ModuleNotFoundError as error:
        if error.name.partition('.')[0] != 'apache_beam':
            raise
        raise UsageError('--runner=beam needs Apache Beam; install it: pip install ".[beam]"') from None
    return functools.partial(beam.run, options=beam.parse(options))


def _shards(name: str, split: str, jobs: list[Job], size: int | None) -> list[Shard]:
    """Divides a split into shards, as a function of the jobs alone, so that a later run divides it the same way."""
    size = size or min(_SHARD_CLIPS, max(8, -(-len(jobs) // 16)))
    count = -(-len(jobs) // size)
    return [Shard(tfrecord.shard_name(name, split, i, count), jobs[i * size : (i + 1) * size]) for i in range(count)]


def _remove_leftovers(out: pathlib.Path) -> None:
    """Removes the temporary files of workers that have ended, now or in an earlier run that was killed."""
    for leftover in itertools.chain(out.glob('*.tmp-*'), (out / report.WORK_DIR).glob('*.tmp-*')):
        # An abandoned worker on another machine may still be writing this file, and may finish it at this moment.
        leftover.unlink(missing_ok=True)


def _report(
    out: pathlib.Path, shards: dict[str, list[str]], jobs: list[Job], classes: Sequence[str], remarks: Sequence[str]
) -> dict[str, dict]:
    """Writes and prints the report once every shard is there, with remarks on classes that cannot be learned.

    Raises PrepareError for a split without usable clips.
    """
    outcomes = {split: [report.read_outcome(out, shard) for shard in names] for split, names in shards.items()}
    summary = report.summarize(outcomes)
    used = {clip_id for parts in outcomes.values() for part in parts for clip_id in part.used}
    remarks = [*remarks, *labels.warnings([job for job in jobs if job.clip_id in used], classes)]
    report.write_json(out / report.REPORT_FILE, {'remarks': list(remarks), 'splits': summary})
    for remark in remarks:
        print(f'remark: {remark}')
    print(report.table(summary))
    for split, counts in summary.items():
        if not counts['used']:
            # The outcomes are deleted, so that the same command tries again once the cause (often a wrong folder) is
            # fixed.
            for shard in shards[split]:
                report.outcome_path(out, shard).unlink()
            reasons = ', '.join(f'{len(clips)} {reason}' for reason, clips in counts['skipped'].items())
            first = next(f'{clip}: {detail}' for clips in counts['skipped'].values() for clip, detail in clips.items())
            raise PrepareError(
                f'split {split!r} has no usable clip ({reasons}; the first: {first}); mend them and run the same '
                'command again'
            )
    return summary


def _check_enough(summary: dict[str, dict], require: float | int | None) -> None:
    """Raises PrepareError if there are fewer usable clips than --require."""
    if require is None:
        return
    used = {split: counts['used'] for split, counts in summary.items()}
    if isinstance(require, int):
        enough = sum(used.values()) >= require
    else:
        # Exactly the decimal number that was typed: as floats, 0.07 * 100 is more than 7.
        share = fractions.Fraction(str(require))
        enough = all(used[split] >= math.ceil(share * counts['wanted']) for split, counts in summary.items())
    if enough:
        return
    reasons: collections.Counter[str] = collections.Counter()
    for counts in summary.values():
        reasons.update({reason: len(clips) for reason, clips in counts['skipped'].items()})
    splits = ', '.join(f'{split} {used[split]} of {counts["wanted"]}' for split, counts in summary.items())
    common = ', '.join(f'{count} {reason}' for reason, count in reasons.most_common(3))
    raise PrepareError(
        f'--require={require}: too few clips can be used: {splits} ({common}); the same command with a lower --require '
        'goes on with these at once'
    )


@contextlib.contextmanager
def _locked(out: pathlib.Path) -> Iterator[None]:
    """Makes the directory and locks it against a second run; the lock ends with the process, however it ends."""
    files.make_folder(out / report.WORK_DIR)
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
    """Raises PrepareError if the directory holds anything but this plan, complete or in part."""
    path = out / report.WORK_DIR / PLAN_FILE
    if not path.exists():
        own = (report.WORK_DIR, report.TABLES_DIR)
        others = sorted(entry.name for entry in out.iterdir() if entry.name not in own)
        if others:
            raise PrepareError(
                f'{out} is not empty (it holds {others[0]!r}) and was not begun by this command; give another --out'
            )
        report.write_json(path, plan)
        return
    begun = json.loads(path.read_text())
    now = json.loads(json.dumps(plan))
    differing = [key for key in begun | now if begun.get(key) != now.get(key)]
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


def _hash(jobs: list[Job]) -> str:
    digest = hashlib.sha256()
    for job in jobs:
        digest.update(json.dumps(vars(job), default=vars, sort_keys=True).encode())
    return digest.hexdigest()
