"""The colours of all explanations (figure, page, video, strip) and the heat map of a clip; needs NumPy only.

Colour is never the only cue: bars also have direction and hatching, the strongest cell has an outline, and annotated
boxes are dashed. The colour maps are those of Matplotlib, stored as 11 or 16 equally spaced colours with linear
interpolation between them; colour-blind readers can tell the ends of PuOr and the steps of magma apart.
"""

import numpy as np

# Colours on a light background; tests/test_page.py checks their contrast. PICTURE and SOUND are the sides of PuOr.
PICTURE, SOUND, TRUE, STRONGEST, MISSING = '#b35806', '#542788', '#1b7837', '#00e5ff', '#dddddd'
# The same on the dark background of the page.
DARK = {'picture': '#fdb863', 'sound': '#b9b2dd', 'truth': '#7fc98b', 'missing': '#2c2a32'}

# Share of the largest audio term. Below it the heat map fades (heatScale in page/stage.js does the same).
NEGLIGIBLE = 0.1
# A cell whose term is the share x of the colour scale has the opacity OPACITY * x**OPACITY_EXPONENT.
OPACITY, OPACITY_EXPONENT = 0.75, 0.6


def _colour_map(colours: str) -> np.ndarray:
    """Returns 256 RGB rows in 0..1, interpolated between equally spaced hexadecimal colours."""
    given = np.array([list(bytes.fromhex(colour)) for colour in colours.split()]) / 255
    place, places = np.linspace(0, 1, 256), np.linspace(0, 1, len(given))
    return np.stack([np.interp(place, places, channel) for channel in given.T], axis=1)


# magma from 0.35 to its end, since its dark end would darken the frame where there is little evidence.
HEAT = _colour_map(
    '782281 892881 9b2e7f ad347c bf3a77 d2426f e24d66 ee5b5e f66e5c fb835f fd9869 feac76 fec185 fed597 fde9aa fcfdbf'
)
# PuOr reversed: purple for negative terms, orange for positive ones.
SIGNED = _colour_map('2d004b 552889 8073ac b1aad1 d8daeb f7f7f6 fee0b6 fdb965 e08214 b25706 7f3b08')
# cividis, for the log-mel.
LOG_MEL = _colour_map(
    '00224e 002e6c 1e3a6f 35456c 47516c 575d6d 666970 757575 848279 948e77 a59c74 b7a96e c8b866 dbc75a eed649 fee838'
)


def overlay(
    visual_thw: np.ndarray, audio_t: np.ndarray, painted_thw: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Returns the positive evidence as RGBA [t h w 4] in 0..1, and the term at the top of the colour scale.

    `painted_thw` (default: the terms) is the finer map, per area of a cell (ExplanationData.painted); the scale ends at
    the largest absolute value of both.

    One scale serves the whole clip, so that a frame with little evidence looks like one: the largest |term| of the
    clip, so that weak positive cells also stay faint where the visual evidence is mostly against the class. Where the
    visual sum of no segment reaches NEGLIGIBLE times the largest audio term (absolute values), the scale is enlarged by
    the ratio of the two, so that a nearly irrelevant picture is not highlighted.
    """
    largest_sum = float(np.abs(visual_thw.sum(axis=(1, 2))).max())
    negligible = NEGLIGIBLE * float(np.abs(audio_t).max())
    painted = visual_thw if painted_thw is None else painted_thw
    largest = float(max(np.abs(visual_thw).max(), np.abs(painted).max()))
    scale = largest * (negligible / largest_sum if 0 < largest_sum < negligible else 1.0)
    strength = np.maximum(painted, 0) / (scale or 1.0)
    colours = HEAT[np.round(255 * strength).astype(int)]
    return np.concatenate([colours, OPACITY * strength[..., None] ** OPACITY_EXPONENT], axis=-1), scale


def blend(image_hw3: np.ndarray, heat_hw4: np.ndarray) -> np.ndarray:
    """Returns a frame, uint8 [h w 3], under the heat of its cells, RGBA in 0..1; each cell is a block of one colour."""
    rows, columns = (np.arange(n) * cells // n for n, cells in zip(image_hw3.shape[:2], heat_hw4.shape[:2]))
    heat = heat_hw4[rows[:, None], columns]
    alpha = heat[..., 3:]
    return np.round((1 - alpha) * image_hw3 + 255 * alpha * heat[..., :3]).astype(np.uint8)


def rgb(colour: str) -> tuple[int, int, int]:
    """Returns red, green and blue (0..255) of a colour '#rrggbb'."""
    red, green, blue = bytes.fromhex(colour.removeprefix('#'))
    return red, green, blue
