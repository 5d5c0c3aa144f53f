"""Runs a data_prep command by stattn_jax/command.py, and parses the values that its commands share.

Exit codes: 0 done; 2 wrong use (a flag, a table: the line has the given value, the expected one and the fix); 1 a
failure; 130 stopped by Ctrl-C. Each command has a FlagValues of its own, so that several commands can be imported into
one process.
"""

import re
import sys
from collections.abc import Callable

from absl import flags

from data_prep import rows
from data_prep.work import UsageError
from stattn_jax import command
from stattn_jax.command import definers

__all__ = ['UsageError', 'beam_options', 'definers', 'exit_code', 'parse_require', 'run']


def run(main: Callable[[list[str]], None], flag_values: flags.FlagValues, doc: str, positional: int = 0) -> None:
    """Parses sys.argv into `flag_values`, calls `main(arguments)` and exits with its code.

    Args:
      main: does the work. It gets the positional arguments and, if the command has the flag --runner, everything after
        `--` (see `beam_options`). UsageError, TableError and NoDataError from it are wrong use (2), PrepareError,
        DataError and OSError are a failure (1); any other exception is a bug and keeps its traceback.
      flag_values: the command's own flags.
      doc: printed by --help before the flags.
      positional: the number of positional arguments required before `--`.
    """
    sys.exit(exit_code(sys.argv, main, flag_values, doc, positional))


def exit_code(
    argv: list[str], main: Callable[[list[str]], None], flag_values: flags.FlagValues, doc: str, positional: int = 0
) -> int:
    """Returns the exit code of `run`; errors are printed to stderr."""
    cut = argv.index('--') if '--' in argv else len(argv)
    own, passed_on = argv[:cut], argv[cut + 1 :]

    def body(_: flags.FlagValues, *arguments: str) -> int:
        if passed_on and 'runner' not in flag_values:
            raise UsageError(f'this command runs without Beam and passes nothing on; leave out -- {passed_on[0]}')
        try:
            main([*arguments, *passed_on])
        except KeyboardInterrupt:
            text = 'stopped; run the same command again (a preparation goes on where it stopped)'
            raise command.RunError(text, 130) from None
        except rows.TableError as error:
            # Its faults have a line each.
            print(f'error: {str(error).strip()}', file=sys.stderr)
            return 2
        return 0

    return command.run(own, doc, flag_values, body, positional=positional)


def beam_options(runner: str, passed_on: list[str]) -> list[str] | None:
    """Returns the `beam` argument of prepare.prepare: None for the runner 'local', the words after `--` for 'beam'.

    Raises:
      UsageError: there are words after `--` for the runner 'local'.
    """
    if runner == 'beam':
        return passed_on
    if passed_on:
        raise UsageError(f"arguments after -- are for Beam; give --runner=beam, or leave out '{passed_on[0]}'")
    return None


def parse_require(text: str) -> float | int:
    """Parses the value of --require: '0.9', '90%' and '1.0' are a fraction of each split, '14000' clips in total.

    Raises:
      UsageError: the value is neither.
    """
    if re.fullmatch(r'[0-9]+', text) and int(text):
        return int(text)
    if re.fullmatch(r'[0-9]*\.[0-9]+|[0-9]+(\.[0-9]+)?%', text):
        share = float(f'{text[:-1]}e-2' if text.endswith('%') else text)
        if 0 < share <= 1:
            return share
    raise UsageError(
        f'--require={text}: give a fraction of each split (0.9 or 90%, at most 1.0) or a number of clips (14000)'
    )
