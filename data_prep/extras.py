"""Imports packages that only some commands need, so that the others work without them."""

import importlib
import types

from data_prep.work import UsageError


def load(name: str, extra: str) -> types.ModuleType:
    """Imports a package that an extra of setup.cfg installs; raises UsageError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition('.')[0] != name.partition('.')[0]:
            raise
        raise UsageError(
            f'the Python package {error.name} is not installed, which this command needs; install the extra: '
            f'pip install ".[{extra}]" in a checkout, or pip install {error.name}'
        ) from None
