"""Reads the tables of a data set, clips.csv, events.csv, boxes.csv and presence.csv, and checks every row.

docs/datasets.md describes the columns. Every fault is collected and reported as one line with file, line, column, value
and the expected content; nothing is skipped or corrected. labels.py compares the labels, and folder.py makes records
from the tables.
"""

import collections
import dataclasses
import os
import pathlib
import re
from collections.abc import Callable

from data_prep import labels, videos
from data_prep.prepare import Job
from data_prep.rows import Row, collect, read_lines, read_rows
from stattn_jax.data import records

CLIP_COLUMNS = ('clip_id', 'video', 'start', 'end', 'split', 'labels')
EVENT_COLUMNS = ('clip_id', 'label', 'onset', 'offset', 'modality')
BOX_COLUMNS = ('clip_id', 'time', 'label', 'x0', 'y0', 'x1', 'y1')
PRESENCE_COLUMNS = ('clip_id', 'label', 'modality', 'flags')

# Tolerance (s) for times that were rounded to two or three digits.
_TIME_SLACK = 0.01


@dataclasses.dataclass(frozen=True)
class Tables:
    """The jobs of the clips table with their entries in the other tables, and the classes in label order.

    `remarks` has a line about the labels that were merged, if any were.
    """

    jobs: list[Job]
    classes: tuple[str, ...]
    multi_label: bool
    remarks: tuple[str, ...] = ()


def read_tables(
    clips: str | os.PathLike,
    events: str | os.PathLike | None = None,
    boxes: str | os.PathLike | None = None,
    classes: str | os.PathLike | None = None,
    presence: str | os.PathLike | None = None,
    *,
    merge_labels: bool = False,
) -> Tables:
    """Reads the tables; classes are the sorted labels of the clips table, or the lines of the file `classes`.

    merge_labels: labels that differ only by case, Unicode form or surrounding space are one class: the line of the file
      `classes`, or else the most frequent spelling. Otherwise such labels are faults.

    Raises:
      TableError: with every fault of the clips table or, if it has none, of the other files.
    """
    # With faults in the clips table, every row of the other tables could be a false alarm.
    with collect() as faults:
        rows = list(read_rows(clips, CLIP_COLUMNS, faults))
        names = _read_classes(classes, faults) if classes else _name_classes(clips, rows, merge_labels, faults)
        label_of = labels.Classes(names, merge=merge_labels)
        jobs = _jobs(rows, label_of)
        faults += _split_faults(clips, rows)
        if not rows and not faults:
            faults.append(f'{clips}: holds no clips; expected a row for each clip below the header')
    with collect() as faults:
        events_of = _by_clip(events, EVENT_COLUMNS, _event, jobs, label_of, faults)
        boxes_of = _by_clip(boxes, BOX_COLUMNS, _box, jobs, label_of, faults)
        presence_of = _by_clip(presence, PRESENCE_COLUMNS, _presence, jobs, label_of, faults)
    complete = [
        dataclasses.replace(
            job,
            events=tuple(events_of.get(clip_id, ())),
            boxes=tuple(boxes_of.get(clip_id, ())),
            presence=tuple(presence_of.get(clip_id, ())),
        )
        for clip_id, job in jobs.items()
    ]
    merged = [f'{text!r} as {name!r} ({count})' for (text, name), count in label_of.merged.items()]
    remarks = videos.named_all(('spellings of labels merged (with their number)', merged))
    return Tables(complete, label_of.names, any(len(job.labels) > 1 for job in complete), tuple(remarks))


def _name_classes(path: str | os.PathLike, rows: list[Row], merge: bool, faults: list[str]) -> list[str]:
    """Returns the sorted labels of the clips table; labels that are spelt in several ways are merged, or are faults."""
    counts: collections.Counter[str] = collections.Counter()
    lines: dict[str, int] = {}
    for row in rows:
        for text in _labels(row):
            counts[text] += 1
            lines.setdefault(text, row.line)
    groups = labels.alike(counts)
    for group in () if merge else groups:
        faults.append(
            f'{path}: labels {labels.show(group)} (first in lines {", ".join(str(lines[text]) for text in group)}) '
            'differ only by case, Unicode form or surrounding space; write one of them everywhere, or add '
            f'--merge_labels, which takes {group[0].strip()!r}'
        )
    chosen = {text: group[0] for group in groups for text in group} if merge else {}
    return sorted({chosen.get(text, text).strip() for text in counts})


def _split_faults(path: str | os.PathLike, rows: list[Row]) -> list[str]:
    counts = collections.Counter(row.cells['split'].strip() for row in rows)
    return [
        f'{path}: splits {labels.show(group)} differ only by case or Unicode form; write one of them everywhere'
        for group in labels.alike(counts)
    ]


def _jobs(rows: list[Row], label_of: labels.Classes) -> dict[str, Job]:
    """Returns the jobs of the valid rows of the clips table by clip_id, which must be unique."""
    jobs: dict[str, Job] = {}
    lines: dict[str, int] = {}
    for row in rows:
        job = _clip(row, label_of)
        if job and job.clip_id in jobs:
            row.fault('clip_id', f'an id of its own; line {lines[job.clip_id]} has the same')
        elif job:
            jobs[job.clip_id], lines[job.clip_id] = job, row.line
    return jobs


# ---------------------------------------------------------------------------------------------------------------------
# One row of each table
# ---------------------------------------------------------------------------------------------------------------------


def _clip(row: Row, label_of: labels.Classes) -> Job | None:
    clip_id = row.check('clip_id', _is_plain_name, 'a name without /, \\, control characters or blanks at its ends')
    video = row.check(
        'video', _is_inside, 'a path inside the videos folder, such as dogs/1.mp4, without .. or a leading /'
    )
    split = row.check(
        'split',
        lambda text: re.fullmatch(r'[A-Za-z]\w*', text),
        'a split such as train, val or test (letters, digits, _)',
    )
    start = row.number('start', 'seconds of the video, 0 or more, or empty', optional=True, least=0)
    end = row.number('end', 'seconds of the video, or empty', optional=True, least=0)
    if end is not None and end <= (start or 0):
        row.fault('end', f'more than start, {start or 0:g}')
    texts = _labels(row)
    names = [text.strip() for text in texts]
    if not texts or len(set(names)) < len(names) or not all(name.isprintable() for name in names):
        row.fault('labels', 'one label or several different ones joined by |')
    numbers = [label_of.find(text) for text in texts]
    for name, number in zip(names, numbers):
        if number is None:
            row.fault('labels', f'labels of the classes file; {name!r} is not in it{label_of.near(name)}')
    if row.bad:
        return None
    return Job(clip_id, split, tuple(dict.fromkeys(numbers)), video=video, start=start, end=end)


def _event(row: Row, job: Job, label_of: labels.Classes) -> records.Event | None:
    label = _label(row, label_of)
    onset = row.number('onset', "seconds from the clip's start, 0 or more", least=0)
    offset = row.number('offset', "seconds from the clip's start", least=0, most=_length(job), slack=_TIME_SLACK)
    if onset is not None and offset is not None and offset <= onset:
        row.fault('offset', f'more than onset, {onset:g}')
    modality = _modality(row)
    return None if row.bad else records.Event(label, onset, offset, modality)


def _box(row: Row, job: Job, label_of: labels.Classes) -> records.Box | None:
    label = _label(row, label_of)
    time = row.number('time', "seconds from the clip's start", least=0, most=_length(job), slack=_TIME_SLACK)
    side = 'a fraction of the frame, 0 or more'
    x0, y0, x1, y1 = (row.number(name, side, least=0, most=1) for name in ('x0', 'y0', 'x1', 'y1'))
    for low, high, column in ((x0, x1, 'x1'), (y0, y1, 'y1')):
        if low is not None and high is not None and high <= low:
            row.fault(column, f'more than {column[0]}0, {low:g}')
    return None if row.bad else records.Box(time, label, x0, y0, x1, y1)


def _presence(row: Row, job: Job, label_of: labels.Classes) -> records.Presence | None:
    label = _label(row, label_of)
    modality = _modality(row)
    flags = row.check('flags', lambda text: re.fullmatch(r'(\w+(\|\w+)*)?', text), 'words joined by |, or nothing')
    return None if row.bad else records.Presence(label, modality, tuple(filter(None, flags.split('|'))))


def _modality(row: Row) -> str:
    return row.check('modality', lambda text: text in records.MODALITIES, f'one of {", ".join(records.MODALITIES)}')


def _label(row: Row, label_of: labels.Classes) -> int | None:
    text = row.cells['label']
    number = label_of.find(text)
    if number is None:
        row.fault('label', f'one of the {len(label_of.names)} classes{label_of.near(text.strip())}')
    return number


def _labels(row: Row) -> list[str]:
    """Returns the labels of a clip as they are spelt, with spaces at the ends of the cell but not around |.

    In a row with a space after each comma, these spaces belong to no cell.
    """
    text = row.cells['labels']
    if all(cell.startswith(' ') for cell in list(row.cells.values())[1:] if cell):
        text = text.lstrip()
    return [label for label in re.sub(r'\s*\|\s*', '|', text).split('|') if label.strip()]


def _length(job: Job) -> float | None:
    """Returns the length (s) of a job's clip; None if it runs to the end of its file."""
    return None if job.end is None else job.end - (job.start or 0)


def _is_plain_name(text: str) -> bool:
    return text.isprintable() and not re.search(r'[/\\]', text) and text not in ('', '.', '..')


def _is_inside(text: str) -> bool:
    parts = pathlib.PurePosixPath(text).parts
    return bool(parts) and text.isprintable() and '\\' not in text and parts[0] != '/' and '..' not in parts


def _by_clip(
    path, columns, read: Callable, jobs: dict[str, Job], label_of: labels.Classes, faults: list[str]
) -> dict[str, list]:
    """Reads the rows of a table about clips and groups them by clip."""
    found: dict[str, list] = {}
    for row in read_rows(path, columns, faults) if path else ():
        clip_id = row.cells['clip_id'].strip()
        if clip_id not in jobs:
            row.fault('clip_id', 'a clip_id of the clips table')
        elif (item := read(row, jobs[clip_id], label_of)) is not None:
            found.setdefault(clip_id, []).append(item)
    return found


def _read_classes(path: str | os.PathLike, faults: list[str]) -> list[str]:
    names = read_lines(path, 'a text file with one class a line', faults)
    for name in sorted({name for name in names if names.count(name) > 1 or '|' in name}):
        faults.append(f'{path}: class {name!r} is there twice or contains |; expected different names, one a line')
    for group in labels.alike(collections.Counter(names)):
        faults.append(
            f'{path}: classes {labels.show(group)} differ only by case, Unicode form or spaces; keep one of them'
        )
    return names
