"""Makes the data of the networks of a study: synthetic clips, validation clips, features of frozen trunks."""

import copy
import pathlib
import subprocess
import sys

import ml_collections

from stattn_jax import command, extraction, run
from stattn_jax.data import source
from stattn_jax.study import plan


def make(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Makes, or completes, the data of each variant; raises RunError if that fails."""
    for variant, fields in config.variants.items():
        clips, _ = plan.data_folders(config, variant, workdir)
        if not fields.run.data.dir:
            _make_clips(variant, fields.make, clips)
        elif clips != pathlib.Path(fields.run.data.dir) and not (clips / source.INFO_FILE).exists():
            print(f'{fields.run.data.dir} has no split val; dividing its training clips in {clips}', flush=True)
            _run('divide', [f'--data={fields.run.data.dir}', f'--out={clips}'])
        if fields.run.data.extract:
            made = copy.deepcopy(fields.run)
            made.data.dir = str(clips)
            extraction.prepared(made, workdir / 'data' / variant)


def _make_clips(variant: str, wanted: ml_collections.ConfigDict, folder: pathlib.Path) -> None:
    if (folder / source.INFO_FILE).exists():
        splits = source.DatasetInfo.load(folder).splits
        if any(splits.get(split, 0) != wanted[split] for split in ('train', 'val', 'test')):
            raise run.RunError(
                f'{folder} has {splits}, which is not config.variants.{variant}.make; give another --workdir'
            )
        return
    print(f'making the data of {variant} in {folder}', flush=True)
    _run('synthetic', [f'--out={folder}', '--sounds', *(f'--{name}={value}' for name, value in wanted.items())])


def _run(name: str, flags: list[str]) -> None:
    words = [sys.executable, '-m', f'data_prep.{name}', *flags]
    command.check_exit(subprocess.run(words, stdout=subprocess.DEVNULL).returncode, 'making the data')
