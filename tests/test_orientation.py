"""Tests that frames are upright, have square pixels, and have the requested size."""

import fractions

import numpy as np
import pytest
from clips import encode, grey, noise, pixels

from stattn_jax.data import media


def corners(image):
    """Mean level of top left, top right, bottom left, bottom right."""
    h, w = image.shape[0] // 2, image.shape[1] // 2
    return [image[y, x].mean() for y in (slice(0, h), slice(h, None)) for x in (slice(0, w), slice(w, None))]


TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT = 0, 60, 120, 240


@pytest.mark.parametrize(
    'degrees,hflip,vflip,wanted',
    [
        (0, False, False, [TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT]),
        (90, False, False, [TOP_RIGHT, BOTTOM_RIGHT, TOP_LEFT, BOTTOM_LEFT]),
        (180, False, False, [BOTTOM_RIGHT, BOTTOM_LEFT, TOP_RIGHT, TOP_LEFT]),
        (270, False, False, [BOTTOM_LEFT, TOP_LEFT, BOTTOM_RIGHT, TOP_RIGHT]),
        (0, True, False, [TOP_RIGHT, TOP_LEFT, BOTTOM_RIGHT, BOTTOM_LEFT]),
        (0, False, True, [BOTTOM_LEFT, BOTTOM_RIGHT, TOP_LEFT, TOP_RIGHT]),
    ],
)
def test_pictures_stand_upright(tmp_path, degrees, hflip, vflip, wanted):
    """A display matrix turns counter-clockwise.

    This was checked against `ffmpeg -autorotate` (FFmpeg 8) when the test was written.
    """
    frames = grey([0] * 10)
    for i, level in enumerate((TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT)):
        frames[:, 24 * (i // 2) :][:, :24, 32 * (i % 2) :][:, :, :32] = level
    path = tmp_path / 'turned.mp4'

    def turn(stream):
        stream.set_display_rotation(degrees, hflip=hflip, vflip=vflip)

    encode(path, frames, np.arange(10) / 10, noise(1)[None], setup=turn)
    clip = media.read_clip(path, media.ClipSpec(segments=1))
    (image,) = pixels(clip)
    assert image.shape[:2] == (clip.height, clip.width) == ((64, 48) if degrees % 180 else (48, 64))
    np.testing.assert_allclose(corners(image), wanted, atol=4)


@pytest.mark.parametrize(
    'height,width,aspect,short_side,source,stored',
    [
        (48, 64, 1, 48, (48, 64), (48, 64)),
        (48, 64, 1, 24, (48, 64), (24, 32)),
        (48, 64, 1, 256, (48, 64), (48, 64)),
        (64, 48, 1, 24, (64, 48), (32, 24)),
        (48, 64, 2, 24, (48, 128), (24, 64)),
    ],
)
def test_sizes(tmp_path, height, width, aspect, short_side, source, stored):
    """Pixels become square and the shorter side `short_side`; nothing is enlarged."""

    def squeeze(stream):
        stream.codec_context.sample_aspect_ratio = fractions.Fraction(aspect)

    frames = grey([90] * 10, height, width)
    path = encode(tmp_path / 'a.mp4', frames, np.arange(10) / 10, noise(1)[None], setup=squeeze)
    clip = media.read_clip(path, media.ClipSpec(segments=1, short_side=short_side))
    assert (clip.height, clip.width) == source and pixels(clip)[0].shape[:2] == stored
