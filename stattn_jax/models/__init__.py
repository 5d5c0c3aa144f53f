"""Networks: frames and log-mel in, logits and everything behind them out. Read next: stan.py."""

from stattn_jax.models.stan import Stan


def build(classes: int, *, axis_name: str | None, rngs, **options) -> Stan:
    """The network for so many classes; `options` are those of models/stan.py, as cfg.model spells them."""
    return Stan(classes, axis_name=axis_name, rngs=rngs, **options)
