"""Finds flags that are given twice on a command line, of which absl would use the last value without a word."""

from collections.abc import Iterator, Sequence

from absl import flags


def _pairs(argv: Sequence[str], values: flags.FlagValues | None = None) -> Iterator[tuple[str, str | None]]:
    """Yields (name, value) of each flag; the value is None where it is missing and for --FLAG and --noFLAG."""
    words = iter(enumerate(argv[1:], 1))
    for i, word in words:
        if word == '--':
            return
        if not word.startswith('-') or word == '-':
            continue
        name, equals, value = word.lstrip('-').partition('=')
        flag = values[name] if values and name in values else None
        negated = values[name[2:]] if values and flag is None and name[:2] == 'no' and name[2:] in values else None
        if equals:
            yield name, value
        elif negated is not None and negated.boolean:
            yield name[2:], None
        elif flag is not None and flag.boolean:
            yield name, None
        elif i + 1 < len(argv) and not argv[i + 1].startswith('-'):
            yield name, next(words)[1]
        else:
            yield name, None


def check_once(argv: Sequence[str], values: flags.FlagValues) -> None:
    """Raises flags.Error if a flag is given twice that takes one value.

    A field such as --config.train.steps is checked only once it is defined, which parsing --config does; fields that
    are tuples take several values.
    """
    seen: dict[str, str | None] = {}
    for name, value in _pairs(argv, values):
        if isinstance(values[name], flags.MultiFlag) if name in values else '.' in name:
            continue
        if name in seen:
            both = ' and '.join(f'{v!r}' for v in (seen[name], value) if v is not None)
            raise flags.Error(
                f'--{name} is given twice{f", {both}" * bool(both)}; expected once, so leave one of them out'
            )
        seen[name] = value
