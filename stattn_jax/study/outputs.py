"""Writes a study's outputs from its measured runs: study.json, tables, figures, the report and its appendix.

Usage: `write(load(workdir), choice.read(trials), workdir, facts)`. The tables are made in comparisons.py,
faithfulness.py and explanations.py, the pages in report.py.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from stattn_jax import files
from stattn_jax.study import comparisons, explanations, faithfulness, figures, report, results, sentences
from stattn_jax.study.choice import Scores
from stattn_jax.study.results import Run, load
from stattn_jax.study.table_format import Table

__all__ = ['Run', 'Table', 'load', 'make', 'write']

FORMAT = 'stattn_jax.study/2'


def write(runs: Sequence[Run], scores: Scores, folder: pathlib.Path, facts: dict[str, Any]) -> None:
    """Writes study.json, tables/*.csv, figures/*.png, and report and appendix, from the given runs and trials' scores.

    `facts`: what the numbers depend on, printed as it is (commit, versions, hardware, wall_seconds, ...); `expected`,
    the names VARIANT/ROW-SEED of all runs of the study, is compared with the runs that are present. Each file is
    replaced atomically.
    """
    folder, facts = pathlib.Path(folder), dict(facts)
    coverage, made = sentences.coverage(runs, facts.pop('expected')), make(runs, scores)
    reached = [text for variant in results.variants(runs) if (text := sentences.ours(made, variant))]
    story = report.Story(coverage, reached, sentences.relations(made), sentences.facts(facts))
    content = {
        'format': FORMAT,
        'facts': facts,
        'coverage': coverage,
        'relations': story.relations,
        'tables': [table.to_json() for table in made],
        'runs': [run.to_json() for run in runs],
    }
    _replace(folder / 'study.json', json.dumps(content, indent=1, allow_nan=False) + '\n')
    for table in made:
        _replace(folder / 'tables' / f'{table.stem}.csv', table.csv())
    pictures = figures.write(runs, made, folder / 'figures')
    _replace(folder / 'results.md', report.markdown(story, pictures))
    _replace(folder / 'appendix.md', report.markdown_appendix(made, pictures))
    _replace(folder / 'report.html', report.html(story, pictures))
    examples = report.examples(folder / 'examples')
    _replace(folder / 'appendix.html', report.html_appendix(made, pictures, examples))


def _replace(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, text)


def make(runs: Sequence[Run], scores: Scores) -> list[Table]:
    """Returns every table of every variant, except those without a row."""
    found = []
    for variant in results.variants(runs):
        found += [
            comparisons.tests(runs, variant),
            comparisons.choices(scores, variant),
            comparisons.recognition(runs, variant),
            comparisons.pointing(runs, variant),
            faithfulness.order(runs, variant),
            faithfulness.removal(runs, variant),
            *explanations.explainers(runs, variant),
            *explanations.cascades(runs, variant),
            explanations.sanity(runs, variant),
            explanations.attention(runs, variant),
            explanations.leaks(runs, variant),
            comparisons.ablations(runs, variant),
        ]
    return [table.judged().without_empty() for table in found if table.rows]
