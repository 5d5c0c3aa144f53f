"""Writes the files beside the shards: outcomes, the report, TFDS's metadata and `stattn.json`.

`prepare/SHARD.json` has the outcome of each clip of a shard. `prepare_report.json` summarizes them per split, under
`splits`, and has the remarks on the annotation files under `remarks`. `stattn.json` is written last, so that a
directory that has it is complete. verify.py checks a directory against all of these.
"""

import dataclasses
import hashlib
import itertools
import json
import pathlib
import tempfile

import tensorflow_datasets as tfds

from stattn_jax import files
from stattn_jax.data import media, records, source, tfrecord

WORK_DIR = 'prepare'
REPORT_FILE = 'prepare_report.json'
# Folder for the tables that the command of a published data set makes from the annotation files.
TABLES_DIR = 'tables'


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Outcome of one shard.

    used: clip ids in record order.
    skipped: (clip id, reason, detail).
    notes: (clip id, note) on clips that are used.
    """

    used: list[str]
    skipped: list[tuple[str, str, str]]
    notes: list[tuple[str, str]]


def outcome_path(directory: pathlib.Path, shard: str) -> pathlib.Path:
    return directory / WORK_DIR / f'{shard}.json'


def read_outcome(directory: pathlib.Path, shard: str) -> Outcome:
    return Outcome(**json.loads(outcome_path(directory, shard).read_text()))


def summarize(outcomes: dict[str, list[Outcome]]) -> dict[str, dict]:
    """Returns per split the clips wanted and used, skipped ids with detail by reason, and ids by note."""
    summary = {}
    for split, parts in outcomes.items():
        skipped: dict[str, dict[str, str]] = {}
        notes: dict[str, list[str]] = {}
        for clip_id, reason, detail in (row for part in parts for row in part.skipped):
            skipped.setdefault(reason, {})[clip_id] = detail
        for clip_id, note in (row for part in parts for row in part.notes):
            notes.setdefault(note, []).append(clip_id)
        used = sum(len(part.used) for part in parts)
        wanted = used + sum(len(clips) for clips in skipped.values())
        summary[split] = {'wanted': wanted, 'used': used, 'skipped': skipped, 'notes': notes}
    return summary


def table(summary: dict[str, dict], shown: int = 5) -> str:
    """Formats the report as text: a line per split, and the names of the first skipped clips of each reason.

    `unreadable` counts every reason but `missing`; `silent`, `short` and the other notes refer to clips that are used.
    The notes `no_sound` and `no_picture` are columns if there are any.
    """
    noted = {note for counts in summary.values() for note in counts['notes']}
    notes = ('silent', 'short', *(note for note in media.LACKING if note in noted))
    columns = ('wanted', 'used', 'missing', 'unreadable', *notes)
    lines = [f'{"split":12s}' + ''.join(f' {column:>10s}' for column in columns) + '  other notes']
    for split, counts in summary.items():
        skipped = {reason: len(clips) for reason, clips in counts['skipped'].items()}
        counted = {note: len(ids) for note, ids in sorted(counts['notes'].items())}
        missing = skipped.pop('missing', 0)
        cells = [counts['wanted'], counts['used'], missing, sum(skipped.values())]
        cells += [counted.pop(note, 0) for note in notes]
        others = ', '.join(f'{count} {note}' for note, count in counted.items())
        lines.append((f'{split:12s}' + ''.join(f' {cell:10d}' for cell in cells) + f'  {others}').rstrip())
    for split, counts in summary.items():
        for reason, clips in sorted(counts['skipped'].items()):
            lines.append(f'skipped in {split}: {len(clips)} {reason} ({media.REASONS[reason]})')
            lines.extend(f'  {clip_id}: {detail}' for clip_id, detail in list(clips.items())[:shown])
            if len(clips) > shown:
                lines.append(f'  ... and {len(clips) - shown} more in {REPORT_FILE}')
    return '\n'.join(lines)


def write_info(
    out: pathlib.Path,
    name: str,
    shards: dict[str, list[str]],
    *,
    classes: tuple[str, ...],
    multi_label: bool,
    spec: records.Spec,
    wanted: dict[str, int],
) -> source.DatasetInfo:
    """Writes TFDS's metadata and then `stattn.json`.

    Args:
      shards: names of the shards of each split, in order.
      wanted: number of clips of each split in the plan.
    """
    lengths = {split: [len(tfrecord.read_index(out / shard)) - 1 for shard in names] for split, names in shards.items()}
    split_infos = [
        tfds.core.SplitInfo(
            name=split, shard_lengths=lengths[split], num_bytes=sum((out / shard).stat().st_size for shard in names)
        )
        for split, names in shards.items()
    ]
    # TFDS writes its files in place and reads the names of the shards, so that it works on empty ones elsewhere.
    with tempfile.TemporaryDirectory() as work:
        for shard in itertools.chain.from_iterable(shards.values()):
            pathlib.Path(work, shard).touch()
        features = records.make_features(classes, spec)
        tfds.folder_dataset.write_metadata(data_dir=work, features=features, split_infos=split_infos, check_data=False)
        for path in pathlib.Path(work).iterdir():
            if path.stat().st_size:
                files.copy(path, out / path.name)
    info = source.DatasetInfo(
        name=name,
        classes=tuple(classes),
        multi_label=multi_label,
        spec=spec,
        splits={split: sum(counts) for split, counts in lengths.items()},
        wanted=wanted,
        shards={split: len(names) for split, names in shards.items()},
        fingerprint='',
    )
    info = dataclasses.replace(info, fingerprint=fingerprint(out, info))
    write_json(out / source.INFO_FILE, info.to_json())
    return info


def fingerprint(out: pathlib.Path, info: source.DatasetInfo) -> str:
    """Returns SHA-256 over classes, spec and every shard's index, which holds the checksum of every record."""
    content = {key: value for key, value in info.to_json().items() if key != 'fingerprint'}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for split in sorted(info.splits):
        for path in info.shard_paths(out, split):
            digest.update(tfrecord.index_path(path).read_bytes())
    return digest.hexdigest()


def write_json(path: pathlib.Path, content: dict) -> None:
    """Writes JSON atomically: the file is the old or the new one, never a part."""
    files.write_text(path, json.dumps(content, indent=1))
