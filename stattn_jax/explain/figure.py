"""Draws one explanation as PNG, PDF or SVG: frames with heat maps, the log-mel, and signed bars per segment.

The colours and the heat map are those of colours.py. Only Matplotlib's object interface is used, so that the caller's
session sees no change of global state.

Frames are decoded again from the source, since the record has them at about the network's size. PDF and SVG embed them
with the source's pixels; axes, bars and outlines are vectors. The text of a PDF is text, in embedded TrueType fonts, as
publishers require, unless a label needs a font with CFF outlines: then all fonts are Type 3. The text of an SVG is
paths: it looks the same where the fonts of the labels are not installed, and applications differ in how they join
letters and order right-to-left text.
"""

import io
import os
import pathlib
import threading
from typing import Any

import matplotlib
import numpy as np
import simplejpeg
from absl import logging
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text

from stattn_jax import files
from stattn_jax.colours import HEAT, LOG_MEL, MISSING, PICTURE, SOUND, STRONGEST, TRUE, overlay
from stattn_jax.data import decode, media
from stattn_jax.explain import fonts, sentences
from stattn_jax.explain.explanation import ExplanationData, GroundTruth, strongest_cell
from stattn_jax.explain.fonts import drawable

DPI, WIDTH = 100, 16.0
LEFT, RIGHT = 1.2, 1.5
MAX_FRAMES = 10
# The formats, and the longest side (pixels) of a frame in each; a PNG shows a frame with at most about 400.
LONGEST_SIDE = {'png': 640, 'pdf': 1280, 'svg': 1280}
# Settings without an argument of their own; the salt and the missing dates make equal figures equal files.
_SETTINGS: dict[Any, Any] = {'svg.fonttype': 'path', 'svg.hashsalt': 'stattn_jax'}
_LOCK = threading.Lock()


def draw(explanation: ExplanationData, c: int, truth: GroundTruth, path: str | os.PathLike) -> None:
    """Draws class number `c` and the annotations of the clip in the format that the suffix of `path` names.

    A PNG is 1600 pixels wide, the other formats 16 inches, and all are as high as the frames need. The file appears
    under its name only when it is complete. Raises ValueError for another suffix than those of LONGEST_SIDE.
    """
    kind = pathlib.Path(path).suffix[1:].lower()
    if kind not in LONGEST_SIDE:
        raise ValueError(f'{path}: the suffix is {kind!r}; expected one of {", ".join(LONGEST_SIDE)}')
    shown = shown_segments(explanation.visual[c])
    height, width = explanation.media['height'], explanation.media['width']
    rows = -(-len(shown) // (MAX_FRAMES if height > width else MAX_FRAMES // 2))
    columns = -(-len(shown) // rows)
    column = (WIDTH - LEFT - RIGHT) / columns
    frame_height = min(2.3, 0.97 * column * height / width)
    heights = {'header': 1.75, **{f'row {r}': frame_height + 0.3 for r in range(rows)}, 'key': 0.85, 'mel': 1.15}
    heights |= {'gap': 0.15, 'bars': 2.2, 'axis': 0.6}
    total = round(sum(heights.values()), 2)
    tops = dict(zip(heights, total - np.cumsum([0, *heights.values()]), strict=False))
    figure = Figure(figsize=(WIDTH, total), dpi=DPI, facecolor='white')

    def axes(row, left=LEFT, wide=WIDTH - LEFT - RIGHT, high=None):
        bottom = tops[row] - heights[row]
        return figure.add_axes((left / WIDTH, bottom / total, wide / WIDTH, (high or heights[row]) / total))

    _header(axes('header', left=0.3, wide=WIDTH - 0.6), explanation, c, len(shown))
    heat, scale = overlay(explanation.visual[c], explanation.audio[c], explanation.painted(c))
    # Only images that are not resampled are embedded with their own pixels.
    interpolation = 'lanczos' if kind == 'png' else 'none'
    for i, (t, image) in enumerate(zip(shown, _images(explanation, shown, LONGEST_SIDE[kind]), strict=True)):
        row, place = divmod(i, columns)
        cell = axes(f'row {row}', LEFT + (place + 0.015) * column, 0.97 * column, frame_height)
        cell.imshow(image, extent=(0, 1, 1, 0), interpolation=interpolation)
        _frame(cell, explanation, c, t, _enlarged(heat[t], image.shape), truth)
    _key(axes('key'), explanation, c, truth, scale)
    mel, bars = axes('mel'), axes('bars')
    _mel(mel, explanation, 'none' if kind != 'png' else None)
    _bars(bars, explanation, c)
    for strip in (mel, bars):
        _time_axis(strip, explanation, truth)
    mel.tick_params(labelbottom=False)
    bars.set_xlabel('seconds of the clip', fontsize=13)
    for onset, offset in truth.intervals:
        bars.axvspan(onset, offset, fc=TRUE, alpha=0.13, lw=0, zorder=0.5)
    title = f'{explanation.media["file"]}: {explanation.classes[c]}'
    _write(figure, kind, path, title, sentences.sentence(explanation, c))


def _write(figure: Figure, kind: str, path: str | os.PathLike, title: str, description: str) -> None:
    content = io.BytesIO()
    if kind == 'png':
        FigureCanvasAgg(figure).print_png(content, metadata={'Title': title, 'Description': description})
    else:
        # Matplotlib would embed CFF outlines as TrueType (42), which the PDF standard does not allow.
        truetype = fonts.are_truetype({name for text in figure.findobj(Text) for name in text.get_fontfamily()})
        # The settings are global, and several threads may write files.
        with _LOCK, matplotlib.rc_context(_SETTINGS | {'pdf.fonttype': 42 if truetype else 3}):
            if kind == 'pdf':
                about = {'Title': title, 'Subject': description, 'CreationDate': None}
                FigureCanvasPdf(figure).print_pdf(content, metadata=about)
            else:
                about = {'Title': title, 'Description': description, 'Date': None}
                FigureCanvasSVG(figure).print_svg(content, metadata=about)
    data = content.getvalue()
    if kind == 'svg':
        # Matplotlib asks for images without smoothing, which would spoil frames where they are shown smaller.
        data = data.replace(b'image-rendering:crisp-edges;image-rendering:pixelated', b'image-rendering:auto')
    with files.whole_file(path) as file:
        file.write(data)


def _images(explanation: ExplanationData, shown: list[int], longest: int) -> list[np.ndarray]:
    """Returns the frames of these segments, uint8 [h w 3]: those of the source if it can be read, else the record's.

    The longer side has at most `longest` pixels.
    """
    images = [simplejpeg.decode_jpeg(explanation.frames[t]) for t in shown]
    start, end = explanation.media['start'], explanation.media['start'] + explanation.media['duration']
    # Segments without data have no frame in the source.
    places = [i for i, t in enumerate(shown) if explanation.valid[t]]
    if explanation.source is None or not places or not explanation.modalities[0]:
        return images
    times = [start + (shown[i] + 0.5) * explanation.geometry['segment_seconds'] for i in places]
    try:
        file = decode.MediaFile(explanation.source)
        decoded = file.pictures(times, start, end, lambda size: _bounded(size, longest)).images
    except media.MediaError as error:
        logging.warning('the figure shows the frames of the record, at a low resolution: %s', error)
        return images
    for i, image in zip(places, decoded, strict=True):
        images[i] = image
    return images


def _bounded(size: tuple[int, int], longest: int) -> tuple[int, int]:
    scale = min(1.0, longest / max(size))
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def _enlarged(heat_hw4: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the cells as blocks of pixels, about as many as the frame has, which viewers cannot blur together."""
    factor = max(1, -(-max(shape[:2]) // max(heat_hw4.shape[:2])))
    return np.round(255 * heat_hw4).astype(np.uint8).repeat(factor, axis=0).repeat(factor, axis=1)


def shown_segments(visual_thw: np.ndarray) -> list[int]:
    """Returns all segments, or MAX_FRAMES evenly spaced ones, the nearest of them replaced by the strongest one."""
    t = len(visual_thw)
    shown = np.unique(np.linspace(0, t - 1, min(t, MAX_FRAMES)).round().astype(int))
    strongest = strongest_cell(visual_thw)
    if strongest:
        shown[np.argmin(np.abs(shown - strongest[0]))] = strongest[0]
    return shown.tolist()


def _header(axes: Axes, explanation: ExplanationData, c: int, frames: int) -> None:
    axes.set_axis_off()
    media, segments = explanation.media, len(explanation.valid)
    zero = 'average clip' if explanation.mean_scores.any() else 'bias'
    picture, sound = _signed(explanation.visual[c].sum()), _signed(explanation.audio[c].sum())
    note = f'Seconds {media["start"]:g} to {media["start"] + media["duration"]:g} of the file.  '
    if explanation.modalities.all():
        null = sentences.null_share(explanation.null[explanation.valid].mean())
        note += f'{null[0].upper()}{null[1:]}.'
    else:
        note += f'There is no {"sound" if explanation.modalities[0] else "picture"}.'
    if frames < segments:
        note += f'  {frames} of {segments} frames are shown, including the one with the strongest cell.'
    best = [(drawable(row['label'], 30), sentences.percent(row['probability']), '', '') for row in explanation.top(3)]
    predictions = ['Predicted:', '', *(part for parts in best for part in parts)]
    terms = f'{_signed(explanation.reference[c])} ({zero}) {picture} (visual) {sound} (audio)'
    logit = ['Logit of', drawable(explanation.classes[c], 50), f'is  {_signed(explanation.logits[c])} = {terms}']
    fonts.line(axes, 0, 0.88, [drawable(media['file'], 52)], size=19, weight='bold')
    fonts.line(axes, 0, 0.62, predictions, size=16)
    fonts.line(axes, 0, 0.38, logit, size=14)
    fonts.line(axes, 0, 0.18, [note], size=12)


def _signed(value):
    return f'{value:+.2f}'.replace('-', '\N{MINUS SIGN}')


def _frame(axes: Axes, explanation: ExplanationData, c: int, t: int, heat: np.ndarray, truth: GroundTruth) -> None:
    """Draws the cells' heat, uint8 [h w 4], the outlines and the title of segment `t` over its frame."""
    seconds = explanation.geometry['segment_seconds']
    to = explanation.geometry['to_source']
    x0, y0 = to['x_offset'], to['y_offset']
    axes.imshow(heat, extent=(x0, x0 + to['x_scale'], y0 + to['y_scale'], y0), interpolation='none')
    strongest = strongest_cell(explanation.visual[c])
    if strongest and strongest[0] == t:
        _, i, j = strongest
        _, rows, columns = explanation.geometry['grid']
        width, height = to['x_scale'] / columns, to['y_scale'] / rows
        _outline(axes, x0 + j * width, y0 + i * height, width, height, STRONGEST, '-')
    for left, top, right, bottom in truth.boxes_near((t + 0.5) * seconds, seconds):
        _outline(axes, left, top, right - left, bottom - top, 'white', (0, (3, 2)))
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    axes.set_aspect(explanation.media['height'] / explanation.media['width'])
    axes.set_title(
        f'{t * seconds:g} to {(t + 1) * seconds:g} s' if explanation.valid[t] else 'no data', fontsize=12, pad=3
    )


def _outline(axes, x, y, width, height, colour, style):
    shadow = [patheffects.Stroke(linewidth=4, foreground='black'), patheffects.Normal()]
    axes.add_patch(
        Rectangle((x, y), width, height, fill=False, ec=colour, lw=2, ls=style, path_effects=shadow, zorder=3)
    )


def _key(axes: Axes, explanation: ExplanationData, c: int, truth: GroundTruth, scale: float) -> None:
    axes.set_axis_off()
    marks = []
    if strongest_cell(explanation.visual[c]):
        box = axes.get_position()
        bar = axes.figure.add_axes((box.x0 + 0.14, box.y0 + 0.55 * box.height, 0.2, 0.2 * box.height))
        mappable = ScalarMappable(Normalize(0, scale), ListedColormap(HEAT))
        axes.figure.colorbar(mappable, cax=bar, orientation='horizontal', ticks=[0, scale / 2, scale], format='%.2g')
        bar.tick_params(labelsize=12)
        axes.text(0, 0.65, 'evidence for (logit)', fontsize=12, va='center')
        marks.append(Patch(fill=False, ec=STRONGEST, lw=2.5, label='strongest cell of the clip'))
    else:
        axes.text(0, 0.65, 'No cell is evidence for this class.', fontsize=12, va='center')
    if truth.boxes:
        marks.append(Patch(fill=False, ec='0.35', lw=2, ls='--', label='annotated box'))
    if truth.intervals:
        marks.append(Patch(fc=TRUE, alpha=0.3, label='annotated interval'))
    axes.legend(handles=marks, loc='center right', ncols=3, frameon=False, fontsize=12, bbox_to_anchor=(1, 0.65))


def _mel(axes: Axes, explanation: ExplanationData, interpolation: str | None) -> None:
    log_mel = explanation.log_mel.astype(np.float32)
    t, f, k = log_mel.shape
    end = t * explanation.geometry['segment_seconds']
    image, extent = log_mel.reshape(t * f, k).T, (0, end, 0, k)
    colours = ListedColormap(LOG_MEL)
    axes.imshow(image, origin='lower', aspect='auto', extent=extent, cmap=colours, interpolation=interpolation)
    axes.set_yticks([])
    _label(axes, 'audio\n(log-mel)')


def _label(axes, text):
    axes.set_ylabel(text, fontsize=12)
    axes.yaxis.set_label_coords(-0.053, 0.5)


def _bars(axes: Axes, explanation: ExplanationData, c: int) -> None:
    seconds = explanation.geometry['segment_seconds']
    centre = (np.arange(len(explanation.valid)) + 0.5) * seconds
    picture, sound = explanation.visual[c].sum(axis=(1, 2)), explanation.audio[c]
    width = 0.36 * seconds
    axes.bar(centre - width / 2, picture, width, color=PICTURE, ec='black', lw=0.6, label='visual')
    axes.bar(centre + width / 2, sound, width, color=SOUND, ec='white', lw=0.6, hatch='///', label='audio')
    axes.axhline(0, color='black', lw=1.2)
    axes.margins(y=0.12)
    axes.tick_params(labelsize=12)
    _label(axes, 'contribution\n(logit)')
    axes.grid(axis='y', color='0.85', lw=0.7)
    axes.set_axisbelow(True)
    axes.legend(loc='center left', bbox_to_anchor=(1.005, 0.5), frameon=False, fontsize=13, handlelength=1.6)


def _time_axis(axes: Axes, explanation: ExplanationData, truth: GroundTruth) -> None:
    seconds = explanation.geometry['segment_seconds']
    t = len(explanation.valid)
    axes.set_xlim(0, t * seconds)
    axes.set_xticks(np.arange(0, t + 1, max(1, -(-t // 20))) * seconds)
    for i in np.flatnonzero(~explanation.valid):
        axes.axvspan(i * seconds, (i + 1) * seconds, fc=MISSING, ec='0.6', hatch='xx', lw=0, zorder=2)
    for x in np.ravel(truth.intervals):
        axes.axvline(x, color='white', lw=3.5)
        axes.axvline(x, color=TRUE, lw=2, ls='--')
