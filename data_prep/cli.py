"""The shell of a data_prep command: flags in, one-line errors and exit codes out.

0 done; 2 wrong use (a flag, a table: the line says what was given, what was expected and the fix); 1 a failure; 130
stopped by Ctrl-C. Flags live in a FlagValues of the command's own, so that several commands can be imported into one
process.
"""

import sys
from collections.abc import Callable

from absl import flags

from data_prep import prepare, tables
from stattn_jax.data import tfrecord


class UsageError(Exception):
    """The command line asks for something that cannot be done; the message is one line."""


def run(main: Callable[[list[str]], None], flag_values: flags.FlagValues, doc: str, positional: int = 0) -> None:
    """Parses sys.argv into `flag_values`, calls `main(positional arguments)` and exits with its code.

    Args:
      main: does the work. UsageError, TableError and NoDataError from it are wrong use (2), PrepareError and DataError a
        failure (1); any other exception is a bug and keeps its traceback.
      flag_values: the command's own flags.
      doc: printed by --help before the flags.
      positional: how many positional arguments there must be.
    """
    sys.exit(exit_code(sys.argv, main, flag_values, doc, positional))


def exit_code(
    argv: list[str], main: Callable[[list[str]], None], flag_values: flags.FlagValues, doc: str, positional: int = 0
) -> int:
    """What `run` exits with; errors go to stderr."""
    if '--help' in argv or '-h' in argv:
        print(f'{doc.strip()}\n{flag_values.main_module_help() or flag_values.get_help()}')
        return 0
    try:
        arguments = flag_values(argv)[1:]
        if len(arguments) != positional:
            raise UsageError(f'got {len(arguments)} positional arguments {arguments}, expected {positional}')
        main(arguments)
    except flags.Error as error:
        return _fail(f'{error}; --help lists the flags', 2)
    except (UsageError, tables.TableError, tfrecord.NoDataError) as error:
        return _fail(error, 2)
    except (prepare.PrepareError, tfrecord.DataError) as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail('stopped; run the same command again (a preparation goes on where it stopped)', 130)
    return 0


def _fail(error: Exception | str, code: int) -> int:
    text = str(error).strip()
    # absl names an absent required flag on a second, indented line.
    print('error: ' + (text if isinstance(error, tables.TableError) else ' '.join(text.split())), file=sys.stderr)
    return code
