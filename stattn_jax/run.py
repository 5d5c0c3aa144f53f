"""The parts of a run, built from a config or restored from a workdir: config, facts about the data, model, state.

A run directory (workdir) holds config.json, run.json, metrics.jsonl, checkpoints/ and eval_SPLIT.json. train.py
contains the training loop.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import subprocess
import sys
from typing import Any

import jax
import ml_collections
import numpy as np
import optax
from flax import nnx

from stattn_jax import assemble, files, models, trunks
from stattn_jax.command import RunError, flatten
from stattn_jax.data import features, pipeline, records, source
from stattn_jax.data.mel import MEL_PRESETS
from stattn_jax.models import encoders, layers
from stattn_jax.models.trunks import registry
from stattn_jax.runtime import checkpoint, parallel
from stattn_jax.training import step

CONFIG_FILE, RUN_FILE, CHECKPOINTS = 'config.json', 'run.json', 'checkpoints'
# Fields that may differ between a run and its continuation, because they cannot change its numbers.
FREE_FIELDS = ('parallel', 'compile_cache', 'data.dir', 'data.threads', 'train.log_every_steps', 'train.keep', 'eval.')
FREE_FIELDS += ('train.best_metric', 'model.layers')
POSITIVE_FIELDS = ('data.threads', 'data.frame_size', 'model.frame_size', 'model.width', 'model.heads', 'model.hidden')
POSITIVE_FIELDS += ('train.steps', 'train.batch', 'train.log_every_steps', 'train.eval_every_steps')
POSITIVE_FIELDS += ('train.save_every_steps', 'train.keep', 'eval.batch', 'eval.leak_clips')
CHOICES = {
    'parallel': parallel.KINDS,
    'data.fit': pipeline.FITS,
    'model.kind': models.KINDS,
    'model.visual': (*registry.trunks('visual'), encoders.PRECOMPUTED),
    'model.audio': (*registry.trunks('audio'), encoders.PRECOMPUTED),
    'model.dtype': ('float32', 'bfloat16'),
    'model.layers': (layers.AUTO, *layers.FORMS),
    'optim.name': ('adamw', 'sgd'),
}
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
        visual, audio = trunks.parts_of(self.spec)
        frame = (config.model.frame_size,) * 2
        # The grid of features is fixed by the data; the frame size of the config does not apply.
        if isinstance(self.spec, features.FeatureSpec):
            frame = self.spec.visual[:2]
        elif visual:
            frame = visual.shape[:2]
        extracted = (visual is not None, audio is not None)
        return assemble.InputSpec(len(self.classes), self.spec.channels, frame, extracted)

    def mel_log(self) -> tuple[float, float]:
        """Returns (scale, offset) of the logarithm in these data's log-mel, for augmentation."""
        spec = trunks.media_of(self.spec)
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

    `trunks` records where the weights of the trunks come from (trunks.load).
    """

    config: ml_collections.ConfigDict
    facts: DataFacts
    graphdef: nnx.GraphDef
    state: step.State
    step: int
    strategy: Any
    trunks: tuple[dict[str, Any], ...] = ()


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


def check(config: ml_collections.ConfigDict) -> None:
    """Raises RunError for a field with a value that no run can have, before anything is read or written."""
    values = flatten(config.to_dict())
    for name in POSITIVE_FIELDS:
        if values[name] < 1:
            raise RunError(f'config.{name} is {values[name]}; expected 1 or more')
    if not 0 <= config.seed < 2**31:
        raise RunError(f'config.seed is {config.seed}; expected 0 to {2**31 - 1}')
    for name, known in CHOICES.items():
        if values[name] not in known:
            raise RunError(f'config.{name} is {values[name]!r}; expected one of {", ".join(known)}')
    if config.model.width % config.model.heads:
        raise RunError(
            f'config.model.width is {config.model.width}; expected a multiple of config.model.heads, '
            f'{config.model.heads}'
        )
    try:
        models.check_options(config.model.kind, config.model)
    except ValueError as error:
        raise RunError(str(error)) from None
    needs = (('guided', 'match'), ('guided', 'swap'), ('guided', 'foreign'), ('null_cell', 'match'))
    for option, part in needs:
        if config.model.kind == 'stan' and not config.model[option] and config.loss[part]:
            raise RunError(
                f'config.loss.{part} is {config.loss[part]}; expected 0 with config.model.{option}=False, where it has '
                'nothing to teach'
            )
    if config.model.kind == 'stan' and config.model.uniform_space and config.loss.attention:
        raise RunError(
            f'config.loss.attention is {config.loss.attention}; expected 0 with config.model.uniform_space=True, where '
            'no attention '
            'is learned'
        )
    enabled = [part for part in ('match', 'swap', 'foreign') if config.loss[part]]
    if config.model.kind == 'stan' and enabled and config.loss.negatives < 1:
        raise RunError(
            f'config.loss.negatives is {config.loss.negatives}; expected 1 or more with config.loss.{enabled[0]} '
            f'{config.loss[enabled[0]]}'
        )
    if config.model.kind == 'stan' and enabled and config.loss.negatives >= config.train.batch:
        raise RunError(
            f'config.loss.negatives is {config.loss.negatives}; expected fewer than config.train.batch, '
            f'{config.train.batch}, whose other '
            f'clips they are; give --config.loss.negatives={config.train.batch - 1}'
        )


def is_binary(config: ml_collections.ConfigDict, facts: DataFacts) -> bool:
    """Returns whether each class has an independent sigmoid; otherwise there is one softmax over classes."""
    return facts.multi_label or config.loss.binary


def make_state(
    config: ml_collections.ConfigDict, facts: DataFacts, axis: str | None, abstract: bool = False
) -> tuple[nnx.GraphDef, step.State, optax.GradientTransformation, optax.Schedule]:
    """Returns the model's static part, its state at step 0, the optimiser and its schedule.

    With `abstract` the state holds only shapes and dtypes.
    """
    return assemble.make_state(config, facts.shape(config), axis, abstract)


def load(workdir: str, *, parallel_kind: str | None = None, devices=None) -> Trained:
    """Restores the best checkpoint by the selection metric, or the latest where no checkpoint has that metric.

    Raises RunError where there is no checkpoint, and for a run of another version whose config lacks a field.
    """
    directory = pathlib.Path(workdir) / CHECKPOINTS
    if not directory.is_dir():
        raise RunError(
            f'{workdir} holds no {CHECKPOINTS}/; expected the --workdir of a finished or stopped training run'
        )
    saved = json.loads((pathlib.Path(workdir) / CONFIG_FILE).read_text())
    saved['model'].setdefault('layers', layers.AUTO)  # runs from before 2026-11-27 lack this field
    missing = sorted({*CHOICES, *POSITIVE_FIELDS, 'loss.binary'} - set(flatten(saved)))
    if missing:
        raise RunError(
            f'{workdir} was trained by another version: its {CONFIG_FILE} lacks {", ".join(missing)}; train again, or '
            'use the version '
            f'whose commit {RUN_FILE} names'
        )
    config = ml_collections.ConfigDict(saved)
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


def reading(trained: Trained, spec: records.Spec) -> Trained:
    """Returns the same trained network for data in another form.

    A network trained on features that its trunks extracted then reads frames and log-mel, or the reverse.
    """
    if spec == trained.facts.spec:
        return trained
    facts = dataclasses.replace(trained.facts, spec=spec)
    graphdef, *_ = make_state(trained.config, facts, trained.strategy.axis, abstract=True)
    return dataclasses.replace(trained, graphdef=graphdef)


def record(config: ml_collections.ConfigDict, facts: DataFacts, strategy) -> dict[str, Any]:
    """Returns what run.json and every checkpoint record of a run: versions, devices, git commit, seed, data."""
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
    """Returns a short hash of all fields of the config."""
    return hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()[:12]


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


def check_workdir(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Raises RunError, with the differing fields, where a workdir was begun with another config."""
    path = workdir / CONFIG_FILE
    if path.exists():
        begun, current = flatten(json.loads(path.read_text())), flatten(json.loads(json.dumps(config.to_dict())))
        differing = [
            f'{name} is {current.get(name)!r}, was {begun.get(name)!r}'
            for name in sorted(begun.keys() | current.keys())
            if begun.get(name) != current.get(name) and not name.startswith(FREE_FIELDS)
        ]
        if differing:
            raise RunError(
                f'--workdir={workdir} was begun with another config ({"; ".join(differing)}); '
                'give the same values to continue, or another --workdir'
            )


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes JSON to a temporary file, which gets its final name only when it is complete."""
    with files.whole_file(path) as file:
        file.write((json.dumps(content, indent=1, sort_keys=True) + '\n').encode())
