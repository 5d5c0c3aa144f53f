"""The measured runs of a study, and statistics over them with confidence intervals.

A number is a mean over test clips and over the trainings of one row, with a bootstrap interval. Two networks are
compared on the same clips by a paired test (metrics/paired.py) in which their trainings are independent; two
explanations of one network are compared training by training, since they share it.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from stattn_jax.attribution import EXPLAINERS, removal
from stattn_jax.metrics import bootstrap, events, paired
from stattn_jax.study import networks, plan
from stattn_jax.study.table_format import Estimate

BLIND = ('random',)
SETTINGS = ('feature', *('_'.join(pair) for pair in removal.PAIRS))
VARIANTS = ('events', 'lopsided', 'binding')


@dataclasses.dataclass(frozen=True)
class Run:
    """One trained and measured network: the content of measures.json and the arrays of measures.npz.

    Most arrays are [n] over test clips, NaN where a clip has no value or was not measured.
    """

    variant: str
    row: str
    seed: int
    group: str
    steps: int
    parameters: int
    train_seconds: float
    measure_seconds: float
    left_out: int
    numbers: dict[str, Any]
    run: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        return f'{self.variant}/{self.row}-{self.seed}'

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != 'arrays'}


def load(folder: pathlib.Path, names: Collection[str] | None = None) -> list[Run]:
    """Loads every run under `folder`/runs that has both files, or those of these names, in the order of the tables.

    Raises ValueError if runs of a variant were measured on different test clips.
    """
    paths = [
        path
        for path in pathlib.Path(folder, 'runs').glob(f'*/*/{plan.NUMBERS}')
        if names is None or f'{path.parts[-3]}/{path.parts[-2]}' in names
    ]
    runs = sorted((_read(path) for path in paths if path.with_name(plan.ARRAYS).exists()), key=_place)
    for variant in variants(runs):
        first, *others = (run for run in runs if run.variant == variant)
        for other in others:
            if not np.array_equal(first.arrays['labels'], other.arrays['labels']):
                raise ValueError(
                    f'{first.name} and {other.name} were measured on different test clips; expected the same labels in '
                    'the same order; remove the older one and measure it again'
                )
    return runs


def _read(path):
    stored = json.loads(path.read_text())
    with np.load(path.with_name(plan.ARRAYS)) as arrays:
        names = [field.name for field in dataclasses.fields(Run) if field.name != 'arrays']
        return Run(**{name: stored[name] for name in names}, arrays=dict(arrays))


def _place(run):
    variant = VARIANTS.index(run.variant) if run.variant in VARIANTS else len(VARIANTS)
    return variant, run.variant, plan.GROUPS.index(run.group), run.row, run.seed


def variants(runs: Sequence[Run]) -> list[str]:
    """Returns the variants of the runs, in order."""
    return list(dict.fromkeys(run.variant for run in runs))


def rows(runs: Sequence[Run], variant: str, *groups: str) -> dict[str, list[Run]]:
    """Returns the runs of each row of a variant, of the given groups (of all groups if none is given)."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run.variant == variant and run.group in (groups or plan.GROUPS):
            found.setdefault(run.row, []).append(run)
    return found


def ours(runs: Sequence[Run], variant: str) -> list[Run]:
    """Returns the runs of the complete STAN, or [] if there are none."""
    return next(iter(rows(runs, variant, 'ours').values()), [])


def explainers(runs: Sequence[Run]) -> list[str]:
    """Returns the names of the explanations of these runs, the random map included."""
    there = {name.split('/')[0] for run in runs for name in run.arrays}
    order = ('terms', 'attention', 'own', *EXPLAINERS, *BLIND)
    return [name for name in order if name in there]


def first_explainer(runs: Sequence[Run]) -> str | None:
    """Returns the explanation that represents a row in comparisons of rows, or None if it has none."""
    return networks.first([name for name in explainers(runs) if name not in BLIND])


# ---------------------------------------------------------------------------------------------------------------------
# Values of clips
# ---------------------------------------------------------------------------------------------------------------------


def values(runs: Sequence[Run], name: str, stratum: str = '') -> np.ndarray | None:
    """Returns float [s n] of the runs that have a value under `name`, or None if there are none.

    `stratum` selects clips: 'small', 'partial', or '' for all.
    """
    return _stacked(runs, lambda run: _array(run, name), stratum)


def gaps(runs: Sequence[Run], name: str, other: str, stratum: str = '') -> np.ndarray | None:
    """Returns float [s n]: `name` minus `other` of the same networks; None if no run has both."""
    return _stacked(runs, lambda run: _array(run, name) - _array(run, other), stratum)


def _array(run, name):
    return np.asarray(run.arrays.get(name, np.nan), float)


def _stacked(runs, of, stratum):
    found = []
    for run in runs:
        values_n = np.broadcast_to(of(run), run.arrays['labels'].shape)
        kept_n = run.arrays.get(stratum, np.zeros(len(values_n), bool)) if stratum else np.ones(len(values_n), bool)
        if not np.isnan(values_n[kept_n]).all():
            found.append(values_n[kept_n])
    return np.stack(found) if found else None


# ---------------------------------------------------------------------------------------------------------------------
# Numbers
# ---------------------------------------------------------------------------------------------------------------------


def mean(values_sn: np.ndarray | None) -> Estimate | None:
    """Returns the mean over clips and trainings."""
    if values_sn is None:
        return None
    found = bootstrap.mean(values_sn)
    return Estimate(*found, seeds=len(values_sn)) if found.n else None


def gap(gaps_sn: np.ndarray | None) -> Estimate | None:
    """Returns the mean of differences within each training, tested against 0."""
    return None if gaps_sn is None else difference(gaps_sn, np.zeros((1, gaps_sn.shape[1])), len(gaps_sn))


def difference(ours_sn: np.ndarray | None, theirs_sn: np.ndarray | None, seeds: int = 0) -> Estimate | None:
    """Returns the mean of ours minus the mean of theirs on the same clips, tested."""
    if ours_sn is None or theirs_sn is None:
        return None
    found = paired.compare(ours_sn, theirs_sn)
    seeds = seeds or min(len(ours_sn), len(theirs_sn))
    return Estimate(*found[:3], found.n, found.skipped, seeds, found.p) if found.n else None


def ours_less(ours: Sequence[Run], of_row: Sequence[Run], name: str, stratum: str = '') -> Estimate | None:
    """Returns the mean of ours minus that of another row on the same clips, tested; None for our own row.

    '{}' in `name` stands for the explanation that represents each row.
    """
    if ours and ours[0].row == of_row[0].row:
        return None
    theirs_sn = values(of_row, name.format(first_explainer(of_row)), stratum)
    return difference(values(ours, name.format(first_explainer(ours)), stratum), theirs_sn)


def first_number(runs: Sequence[Run], name: str) -> float | None:
    """Returns a number that is the same for all runs that have it, such as a chance level; None where none has it."""
    return next((run.numbers[name] for run in runs if name in run.numbers), None)


def over_seeds(values_s: Sequence[float]) -> Estimate:
    """Returns the mean of one number per training; there is no interval for a single training."""
    found = bootstrap.mean(np.array(values_s, float))
    low, high = (found.low, found.high) if len(values_s) > 1 else (np.nan, np.nan)
    return Estimate(found.value, low, high, len(values_s), seeds=len(values_s))


def rate(runs: Sequence[Run], name: str, count: str) -> Estimate | None:
    """Returns a rate among the runs' numbers with the interval that so many hits among its `count` clips have.

    The clips themselves are not known. Trainings are treated as if the same clips were hard for all of them, which
    makes the interval as wide as possible.
    """
    stored = [run.numbers for run in runs if name in run.numbers and run.numbers.get(count)]
    if not stored:
        return None
    n = min(numbers[count] for numbers in stored)
    hits = [np.arange(n) < round(numbers[name] * n) for numbers in stored]
    found = mean(np.array(hits, float))
    return found and found._replace(value=float(np.mean([numbers[name] for numbers in stored])))


def mean_average_precision(runs: Sequence[Run]) -> Estimate:
    """Returns mean average precision over classes, averaged over trainings.

    The interval resamples clips and keeps the trainings fixed.
    """
    labels_n = runs[0].arrays['labels']
    functions = [ap_of_draws(run.arrays['logits'], labels_n) for run in runs]
    found = bootstrap.statistic(lambda clips: float(np.mean([f(clips) for f in functions])), len(labels_n))
    return Estimate(*found, seeds=len(runs))


def ap_of_draws(logits_nc: np.ndarray, labels_n: np.ndarray) -> Callable[[np.ndarray], float]:
    """Returns a function that computes mean average precision of resampled clips.

    It equals metrics.classification on the repeated clips. A clip sampled k times has weight k, so sorting once is
    enough for all resamples.
    """
    scores_cn = events.log_probabilities(logits_nc, binary=False).T
    order_cn = np.argsort(-scores_cn, axis=1, kind='stable')
    sorted_cn = np.take_along_axis(scores_cn, order_cn, axis=1)
    positive_cn = labels_n[order_cn] == np.arange(len(scores_cn))[:, None]
    # Clips of equal score enter together: the precision of each is that at the last clip of the tie.
    last_cn = np.stack([np.searchsorted(-row, -row, side='right') - 1 for row in sorted_cn])

    def of(clips):
        weight_cn = np.bincount(clips, minlength=len(labels_n))[order_cn]
        hits_cn = weight_cn * positive_cn
        precision_cn = np.cumsum(hits_cn, axis=1) / np.maximum(np.cumsum(weight_cn, axis=1), 1)
        total_c = hits_cn.sum(axis=1)
        found_c = (hits_cn * np.take_along_axis(precision_cn, last_cn, axis=1)).sum(axis=1)
        return float((found_c[total_c > 0] / total_c[total_c > 0]).mean())

    return of
