"""Makes an Explanation of given terms, with plain values elsewhere, for the tests of the files written from it."""

import pathlib

import numpy as np
import simplejpeg

from stattn_jax.explain.explanation import make_geometry
from stattn_jax.explain.result import Explanation

ALL = (1.0, 0.0, 1.0, 0.0)


def make(
    visual,
    audio,
    *,
    classes=('a', 'b'),
    probabilities=(0.7, 0.3),
    source=None,
    start=0.0,
    seconds=1.0,
    affine=ALL,
    valid=None,
    height=240,
    width=320,
) -> Explanation:
    """Returns an Explanation with the terms visual [c t h w] and audio [c t].

    Classes are in descending order of their logits, and the null cell takes a fifth of the attention.
    """
    visual, audio = np.asarray(visual, np.float32), np.asarray(audio, np.float32)
    c, t, h, w = visual.shape
    logits = -np.arange(c, dtype=np.float32)
    duration = t * seconds
    jpeg = simplejpeg.encode_jpeg(np.full((height, width, 3), 90, np.uint8))
    units = np.full((2, t, c), 0.5 / t, np.float32)
    return Explanation(
        media={
            'file': pathlib.Path(source).name if source else 'clip.mp4',
            'sha256': 'ab' * 32,
            'start': start,
            'end': start + duration,
            'duration': duration,
            'fps': 25.0,
            'rate': 48000,
            'height': height,
            'width': width,
            'notes': [],
        },
        geometry=make_geometry((t, h, w), seconds, affine, height, width),
        model={},
        classes=tuple(classes),
        multi_label=False,
        logits=logits,
        probabilities=np.asarray(probabilities, np.float32),
        bias=np.zeros(c, np.float32),
        reference=logits - visual.sum(axis=(1, 2, 3)) - audio.sum(axis=1),
        mean_scores=np.zeros((2, c), np.float32),
        visual=visual.copy(),
        audio=audio.copy(),
        alpha=np.full((t, h, w), 0.8 / (h * w), np.float32),
        null=np.full(t, 0.2, np.float32),
        beta=units,
        segment_scores=units,
        valid=np.ones(t, bool) if valid is None else np.asarray(valid, bool),
        log_mel=np.zeros((t, 8, 6), np.float16),
        frames=(jpeg,) * t,
        source=source,
    )
