"""Writes the explained part of a video as mp4: a small one for the web page, or one with the evidence drawn over it.

The second has a timeline below the picture. Both are upright, with square pixels, a constant frame rate and their own
audio, mono or stereo; the network used the mean of the channels. Memory holds one frame at a time, and the audio. The
heat map and its colours come from colours.py. A cell or half cell is a block of one colour, since smoothing would
suggest a resolution that the map does not have.
"""

import math
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stattn_jax import colours, files
from stattn_jax.data import decode, media, orientation
from stattn_jax.explain import fonts, sentences
from stattn_jax.explain.explanation import ExplanationData, GroundTruth, strongest_cell

RATE = 48000
# Pixels of the overlay: the least shorter side of its picture (which has the source's resolution otherwise), the
# smallest width of the canvas, so that the text fits, and the largest longer side of the picture.
_SHORT_SIDE, _LEAST_WIDTH, _LONGEST_SIDE = 360, 480, 1280
# The strip below the picture: its height, the top of the bars, their distance from the lower edge, the margins at the
# sides. The unit is a pixel where the canvas has up to _UNITS columns; on a wider canvas the strip grows in proportion.
STRIP, TOP, BOTTOM, SIDE = 126, 50, 18, 12
_UNITS = 640
# Opacity relative to the heat map of the PNG, since a moving picture must stay recognisable under it.
_OPACITY = 0.7
# Side (pixels) of the black picture of a file without pictures.
_NO_PICTURE = 256
# Limits of the bit rate that keep a page with ten seconds of video below 2 MB even if the picture is noise.
_SMALL = {'crf': '26', 'maxrate': '900k', 'bufsize': '900k', 'preset': 'superfast'}


def web_clip(source: str | os.PathLike, start: float, end: float, height: int = 360) -> bytes:
    """Returns seconds [start, end) of a video file as the bytes of an mp4 (H.264, AAC, index at the start).

    The shorter side is at most `height` pixels (both sides are even), the frame rate at most 30 per second, and the
    audio mono or stereo at 48 kHz; ten seconds take less than 1.5 MB. Raises media.MediaError.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / 'clip.mp4'
        write_web_clip(source, path, start, end, height)
        return path.read_bytes()


def write_web_clip(
    source: str | os.PathLike, path: str | os.PathLike, start: float, end: float, height: int, most_fps: int = 30
) -> None:
    """Writes the bytes of `web_clip` to a file, with at most `most_fps` frames per second.

    Memory holds one frame and five minutes of audio, so that the interval may be long.
    """
    stretch = _Stretch(source, start, end, most_fps)
    pictures = (image for _, image in stretch.images(lambda size: _even(size, min(1.0, height / min(size)))))
    media.encode_video(path, pictures, stretch.fps, stretch.sound(), RATE, **_SMALL)


def write_overlay(
    explanation: ExplanationData, path: str | os.PathLike, label: str | None = None, truth: GroundTruth | None = None
) -> None:
    """Writes the explained part as mp4 with the evidence for a class (default: the best one) drawn over it.

    Cells with positive evidence are highlighted on the clip's single colour scale, and the strongest cell has an
    outline; annotated boxes are dashed. The strip below shows the label, its probability, the runner-up, signed bars
    per segment for visual and audio evidence, annotated intervals, and the playhead. The file appears under its name
    only when it is complete. `explanation.source` must be a file. Raises ValueError for an unknown label,
    media.MediaError for a file that can no longer be read.
    """
    c = explanation.class_index(label)
    stretch = _Stretch(explanation.source, explanation.media['start'], explanation.media['end'])
    frames = _painted(explanation, c, truth or GroundTruth(), stretch.images(_canvas_picture))
    with files.whole_path(path) as part:
        media.encode_video(part, frames, stretch.fps, stretch.sound(), RATE, crf='23', preset='superfast')


class _Stretch:
    """Seconds [start, end) of a file as frames at a constant rate and as audio."""

    def __init__(self, source, start: float, end: float, most_fps: int = 30):
        self._file = decode.MediaFile(source)
        self._start, self._end = start, end
        # The rate is the source's own, multiplied or divided by an integer, so that frames keep their times.
        fps = self._file.fps or 25.0
        self.fps = fps * math.ceil(10 / fps) if fps < 10 else fps / math.ceil(fps / most_fps - 0.01)

    def images(self, fit) -> Iterator[tuple[float, np.ndarray]]:
        """Yields (seconds from the start, uint8 [h w 3]).

        `fit` maps the size of the upright source to the size of the images.
        """
        times = np.arange(max(1, math.ceil((self._end - self._start) * self.fps - 1e-3))) / self.fps
        _, frames = self._file.shown((self._start + times).tolist(), self._start, self._end)
        size = shown = image = None
        try:
            for time, frame in zip(times.tolist(), frames):
                size = size or fit(self._file.size(frame))
                if frame is not shown:
                    shown, image = frame, orientation.upright_rgb(frame, size)
                yield time, image
        except media.MediaError as error:
            if error.reason != 'no_picture':
                raise
            black = np.zeros((*fit((_NO_PICTURE, _NO_PICTURE)), 3), np.uint8)
            yield from ((time, black) for time in times.tolist())

    def sound(self) -> Any:
        """Returns the audio at RATE as an array, as a `_Sound` where the interval is long, or None if there is none."""
        if 'sound' in self._file.lacking:
            return None
        samples = round((self._end - self._start) * RATE)
        if samples > _Sound.PIECE:
            return _Sound(self._file, self._start, self._end)
        try:
            return self._file.sound(self._start, self._end, RATE, samples, self._file.channels)[0]
        except media.MediaError as error:
            if error.reason != 'no_sound':
                raise
            return None


class _Sound:
    """The audio of a long interval, like an array [n] or [2 n], of which five minutes at a time are decoded and kept.

    media.encode_video takes slices of it in ascending order.
    """

    PIECE = 300 * RATE

    def __init__(self, file: decode.MediaFile, start: float, end: float):
        samples = round((end - start) * RATE)
        self.shape = (samples,) if file.channels == 1 else (file.channels, samples)
        self.ndim = len(self.shape)
        self._file, self._start = file, start
        self._first, self._piece = 0, self._silence(0)

    def __getitem__(self, key) -> np.ndarray:
        begin, stop = key[1].start, min(key[1].stop or self.shape[-1], self.shape[-1])
        parts = []
        while begin < stop:
            if not self._first <= begin < self._first + self._piece.shape[-1]:
                self._first, self._piece = begin, self._decoded(begin, min(self.PIECE, self.shape[-1] - begin))
            parts.append(self._piece[..., begin - self._first : stop - self._first])
            begin += parts[-1].shape[-1]
        return np.concatenate(parts, axis=-1)

    def _decoded(self, begin: int, samples: int) -> np.ndarray:
        start = self._start + begin / RATE
        try:
            return self._file.sound(start, start + samples / RATE, RATE, samples, self._file.channels)[0]
        except media.MediaError as error:
            if error.reason != 'no_sound':
                raise
            return self._silence(samples)

    def _silence(self, samples: int) -> np.ndarray:
        return np.zeros((*self.shape[:-1], samples), np.float32)


def _even(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(2, 2 * round(size[0] * scale / 2)), max(2, 2 * round(size[1] * scale / 2))


def _canvas_picture(size: tuple[int, int]) -> tuple[int, int]:
    return _even(size, min(max(1.0, _SHORT_SIDE / min(size)), _LONGEST_SIDE / max(size)))


def _painted(explanation: ExplanationData, c: int, truth: GroundTruth, images) -> Iterator[np.ndarray]:
    """Yields every image on the canvas with heat map, strip and playhead; each frame overwrites the same array."""
    seconds = explanation.geometry['segment_seconds']
    heat, _ = colours.overlay(explanation.visual[c], explanation.audio[c], explanation.painted(c))
    canvas = painted = None
    for time, image in images:
        high, wide = image.shape[:2]
        if canvas is None:
            strip = _strip(explanation, c, truth, max(wide, _LEAST_WIDTH))
            canvas = np.zeros((high + len(strip), strip.shape[1], 3), np.uint8)
            left = (canvas.shape[1] - wide) // 2
            scale = _scale(canvas.shape[1])
            top, bottom = (high + round(scale * y) for y in (TOP - 2, STRIP - BOTTOM + 2))
        t = min(int(time / seconds + decode.ROUNDING), len(explanation.valid) - 1)
        boxes = truth.boxes_near(time, seconds)
        if painted != (t, boxes):
            painted = (t, boxes)
            ours, added = _paint(explanation, c, t, heat[t], boxes, (high, wide))
        # Integer arithmetic, since float arithmetic would take longer than the encoding.
        canvas[:high, left : left + wide] = (image * ours + added) >> 8
        canvas[high:] = strip
        x = scale * _place(explanation, time, canvas.shape[1] / scale)
        canvas[top:bottom, round(x - 1.5 * scale) : round(x + 1.5 * scale)] = 0
        yield canvas


def _scale(wide: int) -> float:
    """Returns the pixels per unit of the strip."""
    return max(1.0, wide / _UNITS)


def _paint(explanation: ExplanationData, c: int, t: int, heat_hw4, boxes, size) -> tuple[np.ndarray, np.ndarray]:
    """Returns the factor and the summand of an image of `size`, both uint16 [h w 3] in units of 1/256."""
    (high, wide), to, (rows, columns) = size, explanation.geometry['to_source'], heat_hw4.shape[:2]
    y = ((np.arange(high) + 0.5) / high - to['y_offset']) / to['y_scale'] * rows
    x = ((np.arange(wide) + 0.5) / wide - to['x_offset']) / to['x_scale'] * columns
    i, j = np.floor(y).astype(int), np.floor(x).astype(int)
    rgba = heat_hw4[i.clip(0, rows - 1)[:, None], j.clip(0, columns - 1)]
    rgba[(i < 0) | (i >= rows)] = 0
    rgba[:, (j < 0) | (j >= columns)] = 0
    strongest = strongest_cell(explanation.visual[c])
    if strongest and strongest[0] == t:
        # The map may have half cells, and the outline is that of a cell.
        _, *grid = explanation.geometry['grid']
        down = np.flatnonzero(i // (rows // grid[0]) == strongest[1])
        across = np.flatnonzero(j // (columns // grid[1]) == strongest[2])
        if len(down) and len(across):
            _outline(rgba, (down[0], down[-1] + 1), (across[0], across[-1] + 1), colours.STRONGEST)
    for x0, y0, x1, y1 in boxes:
        sides = (round(y0 * high), round(y1 * high)), (round(x0 * wide), round(x1 * wide))
        _outline(rgba, *sides, '#ffffff', dashed=True)
    alpha = rgba[..., 3:] * _OPACITY
    ours = np.round(256 * (1 - alpha)).astype(np.uint16).repeat(3, axis=2)
    return ours, np.round(255 * 256 * alpha * rgba[..., :3]).astype(np.uint16)


def _outline(rgba: np.ndarray, rows: tuple[int, int], columns: tuple[int, int], colour: str, dashed=False) -> None:
    """Draws the outline of a rectangle inside its edge: a line with a black one along it, which also fills its gaps."""
    width = round(2 * _scale(rgba.shape[1]))
    (top, bottom), (left, right) = (
        (max(0, low), min(high, n)) for (low, high), n in zip((rows, columns), rgba.shape[:2], strict=True)
    )
    part = rgba[top:bottom, left:right]
    y, x = np.ogrid[top:bottom, left:right]
    depth = np.minimum(np.minimum(y - top, bottom - 1 - y), np.minimum(x - left, right - 1 - x))
    drawn = (x + y) // (4 * width) % 2 == 0 if dashed else True
    for mask, rgb in ((depth < 2 * width, (0, 0, 0)), ((depth < width) & drawn, colours.rgb(colour))):
        part[mask] = (*(value / 255 for value in rgb), 1 / _OPACITY)


def _place(explanation: ExplanationData, time: float, wide: float) -> float:
    """Returns where a time (s) of the clip lies in a strip of `wide` units."""
    duration = len(explanation.valid) * explanation.geometry['segment_seconds']
    return SIDE + min(time / duration, 1.0) * (wide - 2 * SIDE - 1)


def _strip(explanation: ExplanationData, c: int, truth: GroundTruth, wide: int) -> np.ndarray:
    """Returns the timeline, uint8 [h wide 3]: a line of text, the colour key, bars and seconds."""
    scale = _scale(wide)
    high, dpi = 2 * round(STRIP * scale / 2), 100 * scale
    # The canvas has the whole part of its size in pixels.
    figure = Figure(figsize=((wide + 0.1) / dpi, (high + 0.1) / dpi), dpi=dpi, facecolor='white')
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, wide / scale), ylim=(high / scale, 0))
    axes.set_axis_off()
    _title(axes, explanation, c)
    _key(axes, explanation, c, truth)
    _bars(axes, explanation, c, truth)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _points(units: float) -> float:
    """Returns the size of a font in points; a unit of the strip is a hundredth of an inch."""
    return 0.72 * units


def _title(axes: Axes, explanation: ExplanationData, c: int) -> None:
    """Writes the class and the best other one with their probabilities, as many letters of them as fit."""
    shown = [('', c)]
    other = explanation.runner_up(explanation.classes[c])
    if other is not None:
        best = explanation.class_index()
        shown.append(('runner-up' if c == best else 'best class', explanation.class_index(other)))
    for limit in range(100, 0, -1):
        parts = []
        for k, (role, i) in enumerate(shown):
            label = fonts.drawable(explanation.classes[i], limit)
            parts += ['', '', ''] * k + [f'{role}:'] * k + [label, sentences.percent(explanation.probabilities[i])]
        line = fonts.line(axes, SIDE, 14, parts, size=_points(15))
        _, right = axes.get_xlim()
        if line.get_window_extent().width <= (right - 2 * SIDE) * axes.figure.dpi / 100:
            return
        line.remove()


def _key(axes: Axes, explanation: ExplanationData, c: int, truth: GroundTruth) -> None:
    """Draws the colour key with its numbers, which show how small the evidence is even where its colour is bright."""
    x, y = SIDE, 36.0

    def write(text, gap):
        nonlocal x
        text = axes.text(x, y, text, fontsize=_points(11), va='center')
        x += text.get_window_extent().width / axes.figure.dpi * 100 + gap

    def patch(text, **style):
        nonlocal x
        axes.add_patch(Rectangle((x, y - 5), 10, 10, lw=0.72, **style))
        x += 15
        write(text, 12)

    patch('visual', fc=colours.PICTURE, ec='black')
    patch('audio', fc=colours.SOUND, ec='black')
    largest = max(np.abs(explanation.visual[c].sum(axis=(1, 2))).max(), np.abs(explanation.audio[c]).max())
    write(f'(largest bar {largest:.2g})', 16)
    write('cell 0', 6)
    axes.imshow(colours.HEAT[None], extent=(x, x + 60, y + 5, y - 5), aspect='auto', interpolation='nearest')
    x += 66
    write(f'{colours.overlay(explanation.visual[c], explanation.audio[c], explanation.painted(c))[1]:.2g}', 14)
    if truth.intervals or truth.boxes:
        face = (*(value / 255 for value in colours.rgb(colours.TRUE)), 0.3) if truth.intervals else 'none'
        patch('annotated', fc=face, ec='black' if truth.boxes else 'none', ls='--' if truth.boxes else '-')


def _bars(axes: Axes, explanation: ExplanationData, c: int, truth: GroundTruth) -> None:
    """Draws signed bars of picture and sound per segment around a zero line, all on one scale."""
    terms = explanation.visual[c].sum(axis=(1, 2)), explanation.audio[c]
    top, bottom = TOP, STRIP - BOTTOM
    highest, lowest = max(0.0, *map(np.max, terms)), min(0.0, *map(np.min, terms))
    unit = (bottom - top) / ((highest - lowest) or 1.0)
    zero = top + highest * unit
    segments, seconds = len(explanation.valid), explanation.geometry['segment_seconds']
    _, wide = axes.get_xlim()

    def to_x(time):
        return _place(explanation, time, wide)

    def rectangle(left, right, first, second, colour, **style):
        axes.add_patch(
            Rectangle((left, min(first, second)), right - left, abs(second - first), fc=colour, lw=0, **style)
        )

    for t in range(segments):
        left, right = to_x(t * seconds), to_x((t + 1) * seconds)
        if not explanation.valid[t]:
            rectangle(left, right, top, bottom, colours.MISSING)
        middle, gap = (left + right) / 2, 0.14 * (right - left)
        rectangle(left + gap, middle, zero, zero - terms[0][t] * unit, colours.PICTURE)
        rectangle(middle, right - gap, zero, zero - terms[1][t] * unit, colours.SOUND)
    for onset, offset in truth.intervals:
        rectangle(to_x(onset), to_x(offset), top, bottom, colours.TRUE, alpha=0.13)
        for x in (to_x(onset), to_x(offset)):
            axes.plot((x, x), (top, bottom), color=colours.TRUE, lw=1.4, ls='--')
    axes.plot((SIDE, wide - SIDE), (zero, zero), color='black', lw=0.72)
    for t in range(0, segments + 1, max(1, -(-segments // 10))):
        axes.text(to_x(t * seconds), STRIP - 3, f'{t * seconds:g}', fontsize=_points(11), ha='center', va='baseline')
