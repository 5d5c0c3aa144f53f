"""Turns the study's config into its trainings: trials of the grid's values, and one entry per measured network."""

import copy
import dataclasses
import hashlib
import itertools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from stattn_jax import command, config_checks, names, run
from stattn_jax.attribution import EXPLAINERS
from stattn_jax.config_files import fields as run_fields
from stattn_jax.data import source, spec

# Version of the files that worker.py writes; changing it makes all networks be measured again.
MEASURES = 4
NUMBERS, ARRAYS = 'measures.json', 'measures.npz'
VALIDATION, TEST = 'val', 'test'
# The fields of a study's config.
FIELDS = ('seeds', 'variants', 'rows', 'grid', 'measure')
OURS, ABLATION = 'ours', 'ablation'
GROUPS = (OURS, 'representation', 'intrinsic', ABLATION)


@dataclasses.dataclass(frozen=True)
class Trial:
    """A training of a row with one combination of the grid's values, which is scored on validation clips alone."""

    variant: str
    row: str
    number: int
    values: dict[str, Any]
    config: ml_collections.ConfigDict
    folder: pathlib.Path

    @property
    def name(self) -> str:
        return f'{self.variant}/{self.row}-trial{self.number}'

    @property
    def workdir(self) -> pathlib.Path:
        """The run directory of its training."""
        return self.folder / 'training'

    @property
    def result(self) -> pathlib.Path:
        return self.folder / 'trial.json'

    @property
    def key(self) -> str:
        """A short hash of all that its result depends on; a result with another key is computed again."""
        return _hash({'run': _run_fields(self.config, self.folder)})


@dataclasses.dataclass(frozen=True)
class Entry:
    """One measured network of the study: a row of its tables, trained on a variant with a seed.

    clips: the data set directory with the pictures and sound of its test clips.
    workdir: the run directory of its training, which may be that of the trial that was chosen.
    """

    variant: str
    row: str
    seed: int
    group: str
    config: ml_collections.ConfigDict
    measure: ml_collections.ConfigDict
    folder: pathlib.Path
    workdir: pathlib.Path
    clips: pathlib.Path

    @property
    def name(self) -> str:
        return f'{self.variant}/{self.row}-{self.seed}'

    @property
    def result(self) -> pathlib.Path:
        return self.folder / NUMBERS

    @property
    def key(self) -> str:
        """A short hash of all that its numbers depend on; results with another key are computed again."""
        fields = {'run': _run_fields(self.config, self.folder), 'measure': self.measure.to_dict(), 'row': self.row}
        return _hash(fields | {'measures': MEASURES})


def _run_fields(config: ml_collections.ConfigDict, folder: pathlib.Path) -> dict[str, Any]:
    """Returns the fields of a run's config, with a relative path for data inside the study's folder.

    A study that is moved, or named by another path, thus keeps its results.
    """
    fields, data, workdir = config.to_dict(), pathlib.Path(config.data.dir), folder.parents[2]
    if data.is_relative_to(workdir):
        fields['data']['dir'] = str(data.relative_to(workdir))
    return fields


def _hash(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


def is_done(work: Trial | Entry) -> bool:
    """Returns whether there is a result of exactly this config."""
    return work.result.exists() and json.loads(work.result.read_text())['key'] == work.key


def check(config: ml_collections.ConfigDict) -> None:
    """Raises RunError for an unknown explainer, an empty grid, and a row with an unknown group or variant."""
    for name in config.measure.explainers:
        if name not in EXPLAINERS:
            raise run.RunError(f'config.measure.explainers names {name!r}; expected some of {", ".join(EXPLAINERS)}')
    for name, values in run.flatten(config.grid.to_dict()).items():
        if not isinstance(values, tuple) or not values:
            raise run.RunError(f'config.grid.{name} is {values!r}; expected a tuple of values, such as (1e-3, 2e-3)')
    for row, fields in config.rows.items():
        if fields.group not in GROUPS:
            raise run.RunError(f'config.rows.{row}.group is {fields.group!r}; expected one of {", ".join(GROUPS)}')
        for variant in fields.variants:
            if variant not in config.variants:
                raise run.RunError(
                    f'config.rows.{row}.variants names {variant!r}; {names.expected(variant, config.variants)}'
                )


def _rows(config) -> list[tuple[str, str, str]]:
    """Returns (variant, row, group) of all rows of all variants, ours first."""
    rows = sorted(config.rows.items(), key=lambda item: GROUPS.index(item[1].group))
    return [
        (variant, row, fields.group)
        for variant in config.variants
        for row, fields in rows
        if not fields.variants or variant in fields.variants
    ]


def combinations(grid: ml_collections.ConfigDict) -> list[dict[str, Any]]:
    """Returns every combination of the grid's values, as fields of a run's config."""
    fields = run.flatten(grid.to_dict())
    return [dict(zip(fields, values)) for values in itertools.product(*fields.values())]


def trials(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[Trial]:
    """Returns every trial: each row but the ablations with every combination of the grid's values.

    Raises RunError as `check` does, and for fields that no run can have.
    """
    check(config)
    found = []
    for variant, row, group in _rows(config):
        for number, values in enumerate(combinations(config.grid)):
            made = run_config(config, variant, row, config.seeds[0], values, workdir)
            made.eval.update({'splits': (VALIDATION,), 'shortcut_clips': 1})
            if group != ABLATION:
                found.append(Trial(variant, row, number, values, made, _folder(workdir, variant, row, number)))
    return found


def names_of_entries(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the names of all entries, whether or not their values are chosen yet."""
    return [f'{variant}/{row}-{seed}' for seed in config.seeds for variant, row, _ in _rows(config)]


def entries(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, chosen: Mapping[tuple[str, str], Any]
) -> list[Entry]:
    """Returns the entries whose values are chosen, by seed, so that a study stopped early has tables of fewer seeds.

    `chosen` has the choice.Score of each (variant, row). The trial that was chosen is the training of the first seed.
    An ablation has the values of our row.
    """
    found = []
    of_ours = {variant: chosen.get((variant, row)) for variant, row, group in _rows(config) if group == OURS}
    for seed in config.seeds:
        for variant, row, group in _rows(config):
            choice = of_ours.get(variant) if group == ABLATION else chosen.get((variant, row))
            if choice is None:
                continue
            made = run_config(config, variant, row, seed, choice.values, workdir)
            made.eval.splits = (TEST,)
            folder = workdir / 'runs' / variant / f'{row}-{seed}'
            tried = seed == config.seeds[0] and group != ABLATION
            trained = (_folder(workdir, variant, row, choice.number) if tried else folder) / 'training'
            clips, _ = data_folders(config, variant, workdir)
            found.append(Entry(variant, row, seed, group, made, config.measure, folder, trained, clips))
    return found


def _folder(workdir, variant, row, number):
    return workdir / 'trials' / variant / f'{row}-{number}'


def run_config(
    config, variant: str, row: str, seed: int, values: Mapping[str, Any], workdir: pathlib.Path
) -> ml_collections.ConfigDict:
    """Returns the config of one run: the variant's config with the row's fields, values of the grid, and the seed."""
    made = copy.deepcopy(config.variants[variant].run).lock()
    absent = command.missing_fields(made, run_fields.defaults())
    if absent:
        raise run.RunError(f'config.variants.{variant}.run {absent}; expected the config of a run, as configs/own.py')
    for place, update in ((f'rows.{row}.fields', made.update), ('grid', made.update_from_flattened_dict)):
        try:
            update(values if place == 'grid' else config.rows[row].fields)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise run.RunError(f'config.{place}: {str(error).splitlines()[0]}') from None
    made.seed = seed
    made.data.dir = str(data_folders(config, variant, workdir)[1])
    config_checks.check(made)
    return made


def data_folders(config, variant: str, workdir: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns the directories of a variant's clips, and of the data of its networks.

    They differ where frozen trunks are run over the clips first. Raises RunError for a data set of one's own that is
    not named, holds features, or has several labels for a clip, and NoDataError where there is none.
    """
    own, made = config.variants[variant].run.data.dir, workdir / 'data' / variant
    clips = made
    if own:
        info = source.DatasetInfo.load(own)
        if not isinstance(info.spec, spec.ClipSpec) or info.multi_label:
            held = 'clips with several labels' if info.multi_label else 'features'
            raise run.RunError(f'{own} holds {held}; the study compares clips of pictures and sound with one label')
        for split in ('train', TEST):
            if split not in info.splits:
                raise run.RunError(f'{own} has no split {split}; it has {", ".join(sorted(info.splits))}')
        clips = pathlib.Path(own) if VALIDATION in info.splits else made / 'divided'
    elif not config.variants[variant].make:
        field = f'config.variants.{variant}.run.data.dir'
        raise run.RunError(f'{field} is not set; expected a directory that data_prep wrote; give --{field}=DIR')
    return clips, made / 'features' if config.variants[variant].run.data.extract else clips
