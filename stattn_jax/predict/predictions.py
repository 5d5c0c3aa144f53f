"""The rows of predictions: kept in a journal while they are made, then written as CSV, JSON Lines or Parquet.

The journal, FILE.partial, has one line per video. If the command is stopped, it goes on after these lines.
"""

import csv
import importlib
import io
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from stattn_jax import files, run

SCHEMA = 'stattn_jax.predictions/1'
_STRONGEST = ('strongest_segment', 'strongest_cell')
_SEGMENT, _CELL = ('start', 'end', 'evidence'), ('start', 'end', 'row', 'column', 'x', 'y')


class Journal:
    """The rows that are done, each with the identity of its video, in a file beside the final one.

    Raises RunError where the journal belongs to a call with other settings.
    """

    def __init__(self, out: pathlib.Path, settings: dict[str, Any], overwrite: bool):
        self.path = out.with_name(f'{out.name}.partial')
        self._settings = json.loads(json.dumps(settings))
        # The place (byte) of the row of each video.
        self._places: dict[str, int] = {}
        if overwrite:
            self.path.unlink(missing_ok=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        length = self._read() if self.path.exists() else 0
        self._file = open(self.path, 'r+b' if length else 'wb')
        # A line that was cut off when the process was killed is overwritten.
        self._file.truncate(length)
        self._file.seek(length)
        if not length:
            self._append({'schema': SCHEMA, 'settings': self._settings})

    def _read(self) -> int:
        """Finds the rows of earlier calls; returns the length (bytes) of the lines that are whole."""
        length = 0
        with open(self.path, 'rb') as file:
            for line in file:
                if not line.endswith(b'\n'):
                    break
                content = json.loads(line)
                if length == 0 and content != {'schema': SCHEMA, 'settings': self._settings}:
                    raise run.RunError(
                        f'{self.path} was begun by another model or with other flags; give the same ones to go on, '
                        '--overwrite to begin anew, or another --out'
                    )
                # A video that failed is tried again.
                if length and content['row']['error'] is None:
                    self._places[_key(content['video'])] = length
                length += len(line)
        return length

    def __contains__(self, video: dict[str, Any]) -> bool:
        return _key(video) in self._places

    def add(self, video: dict[str, Any], row: dict[str, Any]) -> None:
        self._places[_key(video)] = self._file.tell()
        self._append({'video': video, 'row': row})

    def _append(self, content: dict[str, Any]) -> None:
        self._file.write((json.dumps(content, ensure_ascii=False, allow_nan=False) + '\n').encode())
        self._file.flush()

    def rows(self, videos: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yields the rows of these videos, in their order."""
        with open(self.path, 'rb') as file:
            for video in videos:
                file.seek(self._places[_key(video)])
                yield json.loads(file.readline())['row']

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        self.close()
        self.path.unlink()


def _key(video: dict[str, Any]) -> str:
    return json.dumps(video, sort_keys=True)


def check(out: pathlib.Path) -> None:
    """Raises RunError where Parquet is asked for and PyArrow is missing."""
    if out.suffix == '.parquet':
        try:
            importlib.import_module('pyarrow.parquet')
        except ImportError as error:
            raise run.RunError(
                f'--out={out}: Parquet needs pyarrow, which cannot be imported ({error}); pip install pyarrow, or give '
                'a file that ends with .csv or .jsonl'
            ) from None


def write(out: pathlib.Path, rows: Iterator[dict[str, Any]], classes: Sequence[str], top: int | None) -> None:
    """Writes the rows in the format of the file's suffix; the file appears whole or not at all.

    In CSV and Parquet each number has a column: `probability: CLASS` for every class, or with `top` class_1,
    probability_1, ... for the best ones.
    """
    with files.whole_file(out) as file:
        if out.suffix == '.jsonl':
            for row in rows:
                file.write((json.dumps(row, ensure_ascii=False, allow_nan=False) + '\n').encode())
        elif out.suffix == '.csv':
            text = io.TextIOWrapper(file, encoding='utf-8', newline='', write_through=True)
            table = csv.DictWriter(text, list(columns(classes, top)))
            table.writeheader()
            table.writerows(flat(row, classes, top) for row in rows)
            text.detach()
        else:
            _write_parquet(file, rows, classes, top)


def _write_parquet(file, rows, classes, top) -> None:
    import pyarrow
    from pyarrow import parquet

    kinds = {str: pyarrow.string(), int: pyarrow.int32(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns(classes, top).items()])
    with parquet.ParquetWriter(file, schema) as writer:
        flat_rows = (flat(row, classes, top) for row in rows)
        while batch := [row for _, row in zip(range(10_000), flat_rows)]:
            writer.write_table(pyarrow.Table.from_pylist(batch, schema))


def columns(classes: Sequence[str], top: int | None) -> dict[str, type]:
    """Returns the columns of CSV and Parquet with their types."""
    found: dict[str, type] = {'video': str, 'error': str, 'label': str, 'probability': float}
    found |= {f'segment_{name}': float for name in _SEGMENT}
    found |= {f'cell_{name}': int if name in ('row', 'column') else float for name in _CELL}
    found['notes'] = str
    if top is None:
        return found | {f'probability: {label}': float for label in classes}
    for k in range(1, min(top, len(classes)) + 1):
        found |= {f'class_{k}': str, f'probability_{k}': float}
    return found


def flat(row: dict[str, Any], classes: Sequence[str], top: int | None) -> dict[str, Any]:
    """Returns a row with one value per column; None where it has none."""
    values: dict[str, Any] = dict.fromkeys(columns(classes, top))
    values |= {name: row[name] for name in ('video', 'error', 'label', 'probability')}
    values['notes'] = '; '.join(row['notes'])
    for name in _STRONGEST:
        prefix = name.removeprefix('strongest_')
        values |= {f'{prefix}_{key}': value for key, value in (row[name] or {}).items()}
    for k, (label, probability) in enumerate(row['probabilities'].items(), 1):
        values |= (
            {f'probability: {label}': probability}
            if top is None
            else {f'class_{k}': label, f'probability_{k}': probability}
        )
    return values
