"""Fills a trunk's state with published tensors by name, and exports a state to published tensors.

The trunk's entry in models/trunks/registry.py maps each parameter and statistic to its name in published files. Every
tensor of a file is either used or dropped by a rule of that entry; any other tensor is an error. Published kernels are
[o i h w] and [o i]; ours are [h w i o] and [i o].
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from stattn_jax.models.trunks import registry
from stattn_jax.models.trunks.trunk import Published, Trunk
from stattn_jax.weights.errors import WeightsError, listed

# PyTorch's count of training steps, which every batch normalisation stores and which is not used here.
COUNTERS = r'(.*\.)?num_batches_tracked'
# The share of the names of a trunk and a file that must be equal for the file to look like that trunk's, and for this
# to be certain.
_ALIKE, _CERTAIN = 0.5, 0.9


@dataclasses.dataclass(frozen=True)
class Report:
    """How a file's tensors were used: the number used, the names dropped by a rule, and the prefix of all names."""

    used: int
    dropped: tuple[str, ...]
    prefix: str


def fill(module_state: Any, published: Published, tensors: Mapping[str, np.ndarray], where: str) -> tuple[Any, Report]:
    """Returns the state of a trunk with the published numbers, in its own shapes and types, and a report.

    module_state: a pure nested dict (`nnx.as_pure`) of parameters and statistics; leaves need only a shape and a dtype.
    where: the text that begins an error: the file and the trunk.
    Raises WeightsError, which names the missing, unexpected and mis-shaped tensors.
    """
    shapes = _named(module_state, published)
    prefix, tensors = _without_prefix(tensors, published, shapes)
    tensors = _adapted(tensors, published, shapes, where)
    dropped = [name for name in tensors if name not in shapes and _is_dropped(published, name)]
    _check(published, tensors, shapes, dropped, where)

    def one(path, leaf):
        return np.asarray(_turned(path, tensors[published.name(_joined(path))]), leaf.dtype, order='C')

    return jax.tree_util.tree_map_with_path(one, module_state), Report(len(shapes), tuple(dropped), prefix)


def export(module_state: Any, published: Published) -> dict[str, np.ndarray]:
    """Returns a state's numbers under their published names, in published shapes; this is the inverse of `fill`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(module_state)
    return {
        published.name(_joined(path)): np.asarray(_turned_back(path, np.asarray(leaf)), order='C')
        for path, leaf in leaves
    }


def resembles(tensors: Mapping[str, np.ndarray], least: float = _ALIKE) -> str | None:
    """Returns the trunk that shares most names and shapes with a file, or None if no share is above `least`."""
    shares: dict[str, float] = {}
    for modality in ('visual', 'audio'):
        for name, trunk in registry.trunks(modality).items():
            if trunk.published is not None:
                shapes = _named(abstract_state(trunk), trunk.published)
                shares.setdefault(name, _share(trunk.published, tensors, shapes))
    best = max(shares, key=shares.__getitem__, default=None)
    return best if best is not None and shares[best] > least else None


def abstract_state(trunk: Trunk) -> Any:
    """Returns the shapes and dtypes of a trunk's parameters and statistics without computing them."""
    return nnx.as_pure(nnx.state(_abstract(trunk)))


def width(trunk: Trunk) -> int:
    """Returns the number of features that a trunk gives for a cell or a segment."""
    return _abstract(trunk).width


def _abstract(trunk) -> Any:
    return nnx.eval_shape(lambda: trunk.build(axis_name=None, dtype=np.float32, rngs=nnx.Rngs(0)))


def _named(module_state, published) -> dict[str, tuple[int, ...]]:
    """Returns the published shape of each tensor of a trunk, by its published name."""
    leaves = jax.tree_util.tree_leaves_with_path(module_state)
    names = [published.name(_joined(path)) for path, _ in leaves]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f'the trunk names several of its parameters {listed(twice)}; expected a name for each')
    return {name: _published_shape(path, leaf.shape) for name, (path, leaf) in zip(names, leaves, strict=True)}


def _share(published, tensors, shapes) -> float:
    """Returns the share of the names in a file or a trunk that are in both, with the same shape."""
    _, tensors = _without_prefix(tensors, published, shapes)
    held = {name: value.shape for name, value in tensors.items() if not _is_dropped(published, name)}
    return len(held.items() & shapes.items()) / max(len(held.keys() | shapes.keys()), 1)


def _adapted(tensors, published, shapes, where):
    if published.adapt is None:
        return tensors
    try:
        return published.adapt(tensors, shapes)
    except ValueError as error:
        raise WeightsError(f'{where}: {error}') from None


def _check(published, tensors, shapes, dropped, where) -> None:
    """Raises WeightsError unless the tensors that are not dropped have exactly the trunk's names and shapes."""
    missing = [name for name in shapes if name not in tensors]
    unexpected = sorted(set(tensors) - set(shapes) - set(dropped))
    odd = [name for name in shapes if name in tensors and tensors[name].shape != shapes[name]]
    if not missing and not unexpected and not odd:
        return
    parts = [
        f'{len(names)} {what}: {listed(names)}'
        for names, what in ((missing, 'missing'), (unexpected, 'unexpected'))
        if names
    ]
    if odd:
        described = [f'{name} is {tensors[name].shape}, expected {shapes[name]}' for name in odd]
        parts.append(f'{len(odd)} of another shape: {listed(described)}')
    own = _share(published, tensors, shapes)
    like = resembles(tensors, max(_ALIKE, own)) if own < _CERTAIN else None
    hint = f'its tensors look like those of {like}; ' if like else ''
    raise WeightsError(
        f'{where}: tensors do not fit: {"; ".join(parts)}; {hint}give weights such as {published.source}'
    )


def _without_prefix(tensors, published, expected: Iterable[str]) -> tuple[str, dict[str, np.ndarray]]:
    """Removes the prefixes shared by all names that no rule drops, unless the trunk's own names have them too."""
    found, tensors = '', dict(tensors)
    own = [prefix for prefix in published.prefixes if not all(name.startswith(prefix) for name in expected)]
    while prefix := next((prefix for prefix in own if _has_prefix(tensors, published, prefix)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
        found += prefix
    return found, tensors


def _has_prefix(tensors, published, prefix: str) -> bool:
    kept = [name for name in tensors if not _is_dropped(published, name)]
    return bool(kept) and all(name.startswith(prefix) for name in kept)


def _is_dropped(published, name: str) -> bool:
    return published.is_dropped(name) or re.fullmatch(COUNTERS, name) is not None


def _joined(path) -> str:
    """Returns a path of the state's tree in the form 'layers/0/1/convs/0/kernel'."""
    return '/'.join(str(key.key) for key in path)


def _is_kernel(path, axes: int) -> bool:
    return path[-1].key == 'kernel' and axes in (2, 4)


def _turned(path, value: np.ndarray) -> np.ndarray:
    """Returns a published tensor with its axes in our order."""
    if not _is_kernel(path, value.ndim):
        return value
    return value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0)


def _turned_back(path, value: np.ndarray) -> np.ndarray:
    if not _is_kernel(path, value.ndim):
        return value
    return value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)


def _published_shape(path, shape: tuple[int, ...]) -> tuple[int, ...]:
    if not _is_kernel(path, len(shape)):
        return tuple(shape)
    return (shape[1], shape[0]) if len(shape) == 2 else (shape[3], shape[2], shape[0], shape[1])
