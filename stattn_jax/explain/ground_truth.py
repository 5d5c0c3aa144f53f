"""Reads the annotations of clips from the tables of a data set; figure.py and page.py draw them."""

import csv
import pathlib
from collections.abc import Collection

from stattn_jax import run
from stattn_jax.explain.explanation import GroundTruth

_EVENT, _BOX = ('onset', 'offset'), ('time', 'x0', 'y0', 'x1', 'y1')


def read(folder: pathlib.Path, clip_ids: Collection[str]) -> dict[str, dict[str, GroundTruth]]:
    """Returns the annotations of each clip in events.csv and boxes.csv of `folder`, by label.

    Raises run.RunError for tables that cannot be read.
    """
    paths = [path for path in (folder / 'events.csv', folder / 'boxes.csv') if path.exists()]
    if not paths:
        raise run.RunError(
            f'--truth={folder} holds neither events.csv nor boxes.csv; expected a folder with at least one of them'
        )
    found: dict[str, dict[str, dict[str, list]]] = {clip_id: {} for clip_id in clip_ids}
    for path in paths:
        kind, columns = ('intervals', _EVENT) if path.name == 'events.csv' else ('boxes', _BOX)
        with open(path, newline='', encoding='utf-8-sig') as file:
            try:
                reader = csv.DictReader(file)
                reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
                for row in reader:
                    if row['clip_id'] in found:
                        values = tuple(float(row[name]) for name in columns)
                        found[row['clip_id']].setdefault(row['label'], {}).setdefault(kind, []).append(values)
            except (KeyError, ValueError) as error:
                raise run.RunError(
                    f'{path}: {error}; expected the columns clip_id, label, {", ".join(columns)}'
                ) from None
    return {
        clip_id: {label: GroundTruth(**rows) for label, rows in of_clip.items()} for clip_id, of_clip in found.items()
    }


def within(truth: GroundTruth, start: float, seconds: float) -> GroundTruth:
    """Returns the annotations within `seconds` from `start` (s), with times relative to `start`.

    Intervals are cut at the ends.
    """
    end = start + seconds
    intervals = [(max(a, start) - start, min(b, end) - start) for a, b in truth.intervals if a < end and b > start]
    boxes = [(time - start, x0, y0, x1, y1) for time, x0, y0, x1, y1 in truth.boxes if start <= time < end]
    return GroundTruth(intervals, boxes)
