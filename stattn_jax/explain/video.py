"""Writes the explained part of a video as mp4: a small one for the web page, or one with the evidence drawn over it.

The second has a timeline below the picture. Both are upright, with square pixels, a constant frame rate and their own
audio, mono or stereo; the network used the mean of the channels. Memory holds one frame at a time, and the audio. The
heat map and its colours come from colours.py. A cell is a block of one colour, since smoothing would suggest a
resolution that the network does not have.
"""

import math
import os
import pathlib
import tempfile
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

from stattn_jax.data import decode, media, orientation
from stattn_jax.explain import colours, fonts, sentences
from stattn_jax.explain.explanation import ExplanationData, strongest_cell

RATE = 48000
# Pixels of the overlay: the shorter side of its picture (enlarged if necessary), the smallest width of the canvas, so
# that the text fits, and the largest longer side of the picture.
_SHORT_SIDE, _LEAST_WIDTH, _LONGEST_SIDE = 360, 480, 1280
# Pixels of the strip below the picture: its height, the top of the bars, their distance from the lower edge, the
# margins at the sides.
STRIP, TOP, BOTTOM, SIDE = 126, 50, 18, 12
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
    stretch = _Stretch(source, start, end)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / 'clip.mp4'
        pictures = (image for _, image in stretch.images(lambda size: _even(size, min(1.0, height / min(size)))))
        media.encode_video(path, pictures, stretch.fps, stretch.sound(), RATE, **_SMALL)
        return path.read_bytes()


def write_overlay(explanation: ExplanationData, path: str | os.PathLike, label: str | None = None) -> None:
    """Writes the explained part as mp4 with the evidence for a class (default: the best one) drawn over it.

    Cells with positive evidence are highlighted on the clip's single colour scale, and the strongest cell has an
    outline. The strip below shows the label, its probability, signed bars per segment for visual and audio evidence,
    and the playhead. The file appears under its name only when it is complete. `explanation.source` must be a file.
    Raises ValueError for an unknown label, media.MediaError for a file that can no longer be read.
    """
    c = explanation.class_index(label)
    stretch = _Stretch(explanation.source, explanation.media['start'], explanation.media['end'])
    part = f'{os.fspath(path)}.part'
    frames = _painted(explanation, c, stretch.images(_canvas_picture))
    media.encode_video(part, frames, stretch.fps, stretch.sound(), RATE, crf='23', preset='superfast')
    os.replace(part, path)


class _Stretch:
    """Seconds [start, end) of a file as frames at a constant rate and as audio."""

    def __init__(self, source, start: float, end: float):
        self._file = decode.MediaFile(source)
        self._start, self._end = start, end
        # The rate is the source's own, multiplied or divided by an integer, so that frames keep their times.
        fps = self._file.fps or 25.0
        self.fps = fps * math.ceil(10 / fps) if fps < 10 else fps / math.ceil(fps / 30 - 0.01)

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

    def sound(self) -> np.ndarray | None:
        """Returns the audio at RATE, or None if there is no sound."""
        seconds = self._end - self._start
        try:
            return self._file.sound(self._start, self._end, RATE, round(seconds * RATE), self._file.channels)[0]
        except media.MediaError as error:
            if error.reason != 'no_sound':
                raise
            return None


def _even(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(2, 2 * round(size[0] * scale / 2)), max(2, 2 * round(size[1] * scale / 2))


def _canvas_picture(size: tuple[int, int]) -> tuple[int, int]:
    return _even(size, min(_SHORT_SIDE / min(size), _LONGEST_SIDE / max(size)))


def _painted(explanation: ExplanationData, c: int, images) -> Iterator[np.ndarray]:
    """Yields every image on the canvas with heat map, strip and playhead; each frame overwrites the same array."""
    visual = explanation.visual[c]
    seconds = explanation.geometry['segment_seconds']
    heat, _ = colours.overlay(visual, explanation.audio[c])
    strongest = strongest_cell(visual)
    canvas = strip = None
    painted_segment = -1
    for time, image in images:
        high, wide = image.shape[:2]
        if canvas is None:
            canvas = np.zeros((high + STRIP, max(wide, _LEAST_WIDTH), 3), np.uint8)
            left = (canvas.shape[1] - wide) // 2
            strip = _strip(explanation, c, canvas.shape[1])
            to_x = _playhead(len(explanation.valid) * seconds, canvas.shape[1])
        t = min(int(time / seconds + decode.ROUNDING), len(visual) - 1)
        if t != painted_segment:
            painted_segment = t
            outline = strongest[1:] if strongest and strongest[0] == t else None
            paint = _paint(explanation.geometry, heat[t], outline, high, wide)
        ours, added = paint
        # Integer arithmetic, since float arithmetic would take longer than the encoding.
        canvas[:high, left : left + wide] = (image * ours + added) >> 8
        canvas[high:] = strip
        x = to_x(time)
        canvas[high + TOP - 2 : high + STRIP - BOTTOM + 2, x - 1 : x + 2] = 0
        yield canvas


def _paint(geometry, heat_hw4: np.ndarray, outline, high: int, wide: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the factor and the summand of an image, both uint16 [h w 3] in units of 1/256."""
    to, (rows, columns) = geometry['to_source'], heat_hw4.shape[:2]
    y = ((np.arange(high) + 0.5) / high - to['y_offset']) / to['y_scale'] * rows
    x = ((np.arange(wide) + 0.5) / wide - to['x_offset']) / to['x_scale'] * columns
    i, j = np.floor(y).astype(int), np.floor(x).astype(int)
    rgba = heat_hw4[i.clip(0, rows - 1)[:, None], j.clip(0, columns - 1)]
    rgba[(i < 0) | (i >= rows)] = 0
    rgba[:, (j < 0) | (j >= columns)] = 0
    if outline is not None:
        inside = (i == outline[0])[:, None] & (j == outline[1])
        for thickness, colour in ((4, '#000000'), (2, colours.STRONGEST)):
            rgba[inside & ~_shrunk(inside, thickness)] = (*(x / 255 for x in colours.rgb(colour)), 1 / _OPACITY)
    alpha = rgba[..., 3:] * _OPACITY
    ours = np.round(256 * (1 - alpha)).astype(np.uint16).repeat(3, axis=2)
    return ours, np.round(255 * 256 * alpha * rgba[..., :3]).astype(np.uint16)


def _shrunk(mask: np.ndarray, by: int) -> np.ndarray:
    """Returns a rectangular mask without its `by` outermost rows and columns at each side."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    smaller = np.zeros_like(mask)
    if len(rows) and len(columns):
        smaller[rows[0] + by : rows[-1] + 1 - by, columns[0] + by : columns[-1] + 1 - by] = True
    return smaller


def _playhead(seconds: float, wide: int):
    """Returns a function from seconds of the clip to a column of the strip."""
    return lambda time: SIDE + round(min(time / seconds, 1.0) * (wide - 2 * SIDE - 1))


def _strip(explanation: ExplanationData, c: int, wide: int) -> np.ndarray:
    """Returns the timeline, uint8 [STRIP wide 3]: a line of text, the colour key, bars and seconds."""
    image = Image.new('RGB', (wide, STRIP), 'white')
    draw = ImageDraw.Draw(image)
    font, small = (fonts.pillow_font(size) for size in (15, 11))
    terms = explanation.visual[c].sum(axis=(1, 2)), explanation.audio[c]
    titles = (
        f'{fonts.drawable(explanation.classes[c], limit)}  {sentences.percent(explanation.probabilities[c])}'
        for limit in range(100, 0, -1)
    )
    title = next(title for title in titles if font.getlength(title) <= wide - 2 * SIDE)
    draw.text((SIDE, 14), title, 'black', font, anchor='lm')
    _key(draw, explanation, c, max(float(np.abs(term).max()) for term in terms), small)
    _bars(draw, explanation, terms, wide, small)
    return np.asarray(image)


def _key(draw: ImageDraw.ImageDraw, explanation: ExplanationData, c: int, largest: float, font) -> None:
    """Draws the colour key with its numbers, which show how small the evidence is even where its colour is bright."""
    x, y = SIDE, 36
    for name, colour in (('visual', colours.PICTURE), ('audio', colours.SOUND)):
        draw.rectangle((x, y - 5, x + 10, y + 5), colour, 'black')
        draw.text((x + 15, y), name, 'black', font, anchor='lm')
        x += 15 + math.ceil(font.getlength(name)) + 12
    texts = (
        f'(largest bar {largest:.2g})',
        'cell 0',
        f'{colours.overlay(explanation.visual[c], explanation.audio[c])[1]:.2g}',
    )
    for i, text in enumerate(texts):
        draw.text((x, y), text, 'black', font, anchor='lm')
        x += math.ceil(font.getlength(text)) + (16 if i == 0 else 6)
        if i == 1:
            scale = np.linspace(0, 255, 60).round().astype(int)
            for step, colour in enumerate((255 * colours.HEAT[scale]).round().astype(int).tolist()):
                draw.line((x + step, y - 5, x + step, y + 5), tuple(colour))
            x += 66


def _bars(draw: ImageDraw.ImageDraw, explanation: ExplanationData, terms, wide: int, font) -> None:
    """Draws signed bars of picture and sound per segment around a zero line, all on one scale."""
    top, bottom = TOP, STRIP - BOTTOM
    highest, lowest = max(0.0, *map(np.max, terms)), min(0.0, *map(np.min, terms))
    unit = (bottom - top) / ((highest - lowest) or 1.0)
    zero = round(top + highest * unit)
    segments, seconds = len(explanation.valid), explanation.geometry['segment_seconds']
    to_x = _playhead(segments * seconds, wide)
    for t in range(segments):
        left, right = to_x(t * seconds), to_x((t + 1) * seconds)
        if not explanation.valid[t]:
            draw.rectangle((left, top, right, bottom), colours.MISSING)
        middle, gap = (left + right) / 2, 0.14 * (right - left)
        for value, edges, colour in (
            (terms[0][t], (left + gap, middle), colours.PICTURE),
            (terms[1][t], (middle, right - gap), colours.SOUND),
        ):
            end = round(zero - value * unit)
            draw.rectangle((edges[0], min(zero, end), edges[1], max(zero, end)), colour)
    draw.line((SIDE, zero, wide - SIDE, zero), 'black')
    step = max(1, -(-segments // 10))
    for t in range(0, segments + 1, step):
        draw.text((to_x(t * seconds), STRIP - 2), f'{t * seconds:g}', 'black', font, anchor='ms')
