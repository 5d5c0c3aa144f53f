"""Writes the index page of several explanations: their predictions, and which videos failed and why.

The page is one file that works offline. It is readable without its scripts, which search, filter and sort.
"""

import base64
import collections
import dataclasses
import html
import urllib.parse
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import PIL.Image
import simplejpeg

from stattn_jax import colours
from stattn_jax.explain import confusion, page, sentences
from stattn_jax.explain.explanation import ExplanationData, GroundTruth, strongest_cell
from stattn_jax.metrics import localization

_THUMBNAIL = 320
# The numbers by which the page sorts: the attribute of a card, and the names of the two orders.
_ORDERS = {
    'confidence': ('least confident first', 'most confident first'),
    'error': ('smallest error first', 'largest error first'),
    'pointing': ('pointing misses first', 'pointing hits first'),
    'agreement': ('least agreement first', 'most agreement first'),
}
_MEANINGS = {
    'confidence': 'Confidence is the probability of the predicted class.',
    'error': 'Error is one minus the probability of the true label.',
    'pointing': (
        'Pointing is a hit where the cell with the most attention lies in an annotated box; it is averaged over the '
        'annotated frames of the clip.'
    ),
    'agreement': "Agreement is the correlation of the two runs' attention maps.",
}


@dataclasses.dataclass(frozen=True)
class ExplainedClip:
    """An explained clip in the index: the prediction and the annotations.

    `href` is the path of its page relative to the index, and `thumbnail` is a JPEG. `error` is 1 - probability of the
    true label, and `pointing` is the expected hit of the attention's peak on the true boxes; both are in 0..1, and None
    without annotations. `agreement` is the correlation (-1..1) of the attention maps of two runs, where two explain the
    clip. `notes` are those of the clip.
    """

    href: str
    title: str
    thumbnail: bytes
    label: str
    probability: float
    true_label: str | None = None
    error: float | None = None
    pointing: float | None = None
    agreement: float | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {'thumbnail': base64.b64encode(self.thumbnail).decode()}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        thumbnail, notes = base64.b64decode(record['thumbnail']), tuple(record['notes'])
        return cls(**(record | {'thumbnail': thumbnail, 'notes': notes}))

    @property
    def is_right(self) -> bool | None:
        """Whether the predicted class is the true label; None where that is not known."""
        return None if self.true_label is None else self.label == self.true_label


@dataclasses.dataclass(frozen=True)
class Failure:
    """A video that could not be explained; `reason` is a key of media.REASONS, and `detail` also names the fix."""

    video: str
    reason: str
    detail: str


def explained_clip(
    explanation: ExplanationData,
    href: str,
    true_label: str | None = None,
    truth: GroundTruth | None = None,
    title: str | None = None,
) -> ExplainedClip:
    """Returns the entry of a clip whose page is at `href`; `truth` belongs to `true_label`.

    The title is the name of the file unless one is given. Raises ValueError for an unknown label.
    """
    c = explanation.class_index()
    known = None if true_label is None else explanation.probabilities[explanation.class_index(true_label)]
    return ExplainedClip(
        href=href,
        title=title or explanation.media['file'],
        thumbnail=_thumbnail(explanation, c),
        label=explanation.classes[c],
        probability=float(explanation.probabilities[c]),
        true_label=true_label,
        error=None if known is None else float(1 - known),
        pointing=_pointing(explanation, truth or GroundTruth()),
        notes=tuple(explanation.media['notes']),
    )


def render(
    clips: Sequence[ExplainedClip], failures: Sequence[Failure] = (), timelines: Sequence[tuple[str, str]] = ()
) -> str:
    """Returns the index page of several explanations, in the order given, and of the videos that failed.

    `timelines` are (title, address) of the pages of long videos. The reader can search, filter by class and by right or
    wrong, choose a cell of the confusion matrix, and sort by confidence, error, pointing hit and agreement.
    """
    count = f'{counted(len(clips), "clip")} explained'
    count += f', {counted(len(failures), "video")} not' if failures else ''
    shown = [name for name in _ORDERS if any(getattr(clip, _field(name)) is not None for clip in clips)]
    return page.fill(
        'index.html',
        ('style.css', 'index.css', 'confusion.css'),
        ('index.js',),
        title=count,
        summary=_summary(clips),
        legend=' '.join([*(_MEANINGS[name] for name in shown), 'Clips without the chosen number come last.']),
        raw_timelines=_timelines(timelines),
        raw_classes=_class_options(clips),
        raw_results=_result_options(clips),
        raw_orders=''.join(
            f'<option value="{name} {sign}">{text}</option>'
            for name in shown
            for sign, text in reversed(list(zip((1, -1), _ORDERS[name])))
        ),
        raw_confusion=confusion.table((clip.true_label, clip.label) for clip in clips if clip.true_label),
        raw_cards='\n'.join(_card(i, clip) for i, clip in enumerate(clips)),
        raw_failures=_failures(failures),
    )


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun in the singular or plural."""
    return f'{number} {noun}{"" if number == 1 else "s"}'


# ---------------------------------------------------------------------------------------------------------------------
# Clips
# ---------------------------------------------------------------------------------------------------------------------


def _thumbnail(explanation: ExplanationData, c: int) -> bytes:
    """Returns the frame of the strongest cell with its heat map as JPEG, or the first frame if no cell is positive."""
    t = (strongest_cell(explanation.visual[c]) or (0,))[0]
    return heat_jpeg(explanation, c, t, _THUMBNAIL)


def heat_jpeg(explanation: ExplanationData, c: int, t: int, side: int) -> bytes:
    """Returns the frame of segment t with the heat map of class c as JPEG, whose longer side has `side` pixels."""
    heat, _ = colours.overlay(explanation.visual[c], explanation.audio[c], explanation.painted(c))
    picture = PIL.Image.fromarray(simplejpeg.decode_jpeg(explanation.frames[t]))
    ratio = side / max(explanation.media['width'], explanation.media['height'])
    width, height = (max(1, round(explanation.media[name] * ratio)) for name in ('width', 'height'))
    image = np.array(picture.resize((width, height)))
    to = explanation.geometry['to_source']
    x, y = round(to['x_offset'] * width), round(to['y_offset'] * height)
    seen = np.s_[y : y + max(1, round(to['y_scale'] * height)), x : x + max(1, round(to['x_scale'] * width))]
    image[seen] = colours.blend(image[seen], heat[t])
    return simplejpeg.encode_jpeg(image, quality=80)


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


# ---------------------------------------------------------------------------------------------------------------------
# Parts of the page
# ---------------------------------------------------------------------------------------------------------------------


def _field(order: str) -> str:
    return 'probability' if order == 'confidence' else order


def _card(i: int, clip: ExplainedClip) -> str:
    keys = {name: getattr(clip, _field(name)) for name in _ORDERS}
    texts = {name: '' if x is None else f'{x:.6g}' for name, x in keys.items()} | {'order': i, 'title': clip.title}
    texts |= {'label': clip.label, 'true': clip.true_label or '', 'result': _result(clip)}
    attributes = ' '.join(f'data-{name}="{html.escape(str(text))}"' for name, text in texts.items())
    rows = [('predicted', f'{clip.label} {sentences.percent(clip.probability)}')]
    rows += [('true label', clip.true_label)] if clip.true_label is not None else []
    rows += [('error', sentences.percent(clip.error))] if clip.error is not None else []
    rows += [('pointing', _hit(clip.pointing))] if clip.pointing is not None else []
    rows += [('agreement', sentences.signed(clip.agreement))] if clip.agreement is not None else []
    rows += [('notes', ', '.join(clip.notes))] if clip.notes else []
    facts = ''.join(f'<div><dt>{name}</dt><dd>{html.escape(text)}</dd></div>' for name, text in rows)
    mark = '<p class="wrong">\N{MULTIPLICATION X} misclassified</p>' if clip.is_right is False else ''
    return (
        f'<li {attributes}><a href="{link(clip.href)}">'
        f'<img src="{page.data_url("image/jpeg", clip.thumbnail)}" alt=""><span>{html.escape(clip.title)}</span></a>'
        f'<dl>{facts}</dl>{mark}</li>'
    )


def link(path: str) -> str:
    """Returns a relative path as an address in HTML; a name with a colon is not taken for a scheme."""
    return html.escape(urllib.parse.quote(path))


def _result(clip: ExplainedClip) -> str:
    return {True: 'right', False: 'wrong', None: 'unknown'}[clip.is_right]


def _options(counts: dict[str, int], texts: dict[str, str]) -> str:
    return ''.join(
        f'<option value="{html.escape(value)}">{html.escape(texts.get(value, value))} ({count})</option>'
        for value, count in counts.items()
    )


def _class_options(clips: Sequence[ExplainedClip]) -> str:
    """Returns the classes that are predicted or true labels, with the number of their clips."""
    labels = [{clip.label, clip.true_label} - {None} for clip in clips]
    counts = collections.Counter(label for each in labels for label in each)
    return _options(dict(sorted(counts.items())), {})


def _result_options(clips: Sequence[ExplainedClip]) -> str:
    """Returns the choices between right and wrong; '' where no true label is known, so that there is no choice."""
    counts = collections.Counter(map(_result, clips))
    if counts['unknown'] == len(clips):
        return ''
    texts = {'right': 'right', 'wrong': 'misclassified', 'unknown': 'without a true label'}
    return _options({name: counts[name] for name in texts if counts[name]}, texts)


def _timelines(timelines: Sequence[tuple[str, str]]) -> str:
    links = ', '.join(f'<a href="{link(href)}">{html.escape(title)}</a>' for title, href in timelines)
    return f'<p>Timelines of whole videos: {links}</p>' if timelines else ''


def _failures(failures: Sequence[Failure]) -> str:
    if not failures:
        return ''
    rows = '\n'.join(
        f'<tr><th scope="row">{html.escape(failure.video)}</th><td class="reason">{html.escape(failure.reason)}</td>'
        f'<td>{html.escape(failure.detail)}</td></tr>'
        for failure in failures
    )
    return (
        f'<section aria-labelledby="failed"><h2 id="failed">{counted(len(failures), "video")} could not be explained'
        '</h2><div class="scroll"><table><thead><tr><th scope="col">video</th><th scope="col">reason</th>'
        f'<th scope="col">detail</th></tr></thead><tbody id="failures">\n{rows}\n</tbody></table></div></section>'
    )


def _summary(clips: Sequence[ExplainedClip]) -> str:
    parts = []
    known = [clip.is_right for clip in clips if clip.is_right is not None]
    if known:
        parts.append(f'{sum(known)} of {len(known)} labelled clips classified correctly')
    hits = [clip.pointing for clip in clips if clip.pointing is not None]
    if hits:
        parts.append(f'pointing hit rate {np.mean(hits):.0%} on {len(hits)} clips with annotated boxes')
    agreements = [clip.agreement for clip in clips if clip.agreement is not None]
    if agreements:
        parts.append(f'the attention maps of the two runs correlate by {np.mean(agreements):.2f} on average')
    return '; '.join(parts) + '.' if parts else ''


def _hit(x: float) -> str:
    return {0.0: 'miss', 1.0: 'hit'}.get(x, f'hit in {x:.0%} of the frames')
