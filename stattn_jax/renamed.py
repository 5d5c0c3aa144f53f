"""Config fields and metrics that were renamed or added on 2026-11-27. Version 0.1 reads old names, with a notice."""

import functools
import sys
from collections.abc import Iterator
from typing import Any

FIELDS = {
    'model.detach_evidence': 'model.stop_gradient_evidence',
    'loss.binary': 'loss.multi_label',
    'loss.smoothing': 'loss.label_smoothing',
    'loss.picture': 'loss.visual',
    'loss.cells': 'loss.frame_mil',
    'loss.cells_sharpness': 'loss.frame_mil_sharpness',
    'loss.match': 'loss.correspondence',
    'loss.swap': 'loss.mismatched_uniform',
    'loss.foreign': 'loss.mismatched_mil',
    'eval.leak_clips': 'eval.shortcut_clips',
}
# Fields that configs from before lack, with the value that changes no number.
ADDED = {'model.layers': 'auto', 'model.remat': False, 'train.accumulate': 1, 'eval.strip_clips': 4}
METRICS = {
    'leak/n': 'shortcut/n',
    'leak/audio_only': 'shortcut/audio_only',
    'leak/swap_sound': 'shortcut/mismatched_audio',
    'leak/swap_sound_chance': 'shortcut/mismatched_audio_chance',
    'leak/swap_sound_undecided': 'shortcut/mismatched_audio_undecided',
    'leak/swap_sound_follows_sound': 'shortcut/mismatched_audio_follows',
    'leak/swap_sound_decided_follows_sound': 'shortcut/mismatched_audio_decided_follows',
}


def arguments(argv: list[str]) -> list[str]:
    """Returns command-line arguments with `--config.OLD` replaced by `--config.NEW`."""
    found = []
    for argument in argv:
        name, equals, value = argument.partition('=')
        flag, _, field = name.partition('.')
        # The config of a study has the config of a run in each variant.
        *groups, group, old = ('', *field.split('.'))
        new = FIELDS.get(f'{group}.{old}') if flag in ('--config', '-config', '--noconfig', '-noconfig') else None
        if new:
            new = '.'.join([*groups[1:], new])
            _notice(f'config.{field}', f'config.{new}')
        found.append(f'{flag}.{new}{equals}{value}' if new else argument)
    return found


def fields(config: Any, source: str) -> Any:
    """Gives a config the fields' present names, in place, and the added fields, and returns it.

    The config is of a run or of a study, as nested dicts or as an unlocked ConfigDict. The notice names the `source`.
    """
    found = list(_rename(config, ''))
    if found:
        more = f' ({len(found) - 1} more likewise)' if len(found) > 1 else ''
        _notice(f'{source}: {found[0][0]}', found[0][1], more)
    return config


def _rename(config: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """Yields (old name, new name) of each field that it renames."""
    for group, values in list(config.items()):
        if not hasattr(values, 'items'):
            continue
        for old in [name for name in values if f'{group}.{name}' in FIELDS]:
            new = FIELDS[f'{group}.{old}']
            values[new.partition('.')[2]] = values[old]
            del values[old]
            yield f'{prefix}{group}.{old}', new
        if group == 'train' and values.get('best_metric') in METRICS:
            old = values['best_metric']
            values['best_metric'] = METRICS[old]
            yield f'{prefix}train.best_metric {old}', METRICS[old]
        yield from _rename(values, f'{prefix}{group}.')
    for name, value in ADDED.items():
        group, field = name.split('.')
        # A row of a study has only the fields in which it differs.
        if 'train' in config and 'model' in config and group in config and field not in config[group]:
            config[group][field] = value


def metric(name: str) -> str:
    """Returns a metric's present name."""
    return METRICS.get(name, name)


@functools.cache
def _notice(old: str, new: str, more: str = '') -> None:
    """Prints a notice, once in a process."""
    print(f'notice: {old} is called {new} now{more}; version 0.2 will refuse the old name', file=sys.stderr)
