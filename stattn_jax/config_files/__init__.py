"""Finds the configs that come with the package: `--config=own:small` for configs/own.py:small, from any folder.

In a checkout they are in its folder configs/. An installed package has a copy of that folder here, so that no package
named `configs` is installed.
"""

import contextlib
import importlib
import pathlib
import sys
import types
from collections.abc import Iterator

from stattn_jax import names as nearest

_INSTALLED = pathlib.Path(__file__).parent / 'configs'
FOLDER = _INSTALLED if _INSTALLED.is_dir() else pathlib.Path(__file__).parents[2] / 'configs'
_EXPECTED = 'a file such as configs/own.py, or a name of {names}'


def names() -> list[str]:
    """Returns the names of the configs that `find` accepts, without '.py'."""
    return sorted(path.stem for path in FOLDER.glob('*.py') if path.stem != '__init__')


def find(value: str) -> str:
    """Turns a value of --config such as 'own:small' into a path; paths of files are returned unchanged."""
    name, colon, argument = value.partition(':')
    return f'{FOLDER / name}.py{colon}{argument}' if name in names() and not pathlib.Path(name).exists() else value


def missing(path: str) -> str:
    """Returns one line about a config file that is not there: where it may be meant, and how to give it."""
    if not path:
        return f'the name is empty; expected {_EXPECTED.format(names=", ".join(names()))}'
    if pathlib.Path(path).is_dir():
        return f'{path!r} is a folder; expected {_EXPECTED.format(names=", ".join(names()))}'
    if pathlib.Path(f'{path}.py').is_file():
        return f'there is no file {path!r}, but {path}.py; give --config={path}.py'
    stem = pathlib.Path(path).stem
    if stem in names():
        return f'there is no file {path!r} here; the one that comes with the package is given by name: --config={stem}'
    near = nearest.near(stem, names())
    hint = f' (did you mean {" or ".join(near)}?)' if near else ''
    return f'there is no file {path!r}{hint}; expected {_EXPECTED.format(names=", ".join(names()))}'


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """Context in which `from configs import common` finds this package's configs first, from any folder.

    A package `configs` of the user's own that was imported before is set aside in the meantime.
    """
    aside = {} if _is_ours(sys.modules.get('configs')) else _pop_configs()
    sys.path.insert(0, str(FOLDER.parent))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(FOLDER.parent))
        if aside:
            _pop_configs()
            sys.modules.update(aside)


def _is_ours(module: types.ModuleType | None) -> bool:
    return module is None or str(FOLDER) in map(str, getattr(module, '__path__', ()))


def _pop_configs() -> dict[str, types.ModuleType]:
    """Removes the package `configs` from the modules that are imported, and returns it with its parts."""
    found = [name for name in sys.modules if name.partition('.')[0] == 'configs']
    return {name: sys.modules.pop(name) for name in found}
