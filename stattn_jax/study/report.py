"""The study's report, with the same sentences, figures and tables in report.html and results.md.

The page is one file that needs no network and no script: pictures are data URIs, folded tables are <details>. All text
from data is escaped. Its style is report.css.
"""

import base64
import importlib.resources
import json
import pathlib
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from stattn_jax.study.figures import Picture
from stattn_jax.study.sentences import HOW_TO_READ, QUESTION
from stattn_jax.study.table_format import AHEAD, BEHIND, LEVEL, Row, Table

MARKS = {AHEAD: '▲', LEVEL: '●', BEHIND: '▼'}
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
NOWHERE = 'Nowhere, in what was measured.'
SHORTFALLS, FACTS = 'Where STAN is not ahead', 'What the numbers hang on'
TITLE = 'STAN and the others: does it recognise more, and are its explanations true?'


class Story(NamedTuple):
    """The sentences of the report.

    They cover which runs are present, the outcome of each variant, where STAN is not ahead, and the facts that the
    numbers depend on.
    """

    coverage: str
    outcome: dict[str, list[str]]
    shortfalls: dict[str, list[str]]
    facts: list[tuple[str, str]]


class Example(NamedTuple):
    """An example figure of a clip: its file, its variant, and its caption."""

    path: pathlib.Path
    variant: str
    caption: str


def examples(folder: pathlib.Path) -> list[Example]:
    """Returns the examples of each VARIANT/examples.json under `folder`, in order; [] if the folder is missing."""
    found = []
    for path in sorted(folder.glob('*/examples.json')):
        content = json.loads(path.read_text(encoding='utf-8'))
        found += [Example(path.parent / item['file'], path.parent.name, item['caption']) for item in content]
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Markdown
# ---------------------------------------------------------------------------------------------------------------------


def markdown(story: Story, tables: Sequence[Table], pictures: Sequence[Picture]) -> str:
    """Returns results.md as text; figures are linked as figures/FILE beside it."""
    parts = ['# Results of the study', QUESTION, f'{story.coverage} {HOW_TO_READ}']
    parts.append('\n'.join(f'- {name}: {value}' for name, value in story.facts))
    for variant, sentences in story.outcome.items():
        parts += [f'## {variant}', '\n'.join(f'- {sentence}' for sentence in sentences)]
        own = [picture for picture in pictures if picture.variant == variant]
        parts += [f'![{p.title}](figures/{p.path.name})\n\n{p.title}. {p.note}' for p in own]
        for table in tables:
            if table.variant == variant:
                parts += [f'### {table.title} ({variant})', table.note, table.markdown()]
    parts.append(f'## {SHORTFALLS}')
    for topic, sentences in story.shortfalls.items():
        parts += [f'### {topic}', '\n'.join(f'- {sentence}' for sentence in sentences) or NOWHERE]
    return '\n\n'.join(part for part in parts if part) + '\n'


# ---------------------------------------------------------------------------------------------------------------------
# HTML
# ---------------------------------------------------------------------------------------------------------------------


def html(story: Story, tables: Sequence[Table], pictures: Sequence[Picture], shown: Sequence[Example] = ()) -> str:
    """Returns report.html as text."""
    style = (importlib.resources.files('stattn_jax.study') / 'report.css').read_text(encoding='utf-8')
    body = [_head(story), _shortfalls(story.shortfalls)]
    for variant in story.outcome:
        body.append(f'<section id="{escape(variant)}"><h2>{escape(variant)}</h2>')
        body += [_picture(p) for p in pictures if p.variant == variant]
        body += [_table(table) for table in tables if table.variant == variant]
        body += [_examples([example for example in shown if example.variant == variant]), '</section>']
    facts = ''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in story.facts)
    body.append(f'<section id="facts"><h2>{FACTS}</h2><dl>{facts}</dl></section>')
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{TITLE}</title><style>\n{style}</style></head>\n<body><main>\n'
        + '\n'.join(body)
        + '\n</main></body></html>\n'
    )


def _head(story: Story) -> str:
    places = {'shortfalls': SHORTFALLS} | {variant: variant for variant in story.outcome} | {'facts': FACTS}
    links = ' '.join(f'<a href="#{escape(to)}">{escape(text)}</a>' for to, text in places.items())
    found = [f'<header><h1>{TITLE}</h1><p>{escape(QUESTION)}</p><p class="coverage">{escape(story.coverage)}</p>']
    found.append(f'<nav>{links}</nav></header><section id="outcome"><h2>What came out</h2>')
    for variant, sentences in story.outcome.items():
        found.append(f'<h3>{escape(variant)}</h3>{_list(sentences)}')
    return ''.join(found) + f'<p class="note">{escape(HOW_TO_READ)}</p></section>'


def _shortfalls(by_topic: dict[str, list[str]]) -> str:
    found = [f'<section id="shortfalls"><h2>{SHORTFALLS}</h2>']
    for place, (topic, sentences) in enumerate(by_topic.items()):
        behind = sum(f': {BEHIND} ' in sentence for sentence in sentences)
        level = f'{topic}: {len(sentences)} measures in which one or more are level or ahead'
        count = escape(f'{level}, {behind} in which one or more are ahead')
        content = _list(sentences) if sentences else f'<p>{NOWHERE}</p>'
        found.append(f'<details{"" if place else " open"}><summary>{count}</summary>{content}</details>')
    return ''.join(found) + '</section>'


def _list(sentences):
    return f'<ul>{"".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)}</ul>'


def _picture(picture: Picture) -> str:
    return _image(picture.path, picture.title, f'<b>{escape(picture.title)}.</b> {escape(picture.note)}')


def _examples(shown: Sequence[Example]) -> str:
    if not shown:
        return ''
    images = ''.join(_image(example.path, f'Example: {example.caption}', escape(example.caption)) for example in shown)
    return (
        '<h3>Examples</h3><p class="note">The first training of each, the same clips for all; the frame is the true '
        f'object, the shade the true event.</p>{images}'
    )


def _image(path, alternative, caption):
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{escape(alternative)}" src="data:image/png;base64,{data}">'
    return f'<figure><div class="sheet" tabindex="0">{image}</div><figcaption>{caption}</figcaption></figure>'


def _table(table: Table) -> str:
    head = ''.join(f'<th scope="col"{_side(table, c)}>{escape(text)}</th>' for c, text in enumerate(table.heads()))
    rows = ''.join(f'<tr>{_cells(table, row)}</tr>' for row in table.rows)
    box = (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="note">{escape(table.note)}</p>'
    )
    title = f'<h3>{escape(table.title)}</h3>'
    return f'<details><summary>{title}</summary>{box}</details>' if table.aside else title + box


def _cells(table: Table, row: Row) -> str:
    found = []
    for c, texts in enumerate(table.texts(row)):
        tag = 'th scope="row"' if c == 0 else 'td'
        value, *rest = map(escape, texts)
        verdict = rest.pop() if rest else ''
        quiet = ''.join(f' <small>{part}</small>' for part in rest if part)
        word = f' <span class="{verdict}">{MARKS[verdict]} {verdict}</span>' if verdict else ''
        found.append(f'<{tag}{_side(table, c)}>{value}{quiet}{word}</{tag[:2]}>')
    return ''.join(found)


def _side(table, c):
    return '' if table.columns[c].unit == 'text' else ' class="number"'
