"""Checks that the JAX and PyTorch versions are the same network and training step, by their outputs for equal clips.

Both hold the same weights, perturbed so that no bias is zero and no scale is one, and do not augment.
"""

import copy
from typing import Any

import jax
import ml_collections
import numpy as np
import torch

from benchmarks.peer import network, step, weights
from stattn_jax import assemble
from stattn_jax.benchmark import model
from stattn_jax.training import step as our_step

# Largest relative difference of the outputs except the gradient norm, and of the gradient norm. bfloat16 rounding
# differs between any two compilers; the comparison in float32 shows that the work is the same.
TOLERANCES = {'float32': (1e-4, 1e-3), 'bfloat16': (0.1, 0.2)}
# Least number of clips compared; made_batch adds clips if `loss.negatives` needs more.
CLIPS = 4


class DifferentError(Exception):
    """The outputs of the two versions differ; the message is one line."""


def same(
    config: ml_collections.ConfigDict, data: model.Data, *, device: str = 'cpu', channels_last: bool = True
) -> dict[str, dict[str, float]]:
    """Returns relative differences by dtype and name; raises DifferentError if they are too large.

    The comparison is made in float32 and in the dtype of the config.
    """
    network.check(config)
    found = {}
    for dtype in dict.fromkeys(('float32', config.model.dtype)):
        changed = plain(config)
        changed.model.dtype = dtype
        state = disturbed(assemble.make_state(changed, shape_of(changed, data), None)[1])
        peer = network.build(changed, data.classes, channels_last=channels_last).to(device)
        weights.copy(state, peer)
        found[dtype] = differences(ours(changed, data, state), theirs(changed, data, peer, device))
        check(found[dtype], dtype)
    return found


def plain(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config without augmentation."""
    config = copy.deepcopy(config)
    config.augment.update({'crop': 1.0, 'flip': 0.0, 'colour': 0.0, 'mel_bands': 0, 'mel_frames': 0})
    return config


def shape_of(config: ml_collections.ConfigDict, data: model.Data) -> assemble.InputSpec:
    """Returns the shape information that the network needs, for random clips."""
    side = config.model.frame_size
    return assemble.InputSpec(data.classes, (3, 1), (side, side))


def disturbed(state: dict[str, Any]) -> dict[str, Any]:
    """Returns the state with perturbed weights.

    Kernels change by about a tenth; vectors, among them variances that must stay positive, grow by up to 0.2.
    """
    rng = np.random.default_rng(0)

    def disturb(x):
        x = np.asarray(x)
        by = rng.uniform(0, 0.2, x.shape) if x.ndim < 2 else x * rng.normal(0, 0.1, x.shape)
        return (x + by).astype(x.dtype)

    return state | {name: jax.tree.map(disturb, state[name]) for name in ('params', 'rest')}


def made_batch(config: ml_collections.ConfigDict, data: model.Data) -> dict[str, np.ndarray]:
    """Returns clips of noise, some of which lack their last segment."""
    batch = model.made_batch(config, data, max(CLIPS, config.loss.negatives + 1))
    if data.segments > 1:
        batch['valid'][::3, -1] = False
    return batch


def ours(config: ml_collections.ConfigDict, data: model.Data, state: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns the outputs of the JAX version: logits, and the metrics of a training step."""
    graphdef, _, optimiser, _ = assemble.make_state(config, shape_of(config, data), None, abstract=True)
    batch = made_batch(config, data)
    train = jax.jit(assemble.make_step(config, graphdef, optimiser, binary=config.loss.multi_label, axis=None))
    forward = jax.jit(lambda s, b: our_step.forward(graphdef, s, b, frame_size=config.model.frame_size)[0])
    # By default tensor cores round float32 to ten bits.
    with jax.default_matmul_precision('highest'):
        logits, (_, metrics) = forward(state, batch), train(state, batch)
    metrics = {name.removeprefix('train/'): np.asarray(x, np.float64) for name, x in metrics.items()}
    return {'logits': np.asarray(logits, np.float64), **metrics}


def theirs(
    config: ml_collections.ConfigDict, data: model.Data, peer: network.SpaceTimeAttention, device: str
) -> dict[str, np.ndarray]:
    """Returns the outputs of the PyTorch version under the same names; its weights have made a step afterwards."""
    batch = step.place(made_batch(config, data), device)
    allowed = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision('highest')
    try:
        logits = step.make_forward(peer, config)(batch)
        found = {'logits': logits, **step.Trainer(peer, config)(batch)}
        return {name: x.double().cpu().numpy() for name, x in found.items()}
    finally:
        torch.backends.cudnn.allow_tf32 = allowed[0]
        torch.set_float32_matmul_precision(allowed[1])


def differences(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns the largest difference of each output of the peer, divided by the largest value of ours.

    inf for an output that ours does not have.
    """
    return {
        name: float(np.abs(x - ours[name]).max() / max(np.abs(ours[name]).max(), 1e-6)) if name in ours else np.inf
        for name, x in theirs.items()
    }


def check(found: dict[str, float], dtype: str) -> None:
    """Raises DifferentError for differences beyond the tolerance of the dtype, and for NaN."""
    outputs, gradients = TOLERANCES[dtype]
    wrong = {
        name: value
        for name, value in found.items()
        if name != 'top1' and not value <= (gradients if name == 'l2_grads' else outputs)
    }
    if wrong:
        text = ', '.join(f'{name} {value:.1e}' for name, value in wrong.items())
        raise DifferentError(
            f'ours and the peer differ in {dtype}: {text}; expected at most {outputs:g} ({gradients:g} for l2_grads); '
            'nothing was timed, since it would not be the same work'
        )
