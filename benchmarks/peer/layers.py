"""Times each distinct convolution of the frame trunk: the forward pass and both gradients, in JAX and in PyTorch.

The JAX side is the layer at the same place of the JAX trunk, whatever its implementation.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import torch
from flax import nnx
from torch import nn

from benchmarks.peer import compare, network, race, weights
from stattn_jax import assemble
from stattn_jax.benchmark import model

PARTS = ('forward', 'by input', 'by kernel')


class Layer(NamedTuple):
    """A distinct convolution: the name of its first occurrence, the number of occurrences, its kind, and its shapes.

    input [b i h w], output [b o h w].
    """

    name: str
    count: int
    kind: str
    input: tuple[int, ...]
    output: tuple[int, ...]


def find(trunk: nn.Module, shape: tuple[int, ...]) -> list[Layer]:
    """Returns the distinct convolutions of a trunk for frames [b 3 H W], in the order of the network."""
    found = {}

    def note(conv, inputs, output, name):
        (height, width), (stride, _) = conv.kernel_size, conv.stride
        kind = f'{height}x{width}/{stride}'
        key = (kind, tuple(inputs[0].shape), tuple(output.shape))
        found.setdefault(key, []).append(name)

    hooks = [
        module.register_forward_hook(functools.partial(note, name=name))
        for name, module in trunk.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    # Only the shapes are needed; the meta device computes nothing.
    with torch.inference_mode():
        trunk.to('meta').eval()(torch.zeros(shape, device='meta'))
    for hook in hooks:
        hook.remove()
    return [Layer(names[0], len(names), *key) for key, names in found.items()]


def measure(
    config: ml_collections.ConfigDict,
    data: model.Data,
    batch: int,
    plan: race.Plan,
    *,
    device: str,
    channels_last: bool,
) -> list[dict[str, Any]]:
    """Returns one row per layer: seconds of every part on both sides, and their ratio.

    The first layer has no gradient by its input.
    """
    side = config.model.frame_size
    shape = (batch * data.segments, 3, side, side)
    found = find(network.build(config, data.classes).visual, shape)
    state = assemble.make_state(config, compare.shape_of(config, data), None)[1]
    graph = nnx.eval_shape(
        lambda: assemble.build_model(config, compare.shape_of(config, data), None, nnx.Rngs(0))
    ).visual
    peer = network.build(config, data.classes, channels_last=channels_last)
    weights.copy(state, peer)
    rows = []
    for layer in found:
        rng = np.random.default_rng(0)
        arrays = [rng.normal(size=shape).astype(np.float32) for shape in (layer.input, layer.output)]
        conv = peer.visual.get_submodule(layer.name).to(device)
        mine = our_parts(graph, state['params']['visual'], layer.name, *arrays, config.model.dtype)
        other = their_parts(conv, *arrays, getattr(torch, config.model.dtype), device, channels_last)
        row = layer._asdict()
        for part in PARTS:
            if part == 'by input' and layer.input == shape:
                continue
            wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
            sides = {
                'ours': race.Side(mine[part], jax.block_until_ready, 0.0, None),
                'theirs': race.Side(other[part], lambda _, wait=wait: wait(), 0.0, None),
            }
            seconds = race.run(sides, plan)
            row[part] = {name: race.quartiles(values) for name, values in seconds.items()}
            row[part]['ratio'] = race.quartiles(np.divide(seconds['ours'], seconds['theirs']))
        rows.append(row)
    return rows


def our_parts(
    trunk: nnx.Module, params: Any, name: str, x: np.ndarray, g: np.ndarray, dtype: str
) -> dict[str, Callable]:
    """Returns the parts of the layer called `name` of the JAX trunk, each compiled as a separate program."""
    layer = trunk
    for key in name.split('.'):
        layer, params = (layer[int(key)], params[int(key)]) if key.isdigit() else (getattr(layer, key), params[key])
    graphdef, _, rest = nnx.split(layer, nnx.Param, ...)
    x, g = (jnp.asarray(array.transpose(0, 2, 3, 1), dtype) for array in (x, g))

    def forward(params, x):
        return nnx.merge(graphdef, params, rest)(x)

    by_input = jax.jit(lambda params, x, g: jax.vjp(lambda x: forward(params, x), x)[1](g))
    by_kernel = jax.jit(lambda params, x, g: jax.vjp(lambda params: forward(params, x), params)[1](g))
    compiled = jax.jit(forward)
    return {
        'forward': lambda: compiled(params, x),
        'by input': lambda: by_input(params, x, g),
        'by kernel': lambda: by_kernel(params, x, g),
    }


def their_parts(
    conv: nn.Module, x: np.ndarray, g: np.ndarray, dtype: torch.dtype, device: str, channels_last: bool
) -> dict[str, Callable]:
    """Returns the parts of a layer of the peer; the gradients go back through one retained graph."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    conv = conv.to(dtype)
    x, g = (torch.from_numpy(array).to(device, dtype, memory_format=layout) for array in (x, g))
    x.requires_grad_()
    y = conv(x)

    def back(to):
        return torch.autograd.grad(y, to, g, retain_graph=True)

    @torch.no_grad()
    def forward():
        return conv(x)

    return {'forward': forward, 'by input': lambda: back(x), 'by kernel': lambda: back(conv.weight)}


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """Returns the table: milliseconds of both sides and their ratio for every part, and the sums over the trunk.

    The sums count each layer as often as it occurs.
    """
    heads = ''.join(f'{part + ": ours":>18}{"theirs":>9}{"ratio":>7}' for part in PARTS)
    shown = [f'{"layer":28}{"times":>6}  {"kernel":8}{"input":18}{heads}']
    sums = {part: {'ours': 0.0, 'theirs': 0.0} for part in PARTS}
    for row in rows:
        line = f'{row["name"]:28}{row["count"]:6}  {row["kind"]:8}{"x".join(map(str, row["input"])):18}'
        for part in PARTS:
            if part not in row:
                line += f'{"-":>18}{"-":>9}{"-":>7}'
                continue
            ms = {name: row[part][name]['median'] * 1e3 for name in ('ours', 'theirs')}
            line += f'{ms["ours"]:18.2f}{ms["theirs"]:9.2f}{row[part]["ratio"]["median"]:7.2f}'
            for name, value in ms.items():
                sums[part][name] += row['count'] * value
        shown.append(line)
    line = f'{"all":28}{sum(row["count"] for row in rows):6}  {"":26}'
    for part in PARTS:
        ours, theirs = sums[part]['ours'], sums[part]['theirs']
        line += f'{ours:18.2f}{theirs:9.2f}' + (f'{ours / theirs:7.2f}' if theirs else f'{"-":>7}')
    return [*shown, line]
