"""Converts a state of stattn_jax to PyTorch's names and layouts, and copies it into the peer."""

from typing import Any

import jax
import numpy as np
import torch
from torch import nn

RENAMED = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
# A counter that PyTorch keeps beside the statistics, and Flax does not.
OWN = 'num_batches_tracked'


def read(state: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns parameters and statistics of a training state (assemble.make_state) by PyTorch name.

    For example {'visual.convs.0.weight': array [o i h w], ...}.
    """
    found = {}
    for tree in (state['params'], state['rest']):
        for path, x in jax.tree_util.tree_leaves_with_path(tree):
            *layer, leaf = (str(key.key) for key in path)
            found['.'.join((*layer, RENAMED.get(leaf, leaf)))] = _laid_out(np.asarray(x), leaf)
    return found


def copy(state: dict[str, Any], network: nn.Module) -> None:
    """Copies a state into the peer; raises ValueError, in one line, if names or shapes differ between the two."""
    ours = read(state)
    theirs = {name: x for name, x in network.state_dict().items() if not name.endswith(OWN)}
    for what, names in (('ours alone', ours.keys() - theirs.keys()), ('the peer alone', theirs.keys() - ours.keys())):
        if names:
            raise ValueError(
                f'{len(names)} weights are in {what}, such as {min(names)}; expected the same on both sides'
            )
    for name, x in ours.items():
        if x.shape != tuple(theirs[name].shape):
            raise ValueError(
                f'{name} is {x.shape} in ours and {tuple(theirs[name].shape)} in the peer; expected the same shape'
            )
    with torch.no_grad():
        for name, x in ours.items():
            theirs[name].copy_(torch.from_numpy(np.array(x)))


def _laid_out(x: np.ndarray, leaf: str) -> np.ndarray:
    """Returns a kernel [i o] or [h w i o] in PyTorch's layout, [o i] or [o i h w]; other arrays are unchanged."""
    if leaf != 'kernel':
        return x
    return x.T if x.ndim == 2 else x.transpose(3, 2, 0, 1)
