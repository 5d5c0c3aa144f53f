"""The frame of a command with --config: it parses the flags, prints errors in one line and returns an exit code."""

import difflib
import pathlib
import sys
import traceback
from collections.abc import Callable
from typing import Any

from absl import flags

from stattn_jax import config_files, files, flag_once, renamed


class RunError(Exception):
    """Raised when a run cannot start or continue; the message is one line that names the fix.

    `code` is the exit code: 2 for wrong use, 1 for a failure. An empty message prints nothing.
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
    describe_fields: Callable[[], str] = str,
) -> int:
    """Prints the help, or runs `body(values)` and returns its exit code; expected errors are printed in one line.

    The help is `document`, the flags, and the text of `describe_fields` on the fields of --config.
    A RunError ends the command with its own code, the exceptions in `codes` with theirs, an OSError (a full disk, a
    folder that cannot be written to) with 1, and Ctrl-C with 130. Any other exception is a bug and keeps its traceback.
    """
    argv = renamed.arguments(config_files.find_in(sys.argv if argv is None else argv))
    if '--help' in argv or '-h' in argv:
        with config_files.importable():
            flag_help = make(argv[:1]).get_help(include_special_flags=False)
            print('\n'.join(filter(None, [document, flag_help, describe_fields()])))
        return 0
    known = codes or {}
    try:
        with config_files.importable():
            values = parse(argv, make)
        return body(values)
    except RunError as error:
        return fail(error, error.code) if str(error) else error.code
    except KeyboardInterrupt:
        return fail('stopped', 130)
    except tuple(known) as error:
        return fail(error, next(code for kind, code in known.items() if isinstance(error, kind)))
    except OSError as error:
        return fail(files.reason(error), 1)


def parse(argv: list[str], make: Callable[[list[str]], flags.FlagValues]) -> flags.FlagValues:
    """Parses the flags of a command with --config; raises RunError, with a message of one line, for invalid ones."""
    # The config is loaded without the fields first, so that an error in its file is told from an unknown field.
    _parse(_without_fields(argv), make)
    try:
        values, rest = _parse(argv, make)
    except _LoadError:
        raise RunError(_unknown_field(argv, make)) from None
    if len(rest) > 1:
        raise RunError(f'{rest[1:]} on the command line is not a flag; expected --NAME=VALUE')
    return values


class _LoadError(RunError):
    """Raised where the Python code of a config file, or an access to its config, fails."""


def _without_fields(argv: list[str]) -> list[str]:
    return [argument for argument in argv if not argument.startswith(('--config.', '-config.'))]


def _parse(argv: list[str], make: Callable[[list[str]], flags.FlagValues]) -> tuple[flags.FlagValues, list[str]]:
    """Returns the parsed flags and the words that are no flags; raises RunError."""
    path = (flag_once.given(argv, 'config') or '').partition(':')[0]
    try:
        values = make(argv)
        flag_once.check_once(argv, values)
        rest = values(argv)
        flag_once.check_once(argv, values)
        # A config file that cannot be read raises its error only on the first access.
        values.config.lock()
    except RunError:
        raise
    except OSError as error:
        if pathlib.Path(path).is_file():
            raise _LoadError(_in_file(path, error)) from None
        raise RunError(f'--config={path}: {config_files.missing(path)}') from None
    except (flags.Error, ValueError, TypeError) as error:
        # An error inside the config file includes its whole traceback; only the last line is the message.
        text = str(error).strip()
        if 'Traceback' in text:
            raise _LoadError(
                f'--config={path}: {text.splitlines()[-1]}; mend that file, or give another variant'
            ) from None
        if path and text.startswith('flag --config=None'):
            text = f'--config={path}: get_config returned None; expected a ConfigDict, so return it'
        raise RunError(f'{text}; --help lists the flags') from None
    except Exception as error:
        # A config file is a program of the user's own, which may raise anything. Without one, only access to an unknown
        # field fails.
        if not path and not isinstance(error, AttributeError | KeyError):
            raise
        raise _LoadError(_in_file(path, error)) from None
    return values, rest


def _in_file(path: str, error: Exception) -> str:
    """Returns one line about an exception that a config file raised."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    where = f'{path}:{lines[-1]}' if lines else path
    text = ' '.join(str(error).split())
    if isinstance(error, OSError):
        return f'--config={path}: {str(error).splitlines()[-1].strip()}; mend that file'
    if isinstance(error, AttributeError) and not lines:
        return f'--config={path}: {text}; expected a file with a function get_config that returns a ConfigDict'
    if isinstance(error, ImportError) and 'configs' in text:
        text += (
            f'; the folder configs of the project, {config_files.FOLDER}, goes before yours: give yours another name'
        )
    return f'--config: {where}: {type(error).__name__}: {text}; mend that file'


def _unknown_field(argv, make):
    """Returns one line about the given fields that --config does not have, with the nearest known names."""
    values, _ = _parse(_without_fields(argv), make)
    known = list(flatten(values.config.to_dict()))
    given = [a.split('=')[0].lstrip('-').removeprefix('config.') for a in argv if a.lstrip('-').startswith('config.')]
    unknown = [name for name in given if name not in known]
    near = {match for name in unknown for match in difflib.get_close_matches(name, known, n=3, cutoff=0.4)}
    return f'config has no field {", ".join(unknown)}; ' + (
        f'near: {", ".join(sorted(near))}' if near else f'it has {", ".join(known)}'
    )


def fail(error: Exception | str, code: int) -> int:
    """Prints an error as one line and returns the exit code."""
    print('error: ' + ' '.join(str(error).split()), file=sys.stderr)
    return code


def check_exit(code: int, work: str) -> None:
    """Raises RunError where a command that did `work` failed; it has printed the reason, unless a signal ended it."""
    if code < 0:
        raise RunError(
            f'the process of {work} was ended by signal {-code} (9: out of memory?); run the same command again', code=1
        )
    if code:
        raise RunError('', code)


def flatten(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    """Flattens nested dicts to dotted names: {'a': {'b': 1}} becomes {'a.b': 1}."""
    flat = {}
    for name, value in tree.items():
        flat |= flatten(value, f'{prefix}{name}.') if isinstance(value, dict) else {prefix + name: value}
    return flat
