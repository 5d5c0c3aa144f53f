"""Draws one explanation as a PNG: frames with heat maps, the log-mel, and signed bars per segment.

One colour scale serves the whole clip, so that a frame with little evidence looks like one. Colour is never the only
cue: the strongest cell has an outline, bars have direction and hatching, and true boxes are dashed. The colours are
magma and the ends of PuOr, which colour-blind readers can tell apart. Only Matplotlib's object interface is used, so
that the caller's session sees no change of global state.
"""

import os
from functools import cache

import matplotlib
import numpy as np
import simplejpeg
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Patch, Rectangle

from stattn_jax.explain.explanation import Explanation, Truth

DPI, WIDTH = 100, 16.0
LEFT, RIGHT = 1.2, 1.5
MAX_FRAMES = 10

PICTURE, SOUND, TRUE, STRONGEST = '#e08214', '#542788', '#1b7837', '#00e5ff'
# The colours start at HEAT_START, since the dark end of magma would darken the frame where there is little evidence.
HEAT = matplotlib.colormaps['magma'].resampled(512)
# Share of the largest audio term. Below it the heat map fades (heatScale in page/stage.js does the same).
NEGLIGIBLE = 0.1
HEAT_START = 0.35


def draw(explanation: Explanation, c: int, truth: Truth, path: str | os.PathLike) -> None:
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


def overlay(visual_thw: np.ndarray, audio_t: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the positive evidence as RGBA [t h w 4] in 0..1, and the term at the top of the colour scale.

    The scale is the largest |term| of the clip, so that weak positive cells stay faint where the visual evidence is
    mostly against the class. Where the visual sum of no segment reaches NEGLIGIBLE times the largest audio term
    (absolute values), the scale is enlarged by the ratio of the two, so that a nearly irrelevant picture is not
    highlighted.
    """
    second = float(np.abs(visual_thw.sum(axis=(1, 2))).max())
    loudest = NEGLIGIBLE * float(np.abs(audio_t).max())
    scale = float(np.abs(visual_thw).max()) * (loudest / second if 0 < second < loudest else 1.0)
    strength = np.maximum(visual_thw, 0) / (scale or 1.0)
    rgba = HEAT(HEAT_START + (1 - HEAT_START) * strength)
    rgba[..., 3] = 0.75 * strength**0.6
    return rgba, scale


def strongest_cell(visual_thw: np.ndarray) -> tuple[int, int, int] | None:
    """Returns (t, row, column) of the largest term, or None where no cell has a positive term."""
    t, i, j = np.unravel_index(np.argmax(visual_thw), visual_thw.shape)
    return (int(t), int(i), int(j)) if visual_thw[t, i, j] > 0 else None


def shown_segments(visual_thw: np.ndarray) -> list[int]:
    """Returns all segments, or MAX_FRAMES evenly spaced ones, the nearest of them replaced by the strongest one."""
    t = len(visual_thw)
    shown = np.unique(np.linspace(0, t - 1, min(t, MAX_FRAMES)).round().astype(int))
    strongest = strongest_cell(visual_thw)
    if strongest:
        shown[np.argmin(np.abs(shown - strongest[0]))] = strongest[0]
    return shown.tolist()


def plain(text: str, limit: int) -> str:
    """Returns text that the font can draw: unknown characters become a square, the middle of long text an ellipsis."""
    known = _glyphs()
    text = ''.join(ch if ord(ch) in known and ch.isprintable() else '\N{WHITE SQUARE}' for ch in text)
    return text if len(text) <= limit else f'{text[: (limit - 1) // 2]}…{text[len(text) - limit // 2 :]}'


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def _header(axes: Axes, explanation: Explanation, c: int, frames: int) -> None:
    axes.set_axis_off()
    media, segments = explanation.media, len(explanation.valid)
    guesses = '     '.join(f'{plain(row["label"], 30)} {row["probability"]:.0%}' for row in explanation.top(3))
    zero = 'an average clip' if explanation.mean_scores.any() else 'the bias'
    picture, sound = _signed(explanation.visual[c].sum()), _signed(explanation.audio[c].sum())
    evidence = (
        f'Evidence for {plain(explanation.classes[c], 50)}:  logit {_signed(explanation.logits[c])} = '
        f'{_signed(explanation.reference[c])} ({zero}) {picture} (picture) {sound} (sound)'
    )
    null = explanation.null[explanation.valid].mean()
    note = f'Seconds {media["start"]:g} to {media["start"] + media["duration"]:g} of the file.  '
    note += f'{null:.0%} of the attention in space finds nothing visible.'
    if frames < segments:
        note += f'  {frames} of {segments} frames shown, the one with the strongest cell among them.'
    lines = (
        (0.88, 19, 'bold', plain(media['file'], 52)),
        (0.62, 16, 'normal', f'Predicted:  {guesses}'),
        (0.38, 14, 'normal', evidence),
        (0.18, 12, 'normal', note),
    )
    for y, size, weight, text in lines:
        axes.text(0, y, text, fontsize=size, fontweight=weight, va='center', parse_math=False)


def _signed(value):
    return f'{value:+.2f}'.replace('-', '\N{MINUS SIGN}')


def _frame(axes: Axes, explanation: Explanation, c: int, t: int, heat_hw4: np.ndarray, truth: Truth) -> None:
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


def _key(axes: Axes, explanation: Explanation, c: int, truth: Truth, scale: float) -> None:
    axes.set_axis_off()
    marks = []
    if strongest_cell(explanation.visual[c]):
        box = axes.get_position()
        bar = axes.figure.add_axes((box.x0 + 0.14, box.y0 + 0.55 * box.height, 0.2, 0.2 * box.height))
        colours = ListedColormap(HEAT(np.linspace(HEAT_START, 1, 256)))
        mappable = ScalarMappable(Normalize(0, scale), colours)
        axes.figure.colorbar(mappable, cax=bar, orientation='horizontal', ticks=[0, scale / 2, scale], format='%.2g')
        bar.tick_params(labelsize=12)
        axes.text(0, 0.65, 'cell speaks for (logit)', fontsize=12, va='center')
        marks.append(Patch(fill=False, ec=STRONGEST, lw=2.5, label='strongest cell of the clip'))
    else:
        axes.text(0, 0.65, 'No cell of the picture speaks for this class.', fontsize=12, va='center')
    if truth.boxes:
        marks.append(Patch(fill=False, ec='0.35', lw=2, ls='--', label='true box'))
    if truth.intervals:
        marks.append(Patch(fc=TRUE, alpha=0.3, label='true interval'))
    axes.legend(handles=marks, loc='center right', ncols=3, frameon=False, fontsize=12, bbox_to_anchor=(1, 0.65))


def _mel(axes: Axes, explanation: Explanation) -> None:
    log_mel = explanation.log_mel.astype(np.float32)
    t, f, k = log_mel.shape
    end = t * explanation.geometry['segment_seconds']
    axes.imshow(log_mel.reshape(t * f, k).T, origin='lower', aspect='auto', extent=(0, end, 0, k), cmap='cividis')
    axes.set_yticks([])
    _label(axes, 'sound\n(log-mel)')


def _label(axes, text):
    axes.set_ylabel(text, fontsize=12)
    axes.yaxis.set_label_coords(-0.053, 0.5)


def _bars(axes: Axes, explanation: Explanation, c: int) -> None:
    seconds = explanation.geometry['segment_seconds']
    centre = (np.arange(len(explanation.valid)) + 0.5) * seconds
    picture, sound = explanation.visual[c].sum(axis=(1, 2)), explanation.audio[c]
    width = 0.36 * seconds
    axes.bar(centre - width / 2, picture, width, color=PICTURE, ec='black', lw=0.6, label='picture')
    axes.bar(centre + width / 2, sound, width, color=SOUND, ec='white', lw=0.6, hatch='///', label='sound')
    axes.axhline(0, color='black', lw=1.2)
    axes.margins(y=0.12)
    axes.tick_params(labelsize=12)
    _label(axes, 'evidence\n(logit)')
    axes.grid(axis='y', color='0.85', lw=0.7)
    axes.set_axisbelow(True)
    axes.legend(loc='center left', bbox_to_anchor=(1.005, 0.5), frameon=False, fontsize=13, handlelength=1.6)


def _time_axis(axes: Axes, explanation: Explanation, truth: Truth) -> None:
    seconds = explanation.geometry['segment_seconds']
    t = len(explanation.valid)
    axes.set_xlim(0, t * seconds)
    axes.set_xticks(np.arange(0, t + 1, max(1, -(-t // 20))) * seconds)
    for i in np.flatnonzero(~explanation.valid):
        axes.axvspan(i * seconds, (i + 1) * seconds, fc='0.92', ec='0.6', hatch='xx', lw=0, zorder=2)
    for x in np.ravel(truth.intervals):
        axes.axvline(x, color='white', lw=3.5)
        axes.axvline(x, color=TRUE, lw=2, ls='--')
