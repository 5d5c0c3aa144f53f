"""Formats the measurements of a benchmark as lines of text."""

from collections.abc import Iterator
from typing import Any

HEADS = (
    'mode',
    'strategy',
    'dtype',
    'batch',
    'compile s',
    'ms',
    'quartiles',
    'host ms',
    'clips/s',
    'GFLOP',
    'moved GB',
    'temp MB',
    'MFU',
    'x floor',
)
WIDTHS = (8, 8, 9, 6, 9, 10, 17, 8, 9, 9, 9, 8, 6, 7)


def lines(row: dict[str, Any], *, head: bool) -> Iterator[str]:
    """Formats a measured case as a line, after a line of column heads if `head` is set.

    A line of the mode `fed` describes its values in words.
    """
    if head:
        yield _line(HEADS)
    if row['mode'] == 'fed':
        yield (
            f'{_line((row["mode"], row["strategy"], row["dtype"], row["batch"]))}  first batch '
            f'{row["first_batch_seconds"]:.2f} s, input alone {row["input_clips_per_second"]:.1f} clips/s, with the '
            f'step {row["clips_per_second"]:.1f} clips/s, waiting {row["wait_share"]:.1%}'
        )
        return
    seconds = row['seconds']
    yield _line((
        row['mode'],
        row['strategy'],
        row['dtype'],
        row['batch'],
        f'{row["compile_seconds"]:.1f}',
        f'{seconds["median"] * 1e3:.2f}',
        f'{seconds["low"] * 1e3:.2f}..{seconds["high"] * 1e3:.2f}',
        f'{seconds["host"] * 1e3:.2f}',
        f'{row["clips_per_second"]:.1f}',
        f'{row["products_flops"] / 1e9:.2f}',
        _known(row.get('moved_bytes'), 1e9, '.2f'),
        _known(row.get('temp_bytes'), 1e6, '.0f'),
        _known(row['mfu'], 0.01, '.1f'),
        _known(row['floor_seconds'] and seconds['median'] / row['floor_seconds'], 1, '.2f'),
    ))  # fmt: skip


def shares(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yields a line for each head with its share of the time of the corresponding training step."""
    steps = {_case(row): row['seconds']['median'] for row in rows if row['mode'] == 'train'}
    for row in rows:
        if row['mode'] == 'head' and _case(row) in steps:
            share = row['seconds']['median'] / steps[_case(row)]
            yield (
                f'attention, pooling and losses, by themselves: {share:.1%} of the step '
                f'({", ".join(map(str, _case(row)))})'
            )


def _case(row):
    return row['strategy'], row['dtype'], row['batch']


def _known(value, unit: float, form: str) -> str:
    return '-' if value is None else f'{value / unit:{form}}'


def _line(cells) -> str:
    return '  '.join(f'{cell:>{width}}' for cell, width in zip(cells, WIDTHS)).rstrip()
