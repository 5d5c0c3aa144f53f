"""The bottleneck transformer is compared with a loop over segments that contain only the unmasked tokens."""

import jax.numpy as jnp
import numpy as np
import tiny
import toys
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse
from toys import double, linear

from stattn_jax.models.baselines import Sizes, mbt
from stattn_jax.models.baselines.compared import Evidence

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
    for b, logits in enumerate(toys.classify(model, EVIDENCE)[0]):
        unit_logits = [segment(model, b, t)[m] for m, t in zip(*np.nonzero(units[b]))]
        np.testing.assert_allclose(logits, np.mean(unit_logits, axis=0), rtol=1e-3, atol=1e-4)


def test_frames_of_many_cells_give_a_token_for_every_four():
    """64 cells give the same logits as 16 cells that hold the means of the unmasked ones, with the same weights."""
    rng = np.random.default_rng(2)
    fine, coarse = (
        tiny.filled(lambda size=size: mbt.Mbt(Sizes(3, toys.D, toys.HIDDEN, (size, size)), rngs=nnx.Rngs(0)))
        for size in (64, 32)
    )
    cells = rng.random((2, 3, 8, 8)) < 0.5
    cells[0, 0, :4] = False
    values = rng.normal(size=(2, 3, 8, 8, toys.D)).astype(np.float32) * cells[..., None]
    pooled, left = np.zeros((2, 3, 4, 4, toys.D), np.float32), np.zeros((2, 3, 4, 4), bool)
    for b, t, row, column in np.ndindex(left.shape):
        block = np.s_[b, t, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        left[b, t, row, column] = cells[block].any()
        pooled[b, t, row, column] = values[block].sum((0, 1)) / max(cells[block].sum(), 1)
    units = np.ones((2, 2, 3), bool)
    audio = rng.normal(size=(2, 3, toys.D)).astype(np.float32)
    evidence = [
        Evidence(*map(jnp.asarray, (v.reshape(2, 3, -1, toys.D), audio, c.reshape(2, 3, -1), units)))
        for v, c in ((values, cells), (pooled, left))
    ]
    np.testing.assert_allclose(fine.classify(evidence[0])[0], coarse.classify(evidence[1])[0], rtol=1e-4, atol=1e-5)
