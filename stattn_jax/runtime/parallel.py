"""Where the arrays live: a jit and a pmap strategy with the same methods, and the transfer of batches ahead of use.

Nothing else in the project knows which strategy runs. Parameters and optimiser state are replicated, the batch is split
along its first axis; a training step sees one device's rows and reduces over `axis` itself. Read next: checkpoint.py,
perf.py.
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
    """The strategy named `kind` ('jit' or 'pmap') over `devices` (default: all of all processes).

    Raises ValueError for another name.
    """
    if kind not in KINDS:
        raise ValueError(f'parallel is {kind!r}; expected one of {", ".join(KINDS)}; set config.parallel')
    return (JitStrategy if kind == 'jit' else PmapStrategy)(jax.devices() if devices is None else devices)


class _Strategy:
    """What both strategies share: the mesh, the placing of arrays, the description."""

    kind: str
    axis: str | None

    def __init__(self, devices: list[jax.Device]):
        # Process order, not the topology order of jax.make_mesh: process p then holds rows [p*b/n, (p+1)*b/n) of the
        # global batch, and the assembled batch is the same for any number of processes. AxisType.Auto because jit
        # infers the rest; the Explicit default of jax.make_mesh (since 0.9) rejects the model's reshapes.
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
        """The state's shapes, dtypes and replicated sharding over all processes: the target of a restore."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._replicated), state)

    def describe(self) -> dict[str, Any]:
        """What the run record says about the devices; JSON types only."""
        return {
            'strategy': self.kind,
            'devices': len(self.devices),
            'processes': jax.process_count(),
            'platform': self.devices[0].platform,
            'device_kind': self.devices[0].device_kind,
        }


class JitStrategy(_Strategy):
    """`jax.jit` over a mesh: arrays are global; a training step on several devices is mapped over them, since of a step
    on global arrays XLA reduces the gradients layer by layer, between the statistics of batch normalisation (25 times
    instead of once, docs/log.md).
    """

    kind = 'jit'

    @property
    def axis(self) -> str | None:
        return AXIS if len(self.devices) > 1 else None

    def place_state(self, state: Any) -> Any:
        """A replicated copy of a pytree (NumPy, jax arrays, typed or raw keys) on all devices of all processes."""
        return _place_replicated(state, self._replicated)

    def to_global(self, state: Any) -> Any:
        """The state as arrays over all processes, which a checkpoint can store."""
        return state

    def place_batch(self, batch: Any) -> Any:
        """This process's rows [local b ...] of the batch to the global batch [b ...]; raises ValueError if uneven."""
        self.check_batch(_rows(batch) * jax.process_count())
        return jax.make_array_from_process_local_data(NamedSharding(self._mesh, PartitionSpec(AXIS)), batch)

    def compile(self, step: Callable, donate: bool = True) -> '_CompiledOnce':
        """`step(state, batch) -> (state, metrics)` compiled on first use; metrics are replicated scalars."""
        if self.axis:
            # check_vma would reduce the gradients a second time (jax 0.10.2).
            specs = {'in_specs': (PartitionSpec(), PartitionSpec(AXIS)), 'out_specs': PartitionSpec()}
            step = jax.shard_map(step, mesh=self._mesh, check_vma=False, **specs)
        jitted = jax.jit(
            step, donate_argnums=(0,) if donate else (), out_shardings=(self._replicated, self._replicated)
        )
        # The lowered module of a mapped step holds one device's share.
        return _CompiledOnce(jitted.lower, jitted, ahead=True, flops_factor=len(self.devices))

    def compile_forward(self, fn: Callable) -> '_CompiledOnce':
        """`fn(state, batch) -> tree of [b ...]`, which stays on the devices."""
        jitted = jax.jit(fn, out_shardings=NamedSharding(self._mesh, PartitionSpec(AXIS)))
        return _CompiledOnce(jitted.lower, jitted, ahead=True, flops_factor=1)

    def compile_eval(self, fn: Callable) -> Callable[[Any, Any], Any]:
        """`fn(state, batch) -> tree of [b ...]` as a function that returns NumPy [local b ...], this process's rows."""
        compiled = self.compile_forward(fn)
        return lambda state, batch: jax.tree.map(_local_rows, compiled(state, batch))


class PmapStrategy(_Strategy):
    """`jax.pmap` over the axis 'data': the step sees one device's rows and reduces over `axis` itself.

    State and metrics travel with `in_axes=None, out_axes=None`, so that their tree and shapes are those of jit. A value
    that the step does not reduce silently comes back as device 0's value: every metric must be reduced over `axis`.
    """

    kind = 'pmap'
    axis = AXIS

    def __init__(self, devices: list[jax.Device]):
        super().__init__(devices)
        self._local_mesh = Mesh(np.array(self.local_devices), (AXIS,), axis_types=(AxisType.Auto,))

    def place_state(self, state: Any) -> Any:
        """A replicated copy of a pytree (NumPy, jax arrays, typed or raw keys) on the devices of this process."""
        # Over local devices and committed: several processes otherwise end in 'Array has been deleted' (jax 0.10.2).
        return _place_replicated(state, NamedSharding(self._local_mesh, PartitionSpec()))

    def to_global(self, state: Any) -> Any:
        """The state as arrays over all processes, which a checkpoint can store (Orbax refuses host-local ones)."""
        return state if jax.process_count() == 1 else _place_replicated(state, self._replicated)

    def place_batch(self, batch: Any) -> Any:
        """This process's rows [local b ...] to [local devices, per device ...]; raises ValueError if uneven."""
        self.check_batch(_rows(batch) * jax.process_count())
        count = len(self.local_devices)
        split = jax.tree.map(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), batch)
        return jax.make_array_from_process_local_data(NamedSharding(self._local_mesh, PartitionSpec(AXIS)), split)

    def compile(self, step: Callable, donate: bool = True) -> '_CompiledOnce':
        """`step(state, batch) -> (state, metrics)` compiled on first use; the step reduces its metrics over `axis`."""
        return self._compile(step, None, donate)

    def compile_forward(self, fn: Callable) -> '_CompiledOnce':
        """`fn(state, batch) -> tree of [b ...]`, which stays on the devices as [devices, per device ...]."""
        return self._compile(fn, 0, donate=False)

    def compile_eval(self, fn: Callable) -> Callable[[Any, Any], Any]:
        """`fn(state, batch) -> tree of [b ...]` as a function that returns NumPy [local b ...], this process's rows."""
        compiled = self.compile_forward(fn)

        def run(state, batch):
            rows = jax.device_get(compiled(state, batch))
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)

        return run

    def _compile(self, fn: Callable, out_axes: int | None, donate: bool) -> '_CompiledOnce':
        def mapped(**kwargs):
            return jax.pmap(fn, axis_name=AXIS, in_axes=(None, 0), out_axes=out_axes, devices=self.devices, **kwargs)

        run = mapped(donate_argnums=(0,) if donate else ())
        # The object that pmap's lower().compile() gives does not convert host-local arrays, so several processes must
        # call the function; and lowering with donation would delete the state there, hence a second one for its FLOPs.
        single = jax.process_count() == 1
        lower = run.lower if single else mapped().lower
        return _CompiledOnce(lower, run, ahead=single, flops_factor=len(self.devices))


class _CompiledOnce:
    """A function of (state, batch) compiled ahead of time on its first call, for the shapes of that call.

    `flops`: floating-point operations of one call over all devices, None before the first call. `program`: what XLA
    made of it, with its memory_analysis, cost_analysis and text, None where several processes run pmap. Raises
    ValueError when a later batch has other shapes.
    """

    def __init__(self, lower: Callable, function: Callable, ahead: bool, flops_factor: int):
        self.flops: float | None = None
        self.program: Any = None
        self._lower, self._function, self._ahead = lower, function, ahead
        # For a lowered module that holds one device's share.
        self._flops_factor = flops_factor
        self._shapes = None

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
        lowered = self._lower(state, batch)
        flops = perf.lowered_flops(lowered)
        self.flops = None if flops is None else flops * self._flops_factor
        if self._ahead:
            # Measured: the jitted function traces and compiles again after lower().compile(); the object does not.
            self.program = self._function = lowered.compile(compiler_options=perf.compile_options())
        self._shapes = _shapes(batch)


class _Prefetch:
    """An iterator over placed batches; see `prefetch`. `waited`: seconds the consumer has waited for them so far."""

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
        except Exception as error:  # noqa: BLE001  the consumer raises it, whatever it is
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
        """Stops the thread, then closes the iterator below; waits for a batch that is being read. May be repeated."""
        if self._closed:
            return
        self._closed = True
        self._slots.release()
        self._thread.join()
        if hasattr(self._iterator, 'close'):
            self._iterator.close()


def prefetch(iterator: Iterator, place: Callable[[Any], Any], depth: int = 2) -> _Prefetch:
    """Reads `iterator` and applies `place` in a thread, so that up to `depth` batches lie on the device ahead of use.

    Order is kept; an exception of the iterator or of `place` is raised by the `next` that would have had that batch.
    Close it (contextlib.closing); `waited` counts the seconds that the consumer spent waiting.
    """
    return _Prefetch(iterator, place, depth)


def _place_replicated(tree: Any, sharding: NamedSharding) -> Any:
    """A copy of every leaf under `sharding`, by way of the host.

    By way of the host because device_put may share the buffer of its source (may_alias=False is not honoured for
    several devices nor for typed keys in jax 0.10.2), and a donated copy would then delete the original.
    """

    def place(x):
        if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(place(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        host = np.array(jax.device_get(x))
        return jax.make_array_from_process_local_data(sharding, host, host.shape)

    return jax.tree.map(place, tree)


def _local_rows(x: jax.Array) -> np.ndarray:
    """The rows of a batch-sharded array that this process holds, in batch order."""
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate(jax.device_get([shard.data for shard in shards]))


def _rows(batch: Any) -> int:
    return jax.tree.leaves(batch)[0].shape[0]


def _shapes(batch: Any) -> list[tuple[int, ...]]:
    return [x.shape for x in jax.tree.leaves(batch)]
