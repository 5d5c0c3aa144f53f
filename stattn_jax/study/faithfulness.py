"""The tables of faithfulness: whether the prediction depends on the parts that an explanation marks as important.

They are functions of the measured runs alone; the numbers are those of metrics/aopc.py and metrics/perturbation.py.
"""

from collections.abc import Sequence

from stattn_jax.study import results
from stattn_jax.study.comparisons import EXPLAINER, ROW, TRAININGS, explained
from stattn_jax.study.results import Run
from stattn_jax.study.table_format import Column, Row, Table


def order(runs: Sequence[Run], variant: str) -> Table:
    """The exactly normalised AOPC over time of each row's explanation, at the features and at the input."""
    rows: list[Row] = []
    names = ('aopc', 'aopc_input', 'feature/volume', 'gini', 'entropy')
    for row, explainer, of_row in explained(runs, variant):
        cells = [results.mean(results.values(of_row, f'{explainer}/{name}')) for name in names]
        if any(cells[:2]):
            blind = results.mean(results.values(of_row, 'chance/aopc'))
            rows.append((row, explainer, len(of_row), *cells[:2], blind, *cells[2:]))
    heads = ('AOPC at the features', 'AOPC at the input', 'blind order', 'surface volume', 'Gini', 'entropy')
    columns = (ROW, EXPLAINER, TRAININGS, *(Column(name, 'number') for name in heads))
    note = (
        'Seconds are removed in the order of the explanation: 0 is the worst of all orders of this very network, 1 the '
        'best, so that networks can be compared. Blind order: that of a constant map. Surface volume: mean '
        'probability while shares of picture and sound are removed (small is good; it depends on the network too). '
        'Gini and entropy: how sparse and how spread the map is, neither good nor bad.'
    )
    return Table(
        'faithfulness', variant, 'Faithfulness: does removing important parts matter?', note, columns, tuple(rows)
    )


# Names in measures.npz, and the column heads of the table.
AREAS = {
    'deletion': 'deletion',
    'insertion': 'insertion',
    'difference': 'insertion less deletion',
    'logit_difference': '... of the logit',
    'morf': 'strongest first',
    'lerf': 'weakest first',
}


def removal(runs: Sequence[Run], variant: str) -> Table:
    """Deletion and insertion by setting, and the latter minus the controls: the shifted map and the random map."""
    rows: list[Row] = []
    for setting in results.SETTINGS:
        for row, explainer, of_row in explained(runs, variant):
            at = f'{explainer}/{setting}'
            if results.values(of_row, f'{at}/difference') is None:
                continue
            cells = [results.values(of_row, f'{at}/{name}') for name in AREAS]
            controls = [f'{at}/shifted', f'random/{setting}/difference']
            gaps = (results.gap(results.gaps(of_row, f'{at}/difference', name)) for name in controls)
            rows.append((setting, row, explainer, len(of_row), *map(results.mean, cells), *gaps))
    columns = (
        *(Column('removed'), ROW, EXPLAINER, TRAININGS),
        *(Column(name, 'number') for name in AREAS.values()),
        Column('less shifted map', 'signed', tested=True),
        Column('less random map', 'signed', tested=True),
    )
    note = (
        "Areas under the class's probability while the strongest units go (deletion, small is good) or come "
        '(insertion, large is good). Of the logit: with the empty clip at 0 and the whole one at 1. Strongest and '
        'weakest first: mean drops (MoRF, LeRF). The shifted map is the same map rolled around, of the same shape in '
        'the wrong place; words in these two columns say whether the map beats its control. Areas depend on the '
        'network as well as on the map: only AOPC above does not.'
    )
    return Table(
        'removal',
        variant,
        'Removal: insertion and deletion with their controls',
        note,
        columns,
        tuple(rows),
        aside=True,
    )
