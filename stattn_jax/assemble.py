"""From a config to what is compiled: network, state, optimiser, training step. Needs JAX and Flax alone, no data.

Read next: run.py, which adds the data and the workdir; training/step.py.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import nnx

from stattn_jax import models
from stattn_jax.training import augment, optim, step

# Fields of cfg.model that say what the network reads or begins with.
NOT_OF_THE_NETWORK = ('frame_size', 'visual_weights', 'audio_weights')


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a network must know of its data: number of classes, channels of picture and sound, rows and columns of a
    frame.

    extracted: whether picture and sound are the output of a frozen trunk (models/encoders.py).
    """

    classes: int
    channels: tuple[int, int]
    frame: tuple[int, int]
    extracted: tuple[bool, bool] = (False, False)


def make_optimiser(config: ml_collections.ConfigDict) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimiser and its learning-rate schedule from cfg.optim and cfg.train.steps."""
    options = config.optim.to_dict()
    schedule = optim.make_schedule(
        lr=options.pop('lr'), warmup_steps=options.pop('warmup_steps'), total_steps=config.train.steps
    )
    return optim.make_optimiser(schedule, **options), schedule


def build_model(config: ml_collections.ConfigDict, shape: Shape, axis: str | None, rngs: nnx.Rngs) -> nnx.Module:
    """The network of cfg.model for such data, its parameters drawn from `rngs`."""
    options = {name: value for name, value in config.model.to_dict().items() if name not in NOT_OF_THE_NETWORK}
    options |= {'channels': shape.channels, 'frame': shape.frame, 'extracted': shape.extracted}
    return models.build(shape.classes, rngs=rngs, axis_name=axis, **options)


def make_state(
    config: ml_collections.ConfigDict, shape: Shape, axis: str | None, abstract: bool = False
) -> tuple[nnx.GraphDef, step.State, optax.GradientTransformation, optax.Schedule]:
    """The model's static part, its state at step 0 (`abstract`: only the shapes), the optimiser and its schedule."""
    optimiser, schedule = make_optimiser(config)

    def build(key):
        return build_model(config, shape, axis, nnx.Rngs(key))

    def init(seed):
        return step.init_state(build(jax.random.key(seed)), optimiser, shape.classes, seed)

    seed = jnp.int32(config.seed)
    # One program, for every seed, instead of a compilation for every initialiser's operation.
    state = jax.eval_shape(init, seed) if abstract else jax.jit(init)(seed)
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
    """The pure training step of a config, (state, batch) -> (state, scalars); `binary`: each class is a yes or no of
    its own.

    mel_log: the front end's (scale, offset) of data/mel.py, MelSpec.logarithm.
    """
    options = {
        'optimiser': optimiser,
        'loss': step.Loss(**config.loss.to_dict() | {'binary': binary}),
        'augment': augment.Augment(**config.augment),
        'drop': step.Drop(**config.drop),
        'frame_size': config.model.frame_size,
        'mel_log': mel_log,
        'axis': axis,
    }

    def train_step(state, batch):
        return step.train_step(graphdef, state, batch, **options)

    return train_step
