"""Writes one explanation as an HTML file that plays offline, and the index page of several explanations.

The file holds the clip, the numbers (float32, base64) and the scripts in page/. A content security policy allows only
these scripts and styles and no network requests. The page itself computes what-if and contrasts from beta,
segment_scores and bias, with the same closed form as Explanation.without_units. All values that come from data are
escaped. page/record.js does the arithmetic; page/player.js connects the parts of the page.
"""

import base64
import dataclasses
import hashlib
import html
import importlib.resources
import io
import json
import string
import urllib.parse
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import simplejpeg

from stattn_jax.explain import colours, sentences, video
from stattn_jax.explain.explanation import BEST, ExplanationData, GroundTruth, strongest_cell
from stattn_jax.metrics import localization

_SCRIPTS = ('record.js', 'stage.js', 'timeline.js', 'panels.js', 'export.js', 'player.js')
_THUMBNAIL = 320


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
    return _fill(
        'template.html',
        ('style.css',),
        _SCRIPTS,
        title=f'Evidence for {name} in {explanation.media["file"]}',
        file=explanation.media['file'],
        sentence=sentences.sentence(explanation, chosen),
        log_mel=_log_mel(explanation),
        raw_notices=''.join(f'<li>{html.escape(text)}</li>' for text in sentences.notices(explanation, chosen)),
        raw_still=_still(explanation, chosen),
        raw_data=_json(data),
        raw_clip=base64.b64encode(clip).decode(),
    )


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry of the index: the prediction and the annotations of one clip.

    `href` is the path of its page relative to the index, and `thumbnail` is a JPEG. `error` is 1 - probability of the
    true label, and `pointing` is the expected hit of the attention's peak on the true boxes; both are in 0..1, and None
    without annotations.
    """

    href: str
    title: str
    thumbnail: bytes
    label: str
    probability: float
    true_label: str | None = None
    error: float | None = None
    pointing: float | None = None


def index_entry(
    explanation: ExplanationData, href: str, true_label: str | None = None, truth: GroundTruth | None = None
) -> Entry:
    """Returns the index entry of an explained clip whose page is at `href`; `truth` belongs to `true_label`.

    Raises ValueError for an unknown label.
    """
    c = explanation.class_index()
    known = None if true_label is None else explanation.probabilities[explanation.class_index(true_label)]
    return Entry(
        href=href,
        title=explanation.media['file'],
        thumbnail=_thumbnail(explanation, c),
        label=explanation.classes[c],
        probability=float(explanation.probabilities[c]),
        true_label=true_label,
        error=None if known is None else float(1 - known),
        pointing=_pointing(explanation, truth or GroundTruth()),
    )


def render_index(entries: list[Entry]) -> str:
    """Returns the index page of several explanations, in the order given.

    The reader can sort it by confidence, error or pointing hit.
    """
    cards = [_card(i, entry) for i, entry in enumerate(entries)]
    return _fill(
        'index.html',
        ('style.css', 'index.css'),
        ('index.js',),
        count=f'{len(entries)} clip{"" if len(entries) == 1 else "s"} explained',
        summary=_summary(entries),
        raw_cards='\n'.join(cards),
    )


# ---------------------------------------------------------------------------------------------------------------------
# The content of a page
# ---------------------------------------------------------------------------------------------------------------------


def _fill(template: str, styles: tuple[str, ...], scripts: tuple[str, ...], **values: str) -> str:
    """Returns the template filled with `values`, one script and one style sheet, which alone may run.

    Values are escaped unless their name begins with raw_.
    """
    folder = importlib.resources.files('stattn_jax.explain') / 'page'
    style, body = (
        '\n'.join((folder / name).read_text(encoding='utf-8') for name in names) for names in (styles, scripts)
    )
    style = string.Template(style).substitute(_colour_values())
    script = f"(() => {{\n'use strict';\n{body}}})();\n"
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; media-src "
        'blob:; '
        "base-uri 'none'; form-action 'none'"
    )
    values = {name: text if name.startswith('raw_') else html.escape(text) for name, text in values.items()}
    text = (folder / template).read_text(encoding='utf-8')
    return string.Template(text).substitute(values, policy=policy, style=style, script=script)


def _colour_values() -> dict[str, str]:
    """Returns the colours of evidence for the style sheet, by their names there."""
    light = {'picture': colours.PICTURE, 'sound': colours.SOUND, 'truth': colours.TRUE, 'missing': colours.MISSING}
    dark = {f'dark_{name}': colour for name, colour in colours.DARK.items()}
    return {**light, **dark, 'strongest': colours.STRONGEST}


def _digest(text):
    return 'sha256-' + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(data) -> str:
    """Returns JSON that cannot close the HTML element that contains it, whatever the strings in `data`."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False)
    return text.replace('<', '\\u003c').replace('>', '\\u003e').replace('&', '\\u0026')


def _data(explanation: ExplanationData, chosen: int, truth: GroundTruth) -> dict[str, Any]:
    shown = [explanation.classes.index(row['label']) for row in explanation.top(BEST)]
    shown += [chosen] if chosen not in shown else []
    removed = [explanation.classes.index(name) for name in explanation.removed_classes]
    numbers = {name: _floats(getattr(explanation, name)) for name in ('logits', 'bias', 'beta', 'segment_scores')}
    maps = {name: _floats(getattr(explanation, name)[shown]) for name in ('reference', 'visual', 'audio')}
    slides = [] if explanation.source is not None else [_url('image/jpeg', frame) for frame in explanation.frames]
    return {
        **numbers,
        **maps,
        'alpha': _floats(explanation.alpha),
        'null': _floats(explanation.null),
        'valid': explanation.valid.tolist(),
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
        'colours': {
            'heat': _bytes(colours.HEAT),
            'signed': _bytes(colours.SIGNED),
        },
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
        picture = f'<img src="{_url("image/jpeg", explanation.frames[best[0]])}" alt="{where}">'
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


def _url(kind: str, content: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'


def _log_mel(explanation: ExplanationData) -> str:
    """Returns the clip's log-mel, low bands at the bottom, as a palette PNG: a third of the bytes of an RGB one."""
    t, f, k = explanation.log_mel.shape
    image = explanation.log_mel.astype(np.float32).reshape(t * f, k).T[::-1]
    low, high = image.min(), image.max()
    picture = PIL.Image.fromarray(((image - low) / ((high - low) or 1) * 255).astype(np.uint8), 'L')
    picture.putpalette((colours.LOG_MEL * 255).round().astype(np.uint8).tobytes())
    return _url('image/png', _encoded(picture, 'PNG', optimize=True))


def _encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


# ---------------------------------------------------------------------------------------------------------------------
# Entries of the index
# ---------------------------------------------------------------------------------------------------------------------


def _thumbnail(explanation: ExplanationData, c: int) -> bytes:
    """Returns the frame of the strongest cell with its heat map as JPEG, or the first frame if no cell is positive."""
    heat, _ = colours.overlay(explanation.visual[c], explanation.audio[c])
    t = (strongest_cell(explanation.visual[c]) or (0,))[0]
    picture = PIL.Image.fromarray(simplejpeg.decode_jpeg(explanation.frames[t]))
    ratio = _THUMBNAIL / max(explanation.media['width'], explanation.media['height'])
    width, height = (max(1, round(explanation.media[side] * ratio)) for side in ('width', 'height'))
    picture = picture.resize((width, height))
    to = explanation.geometry['to_source']
    layer = PIL.Image.fromarray((heat[t] * 255).round().astype(np.uint8), 'RGBA')
    x, y = round(to['x_offset'] * width), round(to['y_offset'] * height)
    size = max(1, round(to['x_scale'] * width)), max(1, round(to['y_scale'] * height))
    layer = layer.resize(size, PIL.Image.Resampling.NEAREST)
    picture.paste(layer, (x, y), layer)
    return _encoded(picture, 'JPEG', quality=80)


def _pointing(explanation: ExplanationData, truth: GroundTruth) -> float | None:
    """Returns the mean expected hit over the annotated frames; None without boxes.

    An evaluation reports the same number as pointing/space.
    """
    to, seconds = explanation.geometry['to_source'], explanation.geometry['segment_seconds']
    affine = [to[name] for name in ('x_scale', 'x_offset', 'y_scale', 'y_offset')]
    by_frame: dict[int, list] = {}
    for time, *box in truth.boxes:
        by_frame.setdefault(int(time / seconds + 1e-6), []).append(box)
    frames = [t for t in by_frame if t < len(explanation.valid) and explanation.valid[t]]
    if not frames:
        return None
    hits = [localization.point_in_boxes(explanation.alpha[t], np.array(by_frame[t]), affine) for t in frames]
    return float(np.mean(hits))


def _card(i: int, entry: Entry) -> str:
    keys = {'order': i, 'confidence': entry.probability, 'error': entry.error, 'pointing': entry.pointing}
    attributes = ' '.join(f'data-{name}="{"" if x is None else f"{x:.6g}"}"' for name, x in keys.items())
    rows = [('predicted', f'{entry.label} {sentences.percent(entry.probability)}')]
    rows += [('true label', entry.true_label)] if entry.true_label is not None else []
    rows += [('error', sentences.percent(entry.error))] if entry.error is not None else []
    rows += [('pointing', _hit(entry.pointing))] if entry.pointing is not None else []
    facts = ''.join(f'<div><dt>{name}</dt><dd>{html.escape(text)}</dd></div>' for name, text in rows)
    wrong = entry.true_label is not None and entry.true_label != entry.label
    mark = '<p class="wrong">\N{MULTIPLICATION X} misclassified</p>' if wrong else ''
    return (
        f'<li {attributes}><a href="{html.escape(urllib.parse.quote(entry.href))}">'
        f'<img src="{_url("image/jpeg", entry.thumbnail)}" alt=""><span>{html.escape(entry.title)}</span></a>'
        f'<dl>{facts}</dl>{mark}</li>'
    )


def _summary(entries: list[Entry]) -> str:
    parts = []
    known = [entry for entry in entries if entry.true_label is not None]
    if known:
        right = sum(entry.label == entry.true_label for entry in known)
        parts.append(f'{right} of {len(known)} labelled clips classified correctly')
    hits = [entry.pointing for entry in entries if entry.pointing is not None]
    if hits:
        parts.append(f'pointing hit rate {np.mean(hits):.0%} on {len(hits)} clips with annotated boxes')
    return '; '.join(parts) + '.' if parts else 'No annotations are available.'


def _hit(x: float) -> str:
    return {0.0: 'miss', 1.0: 'hit'}.get(x, f'hit in {x:.0%} of the frames')
