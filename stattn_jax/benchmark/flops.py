"""How many floating-point operations a function asks for, from its own products: every matrix product and convolution
of its jaxpr.

A multiply and an add are two operations. Element-wise work is left out, as in the usual counts of networks, so that the
number does
not depend on what a compiler fuses or computes twice: XLA's own count (runtime/perf.py, lowered_flops) is larger. Read
next: model.py.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core


def count(function: Callable, *arguments: Any) -> int:
    """Operations of the products of `function(*arguments)`, arrays or shapes; a scan counts each of its steps, a
    branch the largest.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr) -> int:
    return sum(_COUNTS.get(eqn.primitive.name, _inner)(eqn) for eqn in jaxpr.eqns)


def _dot(eqn) -> int:
    (contracted, _), _ = eqn.params['dimension_numbers']
    return 2 * eqn.outvars[0].aval.size * math.prod(eqn.invars[0].aval.shape[i] for i in contracted)


def _convolution(eqn) -> int:
    kernel = eqn.invars[1].aval
    outputs = kernel.shape[eqn.params['dimension_numbers'].rhs_spec[0]]
    # A gradient by the input meets the zeros between what a stride had skipped; nobody needs to multiply them.
    skipped = math.prod(eqn.params['lhs_dilation'])
    return 2 * eqn.outvars[0].aval.size * (kernel.size // outputs) // skipped


def _scan(eqn) -> int:
    return eqn.params['length'] * _inner(eqn)


def _branches(eqn) -> int:
    counts = [_count(branch.jaxpr) for branch in eqn.params['branches']]
    platforms = eqn.params.get('branches_platforms')
    # Where a platform has its own form, the work is that of the general one.
    return counts[platforms.index(None)] if platforms else max(counts)


def _inner(eqn) -> int:
    return sum(_count(jaxpr) for value in eqn.params.values() for jaxpr in _jaxprs(value))


def _jaxprs(value) -> Iterator[Any]:
    if isinstance(value, core.ClosedJaxpr):
        yield value.jaxpr
    elif isinstance(value, core.Jaxpr):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _jaxprs(item)


_COUNTS = {'dot_general': _dot, 'conv_general_dilated': _convolution, 'scan': _scan, 'cond': _branches}
