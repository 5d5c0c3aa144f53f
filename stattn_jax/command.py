"""The shell of a command with --config: flags in, one-line errors and exit codes out. Read next: main.py."""

import difflib
import sys
from collections.abc import Callable
from typing import Any

from absl import flags

from stattn_jax import config_files


class RunError(Exception):
    """A run cannot start or go on; the message is one line with the fix. `code` is the exit code: 2 wrong use, 1 a
    failure.
    """

    def __init__(self, message: str, code: int = 2):
        super().__init__(message)
        self.code = code


def run(
    argv: list[str] | None,
    document: str,
    make: Callable[[list[str]], flags.FlagValues],
    body: Callable[[flags.FlagValues], int],
    codes: dict[type[BaseException], int] | None = None,
) -> int:
    """Help, or the exit code of `body(values)`; what cannot be is one line.

    RunError ends with its own code, the exceptions of `codes` with theirs, Ctrl-C with 130; any other is a bug and
    keeps its traceback.
    """
    argv = config_files.find_in(sys.argv if argv is None else argv)
    if '--help' in argv or '-h' in argv:
        with config_files.importable():
            print(f'{document}\n{make(argv).get_help()}')
        return 0
    known = codes or {}
    try:
        with config_files.importable():
            values = parse(argv, make)
        return body(values)
    except RunError as error:
        return fail(error, error.code)
    except KeyboardInterrupt:
        return fail('stopped', 130)
    except tuple(known) as error:
        return fail(error, next(code for kind, code in known.items() if isinstance(error, kind)))


def parse(argv: list[str], make: Callable[[list[str]], flags.FlagValues]) -> flags.FlagValues:
    """The flags of a command with --config; raises RunError, in one line, for what they cannot be."""
    values = make(argv)
    try:
        rest = values(argv)
        # A config file that could not be read says so only when it is touched.
        values.config.lock()
    except (AttributeError, KeyError):
        raise RunError(_unknown_field(argv, make)) from None
    except OSError as error:
        raise RunError(
            f'--config: {str(error).splitlines()[-1].strip()}; expected a file such as configs/own.py, or a name of '
            f'{", ".join(config_files.names())}'
        ) from None
    except (flags.Error, ValueError, TypeError) as error:
        # An error inside the config file comes with its whole traceback; its last line is the message.
        text = str(error).strip()
        text = text.splitlines()[-1] if 'Traceback' in text else text
        raise RunError(f'{text}; --help lists the flags') from None
    if len(rest) > 1:
        raise RunError(f'{rest[1:]} on the command line is not a flag; expected --NAME=VALUE')
    return values


def _unknown_field(argv, make):
    """One line on the fields that --config does not have, with the nearest names."""
    config_only = [argument for argument in argv if not argument.startswith('--config.')]
    values = make(config_only)
    values(config_only)
    known = list(flatten(values.config.to_dict()))
    given = [a.split('=')[0].removeprefix('--config.') for a in argv if a.startswith('--config.')]
    unknown = [name for name in given if name not in known]
    near = {match for name in unknown for match in difflib.get_close_matches(name, known, n=3, cutoff=0.4)}
    return f'config has no field {", ".join(unknown)}; ' + (
        f'near: {", ".join(sorted(near))}' if near else f'it has {", ".join(known)}'
    )


def fail(error: Exception | str, code: int) -> int:
    """Prints an error as one line and returns the exit code."""
    print('error: ' + ' '.join(str(error).split()), file=sys.stderr)
    return code


def flatten(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    """{'a': {'b': 1}} to {'a.b': 1}."""
    flat = {}
    for name, value in tree.items():
        flat |= flatten(value, f'{prefix}{name}.') if isinstance(value, dict) else {prefix + name: value}
    return flat
