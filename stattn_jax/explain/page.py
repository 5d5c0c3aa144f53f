"""Writes one explanation as an HTML file that plays offline; `fill` makes every page of this package.

The file holds the clip, the numbers (float32, base64) and the scripts in page/. A content security policy allows only
these scripts and styles and no network requests. The page itself computes what-if and contrasts from beta,
segment_scores and bias, with the same closed form as Explanation.without_units. All values that come from data are
escaped. page/record.js does the arithmetic; page/player.js connects the parts of the page.
"""

import base64
import hashlib
import html
import importlib.resources
import io
import json
import string
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image

from stattn_jax import colours
from stattn_jax.explain import sentences, video
from stattn_jax.explain.explanation import BEST, ExplanationData, GroundTruth, strongest_cell

_SCRIPTS = ('record.js', 'stage.js', 'timeline.js', 'panels.js', 'export.js', 'player.js')


def render(explanation: ExplanationData, label: str | None = None, truth: GroundTruth | None = None) -> str:
    """Returns one explanation as a self-contained HTML document that works from file:// without a network.

    The page opens with `label` (without one: the best class) and can switch among the BEST best classes and `label`;
    `truth` belongs to `label`. Where `explanation.source` is None, the page shows the frames instead of the clip,
    without audio, and says so. Raises ValueError for an unknown label and media.MediaError for a source that can no
    longer be read.
    """
    chosen = explanation.class_index(label)
    data = _data(explanation, chosen, truth or GroundTruth())
    clip = b''
    if explanation.source is not None:
        clip = video.web_clip(explanation.source, explanation.media['start'], explanation.media['end'], height=360)
    name = explanation.classes[chosen]
    return fill(
        'template.html',
        ('style.css',),
        _SCRIPTS,
        title=f'Evidence for {name} in {explanation.media["file"]}',
        file=explanation.media['file'],
        sentence=sentences.sentence(explanation, chosen),
        log_mel=_log_mel(explanation),
        raw_notices=''.join(f'<li>{html.escape(text)}</li>' for text in sentences.notices(explanation, chosen)),
        raw_still=_still(explanation, chosen),
        raw_data=json_text(data),
        raw_clip=base64.b64encode(clip).decode(),
    )


# ---------------------------------------------------------------------------------------------------------------------
# The content of a page
# ---------------------------------------------------------------------------------------------------------------------


def fill(template: str, styles: tuple[str, ...], scripts: tuple[str, ...], media: str = 'blob:', **values: str) -> str:
    """Returns the template filled with `values`, among them `title`, and with one script and one style sheet.

    Only these two may run. `media` lists the sources that the page's policy allows for videos. Values are escaped
    unless their name begins with raw_.
    """
    folder = importlib.resources.files('stattn_jax.explain') / 'page'
    style, body = (
        '\n'.join((folder / name).read_text(encoding='utf-8') for name in names) for names in (styles, scripts)
    )
    style = string.Template(style).substitute(_colour_values())
    script = f"(() => {{\n'use strict';\n{body}}})();\n"
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        f"media-src {media}; base-uri 'none'; form-action 'none'"
    )
    values = {name: text if name.startswith('raw_') else html.escape(text) for name, text in values.items()}
    head, text = (string.Template((folder / name).read_text(encoding='utf-8')) for name in ('head.html', template))
    filled = head.substitute(title=values['title'], policy=policy, style=style)
    return text.substitute(values, head=filled, script=script)


def _colour_values() -> dict[str, str]:
    """Returns the colours of evidence for the style sheet, by their names there."""
    light = {'picture': colours.PICTURE, 'sound': colours.SOUND, 'truth': colours.TRUE, 'missing': colours.MISSING}
    dark = {f'dark_{name}': colour for name, colour in colours.DARK.items()}
    return {**light, **dark, 'strongest': colours.STRONGEST}


def _digest(text):
    return 'sha256-' + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def json_text(data) -> str:
    """Returns JSON that cannot close the HTML element that contains it, whatever the strings in `data`."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False)
    return text.replace('<', '\\u003c').replace('>', '\\u003e').replace('&', '\\u0026')


def _data(explanation: ExplanationData, chosen: int, truth: GroundTruth) -> dict[str, Any]:
    shown = [explanation.classes.index(row['label']) for row in explanation.top(BEST)]
    shown += [chosen] if chosen not in shown else []
    removed = [explanation.classes.index(name) for name in explanation.removed_classes]
    numbers = {name: _floats(getattr(explanation, name)) for name in ('logits', 'bias', 'beta', 'segment_scores')}
    maps = {name: _floats(getattr(explanation, name)[shown]) for name in ('reference', 'visual', 'audio')}
    finer = _floats(explanation.visual_finer[shown]) if explanation.visual_finer.size else None
    slides = [] if explanation.source is not None else [data_url('image/jpeg', frame) for frame in explanation.frames]
    return {
        **numbers,
        **maps,
        'visual_finer': finer,
        'alpha': _floats(explanation.alpha),
        'null': _floats(explanation.null),
        'valid': explanation.valid.tolist(),
        'units': explanation.units.ravel().tolist(),
        'removed_cells': _floats(explanation.removed_cells),
        'removed': removed,
        'shown': shown,
        'chosen': chosen,
        'sentences': [sentences.sentence(explanation, c) for c in shown],
        'notices': [sentences.notices(explanation, c) for c in shown],
        'residual': explanation.residual()[1],
        'centred': bool(explanation.mean_scores.any()),
        'truth': {'intervals': list(truth.intervals), 'boxes': list(truth.boxes)},
        'slides': slides,
        'negligible': colours.NEGLIGIBLE,
        'colours': {'heat': _bytes(colours.HEAT), 'signed': _bytes(colours.SIGNED)},
        'opacity': colours.OPACITY,
        'opacity_exponent': colours.OPACITY_EXPONENT,
        'strongest': colours.STRONGEST,
        **{
            name: getattr(explanation, name)
            for name in ('classes', 'multi_label', 'media', 'geometry', 'model', 'trust')
        },
    }


def _still(explanation: ExplanationData, c: int) -> str:
    """Returns markup for readers without scripts: the frame of the strongest cell and the numbers as tables."""
    best = strongest_cell(explanation.visual[c])
    picture = ''
    if best and explanation.frames:
        where = f'Frame of the strongest cell, {sentences.seconds(explanation, best[0], best[0] + 1)}'
        picture = f'<img src="{data_url("image/jpeg", explanation.frames[best[0]])}" alt="{where}">'
    classes = [(row['label'], sentences.percent(row['probability'])) for row in explanation.top(BEST)]
    segments = []
    for t, valid in enumerate(explanation.valid):
        terms = (explanation.visual[c, t].sum(), explanation.audio[c, t])
        numbers = [sentences.signed(x) for x in terms] if valid else ['no data'] * 2
        segments.append((sentences.seconds(explanation, t, t + 1), *numbers))
    evidence = f'Evidence for {explanation.classes[c]} (contribution to the logit)'
    return (
        picture
        + _table('Prediction', ('class', 'probability'), classes)
        + _table(evidence, ('segment', 'visual', 'audio'), segments)
    )


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [''.join(f'<td>{html.escape(text)}</td>' for text in row) for row in rows]
    head = ''.join(f'<th>{html.escape(text)}</th>' for text in header)
    body = ''.join(f'<tr>{row}</tr>' for row in cells)
    return (
        f'<table><caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )


def _floats(values) -> dict[str, Any]:
    values = np.asarray(values, '<f4')
    return {'shape': values.shape, 'base64': base64.b64encode(values.tobytes()).decode()}


def _bytes(colour_map: np.ndarray) -> str:
    """Returns the RGB triples of a colour map as base64."""
    return base64.b64encode((colour_map * 255).round().astype(np.uint8).tobytes()).decode()


def data_url(kind: str, content: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'


def _log_mel(explanation: ExplanationData) -> str:
    """Returns the clip's log-mel, low bands at the bottom, as a palette PNG: a third of the bytes of an RGB one."""
    t, f, k = explanation.log_mel.shape
    image = explanation.log_mel.astype(np.float32).reshape(t * f, k).T[::-1]
    low, high = image.min(), image.max()
    picture = PIL.Image.fromarray(((image - low) / ((high - low) or 1) * 255).astype(np.uint8), 'L')
    picture.putpalette((colours.LOG_MEL * 255).round().astype(np.uint8).tobytes())
    return data_url('image/png', _encoded(picture, 'PNG', optimize=True))


def _encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
