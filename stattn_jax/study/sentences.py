"""The results as sentences: those of STAN, and where it is ahead of, level with or behind each other network."""

from collections.abc import Iterator, Sequence
from typing import Any

from stattn_jax import progress
from stattn_jax.study.results import Run
from stattn_jax.study.table_format import AHEAD, BEHIND, LEVEL, Estimate, Table, display_name, text_of

QUESTION = (
    'STAN and the networks it is compared with were trained alike: same clips, same trunks, same number of steps, and '
    'each with the learning rate that is best for it on validation clips. Do they name the class of test clips '
    '(accuracy)? Do the strongest parts of their explanations lie on the object (where) and in the event (when)? Does '
    'removing these parts change the prediction (faithfulness)?'
)
HOW_TO_READ = (
    'STAN is called ahead or behind where a paired test on the same clips, in which clips and trainings are both '
    'random, has a p-value below 0.05, corrected by Holm for the number of networks; level means that no difference is '
    'shown, which with few clips and trainings may only mean that the study is too small to tell. Brackets hold 95 % '
    'intervals. A network is scored by the explanation that represents it: its own, or Grad-CAM where it has none. The '
    'explained class is the label; where the label itself reveals the object, a map may lie on the object although the '
    'network does not recognise it. The appendix therefore also scores the map of the class that each network predicts.'
)


def coverage(runs: Sequence[Run], expected: Sequence[str]) -> str:
    """Returns how many of the expected runs are present, the names of the others, and the clips that were left out."""
    there = {run.name for run in runs}
    absent = [name for name in expected if name not in there]
    text = f'{len(expected) - len(absent)} of {len(expected)} runs are complete'
    text += f'; missing: {", ".join(absent)}.' if absent else '.'
    left_out = {run.variant: run.left_out for run in runs if run.left_out}
    return text + ''.join(f' {n} test clips of {v} lack pictures or sound; left out.' for v, n in left_out.items())


STAN = 'stan'
# The measures of the report: table, column, unit, the words before the number, and those before its chance level.
OURS = (
    ('recognition', 'accuracy', 'percent', 'it names the class of', ''),
    ('pointing', 'space', 'percent', 'its strongest cell is on the object in', 'chance'),
    ('pointing', 'time, partial events', 'percent', 'its strongest second is in the event in', 'chance'),
    ('faithfulness', 'AOPC at the features', 'number', 'the normalised AOPC of its seconds is', 'a blind order'),
)


def ours(tables: Sequence[Table], variant: str) -> str:
    """Returns a sentence with the results of STAN on a variant, '' where it was not measured."""
    of = {table.name: table for table in tables if table.variant == variant}
    parts, clips = [], ''
    for name, column, unit, words, chance in OURS:
        table = of.get(name)
        c = table.column(column) if table else None
        if table is None or c is None or table.rows[0][0] != STAN:
            continue
        cell, level = table.rows[0][c], table.chance(c)[-1:]
        if isinstance(cell, Estimate):
            blind = f' ({chance} {level[0].text(unit)[0]})' if chance and level else ''
            parts.append(f'{words} {" ".join(filter(None, cell.text(unit)))}{blind}')
            trainings = f'{cell.seeds} trainings' if cell.seeds > 1 else 'one training'
            clips = clips or f' ({cell.n} test clips, {trainings})'
    return f'STAN on {variant}{clips}: {"; ".join(parts)}.' if parts else ''


def relations(tables: Sequence[Table]) -> list[str]:
    """Returns a sentence for each other network: the measures in which STAN is ahead, level and behind.

    The words are those of the tables of paired tests. A measure is followed by the variants that it holds for, unless
    it holds for all variants on which the network was compared in it.
    """
    tests = [table for table in tables if table.name == 'tests']
    measures = dict.fromkeys(column.name for table in tests for column in table.columns[1:])
    of_row: dict[str, dict[str, dict[str, list[str]]]] = {}
    for table in tests:
        for row in table.rows:
            by_measure = of_row.setdefault(text_of(row[0]), {measure: {} for measure in measures})
            for column, cell in zip(table.columns[1:], row[1:]):
                if isinstance(cell, Estimate) and cell.verdict:
                    by_measure[column.name].setdefault(cell.verdict, []).append(table.variant)
    return [' '.join(_related(display_name(row), by_measure)) for row, by_measure in of_row.items()]


def _related(name: str, by_measure: dict[str, dict[str, list[str]]]) -> Iterator[str]:
    first = True
    for word, before in ((AHEAD, f'ahead of {name}'), (LEVEL, f'level with {name}'), (BEHIND, f'behind {name}')):
        measures = [
            measure if len(by_word) == 1 else f'{measure} ({", ".join(by_word[word])})'
            for measure, by_word in by_measure.items()
            if word in by_word
        ]
        if measures:
            *most, last = measures
            listed = f'{", ".join(most)} and {last}' if most else last
            yield f'In {listed} STAN is {before}.' if first else f'In {listed} it is {before.replace(name, "it")}.'
            first = False


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
