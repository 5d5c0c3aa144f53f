"""The published code of audio front ends and trunks, with random weights derived from tensor names.

Importing this module skips the test module where that code is not installed:

pip install torch torchaudio transformers
pip install --no-deps torchvggish panns_inference torchlibrosa resampy soundfile
"""

import importlib.util
import os
import pathlib
import sys
import types
import wave
import zipfile

import activations
import librosa
import numpy as np
import pytest

from stattn_jax.models.trunks import registry

torch = pytest.importorskip('torch')
torchlibrosa = pytest.importorskip('torchlibrosa')

# The voice recordings are spoken digits; `voice` takes one second of them.
VOICES = pathlib.Path(
    os.environ.get('STATTN_VOICES', pathlib.Path(__file__).parents[2] / 'shared' / 'real' / 'free_spoken_digits.zip')
)


def bare(package: str, module: str) -> types.ModuleType:
    """Imports a module of a package without running the package's own code.

    That code would fetch files in one package and load GPU code in another.
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f'{package} is not installed', allow_module_level=True)
    stand_in = types.ModuleType(package)
    stand_in.__path__, stand_in.__spec__ = spec.submodule_search_locations, spec
    sys.modules[package] = stand_in
    return importlib.import_module(f'{package}.{module}')


kaldi = bare('torchaudio', 'compliance.kaldi')
mel_features = bare('torchvggish', 'mel_features')
vggish_params = importlib.import_module('torchvggish.vggish_params')
vggish_models = importlib.import_module('torchvggish.torchvggish')

panns_models = bare('panns_inference', 'models')


# ---------------------------------------------------------------------------------------------------------------------
# Front ends
# ---------------------------------------------------------------------------------------------------------------------


def _vggish(x):
    """Computes the first patch of a second by Google's code as torchvggish contains it."""
    bands = mel_features.log_mel_spectrogram(
        x,
        audio_sample_rate=vggish_params.SAMPLE_RATE,
        log_offset=vggish_params.LOG_OFFSET,
        window_length_secs=vggish_params.STFT_WINDOW_LENGTH_SECONDS,
        hop_length_secs=vggish_params.STFT_HOP_LENGTH_SECONDS,
        num_mel_bins=vggish_params.NUM_MEL_BINS,
        lower_edge_hertz=vggish_params.MEL_MIN_HZ,
        upper_edge_hertz=vggish_params.MEL_MAX_HZ,
    )
    return bands[:96]


def _panns(x, *, rate, window, hop, fmax):
    """Computes the log-mel as the first layers of panns_inference's models do."""
    spectrogram = torchlibrosa.stft.Spectrogram(n_fft=window, hop_length=hop, win_length=window)
    bands = torchlibrosa.stft.LogmelFilterBank(
        sr=rate, n_fft=window, n_mels=64, fmin=50, fmax=fmax, ref=1.0, amin=1e-10, top_db=None
    )
    with torch.no_grad():
        return bands(spectrogram(torch.from_numpy(x)[None]))[0, 0].numpy()


def _ast(x):
    """Computes the log-mel as the data loader of AST does."""
    x = torch.from_numpy(x)[None]
    return kaldi.fbank(
        x - x.mean(),
        htk_compat=True,
        sample_frequency=16000,
        use_energy=False,
        window_type='hanning',
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    ).numpy()


REFERENCES = {
    'vggish_published': _vggish,
    'panns_16k': lambda x: _panns(x, rate=16000, window=512, hop=160, fmax=8000),
    'panns_32k': lambda x: _panns(x, rate=32000, window=1024, hop=320, fmax=14000),
    'ast': _ast,
}


def voice(rate):
    """Returns a second of two spoken digits; skips the test where there are no recordings."""
    if not VOICES.exists():
        pytest.skip(f'no recordings of voices at {VOICES}; set STATTN_VOICES')
    pieces = []
    with zipfile.ZipFile(VOICES) as archive:
        for name in ('0_george_0.wav', '0_george_1.wav', '0_george_10.wav', '0_george_11.wav'):
            with archive.open(name) as file, wave.open(file) as sound:
                recorded = sound.getframerate()
                pieces.append(np.frombuffer(sound.readframes(sound.getnframes()), np.int16) / np.float32(32768))
    sound = librosa.resample(np.concatenate(pieces), orig_sr=recorded, target_sr=rate)
    return sound[:rate]


SOUNDS = {
    'noise': lambda rate: 0.1 * np.random.default_rng(0).standard_normal(rate).astype(np.float32),
    'tone': lambda rate: (0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).astype(np.float32),
    'offset': lambda rate: SOUNDS['noise'](rate) / 10 + np.float32(0.5),
    'silence': lambda rate: np.zeros(rate, np.float32),
    'voice': voice,
}


# ---------------------------------------------------------------------------------------------------------------------
# Trunks
# ---------------------------------------------------------------------------------------------------------------------


def published_cnn14(name, channels=64):
    """Returns panns_inference's Cnn14 with random weights; `channels` is the width of the first block."""
    rate, window, hop, fmax = {'cnn14_16k': (16000, 512, 160, 8000), 'cnn14_32k': (32000, 1024, 320, 14000)}[name]
    model = panns_models.Cnn14(rate, window, hop, 64, 50, fmax, classes_num=5)
    widths = [1, *(channels << i for i in range(6))]
    if channels != 64:
        for i, (inputs, outputs) in enumerate(zip(widths[:-1], widths[1:]), 1):
            setattr(model, f'conv_block{i}', panns_models.ConvBlock(inputs, outputs))
        model.fc1, model.fc_audioset = torch.nn.Linear(widths[-1], widths[-1]), torch.nn.Linear(widths[-1], 5)
    return _drawn(model, registry.find('audio', name))


def published_vggish(widths=(64, 128, 256, 512), hidden=4096):
    """Returns torchvggish's network with random weights."""
    model = vggish_models.VGG(vggish_models.make_layers(), postprocess=False)
    if hidden != 4096:
        sizes = [1, widths[0], widths[1], widths[2], widths[2], widths[3], widths[3]]
        for place, inputs, outputs in zip((0, 3, 6, 8, 11, 13), sizes[:-1], sizes[1:]):
            model.features[place] = torch.nn.Conv2d(inputs, outputs, 3, padding=1)
        for place, inputs, outputs in ((0, widths[3] * 24, hidden), (2, hidden, hidden), (4, hidden, 128)):
            model.embeddings[place] = torch.nn.Linear(inputs, outputs)
    return _drawn(model, registry.find('audio', 'vggish'))


def _drawn(model, trunk):
    """Returns the model in evaluation mode; each tensor that the trunk takes is random, seeded by its name."""
    state = model.state_dict()
    for name, tensor in state.items():
        if tensor.ndim and not trunk.published.is_dropped(name):
            state[name] = torch.from_numpy(activations.drawn(name, *tensor.shape))
    model.load_state_dict(state)
    return model.eval()


def hooked(model, places, *inputs):
    """Returns the outputs of the modules of `places` {name: module} by name, with cells as [b h w c]."""
    found, hooks = {}, []
    for name, module in places.items():

        def keep(module, args, out, name=name):
            found[name] = out.detach().clone().numpy()

        hooks.append(module.register_forward_hook(keep))
    with torch.no_grad():
        model(*inputs)
    for hook in hooks:
        hook.remove()
    return {name: np.moveaxis(x, 1, -1) if x.ndim == 4 else x for name, x in found.items()}


def vggish_layers(model, x):
    """Returns the layers that test_vggish.layers returns."""
    places = {f'stage{i}': model.features[place] for i, place in enumerate((2, 5, 10, 15))}
    places |= {f'dense{i}': model.embeddings[2 * i + 1] for i in range(3)}
    return hooked(model, places | {'embedding': model}, torch.from_numpy(x)[:, None])


def cnn14_layers(model, x):
    """Returns the layers that test_cnn14.layers returns, with the given log-mel in place of the model's own."""
    own = model.logmel_extractor
    model.logmel_extractor = torch.nn.Identity()
    model.spectrogram_extractor.forward = lambda _: torch.from_numpy(x)[:, None]
    places = {f'block{i}': getattr(model, f'conv_block{i}') for i in range(1, 7)} | {'fc1': model.fc1}
    found = hooked(model, places, torch.zeros(len(x), 1))
    with torch.no_grad():
        found['embedding'] = model(torch.zeros(len(x), 1))['embedding'].numpy()
    del model.spectrogram_extractor.forward
    model.logmel_extractor = own
    return found | {'fc1': np.maximum(found['fc1'], 0)}
