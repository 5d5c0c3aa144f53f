"""The arrays of one clip, as a network reads them, and an explanation of it as two maps."""

from typing import NamedTuple

import jax


class ClipArrays(NamedTuple):
    """One clip, or a batch with a leading axis b.

    frames float32 [t H W 3] in 0..1, log_mel float32 [t f k], valid bool [t].
    """

    frames: jax.Array
    log_mel: jax.Array
    valid: jax.Array


class Map(NamedTuple):
    """An explanation of one class of a clip: visual [t s] and audio [t]; larger values support the class more."""

    visual: jax.Array
    audio: jax.Array
