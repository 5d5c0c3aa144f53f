"""The parts of a run, built from a config or restored from a workdir: config, facts about the data, model, state.

A run directory (workdir) holds config.json, run.json, metrics.jsonl, checkpoints/ and eval_SPLIT.json. train.py
contains the training loop.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import ml_collections
import numpy as np
import optax
from flax import nnx
from ml_collections import config_dict

from stattn_jax import assemble, config_checks, files, renamed, trunk_setup
from stattn_jax.command import RunError
from stattn_jax.config_files.fields import flatten
from stattn_jax.data import features, records, source
from stattn_jax.data.mel import MEL_PRESETS
from stattn_jax.runtime import checkpoint, parallel
from stattn_jax.training import optim, step

CONFIG_FILE, RUN_FILE, CHECKPOINTS = 'config.json', 'run.json', 'checkpoints'
TRAINING_DISTANCE = 'training_distance.npz'
PACKAGES = tuple('jax jaxlib flax optax orbax-checkpoint grain numpy tensorflow-datasets librosa av'.split())


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """The facts about the training data on which the model and its explanations depend."""

    classes: tuple[str, ...]
    multi_label: bool
    spec: records.Spec
    fingerprint: str

    @classmethod
    def of(cls, info: source.DatasetInfo) -> 'DataFacts':
        return cls(info.classes, info.multi_label, info.spec, info.fingerprint)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> 'DataFacts':
        return cls(
            tuple(record['classes']),
            record['multi_label'],
            records.spec_from_json(record['spec']),
            record['fingerprint'],
        )

    def shape(self, config: ml_collections.ConfigDict) -> assemble.InputSpec:
        """Returns the properties of these data on which the network's shapes depend."""
        visual, audio = trunk_setup.parts_of(self.spec)
        frame = (config.model.frame_size, config.model.frame_size)
        # The grid of features is fixed by the data; the frame size of the config does not apply.
        if isinstance(self.spec, features.FeatureSpec):
            frame = self.spec.visual[:2]
        elif visual:
            frame = (visual.shape[0], visual.shape[1])
        extracted = (visual is not None, audio is not None)
        return assemble.InputSpec(len(self.classes), self.spec.channels, frame, extracted)

    def mel_log(self) -> tuple[float, float]:
        """Returns (scale, offset) of the logarithm in these data's log-mel, for augmentation."""
        spec = trunk_setup.media_of(self.spec)
        return MEL_PRESETS[getattr(spec, 'mel', 'vggish')].logarithm

    def to_json(self) -> dict[str, Any]:
        return {
            'classes': list(self.classes),
            'multi_label': self.multi_label,
            'spec': self.spec.to_json(),
            'fingerprint': self.fingerprint,
        }


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model restored from a workdir, with its state on the devices of `strategy`.

    `trunks` records where the weights of the trunks come from (trunk_setup.load).
    `config_hash` is that of the run's own config, where `config` comes from a shared model and lacks local paths.
    """

    config: ml_collections.ConfigDict
    facts: DataFacts
    graphdef: nnx.GraphDef
    state: step.State
    step: int
    strategy: Any
    trunks: tuple[dict[str, Any], ...] = ()
    config_hash: str | None = None

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """The hashes that identify the network in records: `config_hash` and `parameter_hash`."""
        own = self.config_hash or config_hash(self.config)
        return {'config_hash': own, 'parameter_hash': parameter_hash(self.state)}


def make_strategy(config: ml_collections.ConfigDict, *batches: int):
    """Returns the strategy of cfg.parallel over all devices.

    Raises RunError where one of `batches` does not split evenly over them.
    """
    try:
        strategy = parallel.make_strategy(config.parallel)
        for batch in batches:
            strategy.check_batch(batch)
    except ValueError as error:
        raise RunError(str(error)) from None
    return strategy


def check_micro_batches(config: ml_collections.ConfigDict, strategy) -> None:
    """Raises RunError where a micro-batch (cfg.train.accumulate) does not split evenly over the devices."""
    count, clips = len(strategy.devices), config.train.batch // config.train.accumulate
    if clips % count:
        raise RunError(
            f'config.train.accumulate is {config.train.accumulate}, so that a micro-batch has {clips} of '
            f'config.train.batch {config.train.batch} clips, which do not split over {count} devices; expected a '
            f'multiple of {count}; give a smaller --config.train.accumulate'
        )


def input_options(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the options of pipeline.train_batches and eval_batches that follow from the config and the processes."""
    return {
        'process_index': jax.process_index(),
        'process_count': jax.process_count(),
        'threads': config.data.threads,
        'frame_size': config.data.frame_size,
        'fit': config.data.fit,
    }


def is_binary(config: ml_collections.ConfigDict, facts: DataFacts) -> bool:
    """Returns whether each class has an independent sigmoid; otherwise there is one softmax over classes."""
    return facts.multi_label or config.loss.multi_label


def make_state(
    config: ml_collections.ConfigDict, facts: DataFacts, axis: str | None, abstract: bool = False
) -> tuple[nnx.GraphDef, step.State, optax.GradientTransformation, optax.Schedule]:
    """Returns the model's static part, its state at step 0, the optimiser and its schedule.

    With `abstract` the state holds only shapes and dtypes.
    """
    return assemble.make_state(config, facts.shape(config), axis, abstract)


def load(workdir: str | os.PathLike, *, parallel_kind: str | None = None, devices=None) -> Trained:
    """Restores the best checkpoint by the selection metric, or the latest where no checkpoint has that metric.

    Raises RunError where there is no checkpoint, and for a run of another version whose config lacks a field.
    """
    directory = pathlib.Path(workdir) / CHECKPOINTS
    if not directory.is_dir():
        raise RunError(
            f'{workdir} holds no {CHECKPOINTS}/; expected the --workdir of a finished or stopped training run'
        )
    config = saved_config(workdir)
    checkpointer = checkpoint.Checkpointer(str(directory), best_metric=config.train.best_metric, read_only=True)
    try:
        number = checkpointer.best()
        number = checkpointer.latest() if number is None else number
        if number is None:
            raise RunError(f'{directory} holds no complete checkpoint; train first: --mode=train --workdir={workdir}')
        meta = checkpointer.load_meta(number)
        facts = DataFacts.from_json(meta['data'])
        strategy = parallel.make_strategy(parallel_kind or config.parallel, devices)
        graphdef, state, *_ = make_state(config, facts, strategy.axis, abstract=True)
        state, _ = checkpointer.restore(number, strategy.abstract(state))
        origins = tuple(meta.get('trunks', ()))
        return Trained(config, facts, graphdef, strategy.place_state(state), number, strategy, origins)
    finally:
        checkpointer.close()


def with_spec(trained: Trained, spec: records.Spec) -> Trained:
    """Returns the same trained network for data in another form.

    A network trained on features that its trunks extracted then reads frames and log-mel, or the reverse.
    """
    if spec == trained.facts.spec:
        return trained
    facts = dataclasses.replace(trained.facts, spec=spec)
    graphdef, *_ = make_state(trained.config, facts, trained.strategy.axis, abstract=True)
    return dataclasses.replace(trained, graphdef=graphdef)


def record(config: ml_collections.ConfigDict, facts: DataFacts, strategy) -> dict[str, Any]:
    """Returns the record of a run for run.json and every checkpoint: versions, devices, git commit, seed, data."""
    return {
        'command': ' '.join(sys.argv),
        'seed': config.seed,
        'git_commit': git_commit(),
        'python': sys.version.split()[0],
        'versions': versions(),
        'devices': strategy.describe(),
        'config_hash': config_hash(config),
        'data': facts.to_json(),
    }


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def config_hash(config: ml_collections.ConfigDict) -> str:
    """Returns a short hash of all fields of the config; a relative folder has the hash of the same absolute one."""
    content = config.to_dict()
    for group, field in _folders(content):
        group[field] = os.path.abspath(group[field])
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _folders(content: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Returns the group and the name of each field of a config that names a folder."""
    fields = ((content['data'], 'dir'), (content, 'compile_cache'))
    return [(group, field) for group, field in fields if group[field]]


def parameter_hash(state: step.State) -> str:
    """Returns a short hash of the bits of all parameters and statistics."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((state['params'], state['rest'])):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:12]


def git_commit() -> str | None:
    """Returns the commit of the source tree, with '+' if it has changes; None where it is not a checkout."""
    root = pathlib.Path(__file__).parent

    def git(*words):
        return subprocess.run(['git', '-C', root, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git('rev-parse', '--short=12', 'HEAD') + ('+' if git('status', '--porcelain') else '')
    except (OSError, subprocess.CalledProcessError):
        return None


def save_config(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Writes config.json, with folders by which the run can be evaluated from any current folder.

    A folder inside of the workdir, such as that of extracted features, is relative to it, so that both can be moved.
    """
    content, root = config.to_dict(), workdir.absolute()
    for group, field in _folders(content):
        path = pathlib.Path(group[field]).absolute()
        group[field] = str(path.relative_to(root) if path.is_relative_to(root) else path)
    write_json(workdir / CONFIG_FILE, content)


def saved_config(workdir: str | os.PathLike) -> ml_collections.ConfigDict:
    """Returns the config that a run was begun with, with the present names of its fields.

    Raises RunError where there is none, and for a run of another version whose config lacks a field.
    """
    path = pathlib.Path(workdir) / CONFIG_FILE
    try:
        saved = json.loads(path.read_text())
        if not isinstance(saved, dict):
            raise ValueError('not a JSON object')
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise RunError(
            f'--workdir={workdir} has no {CONFIG_FILE} that can be read ({reason}); expected that of a training run'
        ) from None
    renamed.fields(saved, str(path))
    needed = {*config_checks.CHOICES, *config_checks.POSITIVE_FIELDS, 'data.dir', 'compile_cache', 'loss.multi_label'}
    missing = sorted(needed - set(flatten(saved)))
    if missing:
        raise RunError(
            f'{workdir} was trained by another version: its {CONFIG_FILE} lacks {", ".join(missing)}; train again, or '
            f'use the version whose commit {RUN_FILE} names'
        )
    for group, field in _folders(saved):
        # Before 2026-11-27, relative folders were saved as they were given, relative to the current folder.
        inside = pathlib.Path(workdir, group[field]).absolute()
        group[field] = str(inside) if inside.exists() else group[field]
    return ml_collections.ConfigDict(_with_types(saved))


def _with_types(value: Any) -> Any:
    """Returns JSON as the content of a config: lists are tuples, and None is a field for a string."""
    if isinstance(value, dict):
        return {name: _with_types(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return tuple(_with_types(inner) for inner in value)
    return config_dict.placeholder(str) if value is None else value


def check_workdir(workdir: pathlib.Path, config: ml_collections.ConfigDict, *, lengthen: bool = False) -> None:
    """Raises RunError, with the differing fields, where a workdir was begun with another config.

    lengthen: more steps than the run was begun with are no difference.
    """
    free = config_checks.FREE_FIELDS + (('train.steps',) if lengthen and steps_before(workdir, config) else ())
    if (workdir / CONFIG_FILE).exists():
        begun, current = (flatten(json.loads(json.dumps(each.to_dict()))) for each in (saved_config(workdir), config))
        differing = [
            f'{name} is {current.get(name)!r}, was {begun.get(name)!r}'
            for name in sorted(begun.keys() | current.keys())
            if begun.get(name) != current.get(name) and not name.startswith(free)
        ]
        if differing:
            raise RunError(
                f'--workdir={workdir} was begun with another config ({"; ".join(differing)}); '
                'give the same values to continue, or another --workdir'
            )


def steps_before(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> int | None:
    """Returns the number of steps that a run was begun with, if the config has more; otherwise None."""
    steps = saved_config(workdir).train.steps if (workdir / CONFIG_FILE).exists() else config.train.steps
    return steps if steps < config.train.steps else None


def lengthened(workdir: pathlib.Path, config: ml_collections.ConfigDict, start: int) -> tuple[list[dict], str]:
    """Returns the record of each time that a run was lengthened, and a line about this time ('' if it is not).

    The schedule of the learning rate depends on the total number of steps. A run that continues from step `start` with
    a larger total follows the new schedule from there: the rate, which had fallen towards 0, rises again, so that the
    result differs from that of a run which had the larger total from the start.
    """
    path = workdir / RUN_FILE
    known = json.loads(path.read_text()).get('lengthened', []) if path.exists() else []
    before = steps_before(workdir, config)
    if not (start and before):
        return known, ''
    options = {'lr': config.optim.lr, 'warmup_steps': config.optim.warmup_steps}
    rates = [float(optim.make_schedule(total_steps=total, **options)(start)) for total in (before, config.train.steps)]
    line = (
        f'lengthened at step {start}, from {before} to {config.train.steps} steps: the learning rate follows the '
        f'schedule of {config.train.steps} steps from here ({rates[1]:.2g}, where it was {rates[0]:.2g}); the result '
        f'is not that of {config.train.steps} steps from the start'
    )
    return [*known, {'at_step': start, 'from': before, 'to': config.train.steps}], line


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes JSON to a temporary file, which gets its final name only when it is complete."""
    files.write_text(path, json.dumps(content, indent=1, sort_keys=True) + '\n')
