"""Networks: frames and log-mel in, logits and everything behind them out. Read next: stan.py; baselines/ for what
it is compared with.
"""

from flax import nnx

from stattn_jax.models import baselines
from stattn_jax.models.baselines import mbt
from stattn_jax.models.stan import Stan

KINDS = ('stan', *baselines.KINDS)
# Options of Stan that other kinds do not have, with the values that ask for nothing special.
STAN_OPTIONS = {
    'heads': None,
    'detach_evidence': None,
    'uniform_space': False,
    'uniform_time': False,
    'guided': True,
    'null_cell': True,
    'class_time': True,
}


def uses(kind: str) -> dict[str, bool]:
    """Whether a kind of network looks at frames ('visual') and at sound ('audio')."""
    network = Stan if kind == 'stan' else baselines.KINDS[kind]
    return {'visual': network.sees, 'audio': network.hears}


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
) -> Stan | baselines.Compared:
    """The network of a kind for so many classes; `options` are those of models/stan.py, as cfg.model spells them.

    `frame`: rows and columns of the frames, in pixels or feature cells, which 'avel_code' is tied to. Raises ValueError
    as `check_options` does.
    """
    common = {'axis_name': axis_name, 'rngs': rngs}
    if kind == 'stan':
        return Stan(classes, width=width, hidden=hidden, **common, **options)
    check_options(kind, options | {'hidden': hidden})
    sizes = baselines.Sizes(classes, width, hidden, tuple(frame))
    shared = {name: value for name, value in options.items() if name not in STAN_OPTIONS}
    return baselines.KINDS[kind](sizes, **common, **shared)


def check_options(kind: str, options: dict) -> None:
    """Raises ValueError for an ablation of Stan that is asked of another kind, and for a width that 'mbt' cannot
    split.
    """
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
