"""Defines the job of one clip, the shard that holds it, and the function that writes a shard in any process.

local.py and beam.py call `write`, on one machine or on many; prepare.py divides the jobs into shards.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from data_prep import report
from stattn_jax import files
from stattn_jax.command_error import CommandError
from stattn_jax.data import media, records, tfrecord

MakeRecord = Callable[['Job', records.Spec], records.ClipRecord]


class PrepareError(CommandError):
    """Preparation cannot start or continue; the message is one line with the fix."""


class UsageError(CommandError):
    """The command line requests something impossible; the message is one line."""

    code = 2


@dataclasses.dataclass(frozen=True)
class Job:
    """A clip to make, as described by the tables or a generator.

    `labels` are class indices; `start` and `end` are seconds of the video (None: its start or end). `payload` is for
    the maker's own use. Everything must be picklable and serializable as JSON, because a hash of it identifies the
    plan.
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
class Shard:
    """The name of a file to write, and the clips that go into it."""

    name: str
    jobs: list[Job]


@dataclasses.dataclass(frozen=True)
class Maker:
    """Common data of all shards of a data set: their directory and how a job becomes a record. Picklable."""

    directory: pathlib.Path
    make_record: MakeRecord
    classes: tuple[str, ...]
    spec: records.Spec


def is_done(maker: Maker, shard: Shard) -> bool:
    path = maker.directory / shard.name
    paths = (path, tfrecord.index_path(path), report.outcome_path(maker.directory, shard.name))
    return all(path.exists() for path in paths)


def write(
    maker: Maker, shard: Shard, aside: Mapping[str, str] = MappingProxyType({}), begin: Callable[[str], object] = str
) -> None:
    """Writes a shard and then its outcome, which marks it as done.

    Args:
      aside: clips that are skipped because reading them ended a process, with the detail for the report.
      begin: called with the id of each clip before it is made.

    Raises PrepareError where the shard cannot be written.
    """
    outcome, path = report.Outcome([], [], []), maker.directory / shard.name
    try:
        tfrecord.write_shard(path, _make(maker, shard, outcome, aside, begin))
        report.write_json(report.outcome_path(maker.directory, shard.name), dataclasses.asdict(outcome))
    except OSError as error:
        raise PrepareError(files.reason(error)) from error


def _make(maker: Maker, shard: Shard, outcome: report.Outcome, aside, begin) -> Iterator[bytes]:
    """Yields the shard's serialized records and stores the outcome of each clip in `outcome`."""
    features = records.make_features(maker.classes, maker.spec)
    for job in shard.jobs:
        if job.clip_id in aside:
            outcome.skipped.append((job.clip_id, 'crashed', aside[job.clip_id]))
            continue
        begin(job.clip_id)
        try:
            record = maker.make_record(job, maker.spec)
            serialized = records.encode(record, features)
        except media.MediaError as error:
            outcome.skipped.append((job.clip_id, error.reason, error.detail))
            continue
        except PrepareError:
            raise
        except Exception as error:
            outcome.skipped.append((job.clip_id, 'failed', ' '.join(f'{type(error).__name__}: {error}'.split())))
            continue
        outcome.used.append(job.clip_id)
        outcome.notes.extend((job.clip_id, note) for note in record.clip.notes)
        yield serialized
