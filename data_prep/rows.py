"""Reads rows of delimited text files with checks of each cell, and writes such files.

A fault is one line with file, line, column, value and the expected content; all faults of a file are collected before
any is raised. tables.py reads the project's own tables with it, and the commands of published data sets read theirs.
"""

import collections
import contextlib
import csv
import io
import math
import os
import pathlib
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from stattn_jax import files

_SHOWN = 20


class TableError(Exception):
    """There are faults in the tables, one line each; the first 20 are in the message and all are in `.faults`."""

    def __init__(self, faults: list[str]):
        self.faults = faults
        more = [f'... and {len(faults) - _SHOWN} more faults'] if len(faults) > _SHOWN else []
        super().__init__('\n'.join(faults[:_SHOWN] + more))


@contextlib.contextmanager
def collect() -> Iterator[list[str]]:
    """Context with a list for faults, which are raised together as TableError at its end."""
    faults: list[str] = []
    yield faults
    if faults:
        raise TableError(faults)


class Row:
    """The cells of a row; `bad` is true once a fault was found in it."""

    def __init__(self, path: str | os.PathLike, line: int, cells: dict[str, str], faults: list[str]):
        self.cells, self.line, self.bad = cells, line, False
        self._path, self._faults = path, faults

    def fault(self, column: str, expected: str) -> None:
        """Notes that a cell differs from the expected content."""
        self.bad = True
        self._faults.append(
            f'{self._path}:{self.line}: column {column}: got {self.cells[column]!r}, expected {expected}'
        )

    def check(self, column: str, good: Callable[[str], object], expected: str) -> str:
        """Returns the cell without surrounding blanks; notes a fault if `good` rejects it."""
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
        """Returns the cell as a finite number in least..most + slack.

        Returns None if the cell is empty and `optional` is set, or if it is faulty.
        """
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


def read_rows(
    path: str | os.PathLike,
    columns: Sequence[str],
    faults: list[str],
    *,
    delimiter: str = ',',
    header: bool = True,
    quoting: Literal[0, 1, 2, 3] = csv.QUOTE_MINIMAL,
) -> Iterator[Row]:
    """Yields the rows of a file without blank lines; an unreadable row is noted as a fault and left out.

    A BOM is skipped.

    header: the first line names the columns, in any order and with others among them; spaces around the names do not
      count, and a name that is there twice is a fault. Without a header, the columns are `columns` in this order, and a
      file without rows is a fault.
    quoting: of the csv module.
    """
    text = _read_text(path, f'a CSV file with the columns {",".join(columns)}', faults)
    if text is None:
        return
    try:
        reader = csv.DictReader(
            io.StringIO(text, newline=''),
            None if header else columns,
            delimiter=delimiter,
            quoting=quoting,
            strict=True,
        )
        if header and not _check_header(path, reader, columns, faults):
            return
        expected = f'{len(reader.fieldnames)} ' + ('as in the header' if header else f'({",".join(columns)})')
        empty = True
        for cells in reader:
            empty = False
            if None in cells or None in cells.values():
                count = sum(value is not None for key, value in cells.items() if key) + len(cells.get(None, ()))
                faults.append(f'{path}:{reader.line_num}: {count} cells, expected {expected}; quote commas')
            else:
                yield Row(path, reader.line_num, cells, faults)
        if empty and not header:
            faults.append(f'{path}: holds no rows; expected rows of {",".join(columns)}')
    except csv.Error as error:
        faults.append(f'{path}:{reader.line_num}: not CSV ({error}); expected standard quoting')


def _check_header(path: str | os.PathLike, reader: csv.DictReader, columns: Sequence[str], faults: list[str]) -> bool:
    """Strips the names in the header; returns whether each of `columns` is there and no name is there twice."""
    names = [name.strip() for name in reader.fieldnames or ()]
    shown = textwrap.shorten(','.join(names), 300) or 'nothing'
    shown = shown if shown.isprintable() else ascii(shown)
    twice = [name for name, count in collections.Counter(filter(None, names)).items() if count > 1]
    missing = [column for column in columns if column not in names]
    if twice:
        faults.append(
            f'{path}:1: column {", ".join(twice)} is there twice; the header has {shown}; rename or delete one'
        )
    if missing:
        faults.append(
            f'{path}:1: column {", ".join(missing)} is missing; the header has {shown}, expected {",".join(columns)}'
        )
    # Spreadsheets leave columns without a name at the right edge; they get different names, which are then ignored.
    reader.fieldnames = [name or f'column {number} without a name' for number, name in enumerate(names, 1)]
    return not (twice or missing)


def _read_text(path: str | os.PathLike, expected: str, faults: list[str]) -> str | None:
    """Returns a UTF-8 file without its BOM; notes a fault and returns None if it cannot be read."""
    try:
        content = pathlib.Path(path).read_bytes()
        return content.decode().removeprefix('\ufeff')
    except OSError as error:
        faults.append(f'{path}: cannot be read ({error.strerror}); expected {expected}')
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        faults.append(f'{path}:{line}: byte {error.start} is not UTF-8; save the table as UTF-8')
    return None


def read_lines(path: str | os.PathLike, expected: str, faults: list[str]) -> list[str]:
    """Returns the lines of a text file without surrounding blanks; empty lines are left out."""
    text = _read_text(path, expected, faults)
    return [line.strip() for line in (text or '').splitlines() if line.strip()]


def write_rows(path: str | os.PathLike, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Writes a table that `read_rows` can read: None as an empty cell, floats to the last digit."""
    with files.whole_text(path) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
