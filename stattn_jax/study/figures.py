"""The study's figures, one PNG each: differences, measures, removal curves, surface, cascade, in the report's order.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/) for groups and cividis for the surface, which
colour-blind readers can distinguish; markers, dashes and names carry the same information without colour. Only
Matplotlib's object interface is used. panels.py and curves.py draw the figures; report.py shows them.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stattn_jax import files
from stattn_jax.study import curves, panels, results
from stattn_jax.study.results import Run
from stattn_jax.study.table_format import Table


class Picture(NamedTuple):
    """A written figure: its file, its variant, its title in one line, and a note on how to read it."""

    path: pathlib.Path
    variant: str
    title: str
    note: str


class Kind(NamedTuple):
    """A kind of figure: `draw` makes it from a variant's runs and its tables by name, or returns None.

    None means that the data of the figure was not measured.
    """

    name: str
    title: str
    note: str
    draw: Callable[[Sequence[Run], dict[str, Table]], Figure | None]


DIFFERENCES = (
    'STAN less each other network',
    'To the right: STAN is ahead. Filled: the paired test, corrected for the number of networks, shows a difference; '
    'open: level. Lines: 95 % intervals of clips and trainings, not corrected.',
)
KINDS = (
    Kind(
        'measures',
        'Results of each network',
        'With 95 % intervals. Dashed: a blind guess or order; dotted: the best of blind, centre and prior. A network '
        'without a dot has no explanation of this kind.',
        panels.measures,
    ),
    Kind(
        'removal',
        'Removal curves with their controls',
        'Probability of the class while the strongest units go (top, low is good) or come (middle, high is good). '
        'Bottom: insertion less deletion, beside that of the same map shifted (open circle) and of a random map '
        '(cross). The tables have the other ways of removing.',
        curves.removal,
    ),
    Kind(
        'surface',
        'Picture and sound removed together',
        'Mean probability of the class while the strongest shares of picture and of sound are removed; each modality '
        "in its own map's order.",
        curves.surface,
    ),
    Kind(
        'cascade',
        'Parameters drawn anew, from the heads down',
        'Rank correlation with the map of the trained network. A line that stays high shows a map that is about the '
        'clip alone.',
        panels.cascade,
    ),
)


def write(runs: Sequence[Run], tables: Sequence[Table], folder: pathlib.Path) -> list[Picture]:
    """Draws every figure for which the runs have data, as VARIANT-NAME.png in `folder`; returns them in order.

    The first one, differences.png, is of all variants.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []

    def keep(sheet, path, variant, title, note):
        if sheet is not None:
            with files.whole_file(path) as file:
                FigureCanvasAgg(sheet).print_png(file)
            found.append(Picture(path, variant, title, note))

    keep(panels.differences(tables), folder / 'differences.png', '', *DIFFERENCES)
    for kind in KINDS:
        for variant in results.variants(runs):
            of_variant = [run for run in runs if run.variant == variant]
            by_name = {table.name: table for table in tables if table.variant == variant}
            drawn = kind.draw(of_variant, by_name)
            keep(drawn, folder / f'{variant}-{kind.name}.png', variant, f'{kind.title} ({variant})', kind.note)
    return found
