"""The tables that compare networks: tests, choices, recognition, pointing, ablations.

Plausibility (pointing) and faithfulness (removal) have separate tables and are never averaged: a map may lie on the
object without being what the network used.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stattn_jax.study import choice, results
from stattn_jax.study.choice import Scores
from stattn_jax.study.results import Run
from stattn_jax.study.table_format import Column, Estimate, Row, Table

COMPARED = ('ours', 'representation', 'intrinsic')
ROW, EXPLAINER, TRAININGS = Column('row'), Column('explanation'), Column('trainings', 'count')


class Game(NamedTuple):
    """A pointing game: its name, its values in measures.npz, its stratum of clips, and its chance level.

    `chance` is the name of the chance level among a run's numbers.
    """

    name: str
    values: str
    stratum: str
    chance: str


GAMES = (
    Game('space', 'space', '', 'pointing/space_chance'),
    Game('space, tolerant', 'space_scaled', '', 'pointing/space_tolerant_chance'),
    Game('space, small objects', 'space', 'small', 'pointing/space_small_chance'),
    Game('time', 'time', '', 'pointing/time_chance'),
    Game('time, partial events', 'time', 'partial', 'pointing/time_partial_chance'),
    Game('space and time', 'joint', '', 'pointing/joint_chance'),
    Game('space, of the predicted class', 'space_predicted', '', 'pointing/space_chance'),
    Game('space and time, of the predicted class', 'joint_predicted', '', 'pointing/joint_chance'),
    Game('energy inside', 'energy', '', 'pointing/energy_chance'),
)


class Measure(NamedTuple):
    """A measure by which the report compares networks: its name, its values in measures.npz, its clips, its unit."""

    name: str
    values: str
    stratum: str
    unit: str


MEASURES = (
    Measure('accuracy', 'correct', '', 'points'),
    Measure('where', '{}/space', '', 'points'),
    Measure('when', '{}/time', 'partial', 'points'),
    Measure('faithfulness', '{}/aopc', '', 'signed'),
)


def tests(runs: Sequence[Run], variant: str) -> Table:
    """STAN minus each other network in the measures of the report, tested; one row per network."""
    of_ours = results.ours(runs, variant)
    rows: list[Row] = []
    for row, of_row in results.rows(runs, variant, *COMPARED).items():
        cells = [results.ours_less(of_ours, of_row, m.values, m.stratum) for m in MEASURES]
        rows += [(row, *cells)] if any(cells) else []
    note = (
        'STAN less each network on the same clips, with 95 % intervals. Clips and trainings are both random '
        '(stattn_jax/metrics/paired.py); with one training, its own luck is not part of the test. The p-values are '
        'corrected by Holm over the networks of a column. Ahead or behind: p below 0.05; level: no difference shown. '
        'Where: the strongest cell on the object. When: the strongest second in the event, where it does not fill the '
        'clip. Faithfulness: normalised AOPC of seconds at the features.'
    )
    columns = (ROW, *(Column(m.name, m.unit, tested=True) for m in MEASURES))
    return Table('tests', variant, 'Paired tests: STAN less the others', note, columns, tuple(rows))


def choices(scores: Scores, variant: str) -> Table:
    """The values of the grid that each row chose, and the validation accuracy of each of its trials."""
    of_variant = {row: some for (known, row), some in scores.items() if known == variant}
    shown = {row: [_values(score) for score in some] for row, some in of_variant.items()}
    heads = next(iter(shown.values()), [])
    rows: list[Row] = []
    for row, some in of_variant.items():
        best = choice.choose(some)
        cells = [None if score.accuracy is None else Estimate(score.accuracy) for score in some]
        rows.append((row, _values(best) if best else 'none', *cells))
    columns = (ROW, Column('chosen'), *(Column(head, 'percent') for head in heads))
    note = (
        'Accuracy on validation clips, which are no test clips, after one training with each combination of the grid. '
        'The best is kept (of equals the one with the higher mAP); a dash is a loss that was not finite. Ablations '
        "have STAN's values."
    )
    return Table('choices', variant, 'Values that each network chose on validation clips', note, columns, tuple(rows))


def _values(score):
    return ', '.join(f'{name} {value}' for name, value in score.values.items())


def recognition(runs: Sequence[Run], variant: str) -> Table:
    """Accuracy and mean average precision of each compared network."""
    rows: list[Row] = []
    for row, of_row in results.rows(runs, variant, *COMPARED).items():
        accuracy = results.mean(results.values(of_row, 'correct'))
        seconds = results.over_seeds([run.train_seconds for run in of_row])
        precision = results.mean_average_precision(of_row)
        rows.append((row, len(of_row), accuracy, precision, of_row[0].parameters, seconds))
    columns = (
        *(ROW, TRAININGS, Column('accuracy', 'percent'), Column('mAP', 'percent')),
        *(Column('parameters', 'count'), Column('training', 'seconds')),
    )
    note = (
        'Share of test clips whose class is named, and mean average precision over classes. '
        'Training: mean over trainings, on the machine named below; networks that trained side by side shared it.'
    )
    return Table('recognition', variant, 'Recognition', note, columns, tuple(rows))


# ---------------------------------------------------------------------------------------------------------------------
# Pointing
# ---------------------------------------------------------------------------------------------------------------------


def pointing(runs: Sequence[Run], variant: str) -> Table:
    """Nine pointing games: hits with chance levels."""
    rows: list[Row] = []
    for row, explainer, of_row in explained(runs, variant):
        found = [results.values(of_row, f'{explainer}/{game.values}', game.stratum) for game in GAMES]
        if any(values is not None for values in found):
            rows.append((row, explainer, len(of_row), *map(results.mean, found)))
    levels = [chance(runs, variant, game) for game in GAMES] if rows else []
    for name, cells in zip(('chance: a blind guess', 'chance: best of blind, centre, prior'), zip(*levels)):
        rows.append((name, '', None, *cells))
    columns = (ROW, EXPLAINER, TRAININGS, *(Column(game.name, 'percent') for game in GAMES))
    title = 'Pointing: is the strongest cell on the object, the strongest second in the event?'
    return Table('pointing', variant, title, NOTE, columns, tuple(rows))


NOTE = (
    'Expected hit over ties, clips as the unit; a row is scored by the explanation that represents it. Tolerant: a '
    "cell within 15/224 of the frame's side counts. Small objects: under a quarter of the frame. Partial events: those "
    'that do not fill the clip. Space and time: the strongest cell of the strongest second, on the object and in its '
    'event. Of the predicted class: the map of the class that the network predicts, not of the label, which may reveal '
    'the object. Energy: share of the positive values inside the boxes. The best chance of a game for which only the '
    'blind guess is known is that guess.'
)


def explained(runs: Sequence[Run], variant: str) -> Iterator[tuple[str, str, list[Run]]]:
    """Yields (row, explainer, runs) for the explanation that represents each compared row.

    STAN's attention weights follow its terms as a second entry.
    """
    for row, of_row in results.rows(runs, variant, *COMPARED).items():
        explainer = results.first_explainer(of_row)
        if explainer:
            yield row, explainer, of_row
        if explainer == 'terms' and 'attention' in results.explainers(of_row):
            yield row, 'attention', of_row


def chance(runs: Sequence[Run], variant: str, game: Game) -> tuple[Estimate | None, Estimate | None]:
    """Returns the hit rate of a blind guess, and the best chance level of a game.

    The latter is the best of blind, centre and prior if a run's numbers contain it, and the blind guess otherwise. Both
    depend on the clips and not on the network, so they are taken from the first run that has them, STAN's first.
    """
    of_variant = [run for run in runs if run.variant == variant]
    name = f'chance/{game.values.removesuffix("_predicted")}'
    cells = (results.mean(results.values([run], name, game.stratum)) for run in of_variant)
    blind, stored = next(filter(None, cells), None), results.first_number(of_variant, game.chance)
    return blind, blind if stored is None else Estimate(stored)


# ---------------------------------------------------------------------------------------------------------------------
# Ablations
# ---------------------------------------------------------------------------------------------------------------------

PARTS = (
    ('accuracy', 'correct', '', 'percent'),
    ('space', '{}/space', '', 'percent'),
    ('attention in space', 'attention/space', '', 'percent'),
    ('time, partial events', '{}/time', 'partial', 'percent'),
    ('space and time', '{}/joint', '', 'percent'),
    ('AOPC at the features', '{}/aopc', '', 'number'),
)


def ablations(runs: Sequence[Run], variant: str) -> Table:
    """STAN with one part removed or changed per row, compared with the complete STAN; no rows without an ablation."""
    of_ours = results.ours(runs, variant)
    rows: list[Row] = []
    for row, of_row in results.rows(runs, variant, 'ours', 'ablation').items():
        cells = []
        for _, name, stratum, _ in PARTS:
            theirs = results.values(of_row, name.format(results.first_explainer(of_row)), stratum)
            cells += [results.mean(theirs), results.ours_less(of_ours, of_row, name, stratum)]
        rows.append((row, len(of_row), *cells))
    columns = [ROW, TRAININGS]
    for name, _, _, unit in PARTS:
        less = Column(f'STAN less this, {name}', 'points' if unit == 'percent' else 'signed', tested=True)
        columns += [Column(name, unit), less]
    note = (
        "Each row is STAN with one thing changed, and STAN's choice of the grid. Level: the part makes no difference "
        'here that so many clips and trainings would show. p-values are corrected within a column.'
    )
    return Table(
        'ablations',
        variant,
        'Ablations: the worth of each part of STAN',
        note,
        tuple(columns),
        tuple(rows) if results.rows(runs, variant, 'ablation') else (),
    )
