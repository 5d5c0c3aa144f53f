"""The three tables of one's own data: clips.csv, events.csv, boxes.csv, checked row by row.

Columns and meaning: docs/datasets.md. Every fault is collected and reported as one line with file, line, column,
value and what was expected; nothing is skipped or mended. Read next: folder.py, which turns the tables into records.
"""

import csv
import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterator

from data_prep.prepare import Job
from stattn_jax.data import records

CLIP_COLUMNS = ('clip_id', 'video', 'start', 'end', 'split', 'labels')
EVENT_COLUMNS = ('clip_id', 'label', 'onset', 'offset', 'modality')
BOX_COLUMNS = ('clip_id', 'time', 'label', 'x0', 'y0', 'x1', 'y1')

_SHOWN = 20
# Rounding of times that were written with two or three digits.
_TIME_SLACK = 0.01


class TableError(Exception):
    """Faults in the tables, one line each; the first 20 are in the message and all in `.faults`."""

    def __init__(self, faults: list[str]):
        self.faults = faults
        more = [f'... and {len(faults) - _SHOWN} more faults'] if len(faults) > _SHOWN else []
        super().__init__('\n'.join(faults[:_SHOWN] + more))


@dataclasses.dataclass(frozen=True)
class Tables:
    """The jobs of the clips table, with the events and boxes of each clip, and the classes in label order."""

    jobs: list[Job]
    classes: tuple[str, ...]
    multi_label: bool


def read_tables(
    clips: str | os.PathLike,
    events: str | os.PathLike | None = None,
    boxes: str | os.PathLike | None = None,
    classes: str | os.PathLike | None = None,
) -> Tables:
    """Reads the tables; classes are the sorted labels of the clips table, or the lines of the file `classes`.

    Raises:
      TableError: with every fault found in the clips table, or else in the other files.
    """
    faults: list[str] = []
    rows = list(_rows(clips, CLIP_COLUMNS, faults))
    names = _read_classes(classes, faults) if classes else sorted({label for row in rows for label in _labels(row)})
    label_of = {name: i for i, name in enumerate(names)}
    jobs: dict[str, Job] = {}
    lines: dict[str, int] = {}
    for row in rows:
        job = _clip(row, label_of)
        if job and job.clip_id in jobs:
            row.fault('clip_id', f'an id of its own; line {lines[job.clip_id]} has the same')
        elif job:
            jobs[job.clip_id], lines[job.clip_id] = job, row.line
    if not rows and not faults:
        faults.append(f'{clips}: holds no clips; expected a row for each clip below the header')
    # Without a sound clips table, every row of the others would be a false alarm.
    if faults:
        raise TableError(faults)
    events_of = _by_clip(events, EVENT_COLUMNS, _event, jobs, label_of, faults)
    boxes_of = _by_clip(boxes, BOX_COLUMNS, _box, jobs, label_of, faults)
    if faults:
        raise TableError(faults)
    complete = [
        dataclasses.replace(
            job, events=tuple(events_of.get(job.clip_id, ())), boxes=tuple(boxes_of.get(job.clip_id, ()))
        )
        for job in jobs.values()
    ]
    return Tables(complete, tuple(names), any(len(job.labels) > 1 for job in complete))


# ---------------------------------------------------------------------------------------------------------------------
# One row of each table
# ---------------------------------------------------------------------------------------------------------------------


def _clip(row: '_Row', label_of: dict[str, int]) -> Job | None:
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
    if not texts or len(set(texts)) < len(texts) or not row.cells['labels'].isprintable():
        row.fault('labels', 'one label or several different ones joined by |')
    for text in texts:
        if text not in label_of:
            row.fault('labels', f'labels of the classes file; {text!r} is not in it{_near(text, label_of)}')
    if row.bad:
        return None
    return Job(clip_id, split, tuple(label_of[text] for text in texts), video=video, start=start, end=end)


def _event(row: '_Row', job: Job, label_of: dict[str, int]) -> records.Event | None:
    label = _label(row, label_of)
    onset = row.number('onset', "seconds from the clip's start, 0 or more", least=0)
    offset = row.number('offset', "seconds from the clip's start", least=0, most=_length(job), slack=_TIME_SLACK)
    if onset is not None and offset is not None and offset <= onset:
        row.fault('offset', f'more than onset, {onset:g}')
    modality = row.check('modality', lambda text: text in records.MODALITIES, f'one of {", ".join(records.MODALITIES)}')
    return None if row.bad else records.Event(label, onset, offset, modality)


def _box(row: '_Row', job: Job, label_of: dict[str, int]) -> records.Box | None:
    label = _label(row, label_of)
    time = row.number('time', "seconds from the clip's start", least=0, most=_length(job), slack=_TIME_SLACK)
    side = 'a fraction of the frame, 0 or more'
    x0, y0, x1, y1 = (row.number(name, side, least=0, most=1) for name in ('x0', 'y0', 'x1', 'y1'))
    for low, high, column in ((x0, x1, 'x1'), (y0, y1, 'y1')):
        if low is not None and high is not None and high <= low:
            row.fault(column, f'more than {column[0]}0, {low:g}')
    return None if row.bad else records.Box(time, label, x0, y0, x1, y1)


def _label(row: '_Row', label_of: dict[str, int]) -> int | None:
    text = row.cells['label'].strip()
    if text not in label_of:
        row.fault('label', f'one of the {len(label_of)} classes{_near(text, label_of)}')
    return label_of.get(text)


def _labels(row: '_Row') -> list[str]:
    return [label.strip() for label in row.cells['labels'].split('|') if label.strip()]


def _length(job: Job) -> float | None:
    """Seconds that the clip's row asks for; None when it runs to the end of its file."""
    return None if job.end is None else job.end - (job.start or 0)


def _near(text: str, label_of: dict[str, int]) -> str:
    """A hint for the commonest slip: another case or blanks."""
    same = [name for name in label_of if name.casefold().replace(' ', '') == text.casefold().replace(' ', '')]
    return f' (did you mean {same[0]!r}?)' if same else ''


def _is_plain_name(text: str) -> bool:
    return text.isprintable() and not re.search(r'[/\\]', text) and text not in ('', '.', '..')


def _is_inside(text: str) -> bool:
    parts = pathlib.PurePosixPath(text).parts
    return bool(parts) and text.isprintable() and '\\' not in text and parts[0] != '/' and '..' not in parts


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


class _Row:
    """A row's cells, and the faults found in it."""

    def __init__(self, path, line: int, cells: dict[str, str], faults: list[str]):
        self.cells, self.line, self.bad = cells, line, False
        self._path, self._faults = path, faults

    def fault(self, column: str, expected: str) -> None:
        self.bad = True
        self._faults.append(
            f'{self._path}:{self.line}: column {column}: got {self.cells[column]!r}, expected {expected}'
        )

    def check(self, column: str, good: Callable[[str], object], expected: str) -> str:
        text = self.cells[column].strip()
        if not good(text):
            self.fault(column, expected)
        return text

    def number(
        self,
        column: str,
        expected: str,
        *,
        optional: bool = False,
        least: float,
        most: float | None = None,
        slack: float = 0.0,
    ) -> float | None:
        text = self.cells[column].strip()
        if optional and not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= least):
            self.fault(column, expected)
            return None
        if most is not None and value > most + slack:
            self.fault(column, f'{expected}, at most {most:g}')
            return None
        return value


def _rows(path: str | os.PathLike, columns: tuple[str, ...], faults: list[str]) -> Iterator[_Row]:
    try:
        with open(path, encoding='utf-8-sig', newline='') as file:
            reader = csv.DictReader(file, strict=True)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                faults.append(
                    f'{path}:1: column {", ".join(missing)} is missing; '
                    f'the header has {",".join(reader.fieldnames or ()) or "nothing"}, expected {",".join(columns)}'
                )
                return
            for cells in reader:
                if None in cells or None in cells.values():
                    count = sum(value is not None for key, value in cells.items() if key) + len(cells.get(None, ()))
                    faults.append(
                        f'{path}:{reader.line_num}: {count} cells, expected {len(reader.fieldnames)} as in the header; quote commas'
                    )
                else:
                    yield _Row(path, reader.line_num, cells, faults)
    except OSError as error:
        faults.append(
            f'{path}: cannot be read ({error.strerror}); expected a CSV file with the columns {",".join(columns)}'
        )
    except UnicodeDecodeError as error:
        faults.append(f'{path}: byte {error.start} is not UTF-8; save the table as UTF-8')
    except csv.Error as error:
        faults.append(f'{path}:{reader.line_num}: not CSV ({error}); expected standard quoting')


def _by_clip(
    path, columns, read: Callable, jobs: dict[str, Job], label_of: dict[str, int], faults: list[str]
) -> dict[str, list]:
    """The rows of the events or boxes table, grouped by clip."""
    found: dict[str, list] = {}
    for row in _rows(path, columns, faults) if path else ():
        clip_id = row.cells['clip_id'].strip()
        if clip_id not in jobs:
            row.fault('clip_id', 'a clip_id of the clips table')
        elif (item := read(row, jobs[clip_id], label_of)) is not None:
            found.setdefault(clip_id, []).append(item)
    return found


def _read_classes(path: str | os.PathLike, faults: list[str]) -> list[str]:
    try:
        lines = [line.strip() for line in pathlib.Path(path).read_text(encoding='utf-8-sig').splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f'{path}: cannot be read ({error}); expected a text file with one class a line')
        return []
    names = [line for line in lines if line]
    for name in sorted({name for name in names if names.count(name) > 1 or '|' in name}):
        faults.append(f'{path}: class {name!r} is there twice or contains |; expected different names, one a line')
    return names
