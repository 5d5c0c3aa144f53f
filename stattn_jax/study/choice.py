"""Chooses each row's values of the grid by its trials' accuracy on validation clips, never on test clips."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from stattn_jax.study import plan

Scores = dict[tuple[str, str], list['Score']]


@dataclasses.dataclass(frozen=True)
class Score:
    """The result of a trial: its values of the grid, and accuracy and mean average precision on the clips of `split`.

    Both are None for a training whose loss was not finite.
    """

    variant: str
    row: str
    number: int
    values: dict[str, Any]
    split: str
    accuracy: float | None
    precision: float | None


def choose(scores: Sequence[Score]) -> Score | None:
    """Returns the score of the best accuracy, then of the best precision; of equals the first; None if all diverged.

    Raises ValueError for a score of any other split than the validation split.
    """
    for score in scores:
        if score.split != plan.VALIDATION:
            raise ValueError(
                f'{score.variant}/{score.row} was scored on the split {score.split!r}; expected {plan.VALIDATION!r}: '
                'nothing is chosen on other clips'
            )
    finished = [score for score in scores if score.accuracy is not None]
    return max(finished, key=lambda score: (score.accuracy, score.precision), default=None)


def read(trials: Sequence[plan.Trial]) -> Scores:
    """Returns the scores of each (variant, row) all of whose trials are done."""
    found: Scores = {}
    for trial in trials:
        found.setdefault((trial.variant, trial.row), [])
    for trial in trials:
        if plan.is_done(trial):
            content = json.loads(trial.result.read_text())
            names = [field.name for field in dataclasses.fields(Score)]
            found[trial.variant, trial.row].append(Score(**{name: content[name] for name in names}))
    counts = [(trial.variant, trial.row) for trial in trials]
    return {key: scores for key, scores in found.items() if len(scores) == counts.count(key)}
