"""Turns the study's config into one entry per trained network, with its run config and its folder."""

import copy
import dataclasses
import hashlib
import json
import pathlib

import ml_collections

from stattn_jax import command, config_checks, names, run
from stattn_jax.attribution import EXPLAINERS
from stattn_jax.config_files import fields as run_fields

# Version of the files that worker.py writes; changing it makes all networks be measured again.
MEASURES = 2
NUMBERS, ARRAYS = 'measures.json', 'measures.npz'
# The fields of a study's config.
FIELDS = ('seeds', 'variants', 'rows', 'measure')
GROUPS = ('ours', 'representation', 'intrinsic', 'ablation')


@dataclasses.dataclass(frozen=True)
class Entry:
    """One network of the study: a row of its tables, trained on a variant with a seed."""

    variant: str
    row: str
    seed: int
    group: str
    config: ml_collections.ConfigDict
    folder: pathlib.Path

    @property
    def name(self) -> str:
        return f'{self.variant}/{self.row}-{self.seed}'

    @property
    def workdir(self) -> pathlib.Path:
        """The run directory of its training."""
        return self.folder / 'training'

    def key(self, measure: ml_collections.ConfigDict) -> str:
        """Returns a short hash of all that its numbers depend on; results with another key are computed again."""
        fields = {'run': self.config.to_dict(), 'measure': measure.to_dict(), 'row': self.row, 'measures': MEASURES}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


def entries(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[Entry]:
    """Returns every entry, ordered by seed, so that a study stopped early has complete tables of fewer seeds.

    Raises RunError for an unknown explainer, for a row with an unknown group, variant or field, and for fields that no
    run can have.
    """
    for name in config.measure.explainers:
        if name not in EXPLAINERS:
            raise run.RunError(f'config.measure.explainers names {name!r}; expected some of {", ".join(EXPLAINERS)}')
    for row, fields in config.rows.items():
        _check_row(row, fields, config)
    rows = sorted(config.rows.items(), key=lambda item: GROUPS.index(item[1].group))
    found = []
    for seed in config.seeds:
        for variant in config.variants:
            for row, fields in rows:
                if not fields.variants or variant in fields.variants:
                    made = run_config(config, variant, row, seed, workdir)
                    folder = workdir / 'runs' / variant / f'{row}-{seed}'
                    found.append(Entry(variant, row, seed, fields.group, made, folder))
    return found


def run_config(config, variant: str, row: str, seed: int, workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """Returns the config of one run: the variant's config with the row's fields and the seed.

    The data are the variant's own if the config names no directory.
    """
    made = copy.deepcopy(config.variants[variant].run).lock()
    try:
        made.update(config.rows[row].fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise run.RunError(f'config.rows.{row}.fields: {str(error).splitlines()[0]}') from None
    made.seed = seed
    if not made.data.dir:
        made.data.dir = str(data_folder(variant, workdir))
    absent = command.missing_fields(made, run_fields.defaults())
    if absent:
        raise run.RunError(f'config.variants.{variant}.run {absent}; expected the config of a run, as configs/own.py')
    config_checks.check(made)
    return made


def data_folder(variant: str, workdir: pathlib.Path) -> pathlib.Path:
    """Returns the folder in which the study makes a variant's data."""
    return workdir / 'data' / variant


def _check_row(row, fields, config):
    if fields.group not in GROUPS:
        raise run.RunError(f'config.rows.{row}.group is {fields.group!r}; expected one of {", ".join(GROUPS)}')
    for variant in fields.variants:
        if variant not in config.variants:
            raise run.RunError(
                f'config.rows.{row}.variants names {variant!r}; {names.expected(variant, config.variants)}'
            )
