"""The function that is exported, of a clip's arrays alone, and its artefacts: StableHLO (jax.export) and ONNX.

The weights are constants of the function. It computes the layers in their plain form (models/layers), whatever the
config says, because the other forms are for one platform each.
"""

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import export

from stattn_jax import files, run, trunk_setup
from stattn_jax.command import RunError
from stattn_jax.data.mel import MEL_PRESETS
from stattn_jax.data.spec import ClipSpec
from stattn_jax.export import loader
from stattn_jax.models import contributions, layers
from stattn_jax.training import step
from stattn_jax.version import __version__

FORMAT = 'stattn_jax.export/1'
PLATFORMS = ('cpu', 'cuda', 'tpu')
# The largest difference between an artefact and the network, relative to max(1, |value|).
TOLERANCE = 1e-5
_INPUTS = ('frames', 'log_mel', 'valid')
_AXES = {
    'logits': 'b c',
    'probabilities': 'b c',
    'reference': 'b c',
    'visual': 'b c t h w',
    'audio': 'b c t',
    'alpha': 'b t h w',
    'null': 'b t',
    'beta': 'b m t c',
}
Network = Callable[..., dict[str, jax.Array]]


def make_network(trained: run.Trained) -> Network:
    """Returns the function frames uint8 [b t h w 3], log_mel float32 [b t f k], valid bool [b t] -> arrays.

    The arrays are logits and probabilities [b c]; the contributions reference [b c], visual [b c t h w] and audio
    [b c t], which sum to the logits; and the attention alpha [b t h w], null [b t] and beta [b m t c]. docs/design.md
    explains them, and models/contributions.py computes them.
    """
    state = jax.device_get({name: trained.state[name] for name in ('params', 'rest', 'score_mean')})
    model = nnx.merge(trained.graphdef, state['params'], state['rest'])
    layers.set_form(model, 'plain')
    graphdef = nnx.graphdef(model)
    size, binary = trained.config.model.frame_size, run.is_binary(trained.config, trained.facts)
    grid = model.grid(size, size)

    def network(frames, log_mel, valid):
        batch = {'frames': frames, 'log_mel': log_mel, 'valid': valid}
        logits, out = step.forward(graphdef, state, batch, frame_size=size)
        arrays = contributions.record(logits, out, state['score_mean'], binary)
        for name in ('visual', 'alpha'):
            arrays[name] = arrays[name].reshape(*arrays[name].shape[:-1], *grid)
        return {name: arrays[name] for name in _AXES}

    return network


def input_types(trained: run.Trained, batch: Any) -> list[jax.ShapeDtypeStruct]:
    """Returns the shapes and dtypes of the network's inputs; `batch` is a number or a symbolic dimension."""
    clips = _clips(trained)
    (frames, frames_type), (log_mel, _) = clips.shapes(trained.config.data.frame_size)
    return [
        jax.ShapeDtypeStruct((batch, *frames), frames_type),
        jax.ShapeDtypeStruct((batch, *log_mel), np.float32),
        jax.ShapeDtypeStruct((batch, clips.segments), np.bool_),
    ]


def write_stablehlo(directory: str | os.PathLike, trained: run.Trained, batch: int | None = None) -> float:
    """Writes network.jax_export, network.json and load.py; returns the largest relative difference to the network.

    batch: the only number of clips that the artefact takes; by default it takes any number.

    Raises RunError where an operation does not allow any number of clips or the package flatbuffers is missing, and
    OSError where the folder cannot be written.
    """
    network = make_network(trained)
    types = input_types(trained, _batch(batch))
    try:
        exported = export.export(jax.jit(network), platforms=PLATFORMS)(*types)
        content = exported.serialize()
    except ImportError:
        raise RunError('jax.export needs the package flatbuffers; pip install "stattn-jax[export]"') from None
    # Where a shape depends on the number of clips, each operation raises an error of its own.
    except Exception as error:
        raise _not_exported(error, batch) from error
    path = pathlib.Path(directory) / 'network.jax_export'
    source = pathlib.Path(loader.__file__).read_bytes()
    _write(path.parent, {path.name: bytes(content), 'load.py': source}, _record(trained, batch))
    return _difference(network, loader.load(path), types, batch)


def write_onnx(directory: str | os.PathLike, trained: run.Trained, batch: int | None = None) -> float:
    """Writes network.onnx and network.json; returns the largest relative difference to the network in onnxruntime.

    Raises RunError where jax2onnx or onnxruntime is missing, or jax2onnx cannot convert an operation.
    """
    try:
        import jax2onnx
        import onnxruntime
    except ImportError as error:
        raise RunError(
            f'ONNX needs jax2onnx and onnxruntime ({error}); docs/sharing.md says how to install them'
        ) from None
    network = make_network(trained)
    types = input_types(trained, _batch(batch))
    try:
        with _without_warnings():
            proto = jax2onnx.to_onnx(
                lambda *inputs: tuple(network(*inputs).values()), types, input_names=_INPUTS, output_names=list(_AXES)
            )
    # A converter raises an error of its own for each operation that it lacks.
    except Exception as error:
        raise _not_exported(error, batch) from error
    content = proto.SerializeToString()
    _write(pathlib.Path(directory), {'network.onnx': content}, _record(trained, batch))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=['CPUExecutionProvider'])

    def call(*inputs):
        return dict(zip(_AXES, session.run(list(_AXES), dict(zip(_INPUTS, inputs)))))

    return _difference(network, call, types, batch)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silences a converter's warnings of types that it leaves out; its result is compared with the network."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action='ignore'):
            yield
    finally:
        logging.disable(logging.NOTSET)


def _batch(batch: int | None) -> Any:
    return export.symbolic_shape('b')[0] if batch is None else batch


def _clips(trained: run.Trained) -> ClipSpec:
    clips = trunk_setup.media_of(trained.facts.spec)
    # `load` in explain/model.py opens only runs that read videos.
    assert isinstance(clips, ClipSpec)
    return clips


def _record(trained: run.Trained, batch: int | None) -> dict[str, Any]:
    """Returns network.json: everything that a program needs to feed the network and to read its outputs."""
    clips, config = _clips(trained), trained.config
    inputs = input_types(trained, 'b' if batch is None else batch)
    return {
        'format': FORMAT,
        'stattn_jax': __version__,
        'jax': jax.__version__,
        'inputs': {name: {'shape': list(x.shape), 'dtype': str(x.dtype)} for name, x in zip(_INPUTS, inputs)},
        'outputs': _AXES,
        'classes': list(trained.facts.classes),
        'multi_label': run.is_binary(config, trained.facts),
        'input': clips.to_json() | {'frame_size': config.data.frame_size, 'fit': config.data.fit},
        'front_end': dataclasses.asdict(MEL_PRESETS[clips.mel]),
        **trained.hashes,
        'step': trained.step,
    }


def _write(directory: pathlib.Path, contents: dict[str, bytes], record: dict[str, Any]) -> None:
    contents |= {'network.json': (json.dumps(record, indent=1) + '\n').encode()}
    files.make_folder(directory)
    for name, content in contents.items():
        with files.whole_file(directory / name) as file:
            file.write(content)


def _difference(network: Network, artefact: Network, types, batch: int | None) -> float:
    """Returns the largest difference over random clips, relative to max(1, |value|)."""
    rng, worst = np.random.default_rng(0), 0.0
    for clips in (1, 2) if batch is None else (batch,):
        shapes = [(clips, *x.shape[1:]) for x in types]
        inputs = (
            rng.integers(0, 256, shapes[0], np.uint8),
            rng.normal(-2, 1, shapes[1]).astype(np.float32),
            # The last segment of the first clip is padding.
            np.arange(np.prod(shapes[2])).reshape(shapes[2]) != shapes[2][1] - 1,
        )
        expected, found = jax.jit(network)(*inputs), artefact(*inputs)
        for name, x in expected.items():
            x, y = np.asarray(x), np.asarray(found[name])
            worst = max(worst, float(np.max(np.abs(x - y) / np.maximum(1, np.abs(x)))))
    return worst


def _not_exported(error: Exception, batch: int | None) -> RunError:
    reason = f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
    fix = (
        'an operation may not allow any number of clips: give --batch=N for a fixed number'
        if batch is None
        else 'an operation of this network is not supported there'
    )
    return RunError(f'the network cannot be exported ({reason}); {fix}', code=1)
