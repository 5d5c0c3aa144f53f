"""The study's report of two pages, and its appendix, each as Markdown and as HTML with the same content.

The report has the sentences, the first figures and what the numbers depend on; the appendix has all other figures,
tables and examples. A page is one file that needs no network and no script: pictures are data URIs, folded tables are
<details>. All text from data is escaped. The style is report.css.
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
TITLE = 'STAN and the others: does it recognise more, and are its explanations true?'
APPENDIX = 'Appendix: every table and figure of the study'
REACHED, RELATIONS, FACTS = 'Results of STAN', 'STAN compared with each network', 'Versions and settings'
# The number of figures in the report; the others are in the appendix.
FIGURES = 4


class Story(NamedTuple):
    """The sentences of the report: complete runs, STAN on each variant and beside each network, facts."""

    coverage: str
    ours: list[str]
    relations: list[str]
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


def markdown(story: Story, pictures: Sequence[Picture]) -> str:
    """Returns results.md as text; figures are linked as figures/FILE beside it."""
    parts = ['# Results of the study', QUESTION, f'{story.coverage} {HOW_TO_READ}']
    for title, sentences in ((REACHED, story.ours), (RELATIONS, story.relations)):
        parts += [f'## {title}', '\n'.join(f'- {sentence}' for sentence in sentences)] if sentences else []
    parts += [_markdown_of(picture) for picture in pictures[:FIGURES]]
    parts += [f'## {FACTS}', '\n'.join(f'- {name}: {value}' for name, value in story.facts)]
    parts.append('[The appendix](appendix.md) has every table, with intervals and p-values, and the other figures.')
    return '\n\n'.join(part for part in parts if part) + '\n'


def markdown_appendix(tables: Sequence[Table], pictures: Sequence[Picture]) -> str:
    """Returns appendix.md as text."""
    parts = [f'# {APPENDIX}', f'[The report](results.md). {HOW_TO_READ}']
    for variant in _variants(tables):
        parts.append(f'## {variant}')
        parts += [_markdown_of(picture) for picture in pictures[FIGURES:] if picture.variant == variant]
        for table in tables:
            if table.variant == variant:
                parts += [f'### {table.title} ({variant})', table.note, table.markdown()]
    return '\n\n'.join(parts) + '\n'


def _markdown_of(picture):
    return f'![{picture.title}](figures/{picture.path.name})\n\n{picture.title}. {picture.note}'


def _variants(tables):
    return dict.fromkeys(table.variant for table in tables)


# ---------------------------------------------------------------------------------------------------------------------
# HTML
# ---------------------------------------------------------------------------------------------------------------------


def html(story: Story, pictures: Sequence[Picture]) -> str:
    """Returns report.html as text."""
    body = [f'<header><h1>{TITLE}</h1><p>{escape(QUESTION)}</p><p class="coverage">{escape(story.coverage)}</p>']
    body.append(f'<p class="note">{escape(HOW_TO_READ)}</p></header>')
    for title, sentences in ((REACHED, story.ours), (RELATIONS, story.relations)):
        items = ''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)
        body.append(f'<section><h2>{title}</h2><ul>{items}</ul></section>' if sentences else '')
    body += [_picture(picture) for picture in pictures[:FIGURES]]
    facts = ''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in story.facts)
    body.append(f'<section><h2>{FACTS}</h2><dl>{facts}</dl></section>')
    body.append('<p><a href="appendix.html">The appendix</a> has every table and the other figures.</p>')
    return _page(TITLE, body)


def html_appendix(tables: Sequence[Table], pictures: Sequence[Picture], shown: Sequence[Example] = ()) -> str:
    """Returns appendix.html as text."""
    links = ' '.join(f'<a href="#{escape(variant)}">{escape(variant)}</a>' for variant in _variants(tables))
    body = [f'<header><h1>{APPENDIX}</h1><p><a href="report.html">The report</a></p><nav>{links}</nav>']
    body.append(f'<p class="note">{escape(HOW_TO_READ)}</p></header>')
    for variant in _variants(tables):
        body.append(f'<section id="{escape(variant)}"><h2>{escape(variant)}</h2>')
        body += [_picture(picture) for picture in pictures[FIGURES:] if picture.variant == variant]
        body += [_table(table) for table in tables if table.variant == variant]
        body += [_examples([example for example in shown if example.variant == variant]), '</section>']
    return _page(APPENDIX, body)


def _page(title: str, body: Sequence[str]) -> str:
    style = (importlib.resources.files('stattn_jax.study') / 'report.css').read_text(encoding='utf-8')
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}</title><style>\n{style}</style></head>\n<body><main>\n'
        + '\n'.join(body)
        + '\n</main></body></html>\n'
    )


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
