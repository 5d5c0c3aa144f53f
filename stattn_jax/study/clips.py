"""What the study hands around: clips as the network reads them, and explanations as two maps. Read next:
posthoc.py, removal.py.
"""

from typing import NamedTuple

import jax


class Clip(NamedTuple):
    """One clip, or with b before everything: frames float32 [t H W 3] in 0..1, log_mel float32 [t f k], valid bool
    [t].
    """

    frames: jax.Array
    log_mel: jax.Array
    valid: jax.Array


class Map(NamedTuple):
    """An explanation of one class of a clip: visual [t s] and audio [t]; larger speaks more for the class."""

    visual: jax.Array
    audio: jax.Array
