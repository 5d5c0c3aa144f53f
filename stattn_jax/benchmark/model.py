"""Measures the cost of a network on made-up clips: compilation, time, memory, FLOPs and bytes.

The modes are a training step, its head alone, a forward pass, and a forward pass with explanation. This module reads no
data and runs wherever JAX and Flax are installed; feed.py measures the input too.
"""

import contextlib
import copy
import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
import optax
from flax import nnx

from stattn_jax import assemble
from stattn_jax.benchmark import flops, timing
from stattn_jax.models import contributions
from stattn_jax.runtime import parallel, perf
from stattn_jax.training import step

TRUNKS = ('visual', 'audio')
MODES = ('train', 'head', 'forward', 'explain')


@dataclasses.dataclass(frozen=True)
class Case:
    """One case to measure: mode, strategy, dtype of the trunks, global batch.

    The mode 'head' measures loss and gradients of the layers after the trunks (attention and pooling), given the
    trunks' outputs.
    """

    mode: str
    strategy: str
    dtype: str
    batch: int


@dataclasses.dataclass(frozen=True)
class Data:
    """The shape of the clips: number of classes, number of segments, mel frames and bands of a segment."""

    classes: int
    segments: int
    mel: tuple[int, int]


def made_batch(config: ml_collections.ConfigDict, data: Data, rows: int) -> dict[str, np.ndarray]:
    """Returns clips of noise with labels, in the form in which data/pipeline.py passes them to the device."""
    rng = np.random.default_rng(0)
    side = config.data.frame_size
    return {
        'frames': rng.integers(0, 256, (rows, data.segments, side, side, 3), np.uint8),
        'log_mel': rng.normal(-2, 1, (rows, data.segments, *data.mel)).astype(np.float16),
        'valid': np.ones((rows, data.segments), bool),
        'modalities': np.ones((rows, 2), bool),
        'labels': np.eye(data.classes, dtype=np.float32)[rng.integers(0, data.classes, rows)],
    }


@dataclasses.dataclass(frozen=True)
class Built:
    """A compiled case.

    advance: runs the case on a placed batch.
    batch: the made-up batch, placed on the devices.
    compiled: the compiled function.
    seconds: the time of the first call, which includes compiling.
    counted: the pure function whose products are counted.
    shapes: the shapes of its arguments.
    """

    advance: Callable[[Any], Any]
    batch: Any
    compiled: Any
    seconds: float
    counted: Callable
    shapes: tuple


def measure(
    config: ml_collections.ConfigDict,
    data: Data,
    case: Case,
    *,
    calls: int,
    warmup: int,
    together: int,
    trace: str | None = None,
) -> dict[str, Any]:
    """Compiles and times a case on all devices; returns the measurements in JSON types.

    `trace` is a folder for a profile of three calls and the text of the compiled program. Raises ValueError for a batch
    that does not split over the devices.
    """
    strategy = parallel.make_strategy(case.strategy)
    strategy.check_batch(case.batch)
    made = build(config, data, case, strategy)
    times = timing.repeat(lambda: made.advance(made.batch), calls=calls, warmup=warmup, together=together)
    if trace:
        with jax.profiler.trace(trace):
            jax.block_until_ready([made.advance(made.batch) for _ in range(3)][-1])
        if made.compiled.program is not None:
            pathlib.Path(trace, 'program.txt').write_text(made.compiled.program.as_text())
    products = flops.count(made.counted, *made.shapes)
    program = analysis(made.compiled.program)
    return {
        **dataclasses.asdict(case),
        'compile_seconds': made.seconds,
        'seconds': times._asdict(),
        'clips_per_second': case.batch / times.median,
        'products_flops': products,
        'xla_flops': made.compiled.flops,
        'mfu': perf.mfu(products, times.median, strategy.devices),
        'floor_seconds': perf.floor_seconds(program.get('moved_bytes'), strategy.devices[0]),
        **program,
        **strategy.describe(),
    }


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A case that is not compiled yet.

    compiled: the function of (state, batch), compiled at its first call.
    counted: the pure function whose products are counted.
    state: the arguments' state, with arrays or only their shapes; `plain_state` is that of `counted`, in shapes.
    rows: the made-up batch.
    """

    compiled: Any
    counted: Callable
    state: Any
    plain_state: Any
    rows: dict[str, np.ndarray]


def prepare(
    config: ml_collections.ConfigDict, data: Data, case: Case, strategy, clips: int, abstract: bool = False
) -> Prepared:
    """Makes the function, state and batch of a case, with `clips` made-up clips.

    With `abstract` the state holds only shapes and dtypes.
    """
    config = copy.deepcopy(config)
    config.model.dtype = case.dtype
    side = config.model.frame_size
    shape = assemble.InputSpec(data.classes, (3, 1), (side, side))
    graphdef, state, optimiser, _ = assemble.make_state(config, shape, strategy.axis, abstract)
    # Products are counted in plain layers, without the CPU's sums by products, and without a device axis.
    plain_config = copy.deepcopy(config)
    plain_config.model.layers = 'plain'
    plain_graphdef, plain_state, *_ = assemble.make_state(plain_config, shape, None, abstract=True)
    rows = made_batch(config, data, clips)
    if case.mode == 'train':
        options = {'optimiser': optimiser, 'binary': config.loss.multi_label}
        compiled = strategy.compile(assemble.make_step(config, graphdef, axis=strategy.axis, **options))
        counted = assemble.make_step(config, plain_graphdef, axis=None, **options)
    elif case.mode == 'head':
        rows = _given(config, plain_graphdef, plain_state, rows)
        # The state is donated as in a training step, so that it is passed through without a copy.
        compiled = strategy.compile(_head(config, graphdef, strategy.axis))
        counted = _head(config, plain_graphdef, None)
    else:
        compiled = strategy.compile_forward(_forward(config, graphdef, case.mode))
        counted = _forward(config, plain_graphdef, case.mode)
    return Prepared(compiled, counted, state, plain_state, rows)


def build(config: ml_collections.ConfigDict, data: Data, case: Case, strategy) -> Built:
    """Compiles a case and runs it once on a made-up batch."""
    made = prepare(config, data, case, strategy, case.batch // jax.process_count())
    kept, batch = {'state': strategy.place_state(made.state)}, strategy.place_batch(made.rows)

    def advance(placed):
        found = made.compiled(kept['state'], placed)
        if case.mode in ('train', 'head'):
            kept['state'], found = found
        return found

    start = time.perf_counter()
    jax.block_until_ready(advance(batch))
    seconds = time.perf_counter() - start
    shapes = (made.plain_state, jax.eval_shape(lambda: made.rows))
    return Built(advance, batch, made.compiled, seconds, made.counted, shapes)


def _given(config, graphdef, state, rows) -> dict[str, np.ndarray]:
    """Returns a batch with made-up outputs of the trunks in place of its frames and log-mel."""
    side = config.model.frame_size

    def read(state, frames, log_mel):
        model = nnx.merge(graphdef, state['params'], state['rest'])
        return model.encode(frames, log_mel, train=False)

    frames = jax.ShapeDtypeStruct((*rows['frames'].shape[:2], side, side, 3), np.float32)
    shapes = jax.eval_shape(read, state, frames, jax.ShapeDtypeStruct(rows['log_mel'].shape, np.float32))
    rng = np.random.default_rng(1)
    given = {
        name: rng.normal(size=x.shape).astype(x.dtype) for name, x in zip(('seen', 'heard'), shapes) if x is not None
    }
    return given | {name: rows[name] for name in ('valid', 'labels')}


def _head(config, graphdef, axis: str | None) -> Callable:
    """Returns (state, batch) -> (state, norm) for the loss and gradients of the layers after the trunks.

    The gradients include those of the trunks' outputs. The norm is the mean over devices of each device's own norm.
    """
    loss = step.Loss(**config.loss.to_dict())

    def head(state, batch):
        behind = {name: x for name, x in state['params'].items() if name not in TRUNKS}

        def total(behind, given):
            model = nnx.merge(graphdef, state['params'] | behind, state['rest'])
            logits, out = model.forward_heads(given.get('seen'), given.get('heard'), batch['valid'])
            parts = step.loss_parts(model, logits, out, batch['labels'], batch['valid'], loss, axis)
            return step.total_loss(parts, loss)

        given = {name: batch[name] for name in ('seen', 'heard') if name in batch}
        # The barrier makes XLA write out the gradients that would be passed on to a trunk.
        grads = jax.lax.optimization_barrier(jax.grad(total, argnums=(0, 1))(behind, given))
        norm = optax.tree.norm(grads)
        return state, {'norm': jax.lax.pmean(norm, axis) if axis else norm}

    return head


def _forward(config, graphdef, mode: str) -> Callable:
    """Returns (state, batch) -> logits, or -> all arrays of an explanation."""

    def forward(state, batch):
        logits, out = step.forward(graphdef, state, batch, frame_size=config.model.frame_size)
        if mode == 'forward':
            return logits
        record = contributions.record(logits, out, state['score_mean'], config.loss.multi_label)
        return {name: x for name, x in record.items() if name not in ('bias', 'mean_scores')}

    return forward


def analysis(program: Any) -> dict[str, Any]:
    """Returns XLA's analysis of a compiled program: bytes by kind and bytes moved.

    Returns {} where there is no single compiled program.
    """
    if program is None:
        return {}
    found = {}
    with contextlib.suppress(NotImplementedError):
        memory = program.memory_analysis()
        names = ('argument', 'output', 'temp', 'alias', 'generated_code')
        found = {f'{name}_bytes': getattr(memory, f'{name}_size_in_bytes') for name in names if memory is not None}
    costs = program.cost_analysis() or {}
    costs = costs[0] if isinstance(costs, list) else costs
    return found | {'moved_bytes': costs.get('bytes accessed')}
