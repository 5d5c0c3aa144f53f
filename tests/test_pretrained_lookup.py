"""Tests how a model is found: by its folder, by the name of the shipped one without a network, and on a fake hub."""

import os
import shutil
import socket
import subprocess
import sys

import fake_hub
import pytest
import runs
import shared

import stattn_jax
from data_prep import scenes
from stattn_jax import run
from stattn_jax.pretrained import lookup, shared_folder

pytestmark = pytest.mark.usefixtures('quick_compile')


def test_shipped_model_explains_a_scene_without_a_network(scene_video, monkeypatch):
    def refuse(*arguments, **options):
        pytest.fail('a connection was tried')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    explanation = stattn_jax.from_pretrained('demo').explain(scene_video)
    label = scenes.CLASSES[scenes.make_scene('events', runs.SEGMENTS, (0, 2, 0)).label]
    assert explanation.top(1)[0]['label'] == label and explanation.residual()[1] <= 1e-5


def test_shipped_model_is_small_and_states_its_licence():
    sizes = [path.stat().st_size for path in lookup.SHIPPED['demo'].iterdir()]
    # The files of the format, the distance from training and three example clips.
    assert len(sizes) == len(shared_folder.FILES) + 4 and sum(sizes) < 1_300_000
    assert shared_folder.read_record(lookup.SHIPPED['demo'])['weights']['licence'] == 'apache-2.0'


def test_folder_comes_before_a_shipped_model_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # `make demo` writes a folder of this name that is no model itself.
    (tmp_path / 'demo' / 'data-0').mkdir(parents=True)
    assert lookup.find('demo') == lookup.SHIPPED['demo']
    shared.make_folder(tmp_path / 'demo')
    assert lookup.find('demo').resolve() == tmp_path / 'demo'


@pytest.mark.parametrize('name', ['nothing', 'a/b/c', '../x', 'owner/na me'])
def test_name_of_no_model_is_one_line(name):
    with pytest.raises(run.RunError, match=r'expected the folder of a model, a shipped one \(demo\) or OWNER/NAME'):
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
