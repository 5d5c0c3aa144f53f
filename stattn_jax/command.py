"""The frame of every command: it parses the flags, prints the help and the errors, and returns an exit code."""

import contextlib
import dataclasses
import functools
import importlib.machinery
import importlib.util
import os
import pathlib
import re
import sys
import traceback
import types
from collections.abc import Callable, Collection, Iterator
from typing import Any

from absl import flags

from stattn_jax import config_files, files, names, progress, renamed
from stattn_jax.command_error import CommandError
from stattn_jax.config_files import fields as run_fields

# --config.FIELD=VALUE, --config.FIELD VALUE, --config.FIELD and --noconfig.FIELD, with one dash or two.
_FIELD = re.compile(r'--?(?:no)?config\.([^=\[]+)')

# Messages of absl, and their wording here.
_PLAINER = (
    (r'flag --\S+=None: Flag (\S+) must have a value other than None\.', r'\1 is missing'),
    (r'flag (--[^=]+)=(.*): already defined as (.*?)(; --help|$)', r'\1 is given twice, \3 and \2; expected once\4'),
)


class RunError(CommandError):
    """Raised when a run cannot start or continue; an empty message prints nothing."""

    def __init__(self, message: str, code: int = 2):
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(frozen=True)
class ConfigFlag:
    """The flag --config of a command.

    fields: returns the names of the fields that a config must have; `example` is a config that has them.
    saved: returns the config to use without --config; where there is none, --config is required.
    """

    fields: Callable[[], Collection[str]] = run_fields.defaults
    example: str = 'configs/own.py'
    help: str = "A file of configs/, or the name of one of the package's."
    saved: Callable[[flags.FlagValues], Any] | None = None


def run(
    argv: list[str] | None,
    document: str,
    values: flags.FlagValues,
    body: Callable[..., int],
    *,
    config: ConfigFlag | None = None,
    positional: int | None = 0,
    describe_fields: Callable[[], str] = str,
    wrong_use: type[Exception] | tuple[()] = (),
) -> int:
    """Prints the help, or parses `values` and returns the exit code of `body(values, *positional arguments)`.

    Expected errors are printed in one line. The help is `document`, the flags, and the text of `describe_fields` on the
    fields of --config. A CommandError ends the command with its own code, an OSError (a full disk, a folder that cannot
    be written to) with 1, and Ctrl-C with 130. Any other exception is a bug and keeps its traceback.

    Args:
      config: the flag --config, of a command that has it; values.config is then the config.
      positional: the number of positional arguments; None where `body` checks it.
      wrong_use: an exception of `body` that is wrong use too, with exit code 2.
    """
    argv = sys.argv if argv is None else argv
    if config:
        flags.DEFINE_string('config', None, config.help, flag_values=values)
    try:
        if '--help' in argv or '-h' in argv:
            parts = [document.strip(), values.get_help(include_special_flags=False), describe_fields()]
            with output_may_close():
                print('\n'.join(filter(None, parts)))
            return 0
        with config_files.importable():
            arguments = parse(argv, values, config)
        if positional is not None and len(arguments) != positional:
            raise RunError(
                f'got {len(arguments)} positional arguments {arguments}, expected {positional}'
                if positional
                else f'{arguments} on the command line is not a flag; expected --NAME=VALUE'
            )
        return body(values, *arguments)
    except CommandError as error:
        return fail(error, error.code) if str(error) else error.code
    except flags.Error as error:
        return fail(f'{error}; --help lists the flags', 2)
    except KeyboardInterrupt:
        return fail('stopped', 130)
    except wrong_use as error:
        return fail(error, 2)
    except OSError as error:
        return fail(error, 1)


@contextlib.contextmanager
def output_may_close() -> Iterator[None]:
    """Context of a block that ends quietly where the reader of the output, such as head, closes the pipe."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Without this, Python would write the rest of the output again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse(argv: list[str], values: flags.FlagValues, config: ConfigFlag | None = None) -> list[str]:
    """Parses a command line into `values` and returns its positional arguments; raises RunError or flags.Error."""
    if config is None:
        return _parse_once(argv, values)
    argv = renamed.arguments(values.read_flags_from_files(argv, force_gnu=True))
    # The config must be known before its fields can be flags.
    _parse_once([word for word in argv if not _FIELD.match(word)], values)
    loaded = _load(values, config)
    words, known = _without_config(argv), _names(loaded.to_dict())
    given = [found.group(1) for found in map(_FIELD.match, words) if found]
    unknown = [name for name in given if name not in known]
    if unknown:
        leaves = run_fields.flatten(loaded.to_dict())
        raise RunError('; '.join(f'config has no field {x}; {names.expected(x, leaves, "fields")}' for x in unknown))
    return _parse_fields(words, values, loaded)


def _load(values: flags.FlagValues, config: ConfigFlag) -> Any:
    """Returns the config that the command line names, with the present names of all fields."""
    if values.config is None:
        if config.saved is None:
            raise RunError(f'--config is missing; expected one such as --config={config.example}')
        return config.saved(values)
    loaded = load_file(values.config)
    absent = missing_fields(loaded, config.fields())
    if absent:
        raise RunError(f'--config={values.config} {absent}; expected a config such as {config.example}')
    return loaded


def missing_fields(config: Any, fields: Collection[str]) -> str:
    """Returns which of `fields`, or of their groups, a config lacks, such as 'lacks data, train.steps'; '' for none."""
    known = _names(config.to_dict())
    groups = {name: name.partition('.')[0] for name in fields if name not in known}
    absent = list(dict.fromkeys(name if group in known else group for name, group in groups.items()))
    more = f' and {len(absent) - 3} more' if len(absent) > 3 else ''
    return f'lacks {", ".join(absent[:3])}{more}' if absent else ''


def _parse_fields(words: list[str], values: flags.FlagValues, config: Any) -> list[str]:
    """Parses the words of a command line, --config.FIELD=VALUE included, and sets values.config."""
    # Imported here because the commands without --config do not need it.
    from ml_collections import config_flags

    del values.config
    try:
        config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=words)
        rest = _parse_once(words, values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f'{error}; --help lists the flags') from None
    # The value of --config.train.best_metric may be an old name too.
    with config.unlocked():
        renamed.fields(config, 'config')
    return rest


def _parse_once(words: list[str], values: flags.FlagValues) -> list[str]:
    """Parses a command line and returns its positional arguments; raises flags.Error for a flag that is given twice."""
    values.unparse_flags()
    for name in values:
        # By default, absl uses the last value without a word.
        values[name].allow_overwrite = False
    return values(words)[1:]


def _without_config(argv: list[str]) -> list[str]:
    """Returns a command line without --config and its value."""
    kept, words = [], iter(argv)
    for word in words:
        if word in ('--config', '-config'):
            next(words, None)
        elif not word.startswith(('--config=', '-config=')):
            kept.append(word)
    return kept


def load_file(value: str) -> Any:
    """Returns the config of a value of --config, such as 'own:small', with the present names of all fields.

    Raises RunError for a file that is not there, that fails, or that gives no ConfigDict.
    """
    path, colon, variant = config_files.find(value).partition(':')
    if not pathlib.Path(path).is_file():
        raise RunError(f'--config={path}: {config_files.missing(path)}')
    loader = importlib.machinery.SourceFileLoader('config_file', path)
    module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(loader.name, loader, origin=path))
    sys.modules[loader.name] = module
    # A config file is a program of the user's own, which may raise anything.
    try:
        loader.exec_module(module)
        make = getattr(module, 'get_config', None)
        config = make(*[variant] if colon else []) if make else None
        if hasattr(config, 'unlock'):
            renamed.fields(config.unlock(), path)
    except Exception as error:
        raise RunError(_in_file(path, error) + ', or give another variant' * bool(colon)) from None
    if not hasattr(config, 'unlock'):
        found = f'its get_config returns {type(config).__name__}' if make else 'it has none'
        raise RunError(
            f'--config={path}: expected a file with a function get_config that returns a ConfigDict; {found}'
        )
    return config


def _in_file(path: str, error: Exception) -> str:
    """Returns one line about an exception that a config file raised."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    text = ' '.join(str(error).split())
    if isinstance(error, ImportError) and 'configs' in text:
        text += (
            f'; the folder configs of the project, {config_files.FOLDER}, goes before yours: give yours another name'
        )
    where = f'{path}:{lines[-1]}' if lines else path
    return f'--config: {where}: {type(error).__name__}: {text}; mend that file'


def fail(error: BaseException | str, code: int) -> int:
    """Prints an error as one line, above a progress line, and returns the exit code."""
    text = ' '.join((files.reason(error) if isinstance(error, OSError) else str(error)).split())
    for pattern, words in _PLAINER:
        text = re.sub(pattern, words, text)
    progress.clear_line()
    print(f'error: {text}', file=sys.stderr, flush=True)
    return code


def definers(values: flags.FlagValues) -> types.SimpleNamespace:
    """Returns absl's functions that define flags, in `values`: .string for DEFINE_string, and so on."""
    kinds = ('bool', 'enum', 'float', 'integer', 'list', 'multi_string', 'string')
    return types.SimpleNamespace(
        **{kind: functools.partial(getattr(flags, f'DEFINE_{kind}'), flag_values=values) for kind in kinds}
    )


def require(values: flags.FlagValues, required: Collection[str], example: str) -> None:
    """Raises flags.Error for the first of the required flags that has no value; `example` shows the usual flags."""
    for name in required:
        if not values[name].value:
            raise flags.Error(f'--{name} is missing; expected {example}')


def check_exit(code: int, work: str) -> None:
    """Raises RunError where a command that did `work` failed; it has printed the reason, unless a signal ended it."""
    if code < 0:
        raise RunError(
            f'the process of {work} was ended by signal {-code} (9: out of memory?); run the same command again', code=1
        )
    if code:
        raise RunError('', code)


def _names(tree: dict[str, Any], prefix: str = '') -> list[str]:
    """Returns the dotted names of all groups and fields of nested dicts."""
    found = []
    for name, value in tree.items():
        found += [prefix + name, *(_names(value, f'{prefix}{name}.') if isinstance(value, dict) else [])]
    return found
