"""Finds the folder of a model by its path, by the name of a shipped one, or by its name on the Hugging Face hub."""

import os
import pathlib
import re

from stattn_jax.command import RunError
from stattn_jax.pretrained import shared_folder
from stattn_jax.run import CHECKPOINTS, CONFIG_FILE, TRAINING_DISTANCE

# The models that are part of the package, by name, with their folders.
SHIPPED = {name: pathlib.Path(__file__).parent / name for name in ('demo', 'av_digits')}


def find_local(name: str | os.PathLike) -> pathlib.Path:
    """Returns a path as it is, or the folder of a shipped model if no model is at that path."""
    path = pathlib.Path(name)
    return path if _holds_model(path) else SHIPPED.get(str(name), path)


def find(name: str | os.PathLike, revision: str | None = None) -> pathlib.Path:
    """Returns the folder of a model; the files of a model on the hub are downloaded to the hub's cache first.

    name: a folder, the name of a shipped model, or OWNER/NAME on the hub.
    revision: a branch, a tag or a commit on the hub.

    Raises RunError.
    """
    path = find_local(name)
    if path.exists():
        return path
    if not re.fullmatch(r'[\w-][\w.-]*/[\w-][\w.-]*', str(name)):
        raise RunError(
            f'{name} is no folder; expected the folder of a model, a shipped one ({", ".join(SHIPPED)}) '
            'or OWNER/NAME on the Hugging Face hub'
        )
    return _download(str(name), revision)


def _holds_model(path: pathlib.Path) -> bool:
    return any((path / name).exists() for name in (CONFIG_FILE, CHECKPOINTS, shared_folder.WEIGHTS))


def _download(name: str, revision: str | None) -> pathlib.Path:
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise RunError(
            f'{name} is no folder here, and the hub needs a package; pip install "stattn-jax[hub]"'
        ) from None
    try:
        wanted = [*shared_folder.FILES, TRAINING_DISTANCE]
        return pathlib.Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted))
    # The client's errors are subclasses of OSError and ValueError; those of the connection depend on its version.
    except Exception as error:
        reason = ' '.join(str(error).split())[:200]
        raise RunError(
            f'{name} cannot be downloaded from the hub ({type(error).__name__}: {reason}); expected a folder, a '
            f'shipped model ({", ".join(SHIPPED)}) or OWNER/NAME on the hub',
            code=1,
        ) from None
