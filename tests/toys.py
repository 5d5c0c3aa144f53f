"""Toy evidence, toy compared models, and float64 NumPy versions of their layers for reference computations."""

import jax
import numpy as np
import tiny
from flax import nnx

from stattn_jax.models.baselines import KINDS, Sizes
from stattn_jax.models.baselines.compared import Evidence

B, T, S, D, HIDDEN, CLASSES = 4, 3, 4, 6, 8, 3
SIZES = Sizes(CLASSES, D, HIDDEN, (16, 16))


def make(kind: str):
    return tiny.filled(lambda: KINDS[kind](SIZES, rngs=nnx.Rngs(0)))


def evidence(seed: int = 0) -> Evidence:
    """Returns the evidence of four clips, in which cells are missing from all but the last clip.

    The first clip has padding at its end, the second has one second without visual and one without audio evidence, the
    third has no audio and the fourth is complete.
    """
    rng = np.random.default_rng(seed)
    units, cells = np.ones((B, 2, T), bool), rng.random((B, T, S)) < 0.7
    cells[:, :, 0] = cells[3] = True
    units[0, :, -1] = units[1, 0, 0] = units[1, 1, 2] = units[2, 1] = False
    cells &= units[:, 0, :, None]
    values = rng.normal(size=(B, T, S, D)).astype(np.float32) * cells[..., None]
    audio = rng.normal(size=(B, T, D)).astype(np.float32) * units[:, 1, :, None]
    return Evidence(*map(jax.numpy.asarray, (values, audio, cells, units)))


def classify(model, evidence: Evidence):
    """Returns logits and `out` as NumPy arrays."""
    return jax.tree.map(np.asarray, model.classify(evidence))


def maps(model, out, classes_b) -> list:
    return [None if x is None else np.asarray(x) for x in model.maps(out, np.asarray(classes_b))]


def double(x) -> np.ndarray:
    return np.asarray(x[...] if isinstance(x, nnx.Variable) else x, np.float64)


def linear(layer, x):
    bias = 0 if layer.bias is None else double(layer.bias)
    return np.asarray(x, np.float64) @ double(layer.kernel) + bias


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def layer_norm(layer, x):
    """Layer normalisation with Flax's epsilon of 1e-6."""
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * double(layer.scale) + double(layer.bias)


def attend(layer, queries, keys):
    """nnx.MultiHeadAttention of queries [q d] on keys [k d], without a mask."""
    parts = [np.einsum('nd,dhe->nhe', x, double(part.kernel)) + double(part.bias)
             for part, x in ((layer.query, queries), (layer.key, keys), (layer.value, keys))]  # fmt: skip
    q, k, v = parts
    result = np.zeros((len(queries), *q.shape[1:]))
    for i, h in np.ndindex(*q.shape[:2]):
        odds = np.exp(k[:, h] @ q[i, h] / np.sqrt(q.shape[-1]))
        result[i, h] = (odds / odds.sum()) @ v[:, h]
    return np.einsum('qhe,hed->qd', result, double(layer.out.kernel)) + double(layer.out.bias)


def softmax(x):
    odds = np.exp(x - x.max())
    return odds / odds.sum()
