"""The tables about explanations: post-hoc methods on the same networks, sanity checks, leaks.

They are functions of the measured runs alone; outputs.py writes them.
"""

from collections.abc import Sequence

import numpy as np

from stattn_jax.study import results
from stattn_jax.study.comparisons import COMPARED, EXPLAINER, ROW, TRAININGS
from stattn_jax.study.results import Run
from stattn_jax.study.table_format import Column, Estimate, Row, Table, display_name

# Name, array (after the explainer's name), stratum, unit. A larger value is better in all of them.
MEASURES = (
    ('space', 'space', '', 'percent'),
    ('space, small objects', 'space', 'small', 'percent'),
    ('time, partial events', 'time', 'partial', 'percent'),
    ('space and time', 'joint', '', 'percent'),
    ('energy inside', 'energy', '', 'percent'),
    ('AOPC at the features', 'aopc', '', 'number'),
    ('AOPC at the input', 'aopc_input', '', 'number'),
    *((f'insertion less deletion, {display_name(s)}', f'{s}/difference', '', 'number') for s in results.SETTINGS),
)


def explainers(runs: Sequence[Run], variant: str) -> tuple[Table, Table]:
    """Tables of all explanations of each network, the random map included, and of the first one minus the others."""
    shown: list[Row] = []
    less: list[Row] = []
    for row, of_row in results.rows(runs, variant, *COMPARED).items():
        first, there = results.first_explainer(of_row), results.explainers(of_row)
        if first is None or len(set(there) - set(results.BLIND)) < 2:
            continue
        for explainer in there:
            values = (results.mean(results.values(of_row, f'{explainer}/{name}', s)) for _, name, s, _ in MEASURES)
            shape = (results.mean(results.values(of_row, f'{explainer}/{name}')) for name in ('gini', 'entropy'))
            shown.append((row, explainer, len(of_row), *values, *shape))
            if explainer != first:
                gaps = (results.gaps(of_row, f'{first}/{name}', f'{explainer}/{name}', s) for _, name, s, _ in MEASURES)
                less.append((row, explainer, len(of_row), *map(results.gap, gaps)))
    head = (ROW, EXPLAINER, TRAININGS)
    note = 'Each network, the same clips, several explanations; the random map knows nothing of either.'
    columns = [Column(name, unit) for name, _, _, unit in MEASURES]
    columns += [Column('Gini', 'number'), Column('entropy', 'number')]
    differences = [
        Column(name, 'points' if unit == 'percent' else 'signed', tested=True) for name, _, _, unit in MEASURES
    ]
    first = (
        'The explanation that represents the row (its own where it has one) less each of the others, training by '
        'training. p-values are corrected within a column.'
    )
    return (
        Table(
            'explainers', variant, 'Several explanations of the same networks', note, (*head, *columns), tuple(shown),
            aside=True,
        ),
        Table(
            'explainers-difference', variant, 'The first explanation less the others', first, (*head, *differences),
            tuple(less),
            aside=True,
        ),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Sanity
# ---------------------------------------------------------------------------------------------------------------------

# For each cascade, by its name in measures.npz: the similarity of maps.
CASCADES = {
    'randomised': 'rank correlation',
    'randomised_magnitude': 'rank correlation of magnitudes',
    'randomised_ssim': 'SSIM',
}


def cascades(runs: Sequence[Run], variant: str) -> list[Table]:
    """Similarity to the trained network's maps while parameters are re-initialised from the heads down.

    Returns one table for each similarity in `CASCADES`.
    """
    checks_of_rows = _checks_of_rows(runs, variant)
    note = (
        'Parameters are drawn anew from the heads down to the trunks, all groups up to the named one. Near 0: the map '
        'was about what the network had learned. Near 1: it is about the clip alone.'
    )
    found = []
    for place, (kind, words) in enumerate(CASCADES.items()):
        checks = cascade_groups([checks for _, _, of in checks_of_rows for checks in of.values()], f'{kind}/')
        name = kind.replace('randomised', 'sanity-cascade').replace('_', '-')
        title = f'Sanity: parameters drawn anew, {words}'
        found.append(_similarities(name, variant, title, note, checks_of_rows, checks, aside=place > 0))
    return found


def sanity(runs: Sequence[Run], variant: str) -> Table:
    """Rank correlation with the explanation of the unchanged clip, after a change of its input or of the class.

    The changes are other sounds, another class, mirrored frames, and rolled segments.
    """
    checks_of_rows = _checks_of_rows(runs, variant)
    every = dict.fromkeys(check for _, _, of in checks_of_rows for checks in of.values() for check in checks)
    checks = [check for check in every if check.split('/')[0] not in CASCADES]
    note = (
        'Silence, other and moved audio: near 1, the audio does not steer the map. Other class: near 1, the map is not '
        'about the class. Mirror and roll, undone again: near 1, the map follows the clip.'
    )
    return _similarities('sanity', variant, 'Sanity: sound, class, place, time', note, checks_of_rows, checks)


def _checks_of_rows(runs, variant):
    return [(row, of_row, _checks(of_row)) for row, of_row in results.rows(runs, variant).items()]


def _checks(of_row) -> dict[str, list[str]]:
    """Returns the names of the checks of each explanation of a row, in the order in which they were measured."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for run in of_row for name in run.arrays if name.startswith('sanity/')):
        _, explainer, check = name.split('/', 2)
        found.setdefault(explainer, []).append(check)
    return found


def cascade_groups(checks: Sequence[Sequence[str]], prefix: str) -> list[str]:
    """Returns the checks that start with `prefix`, from the heads to the trunks of all networks.

    They are sorted by their mean relative depth in the cascades in which they occur.
    """
    depth: dict[str, list[float]] = {}
    for of_one in checks:
        groups = [check for check in of_one if check.startswith(prefix)]
        for place, group in enumerate(groups):
            depth.setdefault(group, []).append(place / max(len(groups) - 1, 1))
    return sorted(depth, key=lambda group: np.mean(depth[group]))


def _similarities(name, variant, title, note, checks_of_rows, checks, aside=False):
    rows = []
    for row, of_row, checks_of in checks_of_rows:
        for explainer in checks_of:
            cells = [results.mean(results.values(of_row, f'sanity/{explainer}/{check}')) for check in checks]
            if any(cells):
                rows.append((row, explainer, len(of_row), *cells))
    columns = (ROW, EXPLAINER, TRAININGS, *(Column(display_name(check.split('/')[-1]), 'number') for check in checks))
    return Table(name, variant, title, note, columns, tuple(rows), aside=aside)


def attention(runs: Sequence[Run], variant: str) -> Table:
    """The checks that need STAN's attention (attention_checks.py), as means over clips and trainings."""
    of_ours = results.ours(runs, variant)
    names = dict.fromkeys(name for run in of_ours for name in run.numbers if name.startswith('inside/'))
    values = {name: [run.numbers[name] for run in of_ours if name in run.numbers] for name in names}
    rows = tuple((name.removeprefix('inside/'), results.over_seeds(of_name)) for name, of_name in values.items())
    note = (
        'MODULE/PART: rank correlation of a part of the explanation with the trained one when one module alone is '
        'drawn anew. permuted: how far the logit moves when attention is shuffled, and as a share of how far any '
        'attention could move it. The interval is over trainings alone.'
    )
    columns = (Column('check'), Column('value', 'number'))
    return Table('inside', variant, 'Inside STAN: does its attention matter?', note, columns, rows, aside=True)


SHORTCUTS = (
    ('audio alone (black frames)', 'shortcut/audio_only'),
    ('mismatched audio: the visual contributions keep the label', 'shortcut/mismatched_audio'),
    ("... follow the audio's", 'shortcut/mismatched_audio_follows'),
    ('... undecided', 'shortcut/mismatched_audio_undecided'),
    ("... decided, for the audio's", 'shortcut/mismatched_audio_decided_follows'),
)


def leaks(runs: Sequence[Run], variant: str) -> Table:
    """The accuracy from audio alone, and whether its visual terms follow mismatched audio."""
    rows: list[Row] = []
    for row, of_row in results.rows(runs, variant).items():
        cells = [results.rate(of_row, name, 'shortcut/n') for _, name in SHORTCUTS]
        chance = results.first_number(of_row, 'shortcut/mismatched_audio_chance')
        if any(cells):
            rows.append((row, len(of_row), *cells, None if chance is None else Estimate(chance)))
    rates = [Column(name, 'percent') for name in (*(name for name, _ in SHORTCUTS), 'chance of following')]
    note = (
        'The visual contributions of a network that has contributions, when the clip gets the audio of another clip. '
        'Following it above chance means that the visual contributions repeat the audio. In binding they may, because '
        'the audio tells there where to look. Undecided: no class has half of their softmax.'
    )
    return Table('leaks', variant, 'Shortcuts between the modalities', note, (ROW, TRAININGS, *rates), tuple(rows))
