"""Config fields and metrics that were renamed or added on 2026-11-27. Version 0.1 reads old names, with a notice."""

import functools
import sys
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
# Fields that configs from before lack, with the value that changes nothing.
ADDED = {'model.layers': 'auto'}
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
        new = FIELDS.get(name.removeprefix('--config.')) if name.startswith('--config.') else None
        if new:
            _notice(name.removeprefix('--'), f'config.{new}')
        found.append(f'--config.{new}{equals}{value}' if new else argument)
    return found


def fields(config: dict[str, Any], source: str) -> dict[str, Any]:
    """Returns a nested config with the fields' present names and the added fields; the notice names the `source`."""
    config = {name: dict(value) if isinstance(value, dict) else value for name, value in config.items()}
    found = {}
    for old, new in FIELDS.items():
        (group, old_name), new_name = old.split('.'), new.split('.')[1]
        if old_name in config.get(group, {}):
            config[group][new_name] = config[group].pop(old_name)
            found[old] = new
    for name, value in ADDED.items():
        group, field = name.split('.')
        if group in config:
            config[group].setdefault(field, value)
    if config.get('train', {}).get('best_metric') in METRICS:
        config['train']['best_metric'] = metric(config['train']['best_metric'])
    if found:
        old, new = next(iter(found.items()))
        more = f' ({len(found) - 1} more fields likewise)' if len(found) > 1 else ''
        _notice(f'{source}: {old}', new, more)
    return config


def metric(name: str) -> str:
    """Returns a metric's present name."""
    return METRICS.get(name, name)


@functools.cache
def _notice(old: str, new: str, more: str = '') -> None:
    """Prints a notice, once in a process."""
    print(f'notice: {old} is called {new} now{more}; version 0.2 will refuse the old name', file=sys.stderr)
