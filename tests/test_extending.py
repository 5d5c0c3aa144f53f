"""Executes each Python block of docs/attribution.md and docs/extending.md alone, and undoes its registration."""

import re

import pytest
import runs
from tiny import quick_compile  # noqa: F401  autouse

from data_prep.__main__ import COMMANDS
from stattn_jax import score
from stattn_jax.attribution import EXPLAINERS
from stattn_jax.models.baselines import KINDS
from stattn_jax.models.trunks import small

PAGES = ('attribution.md', 'extending.md')
TABLES = (COMMANDS, EXPLAINERS, KINDS, *small.TRUNKS.values())


def blocks():
    for page in PAGES:
        text = (runs.ROOT / 'docs' / page).read_text()
        for match in re.finditer(r'^```python\n(.*?)^```$', text, re.MULTILINE | re.DOTALL):
            heading = re.findall(r'^## (.*)$', text[: match.start()], re.MULTILINE)[-1]
            yield pytest.param(page, text[: match.start(1)].count('\n'), match[1], id=f'{page}: {heading}')


@pytest.fixture
def registrations():
    """Yields the tables that blocks register in, and restores them."""
    before, metrics = [dict(table) for table in TABLES], list(score.CLIP_METRICS)
    yield TABLES
    for table, entries in zip(TABLES, before):
        table.clear()
        table.update(entries)
    score.CLIP_METRICS[:] = metrics


@pytest.mark.parametrize('page, line, code', [*blocks()])
def test_every_block_runs_by_itself(page, line, code, registrations):
    # Leading blank lines, so that an error names the line of the page.
    exec(compile('\n' * line + code, f'docs/{page}', 'exec'), {'__name__': 'example'})


def test_the_pages_have_an_example_of_every_part():
    assert len(list(blocks())) == 4 + 6
