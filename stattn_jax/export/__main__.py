"""`python -m stattn_jax.export --workdir=RUN --out=DIR`: writes a trained network for others to use.

  --format=safetensors   config.json, model.safetensors and README.md (a model card made from the run), which
                         stattn_jax.from_pretrained and --workdir of stattn_jax.explain open
  --format=stablehlo     network.jax_export, network.json and load.py: frames and log-mel to logits, attention and
                         contributions, on cpu, cuda and tpu, with JAX and flatbuffers alone
  --format=onnx          network.onnx and network.json, the same function

The exported networks are compared with the trained one on random clips, and the largest difference is printed.
docs/sharing.md describes the files. Exit codes: 0 done, 2 wrong use, 1 a network that cannot be exported or that
computes something else than the trained one.
"""

import sys

from absl import flags

from stattn_jax import command
from stattn_jax.explain import console

FORMATS = ('safetensors', 'stablehlo', 'onnx')


def make_flags() -> flags.FlagValues:
    """Defines the command's flags and returns them unparsed."""
    values = flags.FlagValues()
    define = command.definers(values)
    define.string('workdir', None, f'{console.WORKDIR}.')
    define.string('out', None, 'Folder for the files.')
    define.list('format', ['safetensors'], f'Some of {",".join(FORMATS)}.')
    define.string('licence', None, 'Licence of the weights, such as apache-2.0, for the model card.')
    define.string('data_licence', None, 'Licences of the recordings and who made them, for the model card.')
    define.string('limits', None, 'Sentences for the model card on the limits of the network.')
    define.string(
        'dtype', None, "With safetensors: 'float16' rounds the weights to half the size. Default: as they are stored."
    )
    define.integer('batch', None, 'With stablehlo and onnx: a fixed number of clips. Default: any number.', 1)
    return values


def main(argv: list[str] | None = None) -> int:
    """Writes the files and returns the exit code."""
    return command.run(argv, __doc__, make_flags(), _main)


def _main(values: flags.FlagValues) -> int:
    _check_flags(values)
    # JAX is imported only here, so that wrong use is reported at once.
    from stattn_jax.explain import model as models

    model = models.load(values.workdir)
    return max([_write(values, model, kind) for kind in values.format])


def _check_flags(values: flags.FlagValues) -> None:
    """Raises flags.Error for missing or wrong flags."""
    command.require(values, ('workdir', 'out'), '--workdir=RUN --out=DIR')
    if not values.format or set(values.format) - set(FORMATS):
        raise flags.Error(f'--format={",".join(values.format)}; expected some of {",".join(FORMATS)}')
    if values.batch is not None and values.format == ['safetensors']:
        raise flags.Error('--batch needs --format=stablehlo or --format=onnx')
    if values.dtype is not None and 'safetensors' not in values.format:
        raise flags.Error('--dtype needs --format=safetensors')


def _write(values, model, kind: str) -> int:
    """Writes the files of one format, and prints their names; returns the exit code."""
    from stattn_jax.export import network
    from stattn_jax.pretrained import shared_folder

    if kind == 'safetensors':
        stated = {name: values[name].value for name in ('licence', 'data_licence', 'limits', 'dtype')}
        model.save_pretrained(values.out, **stated)
        print(f'{values.out}: {", ".join(shared_folder.FILES)}; open it with stattn_jax.from_pretrained')
        return 0
    write = {'stablehlo': network.write_stablehlo, 'onnx': network.write_onnx}[kind]
    worst = write(values.out, model.trained, values.batch)
    verdict = '' if worst <= network.TOLERANCE else ': TOO LARGE'
    print(
        f'{values.out}: the network as {kind}, for {values.batch or "any number of"} clips; the largest relative '
        f'difference to the trained network is {worst:.1e} ({network.TOLERANCE:g} allowed{verdict})'
    )
    return 1 if verdict else 0


if __name__ == '__main__':
    sys.exit(main())
