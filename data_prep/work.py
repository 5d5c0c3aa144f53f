"""A clip to make, the shard that holds it, and the one function that writes a shard, in whatever process or machine.

Read next: local.py and beam.py (who calls `write`), prepare.py (which shards there are).
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from data_prep import report
from stattn_jax.data import media, records, tfrecord

MakeRecord = Callable[['Job', records.Spec], records.ClipRecord]
# Told, after each finished shard, how many clips it had.
Progress = Callable[[int], object]


class PrepareError(Exception):
    """Preparation cannot start or go on; the message is one line with the fix."""


class UsageError(Exception):
    """The command line asks for something that cannot be done; the message is one line."""


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
class Shard:
    """A file to write, by name, and the clips that go into it."""

    name: str
    jobs: list[Job]


@dataclasses.dataclass(frozen=True)
class Maker:
    """What all shards of a data set share: where they go and how a job becomes a record. Picklable."""

    directory: pathlib.Path
    make_record: MakeRecord
    classes: tuple[str, ...]
    spec: records.Spec


def is_done(maker: Maker, shard: Shard) -> bool:
    path = maker.directory / shard.name
    paths = (path, tfrecord.index_path(path), report.outcome_path(maker.directory, shard.name))
    return all(path.exists() for path in paths)


def write(maker: Maker, shard: Shard) -> None:
    """Writes a shard and then its outcome, which marks it as done.

    Raises:
      PrepareError: it cannot be written.
    """
    outcome, path = report.Outcome([], [], []), maker.directory / shard.name
    try:
        tfrecord.write_shard(path, _make(maker, shard, outcome))
        report.write_json(report.outcome_path(maker.directory, shard.name), dataclasses.asdict(outcome))
    except OSError as error:
        raise PrepareError(
            f'{path} cannot be written: {error.strerror}; mend that and run the same command again to go on'
        ) from error


def _make(maker: Maker, shard: Shard, outcome: report.Outcome) -> Iterator[bytes]:
    """The shard's records, serialized; notes in `outcome` what became of each clip."""
    features = records.make_features(maker.classes, maker.spec)
    for job in shard.jobs:
        try:
            record = maker.make_record(job, maker.spec)
        except media.MediaError as error:
            outcome.skipped.append((job.clip_id, error.reason, error.detail))
            continue
        except PrepareError:
            raise
        except Exception as error:
            raise RuntimeError(
                f'clip {job.clip_id!r} of {shard.name} failed in a way that is not foreseen; please report it'
            ) from error
        outcome.used.append(job.clip_id)
        outcome.notes.extend((job.clip_id, note) for note in record.clip.notes)
        yield records.encode(record, features)
