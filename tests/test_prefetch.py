"""Tests the transfer thread of runtime/parallel.py: order, depth, exceptions, closing and waiting time."""

import itertools
import threading
import time

import pytest

from stattn_jax.runtime import parallel


def test_prefetch_keeps_order_and_stays_at_most_depth_ahead():
    placed = []

    def place(x):
        placed.append(x)
        return 10 * x

    batches = parallel.prefetch(iter(range(50)), place, depth=2)
    for i, batch in enumerate(batches):
        assert batch == 10 * i
        time.sleep(0.001)
        assert len(placed) <= i + 3
    assert placed == list(range(50))
    with pytest.raises(StopIteration):
        next(batches)
    batches.close()


def test_prefetch_passes_exceptions_of_iterator_and_place():
    def broken():
        yield 1
        raise OSError('bad record')

    batches = parallel.prefetch(broken(), lambda x: x)
    assert next(batches) == 1
    with pytest.raises(OSError, match='bad record'):
        next(batches)
    batches = parallel.prefetch(iter([1, 0]), lambda x: 1 // x)
    assert next(batches) == 1
    with pytest.raises(ZeroDivisionError):
        next(batches)


def test_prefetch_closes_its_thread_and_the_iterator_below():
    closed = threading.Event()

    def endless():
        try:
            yield from itertools.count()
        finally:
            closed.set()

    before = threading.active_count()
    batches = parallel.prefetch(endless(), lambda x: x)
    assert next(batches) == 0
    batches.close()
    batches.close()
    assert closed.is_set()
    assert threading.active_count() == before
    with pytest.raises(StopIteration):
        next(batches)


def test_prefetch_counts_the_time_spent_waiting():
    def slow():
        for i in range(3):
            time.sleep(0.1)
            yield i

    batches = parallel.prefetch(slow(), lambda x: x)
    assert list(batches) == [0, 1, 2]
    assert 0.25 < batches.waited < 3
    batches = parallel.prefetch(iter(range(2)), lambda x: x)
    time.sleep(0.2)
    next(batches)
    assert batches.waited < 0.1
    batches.close()
