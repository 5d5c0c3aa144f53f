"""Counts the floating-point operations of a function: every matrix product and convolution of its jaxpr.

A multiply and an add are two operations. Element-wise operations are left out, as is usual in such counts of networks,
so that the number does not depend on which operations a compiler fuses or computes twice. XLA's own count
(runtime/perf.py, lowered_flops) is larger.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core


def count(function: Callable, *arguments: Any) -> int:
    """Returns the operations of all products in `function(*arguments)`; arguments may be arrays or shapes.

    A scan counts each of its steps, and a conditional counts its largest branch.
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
    # The gradient with respect to the input of a strided convolution has zeros between its rows and columns, whose
    # products are not counted.
    skipped = math.prod(eqn.params['lhs_dilation'])
    return 2 * eqn.outvars[0].aval.size * (kernel.size // outputs) // skipped


def _scan(eqn) -> int:
    return eqn.params['length'] * _inner(eqn)


def _branches(eqn) -> int:
    return max(_count(branch.jaxpr) for branch in eqn.params['branches'])


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
