"""Measures the time of calls: the median and spread of repeated calls after a warm-up.

A measurement ends when the device has finished its work.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np


class Times(NamedTuple):
    """Seconds per call: the median, the quartiles and the fastest.

    `host` is the median time until a call returned, without waiting for its result.
    """

    median: float
    low: float
    high: float
    fastest: float
    host: float


def repeat(call: Callable[[], Any], *, calls: int, warmup: int, together: int = 1) -> Times:
    """Times `calls` rounds of `together` calls each, after `warmup` calls that are not timed.

    A round ends when its last result is available. With several calls per round the device does not wait for the host
    between them, as in training, and the spread is that of rounds.
    """
    for _ in range(warmup):
        jax.block_until_ready(call())
    whole, host = [], []
    for _ in range(calls):
        start = time.perf_counter()
        for _ in range(together):
            result = call()
        returned = time.perf_counter()
        jax.block_until_ready(result)
        whole.append((time.perf_counter() - start) / together)
        host.append((returned - start) / together)
    low, median, high = np.quantile(whole, [0.25, 0.5, 0.75])
    return Times(float(median), float(low), float(high), float(min(whole)), float(np.median(host)))
