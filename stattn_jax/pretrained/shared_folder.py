"""The format of a shared model: a folder with config.json, model.safetensors and README.md, the model card.

config.json holds, in JSON types, everything but the weights:

    format            FORMAT
    architecture      the fields of cfg.model
    classes           their names, in the order of the logits
    multi_label       whether each class has an independent sigmoid; otherwise there is one softmax
    input             how clips are cut and frames are resized: the fields of ClipSpec, frame_size, fit
    front_end         the fields of data.mel.MelSpec
    training_means    the zero point of the contributions: mean scores [m c] over the training clips
    weights           sha256 and bytes of model.safetensors, how many numbers it holds, their dtype, licence
    trunks            origin of published weights with which trunks began
    data              name, clips and fingerprint of the data set, licences of its recordings
    training          step, seed, versions, commit, devices, the other fields of the config, and the config's hash
    evaluation        the numbers of eval_SPLIT.json by split

A file training_distance.npz beside them, where the run has one, is that of the run (metrics/training_distance.py).
Nothing in a folder is executed, and nothing is unpickled. A folder that this version wrote opens in later versions:
tests/test_pretrained_shared_folder.py keeps one.
"""

import dataclasses
import json
import math
import os
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import nnx

from stattn_jax import assemble, files, renamed, run, trunk_setup
from stattn_jax.command import RunError
from stattn_jax.data import source, spec, tfrecord
from stattn_jax.data.mel import MEL_PRESETS, MelSpec
from stattn_jax.pretrained import card
from stattn_jax.runtime import parallel
from stattn_jax.version import __version__
from stattn_jax.weights import find, safetensors
from stattn_jax.weights.errors import WeightsError, printable

FORMAT = 'stattn_jax.pretrained/1'
CONFIG, WEIGHTS, CARD = 'config.json', 'model.safetensors', 'README.md'
FILES = (CONFIG, WEIGHTS, CARD)
# The largest config.json in bytes; one with 10,000 classes has a tenth of it.
_MAX_CONFIG = 16_000_000
# Config fields that hold paths of the machine on which a run was trained; only the last part of a path is shared.
_PATHS = ('data.dir', 'model.visual_weights', 'model.audio_weights', 'compile_cache')
# Fields of cfg.data that determine the network's input.
_FRAMES = ('frame_size', 'fit')
_RECORDED = ('seed', 'git_commit', 'python', 'versions', 'devices')
# The types in which arrays of float32 may be stored; loaded networks have float32.
DTYPES = ('float32', 'float16')


@dataclasses.dataclass(frozen=True)
class Origin:
    """Facts about a network's training beside its config: records in JSON types, as in config.json.

    licence: the licence of the weights, None if none was given.
    limits: sentences for the model card on the limits of the network.
    notes: sentences for the model card on facts that this record lacks.
    dtype: the type of DTYPES in which arrays of float32 are stored.
    """

    data: dict[str, Any]
    training: dict[str, Any]
    evaluation: dict[str, dict[str, Any]]
    licence: str | None = None
    limits: str = ''
    notes: tuple[str, ...] = ()
    dtype: str = 'float32'


def is_folder(path: str | os.PathLike) -> bool:
    """Returns whether a directory is a shared model, perhaps a damaged one, and not a run."""
    directory = pathlib.Path(path)
    if (directory / run.CHECKPOINTS).is_dir():
        return False
    return (directory / WEIGHTS).exists() or _format_of(directory) is not None


def save(directory: str | os.PathLike, trained: run.Trained, origin: Origin) -> run.Trained:
    """Writes the folder of a network; its files are replaced if it is the folder of a shared model already.

    Returns the network as it was stored, with the rounded numbers of origin.dtype in float32. Raises RunError if the
    folder holds anything else under these names, for an unknown type and for numbers beyond its range, and OSError if
    the folder cannot be written.
    """
    directory = pathlib.Path(directory)
    if (directory / CONFIG).exists() and _format_of(directory) is None:
        raise RunError(
            f'{directory} holds a {CONFIG} that is not of a shared model, such as that of a run; give another folder'
        )
    stored = _rounded(trained, origin.dtype)
    if stored.hashes != trained.hashes:
        note = f'The numbers below were measured before the weights were rounded to {origin.dtype}.'
        origin = dataclasses.replace(origin, notes=(*origin.notes, note))
    record, tensors = _record(stored, origin), named_tensors(stored.state['params'], stored.state['rest'])
    tensors = {name: array.astype(_stored_type(array, origin.dtype)) for name, array in tensors.items()}
    files.make_folder(directory)
    safetensors.write_safetensors(directory / WEIGHTS, tensors, {'format': 'flax'})
    record['weights'] = {
        'sha256': find.sha256_of(directory / WEIGHTS),
        'bytes': (directory / WEIGHTS).stat().st_size,
        'numbers': sum(array.size for array in tensors.values()),
        'dtype': origin.dtype,
        'licence': origin.licence,
    }
    files.write_text(directory / CARD, card.render(directory.resolve().name, record))
    run.write_json(directory / CONFIG, record)
    return stored


def load(directory: str | os.PathLike) -> run.Trained:
    """Opens a folder on the first device; raises RunError, with one line, for one that is damaged or foreign."""
    directory = pathlib.Path(directory)
    record = read_record(directory)
    try:
        config, facts = _config(record), _facts(record)
        means = np.asarray(record['training_means'], np.float32)
        graphdef, abstract = _abstract(config, facts)
        dtype = _checked_dtype(record['weights'].get('dtype', 'float32'))
        step, origins = int(record['training']['step']), tuple(dict(trunk) for trunk in record['trunks'])
        expected, config_hash = str(record['weights']['sha256']), str(record['training']['config_hash'])
    # The record is arbitrary JSON at this point, so that the constructors that it is given to may raise anything.
    except Exception as error:
        reason = f'{type(error).__name__}: {printable(str(error))[:200]}'
        raise RunError(
            f'{directory / CONFIG} describes no network that stattn_jax {__version__} can build ({reason}); '
            'expected the file that save_pretrained wrote'
        ) from None
    if means.shape != (2, len(facts.classes)) or not np.isfinite(means).all():
        raise RunError(
            f'{directory / CONFIG}: training_means has the shape {means.shape}; expected finite numbers of shape '
            f'{(2, len(facts.classes))}'
        )
    strategy = parallel.make_strategy('jit', jax.local_devices()[:1])
    state = _fill(directory, abstract, expected, dtype) | {'score_mean': means}
    return run.Trained(
        config, facts, graphdef, strategy.place_state(state), step, strategy, origins, config_hash=config_hash
    )


def origin_of(path: str | os.PathLike, trained: run.Trained) -> Origin:
    """Returns the record of the training in a run or in the folder of a shared model; raises RunError."""
    directory = pathlib.Path(path)
    if not is_folder(directory):
        return _origin_of_run(directory, trained)
    record = read_record(directory)
    return Origin(
        **{name: record[name] for name in ('data', 'training', 'evaluation')},
        licence=record['weights'].get('licence'),
        limits=record.get('limits', ''),
        notes=tuple(record.get('notes', ())),
        dtype=record['weights'].get('dtype', 'float32'),
    )


def read_record(directory: pathlib.Path) -> dict[str, Any]:
    """Returns the content of config.json; raises RunError if it is not of a shared model of this format."""
    path = directory / CONFIG
    try:
        if path.stat().st_size > _MAX_CONFIG:
            raise RunError(f'{path} has {path.stat().st_size} bytes; expected at most {_MAX_CONFIG}')
        record = json.loads(path.read_text())
    except OSError as error:
        raise RunError(f'{path} cannot be read: {error.strerror}; expected the folder of a shared model') from None
    except (ValueError, RecursionError) as error:
        raise RunError(f'{path} is damaged or cut off: no JSON ({error}); copy or download it again') from None
    found = record.get('format') if isinstance(record, dict) else None
    if found != FORMAT:
        raise RunError(
            f'{path}: its format is {printable(repr(found))[:60]}; expected {FORMAT!r}, which save_pretrained writes; '
            'a folder of a later version needs that version, and other libraries have other formats'
        )
    return record


def named_tensors(*trees: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of nested dicts by their path, joined by dots."""
    leaves = jax.tree_util.tree_leaves_with_path(trees)
    return {_name(path[1:]): np.asarray(leaf) for path, leaf in leaves}


def _checked_dtype(dtype: Any) -> str:
    if dtype not in DTYPES:
        raise ValueError(f'dtype={dtype!r}; expected one of {", ".join(DTYPES)}')
    return dtype


def _stored_type(leaf, dtype: str) -> np.dtype:
    """Returns the type in which an array is stored: `dtype` for float32, its own type for another."""
    return np.dtype(dtype if leaf.dtype == np.float32 else leaf.dtype)


def _rounded(trained: run.Trained, dtype: str) -> run.Trained:
    """Returns the network with arrays of float32 rounded to `dtype`; raises RunError for numbers beyond its range."""
    try:
        _checked_dtype(dtype)
    except ValueError as error:
        raise RunError(str(error)) from None

    def rounded(path, leaf):
        array = np.asarray(leaf)
        with np.errstate(over='ignore'):
            narrow = array.astype(_stored_type(array, dtype)).astype(array.dtype)
        if not np.array_equal(np.isfinite(narrow), np.isfinite(array)):
            raise RunError(
                f'{_name(path)} holds {np.abs(array).max():g}, and {dtype} ends at {np.finfo(dtype).max:g}; '
                'give the dtype float32 to store the weights as they are'
            )
        return narrow

    arrays = {name: trained.state[name] for name in ('params', 'rest')}
    state = trained.state | {name: jax.tree_util.tree_map_with_path(rounded, tree) for name, tree in arrays.items()}
    return dataclasses.replace(trained, state=state)


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator='.')


def _format_of(directory: pathlib.Path) -> str | None:
    """Returns the format that config.json names, or None if it names none."""
    try:
        record = json.loads((directory / CONFIG).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    found = record.get('format') if isinstance(record, dict) else None
    return found if isinstance(found, str) and found.startswith(FORMAT.partition('/')[0]) else None


def _record(trained: run.Trained, origin: Origin) -> dict[str, Any]:
    """Returns config.json without the entry on the weights."""
    config = _without_paths(trained.config.to_dict())
    frames = {name: config['data'].pop(name) for name in _FRAMES}
    clips = trunk_setup.media_of(trained.facts.spec)
    # `load` in explain/model.py opens only runs that read videos.
    assert isinstance(clips, spec.ClipSpec)
    training = origin.training | {
        'step': trained.step,
        'config_hash': trained.hashes['config_hash'],
        'config': {name: value for name, value in config.items() if name != 'model'},
    }
    return {
        'format': FORMAT,
        'stattn_jax': __version__,
        'architecture': config['model'],
        'classes': list(trained.facts.classes),
        'multi_label': run.is_binary(trained.config, trained.facts),
        'input': clips.to_json() | frames,
        'front_end': dataclasses.asdict(MEL_PRESETS[clips.mel]),
        'training_means': np.asarray(trained.state['score_mean'], np.float32).tolist(),
        # A local path says nothing to others, and may contain a name.
        'trunks': [{name: value for name, value in trunk.items() if name != 'path'} for trunk in trained.trunks],
        'data': origin.data | {'fingerprint': trained.facts.fingerprint},
        'training': training,
        'evaluation': origin.evaluation,
        'limits': origin.limits,
        'notes': list(origin.notes),
    }


def _without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a config in JSON types in which a path is its last part."""
    config = json.loads(json.dumps(config))
    for name in _PATHS:
        *groups, field = name.split('.')
        group = config[groups[0]] if groups else config
        if group.get(field):
            group[field] = pathlib.PurePath(group[field]).name
    return config


def _config(record: dict[str, Any]) -> ml_collections.ConfigDict:
    fields = {'model': record['architecture'], **record['training']['config']}
    fields['data'] = fields['data'] | {name: record['input'][name] for name in _FRAMES}
    config = ml_collections.ConfigDict(renamed.fields(fields, CONFIG))
    for name in (config.data.frame_size, config.model.frame_size):
        if not isinstance(name, int) or not 1 <= name <= 4096:
            raise ValueError(f'frame_size={name!r}; expected a whole number from 1 to 4096')
    if config.model.kind != 'stan':
        raise ValueError(f"kind={config.model.kind!r}; expected 'stan'")
    return config


def _facts(record: dict[str, Any]) -> run.DataFacts:
    classes = tuple(record['classes'])
    if not classes or len(set(classes)) < len(classes) or not all(isinstance(name, str) for name in classes):
        raise ValueError('classes: expected different names')
    clips = {name: value for name, value in record['input'].items() if name not in _FRAMES}
    clip_spec = spec.ClipSpec.from_json(clips)
    if MelSpec(**record['front_end']) != MEL_PRESETS[clip_spec.mel]:
        raise ValueError(f'front_end: expected that of {clip_spec.mel!r} in this version')
    return run.DataFacts(classes, bool(record['multi_label']), clip_spec, str(record['data']['fingerprint']))


def _abstract(config: ml_collections.ConfigDict, facts: run.DataFacts) -> tuple[nnx.GraphDef, dict[str, Any]]:
    """Returns the static part of the network, and the shapes of its arrays, for which no memory is used."""
    shape = facts.shape(config)
    model = nnx.eval_shape(lambda: assemble.build_model(config, shape, None, nnx.Rngs(0)))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]  # as in training/step.py
    return graphdef, {'params': nnx.as_pure(params), 'rest': nnx.as_pure(rest)}


def _fill(directory: pathlib.Path, abstract: dict[str, Any], expected: str, dtype: str) -> dict[str, Any]:
    """Returns the state with the arrays of the weights' file; raises RunError if it does not hold exactly these.

    expected: the file's SHA-256; dtype: the type in which it stores arrays of float32.
    """
    path = directory / WEIGHTS
    try:
        found = find.sha256_of(path)
        if found != expected:
            raise RunError(
                f'{path} has the sha256 {found[:12]}, but {CONFIG} names {printable(expected)[:12]}; they are not of '
                'one model, or the file is damaged or cut off; copy or download both again'
            )
        tensors = safetensors.read_safetensors(path)
    except WeightsError as error:
        raise RunError(str(error)) from None
    wanted = {_name(path[1:]): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)}
    stored = {name: jax.ShapeDtypeStruct(x.shape, _stored_type(x, dtype)) for name, x in wanted.items()}
    for name in sorted(wanted.keys() | tensors.keys()):
        have, want = (_described(tree.get(name)) for tree in (tensors, stored))
        if have != want:
            raise RunError(f'{path} does not fit {CONFIG}: {printable(name)} is {have} there; expected {want}')
        if not np.isfinite(tensors[name]).all():
            raise RunError(f'{path}: {name} holds numbers that are not finite; expected those of a trained network')
    return jax.tree_util.tree_map_with_path(lambda path, x: tensors[_name(path[1:])].astype(x.dtype), abstract)


def _described(leaf) -> str:
    return 'no such array' if leaf is None else f'{leaf.dtype}{list(leaf.shape)}'


def _origin_of_run(workdir: pathlib.Path, trained: run.Trained) -> Origin:
    notes: list[str] = []
    written = _read_json(workdir / run.RUN_FILE)
    evaluation = {}
    for path in sorted(workdir.glob('eval_*.json')):
        numbers = {renamed.metric(name): value for name, value in _read_json(path).items()}
        if numbers.get('checkpoint/step') == trained.step:
            evaluation[path.stem.removeprefix('eval_')] = _finite(numbers)
        else:
            notes.append(
                f'{path.name} is of step {numbers.get("checkpoint/step")}, and the weights are of step {trained.step}: '
                'its numbers were left out.'
            )
    data, note = _data_of(trained)
    training = {name: written[name] for name in _RECORDED if name in written}
    return Origin(data, training, evaluation, notes=tuple(filter(None, [*notes, note])))


def _data_of(trained: run.Trained) -> tuple[dict[str, Any], str]:
    """Returns the name and the number of clips of the data set, and a note if its directory is not there any more."""
    directory = trained.config.data.dir
    name = pathlib.PurePath(directory).name
    try:
        info = source.DatasetInfo.load(directory)
    except (tfrecord.NoDataError, tfrecord.DataError, KeyError, OSError):
        return {'name': name}, 'The data set was not there when this was saved, so its numbers of clips are not known.'
    if info.fingerprint != trained.facts.fingerprint:
        return {'name': name}, 'The data set has changed since training, so its numbers of clips are not known.'
    return {'name': info.name, 'clips': info.splits, 'wanted': info.wanted}, ''


def _finite(numbers: dict[str, Any]) -> dict[str, Any]:
    """Returns numbers with None for those that JSON does not have (NaN, infinity)."""
    return {k: None if isinstance(x, float) and not math.isfinite(x) else x for k, x in numbers.items()}


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    """Returns the content of a file of a run, {} if there is none; raises RunError if it is damaged."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f'{path} cannot be read ({error}); expected the file that training wrote') from None
    return content if isinstance(content, dict) else {}
