"""Lists the fields of the training configs for --help, with the comments of configs/common.py."""

import ast
import importlib
import io
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any

from stattn_jax import config_files

_HEADING = """The fields of --config, with their defaults in configs/common.py; a config file changes some of them:
"""


def defaults() -> dict[str, Any]:
    """Returns the default of each field of a run's config by its dotted name."""
    with config_files.importable():
        return flatten(importlib.import_module('configs.common').get_config().to_dict())


def describe() -> str:
    """Returns a line for each field, --config.NAME=DEFAULT, and its comment."""
    source = (config_files.FOLDER / 'common.py').read_text(encoding='utf-8')
    comments, order = read_comments(source), [name for name, *_ in _fields(ast.parse(source))]
    values, lines = defaults(), [_HEADING]
    for name in sorted(values, key=lambda name: order.index(name) if name in order else len(order)):
        lines.append(f'  --config.{name}={"" if values[name] is None else values[name]}')
        if name in comments:
            lines.append(textwrap.fill(comments[name], 100, initial_indent=' ' * 6, subsequent_indent=' ' * 6))
    return '\n'.join(lines)


def flatten(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    """Flattens nested dicts to dotted names: {'a': {'b': 1}} becomes {'a.b': 1}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f'{prefix}{name}.') if isinstance(value, dict) else {prefix + name: value}
    return flat


def read_comments(source: str) -> dict[str, str]:
    """Returns the comments of the fields in the source of configs/common.py, as field -> text.

    The comment of a field stands behind it in its line, or in the lines above it. A comment behind several fields of
    one line belongs to the last of them, one above them to the first.
    """
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    texts = {token.start[0]: token.string.lstrip('# ').strip() for token in tokens if token.type == tokenize.COMMENT}
    alone = {line for line in texts if source.splitlines()[line - 1].lstrip().startswith('#')}
    first_of: dict[int, str] = {}
    last_of: dict[int, str] = {}
    for name, first, last in _fields(ast.parse(source)):
        first_of.setdefault(first, name)
        last_of[last] = name
    found: dict[str, list[str]] = {}
    for line, name in first_of.items():
        above = line - 1
        while above in alone:
            above -= 1
        found.setdefault(name, []).extend(texts[number] for number in range(above + 1, line))
    for line, name in last_of.items():
        if line in texts:
            found.setdefault(name, []).append(texts[line])
    return {name: ' '.join(parts) for name, parts in found.items() if parts}


def _fields(tree: ast.Module) -> Iterator[tuple[str, int, int]]:
    """Yields (name, first line, last line) of each field that get_config assigns."""
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == 'get_config']
    for node in function.body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)):
            continue
        name = node.targets[0].attr
        tables = [part for part in ast.walk(node.value) if isinstance(part, ast.Dict)]
        if not tables:
            yield name, node.lineno, node.end_lineno
        pairs = (pair for table in tables for pair in zip(table.keys, table.values))
        found = (
            (key.lineno, str(key.value), value.end_lineno) for key, value in pairs if isinstance(key, ast.Constant)
        )
        for first, field, last in sorted(found, key=lambda each: each[0]):
            yield f'{name}.{field}', first, last
