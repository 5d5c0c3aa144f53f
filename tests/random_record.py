"""Makes an Explanation of a random model output, for the tests of explain/."""

import jax
import jax.numpy as jnp
import numpy as np

from stattn_jax.explain.explanation import make_geometry
from stattn_jax.explain.result import Explanation
from stattn_jax.models import contributions

T, H, W, N, E, D = 4, 3, 2, 2, 5, 6
AFFINE = (0.5, 0.25, 1.0, 0.0)
MEDIA = {'file': 'häm.mp4', 'sha256': 'ab' * 32, 'start': 1.5, 'end': 3.5, 'duration': 2.0, 'fps': 25.0, 'rate': 48000}
MEDIA |= {'height': 240, 'width': 320, 'notes': ['short']}
MODEL = {'config_hash': 'c', 'parameter_hash': 'p', 'versions': {'jax': '0'}, 'dtype': 'bfloat16', 'step': 7}


def random_output(rng, classes: int, valid_t: np.ndarray, scale: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns a model's `out` of one clip (b = 1) and its logits [c], float64.

    The logits are computed as the sum of the bias and the pooled scores.
    """
    weights = rng.dirichlet(np.ones(H * W + 1), (1, T, N))
    beta = rng.random((1, 2, T, classes)) * valid_t[:, None]
    beta /= beta.sum(axis=(1, 2), keepdims=True)
    out = {
        'alpha': weights[..., :-1],
        'null': weights[..., -1],
        'beta': beta,
        'cell_values': rng.normal(size=(1, T, N, H * W, E)) * scale,
        'audio': rng.normal(size=(1, T, D)) * scale,
        'visual_head': rng.normal(size=(classes, N, E)),
        'audio_head': rng.normal(size=(classes, D)),
        'bias': rng.normal(size=classes),
    }
    visual = np.einsum('btns,btnse,cne->btc', out['alpha'], out['cell_values'], out['visual_head'])
    out['segment_scores'] = np.stack([visual, np.einsum('btd,cd->btc', out['audio'], out['audio_head'])], axis=1)
    return out, (out['bias'] + (beta * out['segment_scores']).sum(axis=(1, 2)))[0]


def make(classes=3, *, seed=0, mean_scores=None, multi_label=False, scale=1.0, **fields):
    """Returns an Explanation of a random model output and its logits in float64; `fields` override its fields."""
    rng = np.random.default_rng(seed)
    valid = np.arange(T) < 3
    out, logits = random_output(rng, classes, valid, scale)
    mean_scores = np.zeros((2, classes)) if mean_scores is None else mean_scores
    inputs = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (logits[None], out, mean_scores))
    arrays = contributions.record(*inputs, multi_label)
    labels = tuple(f'class {c}' for c in range(classes))
    best = np.argsort(-logits)[:10]
    answer = {'label': labels[0], 'probability': 0.25, 'map_correlation': 0.5}
    rest = {
        'classes': labels,
        'multi_label': multi_label,
        'media': MEDIA,
        'model': MODEL,
        'valid': valid,
        'log_mel': rng.normal(size=(T, 6, 5)).astype(np.float16),
        'frames': tuple(rng.bytes(20 + t) for t in range(T)),
        'removed_cells': rng.normal(size=(len(best), T, H, W)).astype(np.float32),
        'removed_classes': tuple(labels[c] for c in best),
        'trust': {'silence': answer, 'shifted_sound': answer | {'by_segments': 1}},
    }
    record = Explanation.from_arrays(
        {name: x if name in ('bias', 'mean_scores') else x[0] for name, x in arrays.items()},
        geometry=make_geometry((T, H, W), 0.5, AFFINE, 240, 320),
        **rest | fields,
    )
    return record, logits
