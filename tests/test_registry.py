"""Tests that every trunk of the registry gives the shapes that it declares, without computing anything."""

import jax
import numpy as np
import pytest
from flax import nnx

from stattn_jax.data.mel import MEL_PRESETS
from stattn_jax.models.trunks import registry

OPTIONS = {'axis_name': None, 'dtype': np.float32}


def shape_of(trunk, shape):
    model = nnx.eval_shape(lambda: trunk.build(**OPTIONS, rngs=nnx.Rngs(0)))
    x = jax.ShapeDtypeStruct(shape, np.float32)
    return model.width, nnx.eval_shape(lambda model, x: model(x, train=True), model, x).shape


@pytest.mark.parametrize('name', registry.trunks('visual'))
def test_frames_give_a_cell_for_each_stride_pixels(name):
    trunk = registry.find('visual', name)
    height, width = 2 * trunk.stride, 3 * trunk.stride
    height, width = (-(-side // trunk.multiple) * trunk.multiple for side in (height, width))
    found, shape = shape_of(trunk, (2, height, width, 3))
    assert shape == (2, -(-height // trunk.stride), -(-width // trunk.stride), found)
    assert trunk.modality == 'visual' and len(trunk.mean) == len(trunk.std) == 3


@pytest.mark.parametrize('name', registry.trunks('audio'))
def test_a_segment_of_log_mel_gives_one_vector(name):
    trunk = registry.find('audio', name)
    mel = MEL_PRESETS[trunk.mel or 'vggish']
    found, shape = shape_of(trunk, (2, mel.frames_in(1.0), mel.bands))
    assert shape == (2, found) and trunk.modality == 'audio'


def test_an_unknown_trunk_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="config.model.visual is 'alexnet'; expected one of .*resnet18.*precomputed"):
        registry.find('visual', 'alexnet')
