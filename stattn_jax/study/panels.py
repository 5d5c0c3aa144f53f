"""Figures of tables: measures, differences between networks, and the randomisation cascade.

Each function returns None if the data of its figure was not measured. curves.py draws the figures of arrays, and
figures.py has their notes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stattn_jax.study import results
from stattn_jax.study.comparisons import COMPARED
from stattn_jax.study.results import Run
from stattn_jax.study.table_format import LEVEL, Estimate, Table, display_name, text_of

DPI = 110
# Okabe and Ito: vermilion, blue, bluish green, grey, each with its own marker.
GROUPS = {
    'ours': ('#d55e00', 'D'),
    'representation': ('#0072b2', 'o'),
    'intrinsic': ('#007a58', 's'),
    'ablation': ('#606060', '^'),
}
LEGEND = {'ours': 'STAN', 'representation': 'joint representations', 'intrinsic': 'explain themselves'}
# The lines of one panel differ in colour, in dash and in marker.
LINES = (
    ('#d55e00', '-', 'D'),
    ('#0072b2', '--', 'o'),
    ('#007a58', '-.', 's'),
    ('#5d3a9b', ':', '^'),
    ('#8a6d00', (0, (5, 1, 1, 1, 1, 1)), 'v'),
)
QUIET = '#606060'
GRID: dict[str, Any] = {'color': '0.88', 'lw': 0.8}


def figure(width: float, height: float) -> Figure:
    """Returns an empty figure; sizes in inches."""
    return Figure(figsize=(width, height), dpi=DPI, facecolor='white', layout='constrained')


def group_of(runs: Sequence[Run]) -> dict[str, str]:
    """Returns the group of each row."""
    return {run.row: run.group for run in runs}


# ---------------------------------------------------------------------------------------------------------------------
# Measures and differences
# ---------------------------------------------------------------------------------------------------------------------

# Title of a panel, table, column, factor, and the label of the axis.
MEASURES = (
    ('accuracy', 'recognition', 'accuracy', 100, '% of clips'),
    ('where: on the object', 'pointing', 'space', 100, '% of clips'),
    ('when: in the event', 'pointing', 'time, partial events', 100, '% of clips'),
    ('faithfulness', 'faithfulness', 'AOPC at the features', 1, 'AOPC (1: best order)'),
)


def measures(runs: Sequence[Run], tables: dict[str, Table]) -> Figure | None:
    """Plots each measure of the report for each row, as dots with intervals, and the chance levels as lines."""
    shown = [(c, *one) for one in MEASURES if one[1] in tables and (c := tables[one[1]].column(one[2])) is not None]
    if all(name == 'recognition' for _, _, name, *_ in shown):
        return None
    groups = group_of(runs)
    rows = [text_of(row[0]) for row in tables['recognition'].rows]
    sheet = figure(12, 1.6 + 0.22 * len(rows))
    axes = sheet.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for panel, (c, title, name, _, factor, label) in zip(axes, shown):
        # The first explanation of a row represents it.
        cells = {text_of(row[0]): row[c] for row in reversed(tables[name].rows)}
        for place, row in enumerate(rows):
            if isinstance(cell := cells.get(row), Estimate):
                colour, marker = GROUPS[groups[row]]
                _dot(panel, cell, place, colour, marker, factor)
        for level, style in zip(tables[name].chance(c), ('--', ':')):
            panel.axvline(factor * level.value, color='black', ls=style, lw=1.2, zorder=1)
        panel.set(xlim=(-0.02 * factor, 1.03 * factor), xlabel=label, title=title)
        panel.grid(axis='x', **GRID)
        panel.set_axisbelow(True)
    _name_rows(axes[0], rows)
    lines = [
        Line2D([], [], color='black', ls=style, label=label)
        for style, label in (('--', 'blind'), (':', 'best of blind, centre, prior'))
    ]
    marks = [
        Line2D([], [], color=colour, marker=marker, ls='', ms=7, label=LEGEND[group])
        for group, (colour, marker) in GROUPS.items()
        if group in {groups[row] for row in rows}
    ]
    sheet.legend(handles=[*marks, *lines], loc='outside lower center', ncols=5, frameon=False)
    return sheet


def differences(tables: Sequence[Table]) -> Figure | None:
    """Plots STAN less each other network in each measure, with a mark of its own for each variant."""
    of_tests = [table for table in tables if table.name == 'tests']
    heads = dict.fromkeys(column for table in of_tests for column in table.columns[1:])
    rows = list(dict.fromkeys(text_of(row[0]) for table in of_tests for row in table.rows))
    if not heads:
        return None
    sheet = figure(12, 1.6 + (0.12 + 0.1 * len(of_tests)) * len(rows))
    axes = sheet.subplots(1, len(heads), sharey=True, squeeze=False)[0]
    for panel, head in zip(axes, heads):
        factor = 100 if head.unit == 'points' else 1
        for k, (table, (colour, _, marker)) in enumerate(zip(of_tests, LINES)):
            c = table.column(head.name)
            for row in table.rows if c is not None else ():
                if isinstance(cell := row[c], Estimate):
                    y = rows.index(text_of(row[0])) + 0.24 * (k - (len(of_tests) - 1) / 2)
                    _dot(panel, cell, y, colour, marker, factor, hollow=cell.verdict in ('', LEVEL))
        panel.axvline(0, color='black', lw=1)
        panel.set(xlabel='points' if factor == 100 else 'AOPC', title=head.name)
        panel.grid(axis='x', **GRID)
        panel.set_axisbelow(True)
    for place in range(1, len(rows), 2):
        for panel in axes:
            panel.axhspan(place - 0.5, place + 0.5, color='0.955', lw=0, zorder=0)
    _name_rows(axes[0], rows)
    marks = [
        Line2D([], [], color=colour, marker=marker, ls='', ms=6, label=table.variant)
        for table, (colour, _, marker) in zip(of_tests, LINES)
    ]
    marks.append(Line2D([], [], color='black', marker='o', ls='', mfc='white', ms=6, label='open: level'))
    sheet.legend(handles=marks, loc='outside lower center', ncols=6, frameon=False)
    return sheet


def _name_rows(axes, rows):
    axes.set_yticks(range(len(rows)), [display_name(row) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)


def _dot(axes, cell, y, colour, marker, factor, hollow=False):
    axes.plot([factor * cell.low, factor * cell.high], [y, y], color=colour, lw=1.8, solid_capstyle='butt')
    axes.plot(factor * cell.value, y, marker, ms=6, color=colour, mfc='white' if hollow else colour, mew=1.5)


# ---------------------------------------------------------------------------------------------------------------------
# The randomisation cascade
# ---------------------------------------------------------------------------------------------------------------------


def cascade(runs: Sequence[Run], tables: dict[str, Table]) -> Figure | None:
    """Plots the correlation with the trained network's map while more and more parameters are re-initialised.

    One panel shows STAN's network, the other the compared models.
    """
    table = tables.get('sanity-cascade')
    if table is None:
        return None
    groups, first = group_of(runs), _first_explained(runs)
    sides = {
        "STAN's network": [row for row in table.rows if groups[text_of(row[0])] == 'ours'],
        'other networks': [
            row for row in table.rows if (row[0], row[1]) in first and groups[text_of(row[0])] != 'ours'
        ],
    }
    sides = {title: rows for title, rows in sides.items() if rows}
    if not sides:
        return None
    sheet = figure(5.2 * len(sides), 5.2)
    for panel, (title, rows) in zip(sheet.subplots(1, len(sides), sharey=True, squeeze=False)[0], sides.items()):
        for k, (row, (colour, dash, marker)) in enumerate(zip(rows, (*LINES, *[('0.75', '-', '')] * len(rows)))):
            cells = [Estimate(1.0, 1.0, 1.0), *(cell for cell in row if isinstance(cell, Estimate))]
            at = np.linspace(0, 1, len(cells))
            name = display_name(text_of(row[1]))
            if not title.startswith('STAN'):
                name = f'{display_name(text_of(row[0]))}, {name}'
            panel.plot(
                at,
                [c.value for c in cells],
                color=colour,
                ls=dash,
                marker=marker,
                ms=6,
                lw=1.8,
                zorder=2 if marker else 1.5,
                label=name if marker else 'the other networks' if k == len(LINES) else None,
            )
            panel.fill_between(at, [c.low for c in cells], [c.high for c in cells], color=colour, alpha=0.13, lw=0)
        panel.axhline(0, color='black', lw=1)
        panel.set_xticks([0, 1], ['trained', 'all drawn anew'])
        panel.get_xticklabels()[1].set_ha('right')
        panel.set(title=title, xlabel='from the heads down to the trunks', ylim=(min(-0.15, panel.get_ylim()[0]), 1.06))
        panel.grid(**GRID)
        panel.legend(loc='upper center', bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False, fontsize=9)
    sheet.axes[0].set_ylabel('rank correlation')
    return sheet


def _first_explained(runs):
    """Returns the (row, explanation) pairs of the compared networks, with the explanation that represents each."""
    of_rows = results.rows(runs, runs[0].variant, *COMPARED)
    return {(row, results.first_explainer(of_row)) for row, of_row in of_rows.items()}
