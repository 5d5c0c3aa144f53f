"""The HTML of the app, of models, results and errors. All texts are escaped."""

import html
import pathlib

from stattn_jax.app.work import Result
from stattn_jax.explain import index
from stattn_jax.explain.model import Model


def models_html(models: dict[str, Model]) -> str:
    """Returns a line about each model: its run, its classes and the clips that it takes."""
    lines = []
    for run, model in models.items():
        classes, spec = model.trained.facts.classes, model.spec
        shown = ', '.join(classes[:12]) + (f' and {len(classes) - 12} more' if len(classes) > 12 else '')
        lines.append(
            f'<li><b>{html.escape(run)}</b>: {len(classes)} classes ({html.escape(shown)}), '
            f'clips of {spec.seconds:g} s, step {model.trained.step}</li>'
        )
    return f'<h1>Where and when: explanations of videos</h1><ul class="models">{"".join(lines)}</ul>'


def summary_html(result: Result, folder: pathlib.Path, base: str) -> str:
    """Returns the sentence, the notices, the table of the best classes and the links to the files below `base`."""
    notices = ''.join(f'<li>{html.escape(notice)}</li>' for notice in result.notices)
    head = ''.join(f'<th scope="col">{html.escape(name)}</th>' for name in result.header)
    rows = ''.join(
        f'<tr><th scope="row">{html.escape(label)}</th>'
        + ''.join(f'<td>{html.escape(text)}</td>' for text in texts)
        + '</tr>'
        for label, *texts in result.rows
    )
    links = ''.join(_link(path, folder, base) for path in result.files)
    return (
        f'<p class="sentence" role="status">{html.escape(result.sentence)}</p>'
        + (f'<ul class="notices">{notices}</ul>' if notices else '')
        + '<div class="two"><div class="scroll"><table><caption>Best classes</caption>'
        f'<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<details{" open" if len(result.files) < 10 else ""}><summary>{index.counted(len(result.files), "file")}'
        f'</summary><ul class="files">{links}</ul></details></div>'
    )


def pages_html(result: Result, base: str) -> str:
    """Returns the pages of a result as they are: the main one, and the others side by side below it."""
    main, *others = (_page(title, f'{base}/{path}') for title, path in result.pages.items())
    return main + (f'<div class="two">{"".join(others)}</div>' if others else '')


def gallery_html(title: str, address: str) -> str:
    return _page(title, address)


def error_html(line: str) -> str:
    return f'<p class="error" role="alert">error: {html.escape(line)}</p>'


def _page(title: str, address: str) -> str:
    # The frame gets the height of its page, also of one that a link in it leads to. The height of the page depends on
    # that of the frame, so that it is measured more than once.
    fit = (
        'for (let i = 0; i < 3; i++) '
        "this.style.height = Math.min(this.contentDocument.documentElement.scrollHeight + 4, 4000) + 'px'"
    )
    return (
        f'<div class="page"><p><a href="{index.link(address)}" target="_blank">{html.escape(title)} in a tab of its '
        f'own</a></p><iframe title="{html.escape(title)}" src="{index.link(address)}" onload="{fit}"></iframe></div>'
    )


def _link(path: str, folder: pathlib.Path, base: str) -> str:
    size = (folder / path).stat().st_size
    text = f'{size / 1e6:.1f} MB' if size >= 1e5 else f'{size / 1e3:.0f} kB'
    address = index.link(f'{base}/{path}')
    return f'<li><a href="{address}" download>{html.escape(path)}</a> {text}</li>'
