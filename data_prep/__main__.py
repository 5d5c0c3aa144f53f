"""`python -m data_prep NAME ...`, or `stattn-prepare NAME ...`, runs the command data_prep.NAME.

  stattn-prepare folder --videos=VIDEOS --clips=clips.csv --out=DATA
  stattn-prepare folder --help

NAME is one of those below. Exit codes: those of the command (data_prep/cli.py); 2 for another name.
"""

import runpy
import sys

from stattn_jax import command, names

COMMANDS = {
    'folder': 'videos of your own and their tables',
    'synthetic': 'synthetic scenes',
    'vggsound': 'VGGSound, with VGG-SS and VGGSounder',
    'ave': 'AVE',
    'llp': 'LLP',
    'kinetics_sounds': 'Kinetics-Sounds',
    'avsbench': 'AVSBench, with masks',
    'extract': 'features of frozen trunks, from prepared data',
    'divide': 'validation clips, held out of the training clips of prepared data',
    'verify': 'a check of prepared data',
}


def main(argv: list[str] | None = None) -> int:
    """Runs the command that the first argument names, with the remaining arguments."""
    argv = sys.argv if argv is None else argv
    name = argv[1] if len(argv) > 1 else None
    if name in (None, '--help', '-h'):
        print(__doc__ + '\n' + '\n'.join(f'  {known:<16}{text}' for known, text in COMMANDS.items()))
        return 0 if name else 2
    if name not in COMMANDS:
        return command.fail(f'there is no command {name!r}; {names.expected(name, COMMANDS)}', 2)
    module = f'data_prep.{name}'
    sys.argv = [module, *argv[2:]]
    # Runs the module as `python -m` does, so that worker processes find it by its own name.
    runpy.run_module(module, run_name='__main__', alter_sys=True)
    return 0


def verify() -> int:
    """Entry point of `stattn-verify DATA`."""
    return main(['stattn-prepare', 'verify', *sys.argv[1:]])


if __name__ == '__main__':
    sys.exit(main())
