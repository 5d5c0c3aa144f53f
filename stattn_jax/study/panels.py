"""Figures of tables: pointing, accuracy against faithfulness, and the randomisation cascade.

Each function returns None if the data of its figure was not measured. curves.py draws the figures of arrays, and
figures.py has their notes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.optimize import linear_sum_assignment

from stattn_jax.study import results
from stattn_jax.study.comparisons import COMPARED
from stattn_jax.study.results import Run
from stattn_jax.study.table_format import Estimate, Table, display_name, text_of

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
# The height of a line of names, as a share of the axes.
LINE_HEIGHT = 0.058
QUIET = '#606060'
GRID: dict[str, Any] = {'color': '0.88', 'lw': 0.8}


def figure(width: float, height: float) -> Figure:
    """Returns an empty figure; sizes in inches."""
    return Figure(figsize=(width, height), dpi=DPI, facecolor='white', layout='constrained')


def group_of(runs: Sequence[Run]) -> dict[str, str]:
    """Returns the group of each row."""
    return {run.row: run.group for run in runs}


# ---------------------------------------------------------------------------------------------------------------------
# Pointing
# ---------------------------------------------------------------------------------------------------------------------


def pointing(runs: Sequence[Run], tables: dict[str, Table]) -> Figure | None:
    """Plots hits in space and in time for each row, as dots with intervals, and the chance levels as lines."""
    table = tables.get('pointing')
    games = [name for name in ('space', 'time, partial events') if table and name in _names(table)]
    if not games:
        return None
    rows = [row for row in table.rows if not text_of(row[0]).startswith('chance')]
    sheet = figure(10, 1.5 + 0.3 * len(rows))
    axes = sheet.subplots(1, len(games), sharey=True, squeeze=False)[0]
    groups = group_of(runs)
    for panel, game in zip(axes, games):
        c = _names(table).index(game)
        for place, row in enumerate(rows):
            if isinstance(row[c], Estimate):
                colour, marker = GROUPS[groups[text_of(row[0])]]
                hollow = row[1] == 'attention'
                _dot(panel, row[c], place, colour, marker, hollow)
        blind, best = (row[c] for row in table.rows[-2:])
        for cell, style in ((blind, '--'), (best, ':')):
            if cell is not None:
                panel.axvline(100 * cell.value, color='black', ls=style, lw=1.3, zorder=1)
        panel.set(
            xlim=(-2, 102),
            xlabel='% of clips hit',
            title={'space': 'where: on the object'}.get(game, 'when: in the event (partial events)'),
        )
        panel.grid(axis='x', **GRID)
        panel.set_axisbelow(True)
    names = [(text_of(row[0]), text_of(row[1])) for row in rows]
    axes[0].set_yticks(range(len(rows)), [f'{display_name(row)}, {display_name(one)}' for row, one in names])
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    lines = [
        Line2D([], [], color='black', ls=style, label=label)
        for style, label in (('--', 'blind guess'), (':', 'best of blind, centre, prior'))
    ]
    _group_legend(sheet, {groups[row] for row, _ in names}, lines)
    return sheet


def _names(table):
    return [column.name for column in table.columns]


def _dot(axes, cell, y, colour, marker, hollow):
    axes.plot([100 * cell.low, 100 * cell.high], [y, y], color=colour, lw=2, solid_capstyle='butt')
    axes.plot(100 * cell.value, y, marker, ms=7, color=colour, mfc='white' if hollow else colour, mew=1.6)


def _group_legend(sheet, groups, more=()):
    marks = [
        Line2D([], [], color=colour, marker=marker, ls='', ms=7, label=LEGEND[group])
        for group, (colour, marker) in GROUPS.items()
        if group in groups
    ]
    sheet.legend(handles=[*marks, *more], loc='outside lower center', ncols=5, frameon=False)


# ---------------------------------------------------------------------------------------------------------------------
# Accuracy against faithfulness
# ---------------------------------------------------------------------------------------------------------------------


def tradeoff(runs: Sequence[Run], tables: dict[str, Table]) -> Figure | None:
    """Plots a point for each row; names stand in a column at the right, joined to their points, without overlap."""
    if not {'recognition', 'faithfulness'} <= tables.keys() or 'AOPC at the features' not in _names(
        tables['faithfulness']
    ):
        return None
    accuracy = {
        text_of(row[0]): row[_names(tables['recognition']).index('accuracy')] for row in tables['recognition'].rows
    }
    c = _names(tables['faithfulness']).index('AOPC at the features')
    aopc = {text_of(row[0]): row[c] for row in reversed(tables['faithfulness'].rows) if isinstance(row[c], Estimate)}
    rows = [row for row in accuracy if row in aopc]
    if not rows:
        return None
    sheet, groups = figure(9, 5.6), group_of(runs)
    axes = sheet.add_subplot()
    for row in rows:
        colour, marker = GROUPS[groups[row]]
        x, y = (100 * np.array(accuracy[row][:3])), np.array(aopc[row][:3])
        axes.plot(x[1:], y[[0, 0]], color=colour, lw=1.2, alpha=0.7)
        axes.plot(x[[0, 0]], y[1:], color=colour, lw=1.2, alpha=0.7)
        axes.plot(x[0], y[0], marker, color=colour, ms=9, mec='white', zorder=3)
    axes.set(xlabel='accuracy, %', ylabel='normalised AOPC (1: best order of all)')
    axes.margins(0.06)
    axes.grid(**GRID)
    axes.set_axisbelow(True)
    _group_legend(sheet, {groups[row] for row in rows})
    points = {display_name(row): (100 * accuracy[row].value, aopc[row].value) for row in rows}
    _label(axes, points)
    return sheet


def _label(axes: Axes, points: dict[str, tuple[float, float]]) -> None:
    """Writes names in a column at the right of the axes, joined to their points by lines that do not cross.

    The lines have the least total length: if two of them crossed, exchanging their ends would make them shorter.
    """
    corners = np.array([axes.get_xlim(), axes.get_ylim()])
    ends = (np.array(list(points.values())) - corners[:, 0]) / np.ptp(corners, axis=1)
    heights = np.linspace(0, 1, max(len(points), 1 + int(1 / LINE_HEIGHT)))
    starts = np.stack([np.full(len(heights), 1.06), heights], axis=1)
    _, slots = linear_sum_assignment(np.linalg.norm(ends[:, None] - starts, axis=-1))
    for (name, point), start in zip(points.items(), starts[slots], strict=True):
        axes.annotate(
            name, point, xytext=start, textcoords='axes fraction', va='center', fontsize=9.5,
            annotation_clip=False,
            arrowprops={'arrowstyle': '-', 'color': QUIET, 'lw': 0.7, 'shrinkA': 1, 'shrinkB': 5, 'relpos': (0, 0.5)},
        )  # fmt: skip


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
