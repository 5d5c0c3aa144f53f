"""Reads the frames and masks of AVSBench (avsbench.py), and the colours of the classes of its semantic set."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from data_prep import cli
from stattn_jax.data import media, records

PALETTE_FILE = 'label2idx.json'


@dataclasses.dataclass(frozen=True)
class Palette:
    """The classes of the semantic set and the colour code (24 bits, red highest) of each; None: of the background."""

    classes: tuple[str, ...]
    class_of: dict[int, int | None]


def read_palette(path: pathlib.Path) -> Palette | None:
    """Reads the classes of the semantic set; returns None where the file is missing, and the masks are then binary.

    The colour of class j has the bits of j, from the lowest one, in turn in red, green and blue, each from the highest
    bit down (the rule of Pascal VOC, which the set's own loader follows). Raises cli.UsageError for another content.
    """
    try:
        index_of = json.loads(path.read_text(encoding='utf-8-sig'))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise cli.UsageError(f'{path} cannot be read ({error}); expected the {path.name} of AVSBench') from None
    indices = list(index_of.values()) if isinstance(index_of, dict) else [None]
    if not all(isinstance(i, int) and i >= 0 for i in indices) or len(set(indices)) < len(indices):
        raise cli.UsageError(f'{path}: expected {{"background": 0, "accordion": 1, ...}}, each class with its number')
    names = sorted(index_of, key=index_of.__getitem__)
    background = 'background' if 'background' in index_of else names[0]
    classes = tuple(name for name in names if name != background)
    number = {name: i for i, name in enumerate(classes)}
    return Palette(classes, {colour_of(index_of[name]): number.get(name) for name in names})


def colour_of(index: int) -> int:
    code = 0
    for bit in range(24):
        # Bit 0 is the highest bit of red, bit 1 that of green, bit 2 that of blue, bit 3 the next of red.
        code |= (index >> bit & 1) << (8 * (2 - bit % 3) + 7 - bit // 3)
    return code


def split_colours(pixels_hw3: np.ndarray, palette: Palette) -> tuple[dict[int, np.ndarray], int]:
    """Returns the mask [h w] of each class in an image, by its number, and the count of pixels of unknown colours."""
    code_hw = pixels_hw3.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    masks: dict[int, np.ndarray] = {}
    unknown = 0
    for code in np.unique(code_hw).tolist():
        there_hw = code_hw == code
        if code not in palette.class_of:
            unknown += int(there_hw.sum())
        elif (label := palette.class_of[code]) is not None:
            masks[label] = there_hw
    return masks, unknown


def read_picture(path: pathlib.Path, one_band: bool = False) -> np.ndarray:
    """Reads an image file as RGB [h w 3] or, with `one_band`, one that has a single band as it is [h w].

    Raises media.MediaError.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image if one_band and len(image.getbands()) == 1 else image.convert('RGB'))
    except FileNotFoundError:
        raise media.MediaError('missing', f'{path.name}: no such file', path) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise media.MediaError('unreadable', f'{path.name}: {error}', path) from error


def read_masks(path: pathlib.Path, time: float, palette: Palette | None, label: int | None) -> Iterator[records.Mask]:
    """Yields the masks of a frame: one for each class of the palette or, without one, one of `label`.

    It is an empty mask if nothing is there. Raises media.MediaError.
    """
    if palette is None:
        # Any colour counts, and any entry of a palette but the first.
        pixels = read_picture(path, one_band=True)
        there_hw = pixels.any(axis=-1) if pixels.ndim == 3 else pixels != 0
        yield records.Mask.of_pixels(time, label, np.asarray(there_hw))
        return
    pixels = read_picture(path)
    masks, _ = split_colours(pixels, palette)
    for label, there_hw in masks.items():
        yield records.Mask.of_pixels(time, label, there_hw)
    if not masks:
        yield records.Mask.of_pixels(time, None, np.zeros(pixels.shape[:2], bool))
