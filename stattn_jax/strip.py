"""Draws a strip of explained clips, by which one can watch a network learn.

Each clip has a row: a caption, the frames of its segments under the heat map of its first label (colours.overlay), and
two bars below each frame, which are the contributions of the segment's cells (left) and of its audio (right) to the
logit of the label: upwards for the label, downwards against it, on one scale for the clip.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from stattn_jax import colours
from stattn_jax.data import pipeline, records, source

# The largest number of clips; a JPEG has at most 65535 rows of pixels.
MOST_CLIPS = 64
# Pixels: the side of a frame, the widest row (frames of long clips are smaller), the least width of the picture, the
# heights of a caption and of the bars, and the space between frames.
SIDE, WIDEST, LEAST_WIDTH, CAPTION, BARS, GAP = 96, 7680, 560, 20, 33, 2
LEGEND = 'Heat and left bar: contributions of cells; right bar: of audio. Up: for the label.'


@dataclasses.dataclass(frozen=True)
class StripRow:
    """A row of the strip: frames uint8 [t h w 3], valid [t], and contributions, visual [t h w] and audio [t]."""

    caption: str
    frames: np.ndarray
    valid: np.ndarray
    visual: np.ndarray
    audio: np.ndarray


def explained(
    record: records.ClipRecord,
    visual_ts: np.ndarray,
    audio_t: np.ndarray,
    probabilities_c: np.ndarray,
    info: source.DatasetInfo,
    fit: str,
) -> StripRow:
    """Returns the row of a clip from the centred contributions to its first label and its class probabilities."""
    label, best = min(record.labels), int(probabilities_c.argmax())
    caption = f'{_drawable(record.clip_id, "clip")}: {_percent(label, probabilities_c, info)}'
    if best not in record.labels:
        caption += f', predicted {_percent(best, probabilities_c, info)}'
    arrays = pipeline.clip_arrays(record, max(1, min(SIDE, WIDEST // info.spec.segments - GAP)), fit)
    side = int(np.sqrt(visual_ts.shape[1]))
    return StripRow(caption, arrays['frames'], arrays['valid'], visual_ts.reshape(-1, side, side), audio_t)


def _percent(c: int, probabilities_c: np.ndarray, info: source.DatasetInfo) -> str:
    return f'{_drawable(info.classes[c], f"class {c}")} {probabilities_c[c]:.0%}'


def draw(clips: Sequence[StripRow]) -> np.ndarray:
    """Returns the strip, RGB uint8 [h w 3], of clips of one size."""
    segments, side = clips[0].frames.shape[:2]
    row = CAPTION + side + BARS
    size = (max(LEAST_WIDTH, segments * (side + GAP)), len(clips) * row + CAPTION)
    picture = PIL.Image.new('RGB', size, '#ffffff')
    write = PIL.ImageDraw.Draw(picture)
    for i, clip in enumerate(clips):
        write.text((GAP, i * row + CAPTION // 2), clip.caption, '#000000', _font(), anchor='lm')
    write.text((GAP, size[1] - CAPTION // 2), LEGEND, '#000000', _font(), anchor='lm')
    pixels = np.array(picture)
    for i, clip in enumerate(clips):
        heat, _ = colours.overlay(clip.visual, clip.audio)
        sums_t2 = np.stack([clip.visual.sum((1, 2)), clip.audio], axis=1)
        shares_t2 = sums_t2 / (np.abs(sums_t2).max() or 1.0)
        for t in range(segments):
            part = pixels[i * row + CAPTION : (i + 1) * row, t * (side + GAP) :][:, :side]
            part[:side] = colours.blend(clip.frames[t], heat[t]) if clip.valid[t] else colours.rgb(colours.MISSING)
            _draw_bars(part[side:], shares_t2[t])
    return pixels


def _draw_bars(part_hw3: np.ndarray, shares_2: np.ndarray) -> None:
    """Draws the bars of a segment, from their shares of the longest one (-1..1), around a line in the middle."""
    height, width, _ = part_hw3.shape
    middle = height // 2
    for share, colour, place in zip(shares_2, (colours.PICTURE, colours.SOUND), (0.1, 0.5), strict=True):
        length, left = round(float(share) * (middle - 1)), round(place * width)
        rows = slice(middle - length, middle) if length > 0 else slice(middle + 1, middle + 1 - length)
        part_hw3[rows, left : left + round(0.4 * width)] = colours.rgb(colour)
    part_hw3[middle] = colours.rgb(colours.MISSING)


def _drawable(text: str, other: str) -> str:
    """Returns a text, or another one where the font lacks one of its letters."""
    return text if all(ord(letter) in _letters() for letter in text) else other


@functools.cache
def _font() -> PIL.ImageFont.FreeTypeFont:
    """Returns the font that Matplotlib contains, which has the letters of Latin, Greek and Cyrillic scripts."""
    import matplotlib

    return PIL.ImageFont.truetype(f'{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf', 12)


@functools.cache
def _letters() -> frozenset[int]:
    from matplotlib import ft2font

    return frozenset(ft2font.FT2Font(_font().path).get_charmap())
