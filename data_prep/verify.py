"""Checks a data set directory record by record, and prints a summary of its content.

  python -m data_prep.verify DIR [--allow_leaks]

Exit code 1 and a line for each problem: a file missing or damaged (with byte offset and record), counts that differ
from `stattn.json`, clips missing or there twice, arrays of another shape or with numbers that are not finite. There is
also a line for each leak, which is a part of a video that is in two splits; --allow_leaks keeps the lines and exits
with 0, for published data sets that have leaks. See also docs/datasets.md.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
from absl import flags

from data_prep import cli, prepare, report
from stattn_jax.data import extracted, features, records, source, tfrecord

FLAGS = flags.FlagValues()
define = cli.definers(FLAGS)
define.bool('allow_leaks', False, 'Name leaks, but do not fail for them.')
_SHOWN = 50
_ANNOTATIONS = ('events', 'boxes', 'presence', 'masks')


def _tally():
    return dataclasses.field(default_factory=collections.Counter)


@dataclasses.dataclass
class Finding:
    """The content of a directory: counts and bytes per split, clips per label; and one line per problem and leak."""

    clips: collections.Counter = _tally()
    bytes: collections.Counter = _tally()
    events: collections.Counter = _tally()
    boxes: collections.Counter = _tally()
    presence: collections.Counter = _tally()
    masks: collections.Counter = _tally()
    unlabelled: collections.Counter = _tally()
    labels: dict[str, collections.Counter] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(collections.Counter)
    )
    problems: list[str] = dataclasses.field(default_factory=list)
    leaks: list[str] = dataclasses.field(default_factory=list)


def main(arguments: list[str]) -> None:
    directory = pathlib.Path(arguments[0])
    info = source.DatasetInfo.load(directory)
    finding = verify(directory)
    print(table(info, finding))
    faults = {'problem': finding.problems, 'leak': finding.leaks}
    for kind, lines in faults.items():
        for line in lines[:_SHOWN]:
            print(f'{kind}: {line}')
        if len(lines) > _SHOWN:
            print(f'... and {len(lines) - _SHOWN} more {kind}s')
    if finding.problems or (finding.leaks and not FLAGS.allow_leaks):
        found = ' and '.join(f'{len(lines)} {kind}{"s"[: len(lines) > 1]}' for kind, lines in faults.items() if lines)
        hint = '' if finding.problems else '; --allow_leaks accepts them where the published split is so'
        raise prepare.PrepareError(f'{directory}: {found} found, see above{hint}')
    print(f'{directory}: {sum(finding.clips.values())} records, all checksums match')


def verify(directory: pathlib.Path) -> Finding:
    """Reads every record of every split.

    Raises:
      NoDataError: the directory is no data set.
    """
    info = source.DatasetInfo.load(directory)
    finding = Finding()
    owner: dict[str, str] = {}
    for split in info.splits:
        for path in info.shard_paths(directory, split):
            ids = []
            for record in _records(path, info, finding.problems):
                ids.append(record.clip_id)
                _count(record, split, finding)
                _check_numbers(record, info.spec, finding.problems)
                _check_masks(record, finding.problems)
                _check_owner(record, split, owner, finding)
            finding.bytes[split] += path.stat().st_size if path.exists() else 0
            _check_outcome(directory, path.name, ids, finding.problems)
        if finding.clips[split] != info.splits[split]:
            finding.problems.append(
                f'split {split!r}: {finding.clips[split]} records can be read, {source.INFO_FILE} says '
                f'{info.splits[split]}'
            )
    _check_files(directory, info, finding.problems)
    return finding


def _records(path: pathlib.Path, info: source.DatasetInfo, problems: list[str]) -> Iterator[records.ClipRecord]:
    """Yields the readable records of a shard; the others are added to the problems."""
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
        except ValueError as error:
            problems.append(f'{path}, record {number}: {error}, but {source.INFO_FILE} says so; prepare the data again')


def _check_numbers(record: records.ClipRecord, spec: records.Spec, problems: list[str]) -> None:
    """Adds a problem for each array with numbers that are not finite, which would end a training run."""
    for name in records.array_shapes(spec):
        if not np.isfinite(getattr(record.clip, name)).all():
            problems.append(
                f'clip {record.clip_id!r}: its {name} holds numbers that are not finite; prepare the data again'
            )


def _check_masks(record: records.ClipRecord, problems: list[str]) -> None:
    for mask in record.masks:
        try:
            mask.pixels()
        except ValueError as error:
            problems.append(f'clip {record.clip_id!r}: {error}; prepare the data again')


def _count(record: records.ClipRecord, split: str, finding: Finding) -> None:
    finding.clips[split] += 1
    finding.labels[split].update(record.labels)
    finding.unlabelled[split] += not record.labels
    for name in _ANNOTATIONS:
        getattr(finding, name)[split] += len(getattr(record, name))


def _check_owner(record: records.ClipRecord, split: str, owner: dict[str, str], finding: Finding) -> None:
    """Notes the split of a clip and of its part of a video.

    A clip that is there twice is a problem. A part of a video in two splits is a leak, because a model would be
    evaluated on training data.
    """
    clip, stretch = f'clip {record.clip_id!r}', f'the stretch from {record.start:g} s of {record.video!r}'
    if clip in owner:
        where = f'split {split!r} twice' if owner[clip] == split else f'split {owner[clip]!r} and in split {split!r}'
        finding.problems.append(f'{clip} is in {where}')
    owner.setdefault(clip, split)
    if record.video and owner.setdefault(stretch, split) != split:
        finding.leaks.append(f'{stretch} is in split {owner[stretch]!r} and in split {split!r}')


def _check_outcome(directory: pathlib.Path, shard: str, ids: list[str], problems: list[str]) -> None:
    """Adds a problem for each clip that is in a shard but not in its outcome, or the other way round."""
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
    """Checks the files beside the shards: none is foreign or missing, and the fingerprint matches the shards."""
    shards = [path for split in info.splits for path in info.shard_paths(directory, split)]
    expected = {path.name for shard in shards for path in (shard, tfrecord.index_path(shard))}
    for path in sorted(directory.glob('*.tfrecord-*')):
        if path.name not in expected:
            problems.append(f'{path}: does not belong to this data set; delete it')
    if isinstance(info.spec, extracted.ExtractedSpec) and info.spec.visual:
        try:
            extracted.read_absent(directory, info.spec.visual)
        except tfrecord.DataError as error:
            problems.append(str(error))
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
    """Formats the counts per split, with the number of wanted clips, followed by the number of clips per label."""
    splits = list(info.splits)
    width = max(14, *(len(name) for name in info.classes))
    rows: list[tuple[str, list]] = [
        ('', splits),
        ('clips', [finding.clips[split] for split in splits]),
        ('of wanted', [info.wanted[split] for split in splits]),
        *((name, [getattr(finding, name)[split] for split in splits]) for name in _ANNOTATIONS),
        ('MiB', [f'{finding.bytes[split] / 2**20:.1f}' for split in splits]),
        ('clips by label', ['' for _ in splits]),
        *((name, [finding.labels[split][label] for split in splits]) for label, name in enumerate(info.classes)),
    ]
    if finding.unlabelled.total():
        rows.append(('(no label)', [finding.unlabelled[split] for split in splits]))
    kind = 'several labels a clip' if info.multi_label else 'one label a clip'
    cut = f'{info.spec.segments} segments of {info.spec.segment_seconds:g} s'
    if isinstance(info.spec, features.FeatureSpec):
        cut += f', features: {info.spec.source}'
    if isinstance(info.spec, extracted.ExtractedSpec):
        cut += f', features: {info.spec.describe()}'
    head = f'{info.name}: {len(info.classes)} classes, {kind}, {cut}'
    return '\n'.join(
        [head, *(f'{name:{width}s}' + ''.join(f' {cell!s:>10s}' for cell in cells).rstrip() for name, cells in rows)]
    )


if __name__ == '__main__':
    cli.run(main, FLAGS, __doc__, positional=1)
