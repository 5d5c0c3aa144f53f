"""Runs a network that `python -m stattn_jax.export --format=stablehlo` exported; needs JAX and flatbuffers alone."""

import pathlib

import numpy as np
from jax import export


def load(path):
    """Returns a function: frames uint8 [b t h w 3], log_mel [b t f k], valid bool [b t] -> dict of arrays."""
    network = export.deserialize(bytearray(pathlib.Path(path).read_bytes()))
    return lambda frames, log_mel, valid: network.call(frames, np.asarray(log_mel, np.float32), valid)
