"""The study's figures, one PNG each: pointing, removal curves, accuracy against faithfulness, surface, cascade.

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


KINDS = (
    Kind(
        'pointing',
        'Pointing in space and in time',
        'Dots: share of clips hit, with 95 % intervals. Dashed: a blind guess; dotted: the best of blind, centre and '
        'prior.',
        panels.pointing,
    ),
    Kind(
        'tradeoff',
        'Accuracy against faithfulness',
        'To the right: names more clips rightly. Up: its explanation removes what matters first (normalised AOPC at '
        'the features). With 95 % intervals.',
        panels.tradeoff,
    ),
    Kind(
        'removal',
        'Removal curves with their controls',
        'Probability of the class while the strongest units go (top, low is good) or come (middle, high is good). '
        'Bottom: insertion less deletion beside that of the same map shifted (open circle) and of a random map '
        '(cross). The map is shifted for the features and for blur, mute only, since every shift needs as many '
        'forward passes as the map itself.',
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
    """Draws every figure for which the runs have data, as VARIANT-NAME.png in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for variant in results.variants(runs):
        of_variant = [run for run in runs if run.variant == variant]
        by_name = {table.name: table for table in tables if table.variant == variant}
        for kind in KINDS:
            figure = kind.draw(of_variant, by_name)
            if figure is not None:
                path = folder / f'{variant}-{kind.name}.png'
                with files.whole_file(path) as file:
                    FigureCanvasAgg(figure).print_png(file)
                found.append(Picture(path, variant, kind.title, kind.note))
    return found
