"""Draws one explanation as a PNG: frames with heat maps, the log-mel, and signed bars per segment.

The colours and the heat map are those of colours.py. Only Matplotlib's object interface is used, so that the caller's
session sees no change of global state.
"""

import os

import numpy as np
import simplejpeg
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from stattn_jax.explain import sentences
from stattn_jax.explain.colours import HEAT, LOG_MEL, MISSING, PICTURE, SOUND, STRONGEST, TRUE, overlay
from stattn_jax.explain.explanation import ExplanationData, GroundTruth, strongest_cell
from stattn_jax.explain.fonts import drawable

DPI, WIDTH = 100, 16.0
LEFT, RIGHT = 1.2, 1.5
MAX_FRAMES = 10


def draw(explanation: ExplanationData, c: int, truth: GroundTruth, path: str | os.PathLike) -> None:
    """Draws class number `c` and the annotations of the clip, 1600 pixels wide and as high as the frames need."""
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
    heat, scale = overlay(explanation.visual[c], explanation.audio[c])
    for i, t in enumerate(shown):
        row, place = divmod(i, columns)
        cell = axes(f'row {row}', LEFT + (place + 0.015) * column, 0.97 * column, frame_height)
        _frame(cell, explanation, c, t, heat[t], truth)
    _key(axes('key'), explanation, c, truth, scale)
    mel, bars = axes('mel'), axes('bars')
    _mel(mel, explanation)
    _bars(bars, explanation, c)
    for strip in (mel, bars):
        _time_axis(strip, explanation, truth)
    mel.tick_params(labelbottom=False)
    bars.set_xlabel('seconds of the clip', fontsize=13)
    for onset, offset in truth.intervals:
        bars.axvspan(onset, offset, fc=TRUE, alpha=0.13, lw=0, zorder=0.5)
    with open(path, 'wb') as file:
        FigureCanvasAgg(figure).print_png(file)


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
    predictions = '     '.join(f'{drawable(row["label"], 30)} {row["probability"]:.0%}' for row in explanation.top(3))
    zero = 'average clip' if explanation.mean_scores.any() else 'bias'
    picture, sound = _signed(explanation.visual[c].sum()), _signed(explanation.audio[c].sum())
    evidence = (
        f'Logit of {drawable(explanation.classes[c], 50)}:  {_signed(explanation.logits[c])} = '
        f'{_signed(explanation.reference[c])} ({zero}) {picture} (visual) {sound} (audio)'
    )
    note = f'Seconds {media["start"]:g} to {media["start"] + media["duration"]:g} of the file.  '
    if explanation.modalities.all():
        note += f'{sentences.null_share(explanation.null[explanation.valid].mean())}.'
    else:
        note += f'There is no {"sound" if explanation.modalities[0] else "picture"}.'
    if frames < segments:
        note += f'  {frames} of {segments} frames are shown, including the one with the strongest cell.'
    lines = (
        (0.88, 19, 'bold', drawable(media['file'], 52)),
        (0.62, 16, 'normal', f'Predicted:  {predictions}'),
        (0.38, 14, 'normal', evidence),
        (0.18, 12, 'normal', note),
    )
    for y, size, weight, text in lines:
        axes.text(0, y, text, fontsize=size, fontweight=weight, va='center', parse_math=False)


def _signed(value):
    return f'{value:+.2f}'.replace('-', '\N{MINUS SIGN}')


def _frame(axes: Axes, explanation: ExplanationData, c: int, t: int, heat_hw4: np.ndarray, truth: GroundTruth) -> None:
    seconds = explanation.geometry['segment_seconds']
    image = simplejpeg.decode_jpeg(explanation.frames[t])
    axes.imshow(image, extent=(0, 1, 1, 0), interpolation='lanczos')
    to = explanation.geometry['to_source']
    x0, y0 = to['x_offset'], to['y_offset']
    axes.imshow(heat_hw4, extent=(x0, x0 + to['x_scale'], y0 + to['y_scale'], y0), interpolation='nearest')
    strongest = strongest_cell(explanation.visual[c])
    if strongest and strongest[0] == t:
        _, i, j = strongest
        width, height = to['x_scale'] / heat_hw4.shape[1], to['y_scale'] / heat_hw4.shape[0]
        _outline(axes, x0 + j * width, y0 + i * height, width, height, STRONGEST, '-')
    for time, *box in truth.boxes:
        if int(time / seconds + 1e-6) == t:
            _outline(axes, box[0], box[1], box[2] - box[0], box[3] - box[1], 'white', (0, (3, 2)))
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


def _mel(axes: Axes, explanation: ExplanationData) -> None:
    log_mel = explanation.log_mel.astype(np.float32)
    t, f, k = log_mel.shape
    end = t * explanation.geometry['segment_seconds']
    image, extent = log_mel.reshape(t * f, k).T, (0, end, 0, k)
    axes.imshow(image, origin='lower', aspect='auto', extent=extent, cmap=ListedColormap(LOG_MEL))
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
