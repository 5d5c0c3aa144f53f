"""Builds the parts of a compiled program from a config: the network, its state, the optimiser and the training step.

This module needs only JAX and Flax, and no data. run.py adds the data and the run directory (workdir).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import nnx

from stattn_jax import models
from stattn_jax.models import layers
from stattn_jax.models.encoders import Encoders
from stattn_jax.models.layers import recompute
from stattn_jax.runtime import perf
from stattn_jax.training import augment, optim, step

# Fields of cfg.model that describe the input or the initial weights and are not arguments of the network.
NOT_OF_THE_NETWORK = ('frame_size', 'visual_weights', 'audio_weights', 'layers', 'remat')


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """The properties of the data on which the network's shapes depend.

    classes: number of classes.
    channels: channels of the visual and of the audio input.
    frame: rows and columns of a frame.
    extracted: whether the visual and the audio input are the output of a frozen trunk (models/encoders.py).
    """

    classes: int
    channels: tuple[int, int]
    frame: tuple[int, int]
    extracted: tuple[bool, bool] = (False, False)


def make_optimiser(config: ml_collections.ConfigDict) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Returns the optimiser and its learning-rate schedule from cfg.optim and cfg.train.steps."""
    options = config.optim.to_dict()
    schedule = optim.make_schedule(
        lr=options.pop('lr'), warmup_steps=options.pop('warmup_steps'), total_steps=config.train.steps
    )
    return optim.make_optimiser(schedule, **options), schedule


def build_model(config: ml_collections.ConfigDict, shape: InputSpec, axis: str | None, rngs: nnx.Rngs) -> Encoders:
    """Builds the network of cfg.model for data of this shape, with its parameters initialised from `rngs`."""
    options = {name: value for name, value in config.model.to_dict().items() if name not in NOT_OF_THE_NETWORK}
    options |= {'channels': shape.channels, 'frame': shape.frame, 'extracted': shape.extracted}
    model = models.build(shape.classes, rngs=rngs, axis_name=axis, **options)
    layers.set_form(model, config.model.layers)
    recompute.set_remat(model, config.model.remat)
    return model


def make_state(
    config: ml_collections.ConfigDict, shape: InputSpec, axis: str | None, abstract: bool = False
) -> tuple[nnx.GraphDef, step.State, optax.GradientTransformation, optax.Schedule]:
    """Returns the model's static part, its state at step 0, the optimiser and its schedule.

    With `abstract` the state holds only shapes and dtypes.
    """
    optimiser, schedule = make_optimiser(config)

    def build(key):
        return build_model(config, shape, axis, nnx.Rngs(key))

    def init(seed):
        return step.init_state(build(jax.random.key(seed)), optimiser, shape.classes, seed)

    seed = jnp.int32(config.seed)
    # One compiled program serves every seed; without jit, each operation of each initialiser would be compiled.
    jitted = jax.jit(init, compiler_options=perf.compile_options_once())
    state = jax.eval_shape(init, seed) if abstract else jitted(seed)
    return nnx.graphdef(nnx.eval_shape(build, jax.random.key(seed))), state, optimiser, schedule


def make_step(
    config: ml_collections.ConfigDict,
    graphdef: nnx.GraphDef,
    optimiser: optax.GradientTransformation,
    *,
    binary: bool,
    axis: str | None,
    mel_log: tuple[float, float] = (1.0, 0.01),
) -> Callable[[step.State, step.Batch], tuple[step.State, dict[str, jax.Array]]]:
    """Returns the pure training step of a config, (state, batch) -> (state, scalars).

    binary: whether each class has an independent sigmoid.
    mel_log: (scale, offset) of the logarithm in the audio front end (data/mel.py, MelSpec.logarithm).
    """
    options = {
        'optimiser': optimiser,
        'loss': step.Loss(**config.loss.to_dict() | {'multi_label': binary}),
        'augment': augment.Augment(**config.augment),
        'drop': step.Drop(**config.drop),
        'frame_size': config.model.frame_size,
        'mel_log': mel_log,
        'accumulate': config.train.accumulate,
        'axis': axis,
    }

    def train_step(state, batch):
        return step.train_step(graphdef, state, batch, **options)

    return train_step
