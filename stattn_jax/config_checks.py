"""Checks of the values of a config's fields, before a run reads or writes anything.

configs/common.py declares the fields and their defaults.
"""

import ml_collections

from stattn_jax import models, names, strip
from stattn_jax.command import RunError
from stattn_jax.config_files.fields import flatten
from stattn_jax.data import pipeline
from stattn_jax.models import encoders, layers
from stattn_jax.models.trunks import registry
from stattn_jax.runtime import parallel

# Fields that may differ between a run and its continuation, because they cannot change its numbers.
FREE_FIELDS = tuple('parallel compile_cache data.dir data.threads train.log_every_steps train.keep eval.'.split())
FREE_FIELDS += ('train.best_metric', 'model.layers', 'model.remat')
POSITIVE_FIELDS = tuple('data.threads data.frame_size model.frame_size model.width model.heads model.hidden'.split())
POSITIVE_FIELDS += ('train.steps', 'train.batch', 'train.accumulate', 'train.log_every_steps', 'train.eval_every_steps')
POSITIVE_FIELDS += ('train.save_every_steps', 'train.keep', 'eval.batch', 'eval.shortcut_clips')
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


def check(config: ml_collections.ConfigDict) -> None:
    """Raises RunError for a field with a value that no run can have, before anything is read or written."""
    values = flatten(config.to_dict())
    for name in POSITIVE_FIELDS:
        if values[name] < 1:
            raise RunError(f'config.{name} is {values[name]}; expected 1 or more')
    if not 0 <= config.eval.strip_clips <= strip.MOST_CLIPS:
        raise RunError(
            f'config.eval.strip_clips is {config.eval.strip_clips}; expected 0 (no strip of clips) to '
            f'{strip.MOST_CLIPS}'
        )
    if not 0 <= config.seed < 2**31:
        raise RunError(f'config.seed is {config.seed}; expected 0 to {2**31 - 1}')
    for name, known in CHOICES.items():
        if values[name] not in known:
            raise RunError(f'config.{name} is {values[name]!r}; {names.expected(str(values[name]), known)}')
    if config.train.batch % config.train.accumulate:
        raise RunError(
            f'config.train.accumulate is {config.train.accumulate}; expected a divisor of config.train.batch, '
            f'{config.train.batch}, which it divides into micro-batches'
        )
    if config.model.width % config.model.heads:
        raise RunError(
            f'config.model.width is {config.model.width}; expected a multiple of config.model.heads, '
            f'{config.model.heads}'
        )
    try:
        models.check_options(config.model.kind, config.model)
    except ValueError as error:
        raise RunError(str(error)) from None
    of_audio = ('correspondence', 'mismatched_uniform', 'mismatched_mil')
    needs = (*(('guided', part) for part in of_audio), ('null_cell', 'correspondence'))
    if config.model.kind != 'stan':
        return
    for option, part in needs:
        if not config.model[option] and config.loss[part]:
            raise RunError(
                f'config.loss.{part} is {config.loss[part]}; expected 0 with config.model.{option}=False, where it has '
                'nothing to teach'
            )
    if config.model.uniform_space and config.loss.attention:
        raise RunError(
            f'config.loss.attention is {config.loss.attention}; expected 0 with config.model.uniform_space=True, where '
            'no attention is learned'
        )
    enabled = [part for part in of_audio if config.loss[part]]
    if enabled and config.loss.negatives < 1:
        raise RunError(
            f'config.loss.negatives is {config.loss.negatives}; expected 1 or more with config.loss.{enabled[0]} '
            f'{config.loss[enabled[0]]}'
        )
    clips = config.train.batch // config.train.accumulate
    if enabled and config.loss.negatives >= clips:
        raise RunError(
            f'config.loss.negatives is {config.loss.negatives}; expected fewer than '
            f'{"the clips of a micro-batch" if config.train.accumulate > 1 else "config.train.batch"}, {clips}, whose '
            f'other clips they are; give --config.loss.negatives={clips - 1}'
        )
