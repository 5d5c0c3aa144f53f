"""Runs a data_prep command: parses its flags, prints errors in one line and sets the exit code.

Exit codes: 0 done; 2 wrong use (a flag, a table: the line has the given value, the expected one and the fix); 1 a
failure; 130 stopped by Ctrl-C. Each command has a FlagValues of its own, so that several commands can be imported into
one process.
"""

import re
import sys
from collections.abc import Callable

from absl import flags

from data_prep import rows
from data_prep.work import PrepareError, UsageError
from stattn_jax import files, flag_once
from stattn_jax.data import tfrecord

__all__ = ['UsageError', 'beam_options', 'exit_code', 'parse_require', 'run']


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
    if '--help' in own or '-h' in own:
        print(f'{doc.strip()}\n{flag_values.get_help(include_special_flags=False)}')
        return 0
    try:
        flag_once.check_once(own, flag_values)
        arguments = flag_values(own)[1:]
        if len(arguments) != positional:
            raise UsageError(f'got {len(arguments)} positional arguments {arguments}, expected {positional}')
        if passed_on and 'runner' not in flag_values:
            raise UsageError(f'this command runs without Beam and passes nothing on; leave out -- {passed_on[0]}')
        main(arguments + passed_on)
    except flags.Error as error:
        return _fail(f'{error}; --help lists the flags', 2)
    except (UsageError, rows.TableError, tfrecord.NoDataError) as error:
        return _fail(error, 2)
    except (PrepareError, tfrecord.DataError) as error:
        return _fail(error, 1)
    except OSError as error:
        return _fail(files.reason(error), 1)
    except KeyboardInterrupt:
        return _fail('stopped; run the same command again (a preparation goes on where it stopped)', 130)
    return 0


def beam_options(runner: str, passed_on: list[str]) -> list[str] | None:
    """Returns the `beam` argument of prepare.prepare: None for the runner 'local', the words after `--` for 'beam'.

    Raises:
      UsageError: there are words after `--` for the runner 'local'.
    """
    if runner == 'beam':
        return passed_on
    if passed_on:
        raise UsageError(f"what stands after -- is for Beam; give --runner=beam, or leave out '{passed_on[0]}'")
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


def _fail(error: Exception | str, code: int) -> int:
    text = str(error).strip()
    # absl names a missing required flag on a second, indented line.
    print('error: ' + (text if isinstance(error, rows.TableError) else ' '.join(text.split())), file=sys.stderr)
    return code
