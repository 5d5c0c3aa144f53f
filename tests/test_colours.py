"""Tests that the colour maps are those of Matplotlib, which their module does not import, and all colours are valid."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import runs

from stattn_jax import colours


@pytest.mark.parametrize(
    ('name', 'start', 'colour_map', 'tolerance'),
    [('magma', 0.35, colours.HEAT, 2), ('PuOr_r', 0, colours.SIGNED, 2), ('cividis', 0, colours.LOG_MEL, 10)],
)
def test_colour_maps_are_those_of_matplotlib(name, start, colour_map, tolerance):
    expected = np.asarray(matplotlib.colormaps[name](np.linspace(start, 1, 256)))[:, :3]
    assert colour_map.shape == (256, 3)
    assert np.abs(colour_map - expected).max() * 255 <= tolerance
    assert np.abs(colour_map - expected).mean() * 255 < 2


def test_colours_and_numbers_of_an_explanation_do_not_import_matplotlib():
    imports = 'import sys, stattn_jax.colours, stattn_jax.explain.result, stattn_jax.strip'
    code = f'{imports}; print("matplotlib" in sys.modules)'
    run = subprocess.run([sys.executable, '-c', code], cwd=runs.ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == 'False'


def test_colours_are_read_as_red_green_blue():
    assert colours.rgb('#0102ff') == (1, 2, 255)
    assert all(len(colours.rgb(colour)) == 3 for colour in (colours.PICTURE, colours.MISSING, *colours.DARK.values()))
