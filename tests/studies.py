"""The study at toy size: a config of a few rows on six-second clips of 16 pixels, and its data."""

import json
import pathlib

import ml_collections

from configs import study
from data_prep import cli, synthetic
from stattn_jax.study import choice, plan

FIELDS = {
    'model': {'frame_size': 16, 'width': 16, 'hidden': 8},
    'data': {'frame_size': 16},
    'loss': {'negatives': 1},
    'optim': {'warmup_steps': 2},
    'train': {'steps': 4, 'batch': 8, 'log_every_steps': 2, 'save_every_steps': 2},
    'eval': {'batch': 8, 'shortcut_clips': 4},
}
MAKE = {'train': 16, 'val': 8, 'test': 8, 'segments': 6}
MEASURE = {'clips': 2, 'shifts': 2, 'redraws': 1}


def config(*rows: str, seeds: tuple[int, ...] = (0,)) -> ml_collections.ConfigDict:
    """Returns a config with only the variant events and these rows."""
    made = study.get_config()
    for name in [name for name in made.variants if name != 'events']:
        del made.variants[name]
    for name in [name for name in made.rows if name not in rows]:
        del made.rows[name]
    for row in made.rows.values():
        row.variants = ()
    made.variants.events.run.update(FIELDS)
    made.variants.events.make.update(MAKE)
    made.grid.optim.lr = (1e-3,)
    made.measure.update(MEASURE | {'explainers': ('grad_cam',), 'explained': ()})
    made.seeds = seeds
    return made


def entries(made: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[plan.Entry]:
    """Returns the entries of a config as if every row had chosen the first values of the grid."""
    first = [trial for trial in plan.trials(made, workdir) if trial.number == 0]
    chosen = {(t.variant, t.row): choice.Score(t.variant, t.row, 0, t.values, 'val', 1.0, 1.0) for t in first}
    return plan.entries(made, workdir, chosen)


def write_trial(trial: plan.Trial, accuracy: float) -> None:
    """Writes the result of a trial as if it had been trained."""
    trial.folder.mkdir(parents=True)
    found = {'variant': trial.variant, 'row': trial.row, 'number': trial.number, 'values': trial.values}
    found |= {'split': 'val', 'accuracy': accuracy, 'precision': 0.5, 'key': trial.key}
    trial.result.write_text(json.dumps(found))


def as_flags() -> list[str]:
    """Returns the sizes of `config` as command-line flags."""
    fields = {f'variants.events.run.{a}.{b}': x for a, group in FIELDS.items() for b, x in group.items()}
    fields |= {f'variants.events.make.{name}': x for name, x in MAKE.items()}
    fields |= {f'measure.{name}': x for name, x in MEASURE.items()} | {'grid.optim.lr': '(1e-3,)'}
    return [f'--config.{name}={x}' for name, x in fields.items()]


def make_data(folder: pathlib.Path) -> None:
    """Prepares the data of the variant events, with the sounds of the test clips."""
    synthetic.FLAGS.unparse_flags()
    flags = [
        f'--out={folder}',
        '--variant=events',
        '--sounds',
        '--workers=1',
        *(f'--{name}={x}' for name, x in MAKE.items()),
    ]
    assert cli.exit_code(['synthetic', *flags], synthetic.main, synthetic.FLAGS, '') == 0
