"""The results as sentences: the outcome, and every comparison in which STAN is not ahead."""

from collections.abc import Iterator, Sequence
from typing import Any

from stattn_jax import progress
from stattn_jax.study.table_format import AHEAD, BEHIND, LEVEL, Estimate, Table, display_name, text_of

QUESTION = (
    'STAN and the networks it is compared with were trained alike: same clips, same trunks, same number of steps. On '
    'data whose truth is known, do they name the class; does what they show as important lie on the object and in the '
    'event (pointing); does removing it change the answer (faithfulness); and does it depend on the network and the '
    'sound at all (sanity)?'
)
HOW_TO_READ = (
    'Every number stands with its 95 % interval over test clips and trainings (percentile bootstrap). Differences are '
    'of the same clips: ahead where the interval lies above 0, behind where below, level where it holds 0, which with '
    'few clips may only mean that the study is too small to tell. Intervals are not widened for the number of '
    'comparisons: of many that are truly level, one in twenty is called otherwise.'
)


def coverage(runs: Sequence, expected: Sequence[str]) -> str:
    """Returns how many of the expected runs are present, and the names of the others."""
    there = {run.name for run in runs}
    absent = [name for name in expected if name not in there]
    text = f'{len(expected) - len(absent)} of {len(expected)} runs are there'
    return f'{text}; missing: {", ".join(absent)}.' if absent else f'{text}.'


def outcome(tables: Sequence[Table], variant: str) -> list[str]:
    """Returns the outcome of a variant: one sentence each on recognition, pointing and faithfulness, if measured."""
    of = {table.name: table for table in tables if table.variant == variant}
    return [*_recognised(of), *_pointed(of), *_faithful(of)]


def _recognised(of):
    found = _ours(of, 'recognition', 'accuracy')
    if found:
        against = _against(of['recognition'], 'STAN less this, accuracy')
        yield f'STAN names the class of {_value(found, "percent")} of {found.n} test clips{_trainings(found)}{against}.'


def _pointed(of):
    games = (
        ('space', 'Its strongest cell is on the object in'),
        ('time, partial events', 'Where the event does not fill the clip, its strongest second is in it in'),
    )
    for game, words in games:
        found = _ours(of, 'pointing', game)
        if found:
            blind = next((row[_column(of['pointing'], game)] for row in reversed(of['pointing'].rows)), None)
            against = _against(of['pointing-difference'], game) if 'pointing-difference' in of else ''
            chance = f' (chance {blind.text("percent")[0]})' if blind else ''
            yield f'{words} {_value(found, "percent")} of the clips{chance}{against}.'


def _faithful(of):
    found = _ours(of, 'faithfulness', 'AOPC at the features')
    if found:
        blind = _ours(of, 'faithfulness', 'blind order')
        against = _against(of['faithfulness'], 'STAN less this, features')
        chance = f' (a blind order: {blind.text("number")[0]})' if blind else ''
        yield (
            f'Removing seconds in the order of its terms has a normalised AOPC of {_value(found, "number")} of '
            f'1{chance}{against}.'
        )


def _ours(of: dict[str, Table], name: str, column: str) -> Estimate | None:
    """Returns STAN's number, from the first row of the table."""
    table = of.get(name)
    c = _column(table, column) if table else None
    found = table.rows[0][c] if c is not None and table.rows[0][0] == 'stan' else None
    return found if isinstance(found, Estimate) else None


def _column(table, name):
    return next((c for c, column in enumerate(table.columns) if column.name == name), None)


def _value(cell, unit):
    return ' '.join(filter(None, cell.text(unit)))


def _trainings(cell):
    return f' ({cell.seeds} trainings)' if cell.seeds > 1 else ' (one training)'


def _against(table, column):
    """Returns how many of the others STAN is ahead of, level with and behind, as a clause."""
    c = _column(table, column)
    cells = [] if c is None else [row[c] for row in table.rows if isinstance(row[c], Estimate)]
    found = [cell.verdict for cell in cells if cell.verdict]
    if not found:
        return ''
    ways = ((AHEAD, 'ahead of'), (LEVEL, 'level with'), (BEHIND, 'behind'))
    text = [f'{words} {found.count(verdict)}' for verdict, words in ways if verdict in found]
    return f'; of {len(found)} others it is {", ".join(text)}'


def shortfalls(tables: Sequence[Table]) -> dict[str, list[str]]:
    """Returns every comparison in which STAN is not ahead: by topic, a sentence for each variant and measure."""
    found: dict[str, list[str]] = {
        table.topic: [] for table in tables if any(column.measure for column in table.columns)
    }
    for table in tables:
        for c, column in enumerate(table.columns):
            if column.measure:
                found[table.topic] += _sentences(table, c)
    return found


def _sentences(table: Table, c: int) -> Iterator[str]:
    """Yields the sentence of a column, or one for each removal setting; none if STAN is ahead of every other row."""
    column = table.columns[c]
    parts: dict[str, dict[str, list[str]]] = {}
    by_setting = table.columns[0].name == 'removed'
    for row in table.rows:
        found = row[c]
        if not isinstance(found, Estimate) or found.verdict not in (LEVEL, BEHIND):
            continue
        if table.only and row[0] != table.only:
            continue
        names = [display_name(cell) for cell in row[by_setting:] if isinstance(cell, str)]
        whom = names[1] if table.only else ' by '.join(names)
        by_verdict = parts.setdefault(display_name(text_of(row[0])) if by_setting else '', {})
        by_verdict.setdefault(found.verdict, []).append(f'{whom} ({_value(found, column.unit)})')
    for setting, by_verdict in parts.items():
        removed = f' ({setting})' if setting else ''
        ways = ((BEHIND, 'behind'), (LEVEL, 'level with'))
        text = '; '.join(
            f'{words} {", ".join(by_verdict[verdict])}' for verdict, words in ways if verdict in by_verdict
        )
        yield f'{table.variant}, {column.measure}{removed}: {text}.'


def facts(known: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the facts that the numbers depend on, as pairs of strings."""
    return [_fact(name, value) for name, value in known.items() if value is not None]


def _fact(name, value):
    if name.endswith('_seconds'):
        return display_name(name.removesuffix('_seconds')) + ' time', progress.format_seconds(value)
    if isinstance(value, dict):
        value = [f'{key} {_listed(item)}' for key, item in value.items()]
    return display_name(name), _listed(value)


def _listed(value):
    return ', '.join(map(str, value)) if isinstance(value, list | tuple) else str(value)
