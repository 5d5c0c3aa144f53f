"""The frame of a command with --config: it parses the flags, prints errors in one line and returns an exit code."""

import difflib
import sys
from collections.abc import Callable
from typing import Any

from absl import flags

from stattn_jax import config_files, renamed


class RunError(Exception):
    """Raised when a run cannot start or continue; the message is one line that names the fix.

    `code` is the exit code: 2 for wrong use, 1 for a failure.
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
    """Prints the help, or runs `body(values)` and returns its exit code; expected errors are printed in one line.

    A RunError ends the command with its own code, the exceptions in `codes` with theirs, and Ctrl-C with 130. Any other
    exception is a bug and keeps its traceback.
    """
    argv = renamed.arguments(config_files.find_in(sys.argv if argv is None else argv))
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
    """Parses the flags of a command with --config; raises RunError, with a message of one line, for invalid ones."""
    values = make(argv)
    try:
        rest = values(argv)
        # A config file that cannot be read raises its error only on the first access.
        values.config.lock()
    except (AttributeError, KeyError):
        raise RunError(_unknown_field(argv, make)) from None
    except OSError as error:
        raise RunError(
            f'--config: {str(error).splitlines()[-1].strip()}; expected a file such as configs/own.py, or a name of '
            f'{", ".join(config_files.names())}'
        ) from None
    except (flags.Error, ValueError, TypeError) as error:
        # An error inside the config file includes its whole traceback; only the last line is the message.
        text = str(error).strip()
        text = text.splitlines()[-1] if 'Traceback' in text else text
        raise RunError(f'{text}; --help lists the flags') from None
    if len(rest) > 1:
        raise RunError(f'{rest[1:]} on the command line is not a flag; expected --NAME=VALUE')
    return values


def _unknown_field(argv, make):
    """Returns one line about the given fields that --config does not have, with the nearest known names."""
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
    """Flattens nested dicts to dotted names: {'a': {'b': 1}} becomes {'a.b': 1}."""
    flat = {}
    for name, value in tree.items():
        flat |= flatten(value, f'{prefix}{name}.') if isinstance(value, dict) else {prefix + name: value}
    return flat
