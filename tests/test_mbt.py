"""The bottleneck transformer against a loop over segments in which only the tokens that are left exist."""

import numpy as np
import toys
from tiny import quick_compile  # noqa: F401  autouse
from toys import double, linear

from stattn_jax.models.baselines import mbt

EVIDENCE = toys.evidence()


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def layer(module, x):
    normed = toys.layer_norm(module.norms[0], x)
    x = x + toys.attend(module.attention, normed, normed)
    return x + linear(module.narrow, gelu(linear(module.wide, toys.layer_norm(module.norms[1], x))))


def segment(model, b, t):
    """Logits of both class tokens, [m c]."""
    kept = np.asarray(EVIDENCE.cells)[b, t]
    heard = np.asarray(EVIDENCE.units)[b, 1, t]
    tokens = [double(EVIDENCE.values)[b, t, kept], double(EVIDENCE.audio)[b, t][None][: int(heard)]]
    xs = [np.concatenate([double(model.class_tokens)[m], linear(model.embed[m], tokens[m])]) for m in range(2)]
    xs = [layer(model.layers[0][m], xs[m]) for m in range(2)]
    shared = double(model.bottleneck)
    for pair in list(model.layers)[1:]:
        both = [layer(pair[m], np.concatenate([xs[m], shared])) for m in range(2)]
        xs, shared = [x[:-4] for x in both], (both[0][-4:] + both[1][-4:]) / 2
    return np.stack([linear(model.head, toys.layer_norm(model.norm, x[0])) for x in xs])


def test_logits_are_the_mean_of_the_class_tokens_of_units_that_are_left():
    model, units = toys.make('mbt'), np.asarray(EVIDENCE.units)
    assert mbt.BOTTLENECK == 4 and len(model.layers) == 3
    for b, logits in enumerate(toys.said(model, EVIDENCE)[0]):
        said = [segment(model, b, t)[m] for m, t in zip(*np.nonzero(units[b]))]
        np.testing.assert_allclose(logits, np.mean(said, axis=0), rtol=1e-3, atol=1e-4)
