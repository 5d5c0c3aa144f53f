"""Tests the study's figures: each is there, shows its content, and no labels overlap."""

import dataclasses

import measured
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from stattn_jax.study import curves, figures, outputs, panels, results
from stattn_jax.study.table_format import display_name, text_of


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    return outputs.load(measured.write(tmp_path_factory.mktemp('study'), seeds=(0, 1)))


@pytest.fixture(scope='module')
def made(runs):
    return outputs.make(runs, {})


def test_every_kind_is_drawn_and_none_is_blank(runs, made, tmp_path):
    pictures = figures.write(runs, made, tmp_path)
    assert [p.path.name for p in pictures] == [
        'differences.png',
        *(f'events-{kind.name}.png' for kind in figures.KINDS),
    ]
    for picture in pictures:
        with Image.open(picture.path) as image:
            pixels = np.asarray(image.convert('RGB')).astype(int)
        assert (pixels == 255).all(axis=2).mean() < 0.97 and 600 < pixels.shape[1] < 1700, picture.path.name
        if picture.path.stem.endswith(('differences', 'measures', 'removal', 'cascade')):
            ours = np.array(to_rgb(panels.GROUPS['ours'][0])) * 255
            assert (np.abs(pixels - ours).max(axis=2) < 3).sum() > 20, picture.path.name


def test_nothing_measured_nothing_drawn(tmp_path):
    measured.write(tmp_path, rows=('mbt',), seeds=(0,))
    runs = outputs.load(tmp_path)
    assert figures.write(runs, outputs.make(runs, {}), tmp_path / 'figures') == []


def test_dots_and_chance_lines_stand_at_the_values_of_the_tables(runs, made):
    by_name = {table.name: table for table in made}
    sheet = panels.measures(runs, by_name)
    places = [text_of(row[0]) for row in by_name['recognition'].rows]
    assert [text.get_text() for text in sheet.axes[0].get_yticklabels()] == list(map(display_name, places))
    assert len(sheet.axes) == 4
    for axes, (_, name, column, factor, _) in zip(sheet.axes, panels.MEASURES, strict=True):
        table = by_name[name]
        c = table.column(column)
        first = {row[0]: row[c] for row in reversed(table.rows)}
        wanted = [(factor * first[row].value, place) for place, row in enumerate(places) if first.get(row)]
        assert np.array(dots(axes)) == pytest.approx(np.array(wanted))
        upright = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() in ('--', ':')]
        assert upright == pytest.approx([factor * cell.value for cell in table.chance(c)])
        assert len(upright) == {'recognition': 0, 'pointing': 2, 'faithfulness': 1}[name]


def dots(axes):
    marked = [line for line in axes.lines if line.get_marker() not in ('None', None, '')]
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in marked]


def test_differences_are_those_of_the_tests_and_open_where_level(tmp_path):
    runs = outputs.load(measured.write(tmp_path, variants=('events', 'binding'), seeds=(0, 1)))
    tests = [table for table in outputs.make(runs, {}) if table.name == 'tests']
    sheet = panels.differences(tests)
    for m, axes in enumerate(sheet.axes, 1):
        cells = [row[m] for table in tests for row in table.rows if row[m]]
        factor = 1 if m == 4 else 100
        assert [x for x, _ in dots(axes)] == pytest.approx([factor * cell.value for cell in cells])
        marked = [line for line in axes.lines if line.get_marker() not in ('None', None, '')]
        assert [line.get_markerfacecolor() == 'white' for line in marked] == [cell.verdict == 'level' for cell in cells]
        heights = [round(y, 6) for _, y in dots(axes)]
        assert len(set(heights)) == len(heights)
    assert panels.differences([]) is None


def test_missing_controls_are_named_below_their_panel(runs):
    def without(name, rows):
        kept = [{k: v for k, v in run.arrays.items() if name not in k or run.row not in rows} for run in runs]
        return [dataclasses.replace(run, arrays=arrays) for run, arrays in zip(runs, kept, strict=True)]

    def notes(runs):
        return [axes.get_xlabel() for axes in curves.removal(runs, {}).axes[-len(measured.SETTINGS) :]]

    random = 'random map: not measured for'
    assert all(note.startswith(random) and 'shifted' not in note for note in notes(runs))
    # A setting in which no map was shifted has no column.
    everywhere = curves.removal(without('blur_mute/shifted', measured.ROWS), {})
    assert [axes.get_title() for axes in everywhere.axes] == ['features', '', '']
    assert notes(without('feature/shifted', ('cam',)))[0].startswith('shifted map: not measured for CAM\n')


def test_removal_draws_the_mean_curves_of_stan_and_of_the_two_best_others(runs):
    sheet = curves.removal(runs, {})
    assert len(sheet.axes) == 3 * len(measured.SETTINGS)
    solid = next(line for line in sheet.axes[0].lines if line.get_color() == panels.LINES[0][0])
    stan = results.rows(runs, 'events')['stan']
    expected = np.nanmean([run.arrays['terms/feature/curve_deletion'] for run in stan], axis=(0, 1))
    assert np.allclose(solid.get_ydata(), expected) and np.allclose(solid.get_xdata(), measured.FRACTION)
    names = [text.get_text() for text in sheet.axes[-1].get_xticklabels()]
    assert names[0] == 'STAN\n(ours)' and set(names[1:]) == {'CAM', 'HAN'}


def test_the_surface_shows_the_networks_that_use_both_modalities_and_recognise_most(runs):
    panels_shown = curves.surface(runs, {}).axes[:3]
    titles = [axes.get_title() for axes in panels_shown]
    assert titles == ['STAN (ours), terms', 'HAN, its own', 'CAM, its own']
    for axes, (row, explainer) in zip(panels_shown, (('stan', 'terms'), ('han', 'own'), ('cam', 'own')), strict=True):
        mean = np.mean([run.arrays[f'{explainer}/surface'] for run in results.rows(runs, 'events')[row]], axis=0)
        assert [float(text.get_text()) for text in axes.texts] == pytest.approx(mean.ravel(), abs=0.00501)


def test_the_cascade_begins_at_one_and_ends_with_the_last_group(runs, made):
    table = next(table for table in made if table.name == 'sanity-cascade')
    sheet = panels.cascade(runs, {'sanity-cascade': table})
    first = sheet.axes[0].lines[0]
    row = table.rows[0]
    assert row[:2] == ('stan', 'terms') and first.get_ydata()[0] == 1 and first.get_ydata()[-1] == row[-1].value
    labels = [text.get_text() for text in sheet.axes[1].get_legend().get_texts()]
    assert labels == ['sound only, Grad-CAM', 'FiLM, Grad-CAM', 'CAM, its own', 'HAN, its own']
