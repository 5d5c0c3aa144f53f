"""Runs frozen trunks once: turns a data set of frames and audio into one of the features of published networks.

  python -m data_prep.extract --data=DATA --out=FEATURES --visual=efficientnet_lite0_multi --visual_weights=imagenet
  python -m data_prep.extract --data=DATA --out=FEATURES --audio=NAME --audio_weights=FILE [--views=4] [--runner=beam]

A modality without a trunk is copied unchanged: frames as JPEGs, audio as log-mel. Labels, events, boxes and notes are
copied too. A run on such data trains only the layers after the trunks (config.model.visual_frozen), and its checkpoint
can explain video files, since it contains the trunks. --views keeps augmented versions of the frames beside the
unaugmented one; training samples one at random each time.

This is the only command of data_prep that needs JAX and the networks. prepare.py writes the shards,
stattn_jax/data/extracted.py defines the records, and stattn_jax/weights/ loads the weights.
"""

import dataclasses
import functools
import os
import pathlib
import zlib
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx

from data_prep import cli, prepare, published, report
from data_prep.work import Job, PrepareError, UsageError
from stattn_jax.data import extracted, media, pipeline, records, source, tfrecord
from stattn_jax.data.extracted import ExtractedSpec, Extraction
from stattn_jax.models.trunks import registry
from stattn_jax.models.trunks.trunk import Trunk
from stattn_jax.runtime import perf
from stattn_jax.training import augment
from stattn_jax.weights import find
from stattn_jax.weights.errors import WeightsError

FLAGS = flags.FlagValues()
define = cli.definers(FLAGS)
define.string('data', None, 'Data set directory of pictures and sound.', required=True)
define.string('visual', None, 'Trunk for the frames; without one they stay JPEGs.')
define.string('visual_weights', None, 'Its weights: a file, or a name such as imagenet.')
define.string('audio', None, 'Trunk for the log-mel; without one it stays log-mel.')
define.string('audio_weights', None, 'Its weights: a file, or a name.')
define.integer('frame_size', 224, 'Side of the frames that the trunk sees, in pixels.', lower_bound=8)
define.enum('fit', 'squash', pipeline.FITS, 'The whole frame made square, or its central square.')
define.integer('views', 1, 'Versions of the pictures of a clip: the plain one and augmented ones.', lower_bound=1)
_share = functools.partial(define.float, lower_bound=0.0, upper_bound=1.0)
_share('crop', 0.6, 'Of augmented views: the smallest side of the crop, as a share of the frame.')
_share('flip', 0.5, 'Of augmented views: the probability of mirroring.')
_share('colour', 0.3, 'Of augmented views: the largest change of brightness.')
define.integer('seed', 0, 'Of the augmented views.', lower_bound=0, upper_bound=2**31 - 1)
published.define_engine_flags(FLAGS, None)

# On a CPU each process computes in one thread: several processes are faster, and any number of them give the same sums.
_ONE_THREAD = '--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1'


def main(beam: list[str]) -> None:
    data = published.folder(FLAGS, 'data', 'a data set directory that data_prep wrote')
    info = source.DatasetInfo.load(data)
    spec = make_spec(info)
    # The variable is read when the first backend starts, here and in the processes that this one starts.
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {_ONE_THREAD}'.strip()
    prepare.prepare(
        FLAGS.out,
        FLAGS.name or info.name,
        list_jobs(data, info),
        functools.partial(make_record, str(data)),
        classes=info.classes,
        spec=spec,
        multi_label=info.multi_label,
        workers=_workers(),
        require=None if FLAGS.require is None else cli.parse_require(FLAGS.require),
        beam=cli.beam_options(FLAGS.runner, beam),
        finish=functools.partial(_write_absent, spec),
    )


def _workers() -> int | None:
    """Returns the number of processes: as requested on a CPU, none but this one on an accelerator (its memory).

    Only frames that data_prep stored are decoded, so that no foreign file can end this process.
    """
    platform = jax.default_backend()
    if platform == 'cpu':
        return FLAGS.workers
    if (FLAGS.workers or 1) > 1:
        raise UsageError(f'--workers={FLAGS.workers}: one process fills the {platform}; leave --workers out')
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# From flags to a spec and jobs
# ---------------------------------------------------------------------------------------------------------------------


def make_spec(info: source.DatasetInfo) -> ExtractedSpec:
    """Returns the spec for the flags; raises UsageError for incompatible trunks, weights and sizes."""
    spec = info.spec
    if not isinstance(spec, media.ClipSpec):
        raise UsageError(f'--data={FLAGS.data} holds features already; give the data set of pictures and sound')
    visual, audio = (_extraction(modality, spec) for modality in ('visual', 'audio'))
    if visual is None and audio is None:
        raise UsageError(
            'nothing to extract; give --visual and --visual_weights, or --audio and --audio_weights, or all four'
        )
    if FLAGS.views > 1 and visual is None:
        raise UsageError(f'--views={FLAGS.views} are versions of the pictures; give --visual, or leave --views out')
    return ExtractedSpec(spec, visual, audio, info.fingerprint)


def _extraction(modality: str, spec: media.ClipSpec) -> Extraction | None:
    name, weights = FLAGS[modality].value, FLAGS[f'{modality}_weights'].value
    if not name:
        if weights:
            raise UsageError(f'--{modality}_weights={weights} without a trunk; give --{modality} too')
        return None
    trunk = _published(modality, name)
    if not weights:
        names = ''.join(f' or {known}' for known in trunk.published.packages)
        raise UsageError(f'--{modality}={name} needs --{modality}_weights: a file{names}: {trunk.published.source}')
    if modality == 'audio' and trunk.mel not in (None, spec.mel):
        raise UsageError(
            f'--audio={name} reads log-mel of the front end {trunk.mel}, but --data={FLAGS.data} holds {spec.mel}; '
            f'prepare the data again with --mel={trunk.mel}'
        )
    if modality == 'visual' and FLAGS.frame_size % trunk.multiple:
        raise UsageError(
            f'--frame_size={FLAGS.frame_size}: --visual={name} takes multiples of {trunk.multiple} pixels; '
            'give such a size'
        )
    try:
        found = find.locate(modality, name, weights)
    except WeightsError as error:
        raise UsageError(f'--{modality}_weights: {error}') from None
    if weights not in trunk.published.packages:
        weights = str(pathlib.Path(weights).absolute())
    common = {'trunk': name, 'weights': weights, 'sha256': found.sha256, 'licence': found.licence}
    if modality == 'audio':
        return Extraction(**common, shape=_output(trunk, spec.mel_shape[1:]))
    options = {'views': FLAGS.views, 'frame_size': FLAGS.frame_size, 'fit': FLAGS.fit}
    if FLAGS.views > 1:
        options |= {name: FLAGS[name].value for name in ('crop', 'flip', 'colour', 'seed')}
    return Extraction(**common, shape=_output(trunk, (FLAGS.frame_size, FLAGS.frame_size, 3)), **options)


def _published(modality: str, name: str) -> Trunk:
    """Returns a trunk that has published weights; raises UsageError for any other name."""
    known = {name: trunk for name, trunk in registry.trunks(modality).items() if trunk.published is not None}
    if name not in known:
        reason = 'no weights are published for it, and features of random weights are worth nothing'
        if name not in registry.trunks(modality):
            reason = 'there is no such trunk'
        raise UsageError(f'--{modality}={name}: {reason}; expected one of {", ".join(known)}')
    return known[name]


def _output(trunk: Trunk, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of a trunk's output for one frame or segment."""
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    try:
        return jax.eval_shape(lambda x: _build(trunk)(x, train=False), x).shape[1:]
    except ValueError as error:
        # The trunk's message describes the problem, such as a front-end of fixed length or a grid that does not fit.
        raise UsageError(str(error)) from None


def list_jobs(data: pathlib.Path, info: source.DatasetInfo) -> list[Job]:
    """Returns a job for each record and for each clip that was skipped when the data were made.

    The skipped clips stay counted. Raises PrepareError if the outcomes of that preparation are missing.
    """
    jobs = []
    for split in info.splits:
        number = 0
        for path in info.shard_paths(data, split):
            try:
                outcome = report.read_outcome(data, path.name)
            except FileNotFoundError as error:
                raise PrepareError(
                    f'{error.filename}: no such file; run the data_prep command that made {data} again'
                ) from None
            for clip_id in outcome.used:
                jobs.append(Job(clip_id, split, (), payload={'record': number}))
                number += 1
            for clip_id, reason, detail in outcome.skipped:
                jobs.append(Job(clip_id, split, (), payload={'skipped': [reason, detail]}))
    return jobs


# ---------------------------------------------------------------------------------------------------------------------
# From a record to its features
# ---------------------------------------------------------------------------------------------------------------------


def make_record(data: str, job: Job, spec: ExtractedSpec) -> records.ClipRecord:
    """Returns the job's record with features in place of the trunks' inputs."""
    if 'skipped' in job.payload:
        raise media.MediaError(*job.payload['skipped'])
    try:
        of_split = _source(data, job.split)
    except tfrecord.DataError as error:
        raise PrepareError(str(error)) from None
    try:
        record = of_split[job.payload['record']]
    except tfrecord.DataError as error:
        raise media.MediaError('damaged_record', str(error)) from None
    clip = cast(media.Clip, record.clip)
    content: dict[str, Any] = {'frames': clip.frames, 'log_mel': clip.log_mel, 'visual': None, 'audio': None}
    if spec.visual:
        content |= {'frames': None, 'visual': _stored('visual', _views(record, spec.visual))}
    if spec.audio:
        content |= {'log_mel': None, 'audio': _stored('audio', _runner('audio', spec.audio)(clip.log_mel)[None])}
    kept: dict[str, Any] = {name: getattr(clip, name) for name in ('valid', 'height', 'width', 'duration', 'notes')}
    return dataclasses.replace(record, clip=extracted.ExtractedClip(**content, **kept))


@functools.lru_cache
def _source(data: str, split: str) -> source.RecordSource:
    return source.RecordSource(data, split)


def _views(record: records.ClipRecord, visual: Extraction) -> np.ndarray:
    """Computes the trunk's features of each version of a clip's frames: [v t h w d]."""
    frames = pipeline.clip_arrays(record, visual.frame_size, visual.fit)['frames'].astype(np.float32) / 255
    run = _runner('visual', visual)
    key = jax.random.fold_in(jax.random.key(visual.seed), np.uint32(zlib.crc32(record.clip_id.encode())))
    others = [_augmented(jax.random.fold_in(key, view), frames, visual) for view in range(1, visual.views)]
    return np.stack([run(x) for x in (frames, *others)])


@functools.partial(jax.jit, static_argnums=2)
def _augmented(key: jax.Array, frames: jax.Array, visual: Extraction) -> jax.Array:
    options = augment.Augment(crop=visual.crop, flip=visual.flip, colour=visual.colour)
    return augment.augment_frames(key, frames[None], visual.frame_size, options)[0]


def _build(trunk: Trunk) -> nnx.Module:
    return trunk.build(axis_name=None, dtype=jnp.float32, rngs=nnx.Rngs(0))


@functools.lru_cache
def _runner(modality: str, part: Extraction):
    """Returns the trunk with its weights as a function, compiled once per process.

    It maps frames in 0..1 [t H W 3], or log-mel [t f k], to features [t ...].
    """
    trunk = registry.find(modality, part.trunk)
    graphdef, state = nnx.split(nnx.eval_shape(lambda: _build(trunk)))
    try:
        filled, origin = find.load(modality, part.trunk, part.weights, nnx.as_pure(state))
    except WeightsError as error:
        raise PrepareError(str(error)) from None
    if origin.sha256 != part.sha256:
        raise PrepareError(
            f'{origin.path} has changed since this extraction began; put the file back, or give another --out'
        )
    filled, mean, std = jax.device_put((filled, np.asarray(trunk.mean, np.float32), np.asarray(trunk.std, np.float32)))

    def run(state, x):
        return nnx.merge(graphdef, state)((x.astype(jnp.float32) - mean) / std, train=False)

    compiled = jax.jit(run, compiler_options=perf.compile_options())
    return lambda x: np.asarray(compiled(filled, x))


def _stored(name: str, x: np.ndarray) -> np.ndarray:
    """Converts features to float16; raises MediaError if they are not finite."""
    with np.errstate(over='ignore'):
        stored = x.astype(np.float16)
    if not np.isfinite(stored).all():
        raise media.MediaError('bad_features', f'the {name} features hold NaN or values that are no float16')
    return stored


def _write_absent(spec: ExtractedSpec, out: pathlib.Path) -> None:
    """Writes the visual trunk's features of a black frame."""
    if spec.visual:
        black = np.zeros((spec.segments, spec.visual.frame_size, spec.visual.frame_size, 3), np.float32)
        extracted.write_absent(out, _stored('visual', _runner('visual', spec.visual)(black)[0]))


if __name__ == '__main__':
    # Imported by this name, not as __main__, so that workers of any runner find make_record.
    from data_prep import extract

    cli.run(extract.main, extract.FLAGS, __doc__)
