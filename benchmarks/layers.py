"""Times every layer of stattn_jax/models/layers in all its forms, on this device.

  python -m benchmarks.layers [--dtype=bfloat16] [--frames=16] [--layers=max,batch] [--out=FILE.json]

The forms alternate in rounds of one process; a ratio above 1 says that a form is slower than the plain one. The command
shows whether the choice of `layers.form_of_platform` still holds for another jaxlib or another device. Shapes are those
of a ResNet-18 at 224 pixels, of EfficientNet-Lite0 and of the head. Exit codes: 0 done; 2 wrong use.
"""

import argparse
import functools
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks import rounds
from stattn_jax.models import layers
from stattn_jax.models.layers.conv import Conv, DepthwiseConv, MaxPool
from stattn_jax.models.layers.dense import Linear
from stattn_jax.models.layers.norm import make_norm
from stattn_jax.training import optim

DTYPES = ('float32', 'bfloat16')
PARTS = ('forward', 'gradient')


class Case(NamedTuple):
    """A layer to time: a name, its constructor (of dtype and rngs), and the shape of one row of its input."""

    name: str
    make: Callable[[Any, nnx.Rngs], nnx.Module]
    row: tuple[int, ...]


def _conv(inputs, outputs, size, stride):
    return lambda dtype, rngs: Conv(inputs, outputs, size, stride=stride, padding=size // 2, dtype=dtype, rngs=rngs)


def _norm(width):
    return lambda dtype, rngs: make_norm(None, dtype)(width, rngs=rngs)


CASES = (
    Case('convolution 7x7, stride 2', _conv(3, 64, 7, 2), (224, 224, 3)),
    Case('convolution 3x3', _conv(64, 64, 3, 1), (56, 56, 64)),
    Case('convolution 3x3, stride 2', _conv(128, 256, 3, 2), (28, 28, 128)),
    Case('convolution 1x1, stride 2', _conv(128, 256, 1, 2), (28, 28, 128)),
    Case('convolution 3x3 of few cells', _conv(512, 512, 3, 1), (3, 2, 512)),
    Case('depthwise 3x3', lambda dtype, rngs: DepthwiseConv(96, 3, dtype=dtype, rngs=rngs), (56, 56, 96)),
    Case('max pool', lambda dtype, rngs: MaxPool(), (112, 112, 64)),
    Case('batch norm 112', _norm(64), (112, 112, 64)),
    Case('batch norm 14', _norm(256), (14, 14, 256)),
    Case('dense', lambda dtype, rngs: Linear(512, 512, rngs=rngs), (10, 49, 512)),
)


def main(argv: list[str] | None = None) -> int:
    """Parses the arguments, times, prints a table, writes JSON, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dtype', choices=DTYPES, default='float32', help='of the layers but the dense one')
    parser.add_argument('--frames', type=int, default=16, help='frames in a batch')
    parser.add_argument('--layers', default='', help='beginnings of names, separated by commas; all by default')
    parser.add_argument('--rounds', type=int, default=7, help='rounds of all forms')
    parser.add_argument('--calls', type=int, default=5, help='calls in a round')
    parser.add_argument('--out', help='a JSON file to write')
    values = parser.parse_args(argv)
    device = jax.devices()[0].device_kind
    print(f'{device}: {values.frames} frames, {values.dtype}; milliseconds, and ratios to the plain form')
    rows = []
    for case in CASES:
        for part in PARTS if case.name.startswith(tuple(values.layers.split(','))) else ():
            rows.append({'layer': case.name, 'part': part} | _times(_calls_of(case, part, values), values))
            print(line(rows[-1]), flush=True)
    if not values.layers:
        rows.append({'layer': 'norm of gradients', 'part': 'forward'} | _times(_calls_of_norm(), values))
        print(line(rows[-1]), flush=True)
    rounds.write(values.out, {'device': device, 'frames': values.frames, 'dtype': values.dtype, 'rows': rows})
    return 0


def line(row: dict[str, Any]) -> str:
    """Returns the timing of one layer as text: milliseconds of the plain form, and of the others with their ratio."""
    shown = []
    for form in layers.FORMS:
        ms = {name: 1e3 * value for name, value in row[form].items() if name != 'ratio'}
        shown.append(
            f'{form} {rounds.shown(ms, ".3f")}' + (f' x {row[form]["ratio"]:.2f}' if 'ratio' in row[form] else '')
        )
    return f'{row["layer"]:30}{row["part"]:10}' + ''.join(f'{each:48}' for each in shown).rstrip()


def _calls_of(case: Case, part: str, values) -> dict[str, Callable[[], Any]]:
    """Returns the compiled calls of a layer in each form; a gradient is that by the input and by the parameters."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(values.frames, *case.row)), values.dtype)
    calls = {}
    for form in layers.FORMS:
        layer = case.make(jnp.dtype(values.dtype), nnx.Rngs(0))
        layers.set_form(layer, form)
        graphdef, params, rest = nnx.split(layer, nnx.Param, ...)
        trains = {'use_running_average': False} if isinstance(layer, nnx.BatchNorm) else {}

        def forward(params, rest, x, graphdef=graphdef, trains=trains):
            return nnx.merge(graphdef, params, rest, copy=True)(x, **trains)

        run = forward
        if part == 'gradient':
            y = jax.eval_shape(forward, params, rest, x)
            weight = jnp.asarray(rng.normal(size=y.shape), y.dtype)

            def run(params, rest, x, forward=forward, weight=weight):
                def total(params, x):
                    return (forward(params, rest, x) * weight).astype(jnp.float32).sum()

                return jax.grad(total, argnums=(0, 1))(params, x)

        compiled = jax.jit(run).lower(params, rest, x).compile()
        calls[form] = functools.partial(compiled, params, rest, x)
    return calls


def _calls_of_norm() -> dict[str, Callable[[], Any]]:
    """Returns the compiled calls of the norm of a ResNet-18's gradients, in each form."""
    tree = [jnp.ones((3, 3, 512, 512))] * 4 + [jnp.ones((3, 3, 64, 64))] * 4 + [jnp.ones(512)] * 40
    forms = {'plain': optax.tree.norm, 'cpu': optim.norm, 'gpu': optim.norm}
    compiled = {form: jax.jit(norm).lower(tree).compile() for form, norm in forms.items()}
    return {form: functools.partial(call, tree) for form, call in compiled.items()}


def _times(calls: dict[str, Callable[[], Any]], values) -> dict[str, Any]:
    def timed(call):
        jax.block_until_ready(call())

        def seconds():
            start = time.perf_counter()
            for _ in range(values.calls):
                result = call()
            jax.block_until_ready(result)
            return (time.perf_counter() - start) / values.calls

        return seconds

    found = rounds.alternate({form: timed(call) for form, call in calls.items()}, values.rounds)
    times = {form: rounds.spread(seconds) for form, seconds in found.items()}
    for form in times:
        if form != 'plain':
            times[form]['ratio'] = rounds.ratio(found[form], found['plain'])['median']
    return times


if __name__ == '__main__':
    sys.exit(main())
