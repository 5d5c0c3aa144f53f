"""Figures of arrays: removal curves with their controls, and the surface over shares of picture and sound removed.

Each function returns None if the data of its figure was not measured.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stattn_jax.metrics import bootstrap
from stattn_jax.study import results
from stattn_jax.study.comparisons import COMPARED
from stattn_jax.study.panels import GRID, LINES, QUIET, figure
from stattn_jax.study.results import Run
from stattn_jax.study.table_format import Table, display_name

RANDOM = (0, (1, 1.5))
LEAST = 1e-6


def removal(runs: Sequence[Run], tables: dict[str, Table]) -> Figure | None:
    """Plots deletion and insertion curves, with a random map as a control.

    The settings are those in which the other control, the shifted map, was measured. STAN and the two compared models
    with the largest difference are drawn in colour, the rest in grey.
    """
    rows = results.rows(runs, runs[0].variant, *COMPARED)
    of_rows = {row: of for row, of in rows.items() if results.first_explainer(of)}
    settings = [s for s in results.SETTINGS if any(_area(of, s, 'shifted') for of in of_rows.values())]
    if not settings:
        return None
    sheet = figure(1.2 + 3 * max(len(settings), 2), 8.8)
    grid = sheet.subplots(3, len(settings), squeeze=False, sharey='row')
    areas = {row: cell.value for row, of in of_rows.items() if (cell := _area(of, settings[0]))}
    shown = _shown(areas or dict.fromkeys(of_rows, 0.0))
    for column, setting in zip(grid.T, settings):
        for panel, way in zip(column, ('deletion', 'insertion')):
            _ways(panel, of_rows, shown, setting, way)
        column[0].set_title(display_name(setting))
        _areas(column[2], {row: of_rows[row] for row in shown}, setting)
    for panel, text in zip(grid[:, 0], ('probability, deletion', 'probability, insertion', 'insertion less deletion')):
        panel.set_ylabel(text)
    marks = [
        Line2D(
            [],
            [],
            color=colour,
            ls=dash,
            marker=marker,
            label=f'{display_name(row)}, {display_name(results.first_explainer(of_rows[row]))}',
        )
        for row, (colour, dash, marker) in zip(shown, LINES)
    ]
    random = f'random map (line: {display_name(shown[0])})'
    marks.append(Line2D([], [], color='black', ls=RANDOM, marker='x', label=random))
    marks.append(Line2D([], [], color='black', ls='', marker='o', mfc='white', label='the same map, shifted'))
    if len(of_rows) > len(shown):
        marks.append(Line2D([], [], color='0.75', label='the other networks'))
    sheet.legend(handles=marks, loc='outside lower center', ncols=min(3, max(2, len(settings))), frameon=False)
    return sheet


def _area(of_row, setting, name='difference'):
    return results.mean(results.values(of_row, f'{results.first_explainer(of_row)}/{setting}/{name}'))


def _shown(values):
    """Returns the first row (STAN's, if present) and the two other rows with the largest values."""
    first, *others = values
    return [first, *sorted(others, key=lambda row: -values[row])[:2]]


def _ways(axes, of_rows, shown, setting, way):
    for row, of_row in of_rows.items():
        if row not in shown:
            _curve(axes, of_row, results.first_explainer(of_row), setting, way, color='0.75', lw=1)
    for row, (colour, dash, _) in zip(shown, LINES):
        style = {'color': colour, 'ls': dash, 'lw': 2}
        _curve(axes, of_rows[row], results.first_explainer(of_rows[row]), setting, way, band=True, **style)
    _curve(axes, of_rows[shown[0]], 'random', setting, way, color='black', ls=RANDOM, lw=1.6)
    axes.set(xlim=(0, 1), xlabel='share removed' if way == 'deletion' else 'share inserted')
    axes.grid(**GRID)


def _curve(axes, of_row, explainer, setting, way, band=False, **style):
    at = f'{explainer}/{setting}'
    found = [run.arrays for run in of_row if f'{at}/curve_{way}' in run.arrays]
    if not found:
        return
    values_skn = np.stack([arrays[f'{at}/curve_{way}'].T for arrays in found])
    fraction_k = found[0][f'{at}/fraction']
    intervals = [bootstrap.mean(values_sn) for values_sn in values_skn.swapaxes(0, 1)]
    axes.plot(fraction_k, [interval.value for interval in intervals], **style)
    if band:
        low, high = ([getattr(interval, end) for interval in intervals] for end in ('low', 'high'))
        axes.fill_between(fraction_k, low, high, color=style['color'], alpha=0.16, lw=0)


def _areas(axes, of_rows, setting):
    """Plots, for each row, the area of its map, of the same map shifted, and of a random map.

    A control that was not measured is named below the panel, with its rows where others have it.
    """
    missing: dict[str, list[str]] = {'shifted map': [], 'random map': []}
    for place, (row, (colour, _, marker)) in enumerate(zip(of_rows, LINES)):
        at = f'{results.first_explainer(of_rows[row])}/{setting}'
        marks = (
            ('', f'{at}/difference', marker, colour),
            ('shifted map', f'{at}/shifted', 'o', 'white'),
            ('random map', f'random/{setting}/difference', 'x', colour),
        )
        for shift, (control, name, mark, fill) in zip((-0.2, 0, 0.2), marks):
            cell = results.mean(results.values(of_rows[row], name))
            if cell:
                axes.plot([place + shift] * 2, cell[1:3], color=colour, lw=1.6)
                axes.plot(place + shift, cell.value, mark, color=colour, mfc=fill, ms=7, mew=1.6)
            elif control:
                missing[control].append(display_name(row))
    lines = [
        f'{control}: not measured' + (f' for {", ".join(rows)}' if len(rows) < len(of_rows) else '')
        for control, rows in missing.items()
        if rows
    ]
    axes.set_xlabel('\n'.join(textwrap.fill(line, 44) for line in lines), fontsize=9, color=QUIET)
    axes.axhline(0, color='black', lw=1)
    axes.set_xticks(range(len(of_rows)), [display_name(row).replace(' ', '\n', 1) for row in of_rows], fontsize=9)
    axes.set_xlim(-0.5, len(of_rows) - 0.5)
    axes.grid(axis='y', **GRID)


def surface(runs: Sequence[Run], tables: dict[str, Table]) -> Figure | None:
    """Plots the mean probability at each share of picture and sound removed, for up to three networks.

    These are STAN and the two others that use both modalities and have the highest probability before anything is
    removed.
    """
    found = {}
    for row, of_row in results.rows(runs, runs[0].variant, *COMPARED).items():
        explainer = results.first_explainer(of_row)
        maps = [run.arrays[f'{explainer}/surface'] for run in of_row if f'{explainer}/surface' in run.arrays]
        scores = np.mean(maps, axis=0) if maps else np.zeros((1, 1))
        # The surface of a network of one modality is constant along the other axis, so it is left out.
        if np.ptp(scores[0]) > LEAST and np.ptp(scores[:, 0]) > LEAST:
            fraction = next(run.arrays['surface_fraction'] for run in of_row if 'surface_fraction' in run.arrays)
            found[row] = explainer, fraction, scores
    if not found:
        return None
    shown = _shown({row: scores[0, 0] for row, (_, _, scores) in found.items()})
    sheet = figure(1.4 + 3.2 * len(shown), 3.8)
    axes = sheet.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for panel, row in zip(axes, shown):
        explainer, fraction, scores = found[row]
        image = panel.imshow(scores, origin='lower', cmap='cividis', vmin=0, vmax=1)
        for (i, j), score in np.ndenumerate(scores):
            panel.text(j, i, f'{score:.2f}', ha='center', va='center', color='white' if score < 0.5 else 'black')
        shares = [f'{share:.0%}' for share in fraction]
        panel.set_xticks(range(len(shares)), shares)
        panel.set_yticks(range(len(shares)), shares)
        title = f'{display_name(row)}, {display_name(explainer)}'
        panel.set(title=title, xlabel='share of the sound removed')
    axes[0].set_ylabel('share of the picture removed')
    sheet.colorbar(image, ax=axes, label='probability of the class', shrink=0.8)
    return sheet
