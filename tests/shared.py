"""Makes the folder of a shared model from the fixture that version 0.1 wrote."""

import json
import pathlib
import zipfile

import runs

WRITTEN_BY_0_1 = runs.ROOT / 'tests' / 'golden' / 'pretrained_0.1.zip'


def make_folder(folder: pathlib.Path) -> pathlib.Path:
    """Unpacks config.json, model.safetensors, README.md, and expected.json with a network's numbers.

    The network has two classes, two segments, frames of 16 pixels, and weights of few distinct values, so that the
    archive is small.
    """
    with zipfile.ZipFile(WRITTEN_BY_0_1) as archive:
        archive.extractall(folder)
    return folder


def change(folder: pathlib.Path, name: str, value) -> None:
    """Replaces a field of config.json, whose name has dots between its levels."""
    path = folder / 'config.json'
    record = json.loads(path.read_text())
    *groups, field = name.split('.')
    inner = record
    for group in groups:
        inner = inner[group]
    inner[field] = value
    path.write_text(json.dumps(record))
