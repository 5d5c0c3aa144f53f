"""Tables of numbers with confidence intervals, written as CSV, Markdown or JSON.

comparisons.py, faithfulness.py and explanations.py fill them.

Tables hold the names that configs use; `display_name` turns these names into words for readers.
"""

import csv
import dataclasses
import io
import math
from typing import Any, NamedTuple

from stattn_jax.metrics import paired

AHEAD, LEVEL, BEHIND = 'ahead', 'level', 'behind'
# A difference is called ahead or behind if its p-value, corrected for the tests of its column, is below this.
SIGNIFICANT = 0.05
MINUS = '\N{MINUS SIGN}'
# For each unit: factor, decimals, whether the sign is always shown, and the suffix of the value.
UNITS = {
    'percent': (100, 1, False, '\N{NO-BREAK SPACE}%'),
    'points': (100, 1, True, ''),
    'number': (1, 3, False, ''),
    'signed': (1, 3, True, ''),
    'seconds': (1, 0, False, '\N{NO-BREAK SPACE}s'),
}
WORDS = {
    'stan': 'STAN (ours)',
    'audio_only': 'sound only',
    'visual_only': 'picture only',
    'late_sum': 'late fusion (sum)',
    'concat': 'concatenation',
    'film': 'FiLM',
    'gmu': 'GMU',
    'lmf': 'LMF',
    'mbt': 'MBT',
    'cam': 'CAM',
    'mil': 'gated attention MIL',
    'proto': 'prototypes',
    'avel_paper': 'AVEL (paper)',
    'avel_code': 'AVEL (released code)',
    'han': 'HAN',
    'own': 'its own',
    'gradient_input': 'gradient × input',
    'grad_cam': 'Grad-CAM',
    'rise': 'RISE',
    'random': 'random map',
    'feature': 'features',
    'blur_mute': 'blur, mute',
    'mean_noise': 'mean, noise',
    'freeze_mean': 'freeze, mean',
}


def display_name(name: str) -> str:
    """Returns a config or measure name in words."""
    return WORDS.get(name, name.replace('_', ' '))


class Estimate(NamedTuple):
    """A number with its 95 % interval, counts of clips and trainings, and `p` and `verdict` if it is a difference.

    `n` clips have a value and `skipped` clips have none; `seeds` is the number of trainings. The interval is NaN where
    none exists: the seconds of a single training, or a number that is not an estimate. `judged` corrects `p` for the
    number of tests in the column and fills in `verdict`; the interval is not corrected.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    skipped: int = 0
    seeds: int = 0
    p: float = math.nan
    verdict: str = ''

    def text(self, unit: str) -> tuple[str, str]:
        """Returns the formatted value and interval; the interval is '' if there is none."""
        factor, decimals, signed, after = UNITS[unit]

        def shown(value, sign=''):
            # Rounding first, and adding 0.0, avoids showing minus zero.
            rounded = round(factor * value, decimals) + 0.0
            return f'{rounded:{sign},.{decimals}f}'.replace('-', MINUS)

        interval = '' if math.isnan(self.low) else f'[{shown(self.low)}, {shown(self.high)}]'
        return shown(self.value, '+' if signed else '') + after, interval


class Column(NamedTuple):
    """The head of a column: its unit is 'text', 'count' (a whole number) or one of UNITS.

    `tested`: whether its cells are differences that are tested.
    """

    name: str
    unit: str = 'text'
    tested: bool = False


Cell = str | int | Estimate | None
Row = tuple[Cell, ...]


def text_of(cell: Cell) -> str:
    """Returns a cell that holds text, such as the first of every row."""
    assert isinstance(cell, str)
    return cell


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of one variant: rows of text, whole numbers and cells, with None where nothing was measured.

    Attributes:
      name: name of the table's file, prefixed with the variant.
      aside: whether the appendix shows the table folded at first.
    """

    name: str
    variant: str
    title: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    aside: bool = False

    @property
    def stem(self) -> str:
        return f'{self.variant}-{self.name}'

    def without_empty(self) -> 'Table':
        """Returns the table without the numeric columns in which nothing was measured."""
        kept = [c for c, column in enumerate(self.columns) if column.unit not in UNITS or self._cells(c)]
        rows = tuple(tuple(row[c] for c in kept) for row in self.rows)
        return dataclasses.replace(self, columns=tuple(self.columns[c] for c in kept), rows=rows)

    def judged(self) -> 'Table':
        """Returns the table with corrected p-values (Holm, over the rows) and verdicts in its tested columns."""
        rows = [list(row) for row in self.rows]
        for c, column in enumerate(self.columns):
            if not column.tested:
                continue
            tested = [(row, cell) for row in rows if isinstance(cell := row[c], Estimate)]
            for (row, cell), p in zip(tested, paired.holm([cell.p for _, cell in tested])):
                word = LEVEL if p >= SIGNIFICANT else AHEAD if cell.value > 0 else BEHIND
                row[c] = cell._replace(p=float(p), verdict='' if math.isnan(p) else word)
        return dataclasses.replace(self, rows=tuple(map(tuple, rows)))

    def chance(self, c: int) -> list[Estimate]:
        """Returns the levels that knowing nothing reaches in a column: a blind guess or order, and the best of several.

        They stand in the last rows of a table of pointing, and in a column of their own in one of faithfulness.
        """
        levels = [row[c] for row in self.rows if text_of(row[0]).startswith('chance')]
        blind = self.column('blind order')
        levels += [] if blind is None else [self.rows[0][blind]]
        return [cell for cell in levels if isinstance(cell, Estimate)]

    def column(self, name: str) -> int | None:
        """Returns the number of the column of this name, or None if there is none."""
        return next((c for c, column in enumerate(self.columns) if column.name == name), None)

    def csv(self) -> str:
        """Returns the table as CSV, with plain numbers in full precision and shares in 0..1.

        Each number is followed by its low, high, n, skipped, seeds and, where the column is tested, its p and verdict.
        """
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator='\n')
        head = []
        for column in self.columns:
            head.append(column.name)
            if column.unit in UNITS:
                head += [f'{column.name} {part}' for part in ('low', 'high', 'n', 'skipped', 'seeds')]
                head += [f'{column.name} {part}' for part in ('p', 'verdict') if column.tested]
        writer.writerow(head)
        for row in self.rows:
            found: list[Cell] = []
            for c, cell in enumerate(row):
                found += _csv_cell(cell, self.columns[c].tested) if self.columns[c].unit in UNITS else [cell]
            writer.writerow(found)
        return stream.getvalue()

    def markdown(self) -> str:
        """Returns the table in GitHub's Markdown, without its title."""
        lines = [self.heads(), ['---' if column.unit == 'text' else '---:' for column in self.columns]]
        for row in self.rows:
            lines.append([' '.join(filter(None, parts)) for parts in self.texts(row)])
        return '\n'.join(f'| {" | ".join(cell.replace("|", "/") for cell in line)} |' for line in lines)

    def to_json(self) -> dict[str, Any]:
        """Returns the table for study.json, with cells as objects and null for missing values."""
        found = dataclasses.asdict(self)
        found['columns'] = [column._asdict() for column in self.columns]
        found['rows'] = [[_json_cell(cell) for cell in row] for row in self.rows]
        return found

    def heads(self) -> list[str]:
        """Returns the column heads, with the number of clips (or trainings) where all cells of a column share it."""
        return [
            ', '.join([column.name, *([f'n\N{NO-BREAK SPACE}{self._shared(c)}'] if self._shared(c) else [])])
            for c, column in enumerate(self.columns)
        ]

    def texts(self, row: Row) -> list[tuple[str, ...]]:
        """Returns the parts of each cell of a row: value, interval, number of clips, trainings, p, verdict.

        The number of clips is '' if the column head already gives it, and the trainings are '' if they equal the row's.
        """
        seeds = max((cell.seeds for cell in row if isinstance(cell, Estimate)), default=0)
        return [self._text(c, cell, seeds) for c, cell in enumerate(row)]

    def _text(self, c, cell, seeds):
        if isinstance(cell, str):
            return (display_name(cell),)
        if not isinstance(cell, Estimate):
            return ('–' if cell is None else f'{cell:,}',)
        fewer = f'({cell.seeds} of {seeds} trainings)' if 0 < cell.seeds < seeds else ''
        n = f'n\N{NO-BREAK SPACE}{cell.n}' if cell.n and not self._shared(c) else ''
        return *cell.text(self.columns[c].unit), n, fewer, text_of_p(cell.p) if cell.verdict else '', cell.verdict

    def _cells(self, c):
        return [row[c] for row in self.rows if isinstance(row[c], Estimate)]

    def _shared(self, c):
        numbers = {cell.n for cell in self._cells(c) if cell.n}
        return numbers.pop() if len(numbers) == 1 else 0


def text_of_p(p: float) -> str:
    """Returns a p-value in words."""
    return 'p < 0.001' if p < 0.001 else f'p {p:.3f}' if p < 0.1 else f'p {p:.2f}'


def _csv_cell(cell, tested):
    if cell is None:
        return [''] * (6 + 2 * tested)
    low, high, p = ('' if math.isnan(x) else repr(float(x)) for x in (cell.low, cell.high, cell.p))
    return [
        repr(float(cell.value)),
        low,
        high,
        cell.n,
        cell.skipped,
        cell.seeds,
        *([p, cell.verdict] if tested else []),
    ]


def _json_cell(cell):
    if not isinstance(cell, Estimate):
        return cell
    return {key: None if isinstance(x, float) and math.isnan(x) else x for key, x in cell._asdict().items()}
