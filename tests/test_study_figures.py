"""Tests the study's figures: each is there, shows its content, and no labels overlap."""

import dataclasses
import itertools

import measured
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from stattn_jax.study import curves, figures, outputs, panels, results


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    return outputs.load(measured.write(tmp_path_factory.mktemp('study'), seeds=(0, 1)))


@pytest.fixture(scope='module')
def made(runs):
    return outputs.make(runs)


def test_every_kind_is_drawn_and_none_is_blank(runs, made, tmp_path):
    pictures = figures.write(runs, made, tmp_path)
    assert [p.path.name for p in pictures] == [f'events-{kind.name}.png' for kind in figures.KINDS]
    for picture in pictures:
        with Image.open(picture.path) as image:
            pixels = np.asarray(image.convert('RGB')).astype(int)
        assert (pixels == 255).all(axis=2).mean() < 0.97 and 600 < pixels.shape[1] < 1700, picture.path.name
        if picture.path.stem.endswith(('pointing', 'tradeoff', 'removal', 'cascade')):
            ours = np.array(to_rgb(panels.GROUPS['ours'][0])) * 255
            assert (np.abs(pixels - ours).max(axis=2) < 3).sum() > 20, picture.path.name


def test_nothing_measured_nothing_drawn(tmp_path):
    measured.write(tmp_path, rows=('mbt',), seeds=(0,))
    runs = outputs.load(tmp_path)
    assert figures.write(runs, outputs.make(runs), tmp_path / 'figures') == []


def test_dots_and_chance_lines_stand_where_the_table_says(runs, made):
    table = next(table for table in made if table.name == 'pointing')
    sheet = panels.pointing(runs, {'pointing': table})
    space = sheet.axes[0]
    c = [column.name for column in table.columns].index('space')
    wanted = [100 * row[c].value for row in table.rows[:-2] if row[c]]
    dots = [line.get_xdata()[0] for line in space.lines if line.get_marker() not in ('None', None, '')]
    assert dots == pytest.approx(wanted)
    upright = [line.get_xdata()[0] for line in space.lines if line.get_linestyle() in ('--', ':')]
    assert upright == pytest.approx([100 * row[c].value for row in table.rows[-2:]])


def test_names_beside_the_tradeoff_do_not_overlap(runs, made):
    sheet = panels.tradeoff(runs, {table.name: table for table in made})
    canvas = FigureCanvasAgg(sheet)
    canvas.draw()
    boxes = sorted(
        # The extent of the annotation would include its line.
        (Text.get_window_extent(text, canvas.get_renderer()) for text in sheet.axes[0].texts),
        key=lambda box: box.y0,
    )
    assert len(boxes) == 5
    assert all(below.y1 <= above.y0 for below, above in zip(boxes, boxes[1:]))
    assert max(box.x1 for box in boxes) <= sheet.bbox.x1


def test_lines_to_the_names_do_not_cross():
    """Clouds of points, close ones among them, in axes of any shape."""
    rng = np.random.default_rng(0)
    for n in (2, 7, 15, 24):
        sheet = panels.figure(9, 5.6)
        axes = sheet.add_subplot()
        points = rng.normal(size=(n, 2)) * rng.choice([0.01, 1, 5], size=(n, 1)) * (10, 0.1) + (50, 0.5)
        axes.plot(*points.T, 'o')
        panels._label(axes, {f'name {i}': tuple(point) for i, point in enumerate(points)})
        FigureCanvasAgg(sheet).draw()
        ends = [axes.transData.transform(text.xy) for text in axes.texts]
        starts = [axes.transAxes.transform(text.xyann) for text in axes.texts]
        lines = list(zip(ends, starts, strict=True))
        assert len(lines) == n and not any(crossing(a, b) for a, b in itertools.combinations(lines, 2))


def crossing(first, second):
    """Returns whether two segments cross: each has its ends on both sides of the other."""

    def side(segment, point):
        (x0, y0), (x1, y1) = segment
        return np.sign((x1 - x0) * (point[1] - y0) - (y1 - y0) * (point[0] - x0))

    return all(side(a, b[0]) * side(a, b[1]) < 0 for a, b in ((first, second), (second, first)))


def test_crossing_lines_are_found():
    assert crossing(((0, 0), (1, 1)), ((0, 1), (1, 0))) and not crossing(((0, 0), (1, 0)), ((0, 1), (1, 1)))


def test_missing_controls_are_named_below_their_panel(runs):
    def without(name, rows):
        kept = [{k: v for k, v in run.arrays.items() if name not in k or run.row not in rows} for run in runs]
        return [dataclasses.replace(run, arrays=arrays) for run, arrays in zip(runs, kept, strict=True)]

    def notes(runs):
        return [axes.get_xlabel() for axes in curves.removal(runs, {}).axes[-len(measured.SETTINGS) :]]

    random = 'random map: not measured for'
    assert all(note.startswith(random) and 'shifted' not in note for note in notes(runs))
    everywhere = notes(without('blur_mute/shifted', measured.ROWS))
    assert 'shifted' not in everywhere[0] and everywhere[1].startswith('shifted map: not measured\n')
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


def test_the_surface_shows_networks_that_use_both_modalities(runs):
    titles = [axes.get_title() for axes in curves.surface(runs, {}).axes]
    assert titles[:3] == ['STAN (ours), terms', 'FiLM, Grad-CAM', 'CAM, its own'] and not any(
        'sound' in t for t in titles
    )


def test_the_cascade_begins_at_one_and_ends_with_the_last_group(runs, made):
    table = next(table for table in made if table.name == 'sanity-cascade')
    sheet = panels.cascade(runs, {'sanity-cascade': table})
    first = sheet.axes[0].lines[0]
    row = table.rows[0]
    assert row[:2] == ('stan', 'terms') and first.get_ydata()[0] == 1 and first.get_ydata()[-1] == row[-1].value
    labels = [text.get_text() for text in sheet.axes[1].get_legend().get_texts()]
    assert labels == ['sound only, Grad-CAM', 'FiLM, Grad-CAM', 'CAM, its own', 'HAN, its own']
