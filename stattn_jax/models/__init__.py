"""Builds the networks: STAN (stan.py) and the models that it is compared with (baselines/).

All map frames and log-mel to logits, and also return the arrays that the logits were computed from.
"""

from typing import Any

from flax import nnx

from stattn_jax.models import baselines
from stattn_jax.models.baselines import mbt
from stattn_jax.models.stan import SpaceTimeAttention

KINDS = ('stan', *baselines.KINDS)
# Options that only STAN has, with the values that leave it unchanged.
STAN_OPTIONS = {
    'heads': None,
    'stop_gradient_evidence': None,
    'uniform_space': False,
    'uniform_time': False,
    'guided': True,
    'null_cell': True,
    'class_time': True,
}


def uses(kind: str) -> dict[str, bool]:
    """Returns whether a kind of network uses the frames ('visual') and the audio ('audio')."""
    network = SpaceTimeAttention if kind == 'stan' else baselines.KINDS[kind]
    return {'visual': network.uses_video, 'audio': network.uses_audio}


def build(
    classes: int,
    *,
    kind: str = 'stan',
    frame: tuple[int, int] = (64, 64),
    width: int = 128,
    hidden: int = 64,
    axis_name: str | None,
    rngs: nnx.Rngs,
    **options,
) -> SpaceTimeAttention | baselines.Compared:
    """Builds the network of a kind for this number of classes.

    `options` are those of models/stan.py, with the names of cfg.model. `frame`: rows and columns of the frames, in
    pixels or feature cells; 'avel_code' works for this size only. Raises ValueError as `check_options` does.
    """
    common: dict[str, Any] = {'axis_name': axis_name, 'rngs': rngs}
    if kind == 'stan':
        return SpaceTimeAttention(classes, width=width, hidden=hidden, **common, **options)
    check_options(kind, options | {'hidden': hidden})
    sizes = baselines.Sizes(classes, width, hidden, (frame[0], frame[1]))
    shared = {name: value for name, value in options.items() if name not in STAN_OPTIONS}
    return baselines.KINDS[kind](sizes, **common, **shared)


def check_options(kind: str, options: dict) -> None:
    """Raises ValueError if another kind is given an ablation of STAN, or 'mbt' a width that its heads do not divide."""
    if kind == 'mbt' and options['hidden'] % mbt.HEADS:
        raise ValueError(
            f"config.model.hidden is {options['hidden']}; expected a multiple of {mbt.HEADS} for kind 'mbt'"
        )
    for name, plain in STAN_OPTIONS.items():
        given = options.get(name, plain)
        if kind != 'stan' and plain is not None and given != plain:
            raise ValueError(
                f"config.model.{name} is {given}, an ablation of config.model.kind 'stan', but kind is {kind!r}; "
                f'expected {plain}'
            )
