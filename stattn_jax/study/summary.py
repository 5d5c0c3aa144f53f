"""Writes the results of a study from its measured networks: examples, tables, figures and the report."""

import os
import pathlib

import numpy as np

from stattn_jax import run, score
from stattn_jax.data import pipeline, source
from stattn_jax.study import choice, examples, outputs, plan
from stattn_jax.study.pointing import Targets

# An example shows the first of these explanations that the row has.
PREFERRED = ('terms', 'own', 'grad_cam', 'gradient_input')


def write(config, workdir: pathlib.Path, entries: list[plan.Entry], scores: choice.Scores, wall_seconds: float) -> None:
    """Writes all results of a study from its measures; they name the entries that were not."""
    measured = [entry for entry in entries if plan.is_done(entry)]
    for variant in config.variants:
        of_variant = [
            e for e in measured if e.variant == variant and e.seed == config.seeds[0] and e.group != 'ablation'
        ]
        if of_variant:
            examples.write(workdir / 'examples', variant, _examples(of_variant))
    runs = outputs.load(workdir, {entry.name for entry in measured})
    facts = {
        'expected': plan.names_of_entries(config),
        'commit': run.git_commit(),
        'commit_of_the_networks': sorted({found.run['git_commit'] or 'unknown' for found in runs}),
        'versions': run.versions(),
        'cpus': os.cpu_count(),
        'wall_seconds': wall_seconds,
        'seeds': list(config.seeds),
        'grid': [f'{name} {values}' for name, values in run.flatten(config.grid.to_dict()).items()],
        'measure': config.measure.to_dict(),
    }
    outputs.write(runs, scores, workdir, facts)


def _examples(entries: list[plan.Entry]) -> list[dict]:
    """Returns the clips for which every entry kept maps, together with the maps."""
    config = entries[0].config
    data = source.RecordSource(entries[0].clips, plan.TEST)
    arrays = {entry.row: np.load(entry.folder / plan.ARRAYS) for entry in entries}
    found = []
    first = next(iter(arrays.values()))
    for place, number in enumerate(first['example/clips']):
        record = data[int(number)]
        clip = pipeline.clip_arrays(record, config.data.frame_size, config.data.fit)
        rows, answers, label = {}, [], data.info.classes[record.labels[0]]
        for row, kept in arrays.items():
            name = next((name for name in PREFERRED if f'example/{name}/visual' in kept), None)
            if name:
                rows[f'{row}: {examples.NAMES[name]}'] = tuple(
                    kept[f'example/{name}/{part}'][place] for part in ('visual', 'when')
                )
                answers.append(f'{row} {data.info.classes[kept["logits"][first["example/places"][place]].argmax()]}')
        found.append({
            'frames': clip['frames'],
            'targets': Targets.of([score.truth_of(record)], config.data.fit, data.info.spec.segment_seconds),
            'rows': rows,
            'caption': f'{record.clip_id}, label {label}. Predicted: {", ".join(answers)}.',
        })  # fmt: skip
    return found
