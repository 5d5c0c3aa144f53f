"""Lists, inspects, verifies and converts published weights: `python -m stattn_jax.weights COMMAND`, one of

  list                                  the trunks, their inputs, and where weights for them come from
  inspect FILE                          the tensors of a file: names, shapes, types
  verify FILE --trunk=NAME              whether a file fits a trunk, and which tensors do not
  convert FILE --out=NAME.safetensors   the same tensors as safetensors, bfloat16 as float32

FILE is .safetensors, .pth or .pt of PyTorch (which need not be installed), or .npz. No code in a file is run.
Exit codes: 0 done; 1 --out cannot be written; 2 wrong use, or a file that cannot be used or does not fit.
"""

import pathlib
import sys
from collections.abc import Callable

import jax
from absl import flags

from stattn_jax import command, files, names
from stattn_jax.models.trunks import registry
from stattn_jax.models.trunks.trunk import Trunk
from stattn_jax.weights import find, formats, match
from stattn_jax.weights.errors import listed, printable

MODALITIES = ('visual', 'audio')


def make_flags() -> flags.FlagValues:
    """Defines the command's flags and returns them unparsed."""
    values = flags.FlagValues()
    define = command.definers(values)
    define.string('trunk', None, 'With verify: a trunk that list names; MODALITY/NAME where both modalities have it.')
    define.string('out', None, 'With convert: the file to write.')
    return values


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns the exit code."""
    return command.run(argv, __doc__, make_flags(), _main, positional=None)


def _main(values, name: str = '', *paths: str) -> int:
    _check(values, name, paths)
    with command.output_may_close():
        _COMMANDS[name][0](values, *paths)
    return 0


def _check(values, name: str, paths: tuple[str, ...]) -> None:
    """Raises RunError for wrong commands, files or flags."""
    if name not in _COMMANDS:
        raise command.RunError(f'the command is {name!r}; {names.expected(name, _COMMANDS)}; --help describes them')
    _, wanted, needed = _COMMANDS[name]
    if len(paths) != wanted:
        raise command.RunError(f'{name} got {len(paths)} files ({", ".join(paths)}); expected {wanted}')
    for flag in ('trunk', 'out'):
        if (values[flag].value is None) == (flag == needed):
            raise command.RunError(
                f'{name} needs --{flag}; add it' if flag == needed else f'{name} does not take --{flag}; leave it out'
            )


def _list(values) -> None:
    del values
    trunks = {(modality, name): trunk for modality in MODALITIES for name, trunk in registry.trunks(modality).items()}
    rows = [('modality', 'name', 'width', 'stride or mel', 'licence', 'weights')]
    rows += [(*key, '', *_read_and_given(key[0], trunk)) for key, trunk in trunks.items()]
    columns = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    # Computing the widths of the modules takes a while, so each row is printed as soon as it is known.
    for row, trunk in zip(rows, [None, *trunks.values()], strict=True):
        *cells, last = row if trunk is None else (*row[:2], str(match.width(trunk)), *row[3:])
        print('  '.join([*(cell.ljust(column) for cell, column in zip(cells, columns)), last]), flush=True)


def _read_and_given(modality: str, trunk: Trunk) -> tuple[str, str, str]:
    """Returns the stride or the front end of a trunk, and the licence and the source of its weights."""
    reads = str(trunk.stride) if modality == 'visual' else trunk.mel or 'any'
    if trunk.published is None:
        return reads, '-', 'none: trained from scratch'
    return reads, trunk.published.licence, _source(trunk.published)


def _source(published) -> str:
    names = [f'{name} (pip install {package.package})' for name, package in published.packages.items()]
    return '; or '.join([*names, published.source])


def _inspect(values, file: str) -> None:
    del values
    tensors = {printable(name): array for name, array in formats.read(file).items()}
    width = max(len(name) for name in tensors)
    for name, array in tensors.items():
        print(f'{name.ljust(width)}  {array.dtype.name.ljust(8)}  {list(array.shape)}')
    count, size = sum(array.size for array in tensors.values()), sum(array.nbytes for array in tensors.values())
    print(f'{len(tensors)} tensors, {count} numbers, {size / 1e6:.1f} MB')


def _verify(values, file: str) -> None:
    modality, name = _trunk(values.trunk)
    state = match.abstract_state(registry.find(modality, name))
    report = match.fill(
        state, find.published_of(modality, name), formats.read(file), find.described(file, modality, name)
    )[1]
    dropped = f'; {len(report.dropped)} dropped by rule: {listed(list(report.dropped))}' if report.dropped else ''
    print(f'{file} fits the {modality} trunk {name}: {report.used} tensors used{dropped}')


def _trunk(given: str) -> tuple[str, str]:
    """Returns modality and name of --trunk; raises RunError if unknown, or if both modalities have weights for it."""
    modality, _, name = given.rpartition('/')
    found = [m for m in MODALITIES if given in registry.trunks(m) or (m == modality and name in registry.trunks(m))]
    with_weights = [m for m in found if registry.find(m, name).published is not None]
    if not found:
        known = [known for m in MODALITIES for known in registry.trunks(m)]
        raise command.RunError(f'--trunk={given}; {names.expected(given, known, "trunks")}')
    if len(with_weights) > 1:
        raise command.RunError(f'--trunk={given} is a trunk of both modalities; expected visual/{name} or audio/{name}')
    return (with_weights or found)[0], name


def _convert(values, file: str) -> None:
    out = pathlib.Path(values.out)
    if out.suffix != '.safetensors':
        raise command.RunError(f'--out={out}; expected a name that ends in .safetensors')
    files.make_folder(out.parent)
    tensors = formats.read(file)
    metadata = {'format': 'pt', 'source': pathlib.Path(file).name, 'source_sha256': find.sha256_of(pathlib.Path(file))}
    formats.write_safetensors(out, tensors, metadata)
    print(f'{out}: {len(tensors)} tensors, sha256 {find.sha256_of(out)}')


# For each command: its function, the number of files it takes, and the flag it needs.
_COMMANDS: dict[str, tuple[Callable[..., None], int, str | None]] = {
    'list': (_list, 0, None),
    'inspect': (_inspect, 1, None),
    'verify': (_verify, 1, 'trunk'),
    'convert': (_convert, 1, 'out'),
}


def console() -> int:
    """Runs `main` on the CPU.

    The command needs only shapes from JAX, and an accelerator may be absent or in use by another process.
    """
    jax.config.update('jax_platforms', 'cpu')
    return main()


if __name__ == '__main__':
    sys.exit(console())
