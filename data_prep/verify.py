"""Checks a data set directory record by record, and prints what it holds.

  python -m data_prep.verify DIR

Exit code 1 and a line for each problem: a file missing or damaged (with byte offset and record), counts that differ
from `stattn.json`, clips missing, there twice, or shared by two splits. Read next: docs/datasets.md.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Iterator

from absl import flags

from data_prep import cli, prepare, report
from stattn_jax.data import records, source, tfrecord

FLAGS = flags.FlagValues()
_SHOWN = 50


@dataclasses.dataclass
class Finding:
    """What a directory holds: per split the clips, bytes and clips of each label; and every problem, one line each."""

    clips: dict[str, int]
    bytes: dict[str, int]
    labels: dict[str, collections.Counter]
    events: dict[str, int]
    boxes: dict[str, int]
    problems: list[str]


def main(arguments: list[str]) -> None:
    directory = pathlib.Path(arguments[0])
    info = source.DatasetInfo.load(directory)
    finding = verify(directory)
    print(table(info, finding))
    for problem in finding.problems[:_SHOWN]:
        print(f'problem: {problem}')
    if finding.problems:
        more = f', the first {_SHOWN} above' if len(finding.problems) > _SHOWN else ', see above'
        raise prepare.PrepareError(f'{directory}: {len(finding.problems)} problems found{more}')
    print(f'{directory}: {sum(finding.clips.values())} records, all checksums match')


def verify(directory: pathlib.Path) -> Finding:
    """Reads every record of every split.

    Raises:
      NoDataError: the directory is no data set.
    """
    info = source.DatasetInfo.load(directory)
    finding = Finding({}, {}, {}, {}, {}, [])
    owner: dict[str, str] = {}
    for split in info.splits:
        for tally in (finding.clips, finding.bytes, finding.events, finding.boxes):
            tally[split] = 0
        finding.labels[split] = collections.Counter()
        for path in info.shard_paths(directory, split):
            ids = []
            for record in _records(path, info, finding.problems):
                ids.append(record.clip_id)
                _count(record, split, finding)
                _check_owner(f'clip {record.clip_id!r}', split, owner, finding.problems, once=True)
                if record.video:
                    _check_owner(
                        f'the stretch from {record.start:g} s of {record.video!r}',
                        split,
                        owner,
                        finding.problems,
                        once=False,
                    )
            finding.bytes[split] += path.stat().st_size if path.exists() else 0
            _check_outcome(directory, path.name, ids, finding.problems)
        if finding.clips[split] != info.splits[split]:
            finding.problems.append(
                f'split {split!r}: {finding.clips[split]} records can be read, {source.INFO_FILE} says {info.splits[split]}'
            )
    _check_files(directory, info, finding.problems)
    return finding


def _records(path: pathlib.Path, info: source.DatasetInfo, problems: list[str]) -> Iterator[records.ClipRecord]:
    """The sound records of a shard; the others become problems."""
    try:
        offsets = tfrecord.read_index(path)
    except tfrecord.DataError as error:
        problems.append(str(error))
        return
    for number in range(len(offsets) - 1):
        try:
            yield records.decode(tfrecord.read_record(path, offsets, number), info.spec)
        except tfrecord.DataError as error:
            problems.append(str(error))


def _count(record: records.ClipRecord, split: str, finding: Finding) -> None:
    finding.clips[split] += 1
    finding.labels[split].update(record.labels)
    finding.events[split] += len(record.events)
    finding.boxes[split] += len(record.boxes)


def _check_owner(what: str, split: str, owner: dict[str, str], problems: list[str], *, once: bool) -> None:
    """Notes that `what` is in the split; in another split it would be measured after it was learned."""
    if what not in owner:
        owner[what] = split
    elif owner[what] != split:
        problems.append(f'{what} is in split {owner[what]!r} and in split {split!r}: a leak')
    elif once:
        problems.append(f'{what} is in split {split!r} twice')


def _check_outcome(directory: pathlib.Path, shard: str, ids: list[str], problems: list[str]) -> None:
    """Compares a shard with the note that its writer left: a clip may neither vanish nor appear."""
    try:
        used = report.read_outcome(directory, shard).used
    except FileNotFoundError as error:
        problems.append(
            f'{error.filename}: no such file, so missing clips of {shard} cannot be named; '
            'run the same data_prep command again'
        )
        return
    for clip_id in sorted(set(used) - set(ids)):
        problems.append(f'{shard}: clip {clip_id!r} is missing')
    for clip_id in sorted(set(ids) - set(used)):
        problems.append(f'{shard}: clip {clip_id!r} was never put there by its preparation')


def _check_files(directory: pathlib.Path, info: source.DatasetInfo, problems: list[str]) -> None:
    """What stands beside the shards: nothing foreign, nothing lacking, and the fingerprint of these very shards."""
    shards = [path for split in info.splits for path in info.shard_paths(directory, split)]
    expected = {path.name for shard in shards for path in (shard, tfrecord.index_path(shard))}
    for path in sorted(directory.glob('*.tfrecord-*')):
        if path.name not in expected:
            problems.append(f'{path}: does not belong to this data set; delete it')
    for name in ('features.json', 'dataset_info.json', report.REPORT_FILE):
        if not (directory / name).exists():
            problems.append(f'{directory / name}: no such file; run the same data_prep command again')
    if (
        all(tfrecord.index_path(shard).exists() for shard in shards)
        and report.fingerprint(directory, info) != info.fingerprint
    ):
        problems.append(
            f'{directory / source.INFO_FILE}: its fingerprint is not that of these shards; '
            'run the same data_prep command again'
        )


def table(info: source.DatasetInfo, finding: Finding) -> str:
    """Counts per split, and below them how many clips carry each label."""
    splits = list(finding.clips)
    width = max(12, *(len(name) for name in info.classes))
    rows = [
        ('', splits),
        *((name, [getattr(finding, name)[s] for s in splits]) for name in ('clips', 'events', 'boxes')),
    ]
    rows.append(('MiB', [f'{finding.bytes[split] / 2**20:.1f}' for split in splits]))
    rows.append(('clips by label', ['' for _ in splits]))
    rows.extend((name, [finding.labels[split][label] for split in splits]) for label, name in enumerate(info.classes))
    kind = 'several labels a clip' if info.multi_label else 'one label a clip'
    cut = f'{info.spec.segments} segments of {info.spec.segment_seconds:g} s'
    head = f'{info.name}: {len(info.classes)} classes, {kind}, {cut}'
    return '\n'.join(
        [head, *(f'{name:{width}s}' + ''.join(f' {cell!s:>10s}' for cell in cells).rstrip() for name, cells in rows)]
    )


if __name__ == '__main__':
    cli.run(main, FLAGS, __doc__, positional=1)
