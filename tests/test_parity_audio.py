"""Audio front ends and trunks are compared with the published code where installed (tests/published_audio.py).

`python tests/test_parity_audio.py` writes tests/golden/mel.json, vggish.json and cnn14.json anew.
"""

import json

import activations
import jax
import numpy as np
import pytest
import test_cnn14
import test_mel
import test_vggish
from flax import nnx

from stattn_jax.data import mel
from stattn_jax.models.trunks import registry
from stattn_jax.weights import formats, match

transformers = pytest.importorskip('transformers')
import published_audio  # noqa: E402
from published_audio import REFERENCES, SOUNDS, published_cnn14, published_vggish, torch  # noqa: E402

# ---------------------------------------------------------------------------------------------------------------------
# Front ends
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('sound', SOUNDS)
@pytest.mark.parametrize('name', REFERENCES)
def test_a_front_end_is_the_published_one(name, sound):
    """The front end gives the values of the published code.

    Far below a tone there is only float32 rounding error, which differs between implementations: hence 0.06 dB there.
    """
    spec = mel.MEL_PRESETS[name]
    x = SOUNDS[sound](spec.rate)
    found, wanted = mel.log_mel(x, spec, 1, 1.0)[0], REFERENCES[name](x)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.06 if spec.decibels else 1e-3)
    loud = wanted > wanted.max() - (60 if spec.decibels else 60 / 20 * np.log(10) * spec.power)
    np.testing.assert_allclose(found[loud], wanted[loud], rtol=0, atol=5e-3 if spec.decibels else 1e-3)


def test_ast_equals_the_front_end_of_transformers():
    spec = mel.MEL_PRESETS['ast']
    x = published_audio.voice(spec.rate)
    extractor = transformers.ASTFeatureExtractor(do_normalize=False, max_length=spec.frames_in(1.0))
    wanted = extractor(x, sampling_rate=spec.rate, return_tensors='np').input_values[0]
    np.testing.assert_allclose(mel.log_mel(x, spec, 1, 1.0)[0], wanted, rtol=0, atol=1e-3)


def test_the_golden_numbers_of_the_front_ends_are_the_references_own():
    assert json.loads(test_mel.GOLDEN.read_text()) == golden_mel()


def golden_mel():
    """Places (t, f, k) and values of the mixture of test_mel, by preset."""
    golden = {}
    for name, reference in REFERENCES.items():
        spec = mel.MEL_PRESETS[name]
        seconds = test_mel.mixture(spec.rate).reshape(-1, spec.rate)
        bands = np.stack([reference(second) for second in seconds])
        places = np.stack(np.unravel_index(np.linspace(0, bands.size - 1, 24).astype(int), bands.shape), axis=-1)
        golden[name] = [[*map(int, place), round(float(bands[tuple(place)]), 3)] for place in places]
    return golden


# ---------------------------------------------------------------------------------------------------------------------
# Trunks
# ---------------------------------------------------------------------------------------------------------------------


def filled(name, model):
    """The trunk with the model's tensors, as a checkpoint would hold them."""
    trunk = registry.find('audio', name)
    tensors = {key: value.numpy() for key, value in model.state_dict().items()}
    state, _ = match.fill(match.abstract_state(trunk), trunk.published, tensors, name)
    build = nnx.eval_shape(lambda: trunk.build(axis_name=None, dtype=np.float32, rngs=nnx.Rngs(0)))
    return nnx.merge(nnx.graphdef(build), state)


def assert_alike(found, wanted):
    assert set(found) == set(wanted)
    for name, x in wanted.items():
        error = np.abs(np.asarray(found[name]) - x).max() / np.abs(x).max()
        print(f'{name}: {error:.1e}')
        assert np.ptp(x) > 0 and error < 1e-4, (name, error)


def heard(name, clips=2):
    """Waveforms of noise with a tone, one second each, and their log-mel from the trunk's own front end."""
    spec = mel.MEL_PRESETS[registry.find('audio', name).mel]
    waves = np.stack([SOUNDS['noise'](spec.rate) * (i + 1) + SOUNDS['tone'](spec.rate) for i in range(clips)])
    return waves, np.stack([mel.log_mel(wave, spec, 1, 1.0)[0] for wave in waves])


@pytest.mark.parametrize('name', ['cnn14_16k', 'cnn14_32k'])
def test_cnn14_is_the_published_one_layer_by_layer(name):
    model = published_cnn14(name)
    waves, log_mel = heard(name)
    wanted = published_audio.cnn14_layers(model, log_mel)
    found = jax.jit(test_cnn14.layers)(filled(name, model), log_mel)
    assert_alike(found, wanted)
    with torch.no_grad():
        end_to_end = model(torch.from_numpy(waves))['embedding'].numpy()
    assert_alike({'waveform to embedding': found['embedding']}, {'waveform to embedding': end_to_end})


def test_vggish_is_the_published_one_layer_by_layer():
    model = published_vggish()
    _, log_mel = heard('vggish')
    assert_alike(
        jax.jit(test_vggish.layers)(filled('vggish', model), log_mel), published_audio.vggish_layers(model, log_mel)
    )


def golden_layers():
    """Layers of thin trunks computed by the published code, by golden file."""
    return {
        test_vggish.GOLDEN: published_audio.vggish_layers(published_vggish(**test_vggish.THIN), test_vggish.inputs()),
        test_cnn14.GOLDEN: published_audio.cnn14_layers(
            published_cnn14('cnn14_32k', test_cnn14.CHANNELS), test_cnn14.inputs()
        ),
    }


def test_golden_layers_are_those_of_the_published_code():
    for path, layers in golden_layers().items():
        activations.check(layers, path)


def test_a_checkpoint_as_published_is_read(tmp_path):
    """Checkpoints of PANNs hold more than tensors, and are still read.

    They also hold the progress of training and the sampler's state, which contains NumPy objects.
    """
    model = published_cnn14('cnn14_16k', test_cnn14.CHANNELS)
    sampler = {
        'indexes_per_class': [np.arange(3), np.arange(2)],
        'queue': [1, np.int64(0)],
        'pointers_of_classes': [2, 0],
    }
    torch.save({'iteration': 7, 'model': model.state_dict(), 'sampler': sampler}, tmp_path / 'cnn14.pth')
    published = registry.find('audio', 'cnn14_16k').published
    abstract = nnx.as_pure(nnx.state(nnx.eval_shape(lambda: test_cnn14.build(test_cnn14.CHANNELS))))
    state, report = match.fill(abstract, published, formats.read(tmp_path / 'cnn14.pth'), 'cnn14.pth')
    jax.tree.map(np.testing.assert_array_equal, state, nnx.as_pure(nnx.state(test_cnn14.thin())))
    assert report.used == len(test_cnn14.layout())


if __name__ == '__main__':
    test_mel.GOLDEN.write_text(json.dumps(golden_mel()).replace('], "', '],\n"') + '\n')
    for path, layers in golden_layers().items():
        activations.write(path, layers)
