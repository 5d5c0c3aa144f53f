"""Packs the results of a study's trials and networks into one archive per variant, without data and parameters.

Usage: python tools/pack_study.py --workdir=STUDY --out=FOLDER

`tar -xJf FOLDER/VARIANT.tar.xz -C OTHER` puts them into another workdir, in which the command of the study finds them
done: it writes the report without training, or trains only what was added to the config.
"""

import argparse
import io
import json
import pathlib
import sys
import tarfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from stattn_jax import files  # noqa: E402  the checkout is not installed
from stattn_jax.study import plan  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--workdir', required=True, type=pathlib.Path)
    parser.add_argument('--out', required=True, type=pathlib.Path)
    args = parser.parse_args()
    variants = sorted(folder.name for folder in args.workdir.glob('runs/*'))
    if not variants:
        print(f'error: {args.workdir} holds no measured network; expected the workdir of a study', file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    for variant in variants:
        archive = args.out / f'{variant}.tar.xz'
        print(f'{archive}: {pack(args.workdir, variant, archive)} files')
    return 0


def pack(workdir: pathlib.Path, variant: str, out: pathlib.Path) -> int:
    """Writes the archive of a variant, and returns its number of files; the same results give the same bytes."""
    paths = sorted(workdir.glob(f'trials/{variant}/*/trial.json'))
    paths += sorted(path for name in (plan.NUMBERS, plan.ARRAYS) for path in workdir.glob(f'runs/{variant}/*/{name}'))
    with files.whole_file(out) as file, tarfile.open(fileobj=file, mode='w:xz', preset=9) as archive:
        for path in paths:
            content = _content(path)
            member = tarfile.TarInfo(str(path.relative_to(workdir)))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return len(paths)


def _content(path: pathlib.Path) -> bytes:
    """Returns a file for the archive: arrays without their own compression, numbers without the command's paths."""
    if path.name == plan.ARRAYS:
        buffer = io.BytesIO()
        with np.load(path) as arrays:
            np.savez(buffer, **arrays)
        return buffer.getvalue()
    found = json.loads(path.read_text())
    found.get('run', {}).pop('command', None)
    return (json.dumps(found, indent=1, sort_keys=True) + '\n').encode()


if __name__ == '__main__':
    sys.exit(main())
