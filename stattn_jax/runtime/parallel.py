"""The placement of arrays: a jit and a pmap strategy with the same methods, and prefetching of batches.

No other module depends on which strategy is used. Parameters and optimiser state are replicated, and the batch is split
along its first axis; a training step receives one device's rows and itself reduces over `axis`.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from stattn_jax.runtime import perf

AXIS = 'data'
KINDS = ('jit', 'pmap')


def make_strategy(kind: str, devices: list[jax.Device] | None = None) -> 'JitStrategy | PmapStrategy':
    """Returns the strategy named `kind` ('jit' or 'pmap') over `devices` (default: all devices of all processes).

    Raises ValueError for another name.
    """
    if kind not in KINDS:
        raise ValueError(f'parallel is {kind!r}; expected one of {", ".join(KINDS)}; set config.parallel')
    return (JitStrategy if kind == 'jit' else PmapStrategy)(jax.devices() if devices is None else devices)


class _Strategy:
    """The parts that both strategies share: the mesh, the shapes of a state, the description of the devices."""

    kind: str

    def __init__(self, devices: list[jax.Device]):
        # The devices are in process order, not in the topology order of jax.make_mesh: process p then holds rows
        # [p*b/n, (p+1)*b/n) of the global batch, and the assembled batch is the same for any number of processes.
        # With AxisType.Auto, jit infers the other shardings; the default of jax.make_mesh since 0.9, Explicit, rejects
        # the model's reshapes.
        self.devices = sorted(devices, key=lambda device: (device.process_index, device.id))
        self.local_devices = [device for device in self.devices if device.process_index == jax.process_index()]
        self._mesh = Mesh(np.array(self.devices), (AXIS,), axis_types=(AxisType.Auto,))
        self._replicated = NamedSharding(self._mesh, PartitionSpec())

    def check_batch(self, global_batch: int) -> None:
        """Raises ValueError (one line) unless `global_batch` splits evenly over the devices."""
        count = len(self.devices)
        if global_batch % count:
            raise ValueError(
                f'global batch {global_batch} does not split over {count} devices; expected a multiple of {count}; '
                f'set the batch size to {max(count, global_batch // count * count)} or use fewer devices'
            )

    def abstract(self, state: Any) -> Any:
        """Returns the state's shapes, dtypes and replicated sharding over all processes: the target of a restore."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._replicated), state)

    def abstract_batch(self, batch: Any, rows: int) -> Any:
        """Returns the shapes, dtypes and sharding of a placed batch of `rows`, given one of any other number of rows.

        The devices need not exist: a program can be compiled for them (jax.experimental.topologies).
        """
        self.check_batch(rows)
        split = NamedSharding(self._mesh, PartitionSpec(AXIS))
        count = len(self.devices)
        first = (rows,) if self.kind == 'jit' else (count, rows // count)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*first, *x.shape[1:]), x.dtype, sharding=split), batch)

    def describe(self) -> dict[str, Any]:
        """Returns the entry on devices for the run record, in JSON types only."""
        return {
            'strategy': self.kind,
            'devices': len(self.devices),
            'processes': jax.process_count(),
            'platform': self.devices[0].platform,
            'device_kind': self.devices[0].device_kind,
        }


class JitStrategy(_Strategy):
    """`jax.jit` over a mesh, with global arrays.

    On several devices, a training step is mapped over them with shard_map. In a step on global arrays, XLA would reduce
    the gradients layer by layer, between the statistics of batch normalisation (25 reductions instead of one,
    docs/log.md).
    """

    kind = 'jit'

    @property
    def axis(self) -> str | None:
        return AXIS if len(self.devices) > 1 else None

    def place_state(self, state: Any) -> Any:
        """Returns a replicated copy of a pytree (NumPy, jax arrays, typed or raw keys) on all devices."""
        return _place_replicated(state, self._replicated)

    def to_global(self, state: Any) -> Any:
        """Returns the state as arrays over all processes, which a checkpoint can store."""
        return state

    def place_batch(self, batch: Any) -> Any:
        """Turns this process's rows [local b ...] of the batch into the global batch [b ...].

        Raises ValueError if the rows do not split evenly over the devices.
        """
        self.check_batch(_rows(batch) * jax.process_count())
        return jax.make_array_from_process_local_data(NamedSharding(self._mesh, PartitionSpec(AXIS)), batch)

    def compile(self, step: Callable, donate: bool = True) -> '_CompiledOnce':
        """Returns `step(state, batch) -> (state, metrics)`, compiled on first use; metrics are replicated scalars."""
        if self.axis:
            # With check_vma the gradients would be reduced a second time (jax 0.10.2).
            step = jax.shard_map(
                step,
                mesh=self._mesh,
                in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
                out_specs=PartitionSpec(),
                check_vma=False,
            )
        jitted = jax.jit(
            step, donate_argnums=(0,) if donate else (), out_shardings=(self._replicated, self._replicated)
        )
        # The lowered module of a mapped step holds the work of one device.
        return _CompiledOnce(jitted.lower, jitted, ahead=True, flops_factor=len(self.devices))

    def compile_forward(self, fn: Callable) -> '_CompiledOnce':
        """Returns `fn(state, batch) -> tree of [b ...]`, compiled on first use; the result stays on the devices."""
        jitted = jax.jit(fn, out_shardings=NamedSharding(self._mesh, PartitionSpec(AXIS)))
        return _CompiledOnce(jitted.lower, jitted, ahead=True, flops_factor=1)

    def compile_eval(self, fn: Callable) -> Callable[[Any, Any], Any]:
        """Compiles `fn(state, batch) -> tree of [b ...]`; the result is NumPy [local b ...], this process's rows."""
        compiled = self.compile_forward(fn)
        return lambda state, batch: jax.tree.map(_local_rows, compiled(state, batch))


class PmapStrategy(_Strategy):
    """`jax.pmap` over the axis 'data': the step receives one device's rows and itself reduces over `axis`.

    State and metrics are passed with `in_axes=None, out_axes=None`, so that their tree and shapes are those of jit. A
    value that the step does not reduce is silently returned as device 0's value, so every metric must be reduced over
    `axis`.
    """

    kind = 'pmap'
    axis = AXIS

    def __init__(self, devices: list[jax.Device]):
        super().__init__(devices)
        self._local_mesh = Mesh(np.array(self.local_devices), (AXIS,), axis_types=(AxisType.Auto,))

    def place_state(self, state: Any) -> Any:
        """Returns a replicated copy of a pytree (NumPy, jax arrays, typed or raw keys) on this process's devices."""
        # The arrays are committed to local devices; otherwise several processes fail with 'Array has been deleted' (jax
        # 0.10.2).
        return _place_replicated(state, NamedSharding(self._local_mesh, PartitionSpec()))

    def to_global(self, state: Any) -> Any:
        """Returns the state as arrays over all processes, which a checkpoint can store.

        Orbax rejects host-local arrays when there are several processes.
        """
        return state if jax.process_count() == 1 else _place_replicated(state, self._replicated)

    def place_batch(self, batch: Any) -> Any:
        """Turns this process's rows [local b ...] into [local devices, per device ...].

        Raises ValueError if the rows do not split evenly over the devices.
        """
        self.check_batch(_rows(batch) * jax.process_count())
        count = len(self.local_devices)
        split = jax.tree.map(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), batch)
        return jax.make_array_from_process_local_data(NamedSharding(self._local_mesh, PartitionSpec(AXIS)), split)

    def compile(self, step: Callable, donate: bool = True) -> '_CompiledOnce':
        """Returns `step(state, batch) -> (state, metrics)`, compiled on first use.

        The step must reduce its metrics over `axis`.
        """
        return self._compile(step, None, donate)

    def compile_forward(self, fn: Callable) -> '_CompiledOnce':
        """Returns `fn(state, batch) -> tree of [b ...]`, compiled on first use.

        The result stays on the devices as [devices, per device ...].
        """
        return self._compile(fn, 0, donate=False)

    def compile_eval(self, fn: Callable) -> Callable[[Any, Any], Any]:
        """Compiles `fn(state, batch) -> tree of [b ...]`; the result is NumPy [local b ...], this process's rows."""
        compiled = self.compile_forward(fn)

        def run(state, batch):
            rows = jax.device_get(compiled(state, batch))
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)

        return run

    def _compile(self, fn: Callable, out_axes: int | None, donate: bool) -> '_CompiledOnce':
        def mapped(**kwargs):
            return jax.pmap(fn, axis_name=AXIS, in_axes=(None, 0), out_axes=out_axes, devices=self.devices, **kwargs)

        run = mapped(donate_argnums=(0,) if donate else ())
        # The object that pmap's lower().compile() returns does not convert host-local arrays, so several processes must
        # call the function. Lowering with donation would delete the state there, so a second function without donation
        # is lowered to count the FLOPs.
        single = jax.process_count() == 1
        lower = run.lower if single else mapped().lower
        return _CompiledOnce(lower, run, ahead=single, flops_factor=len(self.devices))


class _CompiledOnce:
    """A function of (state, batch) that is compiled on its first call, for the shapes of that call.

    flops: floating-point operations of one call over all devices, None before the first call.
    lower: lowers the function for the shapes and shardings of a state and a batch, without compiling it.
    program: the program compiled by XLA, with its memory_analysis, cost_analysis and text; None where several processes
      run pmap.

    Raises ValueError when a later batch has other shapes.
    """

    def __init__(self, lower: Callable, function: Callable, ahead: bool, flops_factor: int):
        self.flops: float | None = None
        self.program: Any = None
        self.lower, self._function, self._ahead = lower, function, ahead
        # The number of devices where the lowered module holds the work of one device.
        self._flops_factor = flops_factor
        self._shapes: list[tuple[int, ...]] | None = None

    def __call__(self, state: Any, batch: Any) -> Any:
        if self._shapes is None:
            self._start(state, batch)
        elif _shapes(batch) != self._shapes:
            raise ValueError(
                f'batch shapes {_shapes(batch)} differ from {self._shapes}, for which the step was compiled; expected '
                'the same shapes at every step; drop or pad the last batch'
            )
        return self._function(state, batch)

    def _start(self, state, batch):
        lowered = self.lower(state, batch)
        flops = perf.lowered_flops(lowered)
        self.flops = None if flops is None else flops * self._flops_factor
        if self._ahead:
            # After lower().compile(), calling the jitted function traces and compiles again; the object
            # does not (measured).
            self.program = self._function = lowered.compile(compiler_options=perf.compile_options())
        self._shapes = _shapes(batch)


class _Prefetch:
    """An iterator over placed batches, see `prefetch`; `waited` counts the seconds the consumer has waited."""

    def __init__(self, iterator: Iterator, place: Callable, depth: int):
        self.waited = 0.0
        self._iterator, self._place = iterator, place
        self._ready: queue.SimpleQueue = queue.SimpleQueue()
        self._slots = threading.Semaphore(depth)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name='prefetch', daemon=True)
        self._thread.start()

    def _run(self):
        try:
            for batch in self._iterator:
                self._slots.acquire()
                if self._closed:
                    return
                self._ready.put((self._place(batch), None))
            self._ready.put((None, StopIteration()))
        except Exception as error:  # the consumer raises any exception
            self._ready.put((None, error))

    def __iter__(self):
        return self

    def __next__(self):
        if self._closed:
            raise StopIteration
        start = time.perf_counter()
        batch, error = self._ready.get()
        self.waited += time.perf_counter() - start
        if error is not None:
            self.close()
            raise error
        self._slots.release()
        return batch

    def close(self) -> None:
        """Stops the thread, then closes the underlying iterator; waits for a batch that is being read.

        May be called repeatedly.
        """
        if self._closed:
            return
        self._closed = True
        self._slots.release()
        self._thread.join()
        if hasattr(self._iterator, 'close'):
            self._iterator.close()


def prefetch(iterator: Iterator, place: Callable[[Any], Any], depth: int = 2) -> _Prefetch:
    """Reads `iterator` and applies `place` in a thread, so that up to `depth` batches are on the device before use.

    The order is kept. An exception of the iterator or of `place` is raised by the `next` that would have returned that
    batch. Close the result (contextlib.closing); its `waited` counts the seconds that the consumer spent waiting.
    """
    return _Prefetch(iterator, place, depth)


def _place_replicated(tree: Any, sharding: NamedSharding) -> Any:
    """Returns a copy of every leaf under `sharding`, made through host memory.

    A direct device_put may share the buffer of its source (may_alias=False is honoured neither for several devices nor
    for typed keys in jax 0.10.2), and donating the copy would then delete the original.
    """

    def place(x):
        if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(place(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        host = np.array(jax.device_get(x))
        return jax.make_array_from_process_local_data(sharding, host, host.shape)

    return jax.tree.map(place, tree)


def _local_rows(x: jax.Array) -> np.ndarray:
    """Returns the rows of a batch-sharded array that this process holds, in batch order."""
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate(jax.device_get([shard.data for shard in shards]))


def _rows(batch: Any) -> int:
    return jax.tree.leaves(batch)[0].shape[0]


def _shapes(batch: Any) -> list[tuple[int, ...]]:
    return [x.shape for x in jax.tree.leaves(batch)]
