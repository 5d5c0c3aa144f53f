"""Example figures: the explanations of several networks for the same clips, one row each, one column per segment.

Colours are those of explain/figure.py: the heat map is in magma with one scale for the whole clip, and the true box is
dashed. The bars show the explanation over time, with the segments of the event shaded.
"""

import json
import pathlib

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stattn_jax import files
from stattn_jax.explain import figure
from stattn_jax.metrics import localization
from stattn_jax.study.pointing import Targets

NAMES = {'terms': 'terms', 'own': 'its own map', 'grad_cam': 'Grad-CAM', 'gradient_input': 'gradient x input'}
DPI = 80


def draw(
    path: pathlib.Path, frames_thwc: np.ndarray, targets: Targets, rows: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    """Writes a PNG of one clip: `rows` maps a name to (visual [t s], when [t]); `targets` hold this clip only."""
    t = len(frames_thwc)
    sheet = Figure(figsize=(1.9 + 1.05 * t, 0.35 + 1.65 * len(rows)), dpi=DPI, facecolor='white', layout='constrained')
    grid = sheet.subplots(2 * len(rows), t + 1, height_ratios=[1, 0.45] * len(rows), width_ratios=[1.5] + [1] * t)
    boxes = localization.boxes_by_segment(targets.boxes[0], t, targets.seconds)
    inside_t = localization.segments_in_events(t, targets.events[0], targets.seconds)
    for row, (name, (visual_ts, when_t)) in enumerate(rows.items()):
        side = int(np.sqrt(visual_ts.shape[-1]))
        heat = figure.overlay(visual_ts.reshape(t, side, side), np.zeros(t))[0]
        grid[2 * row, 0].text(1, 0.5, name.replace(': ', ':\n'), ha='right', va='center', fontsize=9)
        for axes in (*grid[2 * row], *grid[2 * row + 1]):
            axes.set_axis_off()
        low, high = min(0.0, when_t.min()), max(when_t.max(), 0.0)
        for i in range(t):
            picture, bar = grid[2 * row, i + 1], grid[2 * row + 1, i + 1]
            picture.imshow(frames_thwc[i], extent=(0, 1, 1, 0), interpolation='bilinear')
            picture.imshow(heat[i], extent=(0, 1, 1, 0), interpolation='bilinear')
            for x0, y0, x1, y1 in boxes.get(i, ()):
                picture.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=figure.TRUE, lw=1.4, ls='--'))
            if inside_t[i]:
                bar.axvspan(0, 1, fc=figure.TRUE, alpha=0.15, lw=0)
            bar.bar(0.5, when_t[i], 0.6, color=figure.SOUND, hatch='' if when_t[i] >= 0 else '//')
            bar.axhline(0, color='black', lw=0.5)
            bar.set(xlim=(0, 1), ylim=(low - 1e-9, high + 1e-9))
    with files.whole_file(path) as file:
        FigureCanvasAgg(sheet).print_png(file)


def write(folder: pathlib.Path, variant: str, clips: list[dict]) -> None:
    """Draws each of `clips` into folder/variant and writes examples.json for the report.

    Each clip is a dict with `draw`'s arguments and a caption.
    """
    place = folder / variant
    place.mkdir(parents=True, exist_ok=True)
    captions = []
    for number, clip in enumerate(clips):
        name = f'{number}.png'
        draw(place / name, clip['frames'], clip['targets'], clip['rows'])
        captions.append({'file': name, 'caption': clip['caption']})
    files.write_text(place / 'examples.json', json.dumps(captions, indent=1) + '\n')
