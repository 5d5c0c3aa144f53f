"""The arrays of one clip, as a network reads them, and an explanation of it as two maps."""

from typing import NamedTuple

import jax
import numpy as np

# An array on a device or on the host.
Array = jax.Array | np.ndarray


class ClipArrays(NamedTuple):
    """One clip, or a batch with a leading axis b.

    frames float32 [t H W 3] in 0..1, log_mel float32 [t f k], valid bool [t].
    """

    frames: Array
    log_mel: Array
    valid: Array


class Map(NamedTuple):
    """An explanation of one class of a clip: visual [t s] and audio [t]; larger values support the class more."""

    visual: Array
    audio: Array


def rolled(valid_t: np.ndarray, by: int) -> np.ndarray:
    """Returns the order of a clip's segments, int [t], with the valid ones `by` segments later, the last ones first."""
    order = np.arange(len(valid_t))
    order[valid_t] = np.roll(order[valid_t], by)
    return order
