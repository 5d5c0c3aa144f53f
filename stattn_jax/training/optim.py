"""The optimiser and its schedule: gradient clipping, AdamW or SGD, linear warm-up and cosine decay. Read next: training/step.py."""

import jax
import optax


def make_schedule(*, lr: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Linear from 0 to `lr` over `warmup_steps`, then cosine to 0 at `total_steps`."""
    return optax.warmup_cosine_decay_schedule(0.0, lr, warmup_steps, max(total_steps, warmup_steps + 1))


def make_optimiser(
    schedule: optax.Schedule, *, name: str, weight_decay: float, clip_norm: float, momentum: float
) -> optax.GradientTransformation:
    """'adamw' or 'sgd' behind clipping by the global norm; only matrices and kernels decay, not biases and norms.

    Raises ValueError for another name.
    """
    if name == 'adamw':
        rule = optax.adamw(schedule, weight_decay=weight_decay, mask=decay_mask)
    elif name == 'sgd':
        rule = optax.chain(
            optax.add_decayed_weights(weight_decay, mask=decay_mask),
            optax.sgd(schedule, momentum=momentum, nesterov=True),
        )
    else:
        raise ValueError(f"config.optim.name is {name!r}; expected 'adamw' or 'sgd'")
    return optax.chain(optax.clip_by_global_norm(clip_norm), rule)


def decay_mask(params):
    """True for the parameters of two or more axes."""
    return jax.tree.map(lambda x: x.ndim > 1, params)
