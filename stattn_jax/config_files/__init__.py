"""Finds the configs that come with the package: `--config=own:small` for configs/own.py:small, from any folder.

A checkout has them in its folder configs/; an installed package has a copy of that folder here, so that no package
called `configs` is installed.
"""

import contextlib
import pathlib
import sys
from collections.abc import Iterator

_INSTALLED = pathlib.Path(__file__).parent / 'configs'
FOLDER = _INSTALLED if _INSTALLED.is_dir() else pathlib.Path(__file__).parents[2] / 'configs'


def names() -> list[str]:
    """The configs that `find` knows, without '.py'."""
    return sorted(path.stem for path in FOLDER.glob('*.py'))


def find(value: str) -> str:
    """The value of --config with a name such as 'own:small' turned into a path; paths of files come back as they
    are.
    """
    name, colon, argument = value.partition(':')
    return f'{FOLDER / name}.py{colon}{argument}' if name in names() and not pathlib.Path(name).exists() else value


def find_in(argv: list[str]) -> list[str]:
    """Command-line arguments with `find` applied to the value of --config."""
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
    """Within it `from configs import common` finds the configs of this package first, wherever the current folder
    is.
    """
    sys.path.insert(0, str(FOLDER.parent))
    try:
        yield
    finally:
        sys.path.remove(str(FOLDER.parent))
