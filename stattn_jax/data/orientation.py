"""Turns decoded frames upright, makes their pixels square and reduces their size; used by `decode.py`."""

from typing import Any

import av
import numpy as np


def upright_size(frame: av.VideoFrame, pixel_aspect: float = 1.0) -> tuple[int, int]:
    """Returns height and width of a frame once it is upright and its pixels are square.

    `pixel_aspect` is the width of a pixel divided by its height.
    """
    height, width = frame.height, max(1, round(frame.width * pixel_aspect))
    return (width, height) if _orientation(frame)[0] else (height, width)


def upright_rgb(frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
    """Returns the upright frame, averaged down to `size`, its height and width (pixels): uint8 [h w 3]."""
    transpose, flip_rows, flip_columns = _orientation(frame)
    height, width = size
    if transpose:
        height, width = width, height
    image = frame.reformat(width=width, height=height, format='rgb24', interpolation='AREA').to_ndarray()
    image = image.swapaxes(0, 1) if transpose else image
    return np.ascontiguousarray(image[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])


def _orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Returns how to turn a frame upright: (transpose, then flip rows, flip columns), to the nearest quarter turn.

    The display matrix holds a, b, u, c, d, v, x, y, w (ISO 14496-12, section 6.2.2): x' = a x + c y, y' = b x + d y.
    """
    matrix: Any = frame.side_data.get('DISPLAYMATRIX')
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(int)
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, b < 0, c < 0
    return False, d < 0, a < 0
