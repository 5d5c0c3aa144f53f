"""A consistent Explanation for the tests of pages.

Its logits are pooled scores, its terms add up to the logits, and its probabilities are the softmax of the logits.
"""

import dataclasses

import numpy as np
from explained import make

MODEL = {'step': 7, 'dtype': 'float32', 'parameter_hash': 'p' * 8, 'config_hash': 'c' * 8, 'versions': {'jax': '0.0'}}


def record(classes=('dog', 'cat', 'rain'), *, t=4, h=3, w=2, seed=0, visual=None, **options):
    """Returns random terms (or `visual` [c t h w]) and pooled scores.

    The two best classes have trust values and removed cells.
    """
    rng = np.random.default_rng(seed)
    c = len(classes)
    visual = rng.normal(size=(c, t, h, w)) if visual is None else np.asarray(visual)
    e = make(visual, rng.normal(size=(c, t)), classes=classes, probabilities=np.zeros(c), **options)
    beta = rng.random((2, t, c)) * e.valid[:, None]
    beta /= beta.sum(axis=(0, 1))
    scores, bias = 3 * rng.normal(size=(2, t, c)), rng.normal(size=c)
    logits = bias + (beta * scores).sum(axis=(0, 1))
    # The best class comes first, as in explained.make.
    order = np.argsort(-logits)
    beta, scores, bias, logits = beta[..., order], scores[..., order], bias[order], logits[order]
    arrays = {
        'beta': beta,
        'segment_scores': scores,
        'bias': bias,
        'logits': logits,
        'probabilities': np.exp(logits) / np.exp(logits).sum(),
        'reference': logits - e.visual.sum(axis=(1, 2, 3)) - e.audio.sum(axis=1),
        'removed_cells': rng.normal(size=(2, t, h, w)),
        'log_mel': rng.normal(size=(t, 8, 6)),
    }
    trust = {'label': classes[1], 'probability': 0.25, 'map_correlation': 0.5}
    return dataclasses.replace(
        e,
        **{name: np.asarray(values, np.float32) for name, values in arrays.items()},
        removed_classes=tuple(classes[:2]),
        trust={'silence': trust, 'shifted_sound': trust | {'label': classes[0], 'map_correlation': None}},
        model=MODEL,
    )
