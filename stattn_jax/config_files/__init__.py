"""Finds the configs that come with the package: `--config=own:small` for configs/own.py:small, from any folder.

In a checkout they are in its folder configs/. An installed package has a copy of that folder here, so that no package
named `configs` is installed.
"""

import contextlib
import pathlib
import sys
from collections.abc import Iterator

_INSTALLED = pathlib.Path(__file__).parent / 'configs'
FOLDER = _INSTALLED if _INSTALLED.is_dir() else pathlib.Path(__file__).parents[2] / 'configs'


def names() -> list[str]:
    """Returns the names of the configs that `find` accepts, without '.py'."""
    return sorted(path.stem for path in FOLDER.glob('*.py'))


def find(value: str) -> str:
    """Turns a value of --config such as 'own:small' into a path; paths of files are returned unchanged."""
    name, colon, argument = value.partition(':')
    return f'{FOLDER / name}.py{colon}{argument}' if name in names() and not pathlib.Path(name).exists() else value


def find_in(argv: list[str]) -> list[str]:
    """Returns the command-line arguments with `find` applied to the value of --config."""
    found = list(argv)
    for i, argument in enumerate(argv):
        flag, equals, value = argument.partition('=')
        if flag in ('--config', '-config'):
            if equals:
                found[i] = f'{flag}={find(value)}'
            elif i + 1 < len(argv):
                found[i + 1] = find(argv[i + 1])
    return found


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """Context in which `from configs import common` finds this package's configs first, from any folder."""
    sys.path.insert(0, str(FOLDER.parent))
    try:
        yield
    finally:
        sys.path.remove(str(FOLDER.parent))
