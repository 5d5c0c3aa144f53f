"""Compares variants in alternating rounds of one run, and writes the measurements as JSON.

Alternation makes disturbances of the machine affect every variant alike.
"""

import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_PACKAGES = tuple('jax jaxlib flax optax grain numpy pillow simplejpeg av tensorflow tensorflow-cpu'.split())


def alternate(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Returns the values of each side by round; every round runs every side once, in alternating order."""
    found = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(sides[name]())
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the median, the minimum and the maximum of the rounds."""
    return {'median': float(np.median(values)), 'low': float(min(values)), 'high': float(max(values))}


def ratio(upper: Sequence[float], lower: Sequence[float]) -> dict[str, float]:
    """Returns the spread of the ratio of two sides, round by round."""
    return spread([a / b for a, b in zip(upper, lower, strict=True)])


def shown(found: dict[str, float], form: str = '.2f') -> str:
    """Returns a spread as text: 'median (low..high)'."""
    return f'{found["median"]:{form}} ({found["low"]:{form}}..{found["high"]:{form}})'


def write(out: str | os.PathLike | None, content: dict[str, Any]) -> None:
    """Writes a measurement with the machine and the versions it was made on; does nothing if `out` is None."""
    if out is None:
        return
    from stattn_jax import (
        run,  # imported here because it imports JAX, and spawned processes import this module again
    )

    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    content = {
        'made': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'command': ' '.join(sys.argv),
        'git_commit': run.git_commit(),
        'machine': {'platform': platform.platform(), 'cpus': os.cpu_count(), 'load': os.getloadavg()[0]},
        'versions': {'python': platform.python_version()} | versions,
        **content,
    }
    pathlib.Path(out).write_text(json.dumps(content, indent=1) + '\n')
