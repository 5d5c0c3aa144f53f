"""The shell of a command with --config: flags in, one-line errors and exit codes out. Read next: main.py."""

import difflib
import sys
from collections.abc import Callable
from typing import Any

from absl import flags


class RunError(Exception):
    """A run cannot start or go on; the message is one line with the fix. `code` is the exit code: 2 wrong use, 1 a failure."""

    def __init__(self, message: str, code: int = 2):
        super().__init__(message)
        self.code = code


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
            f'--config: {str(error).splitlines()[-1].strip()}; expected a file such as configs/own.py'
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
