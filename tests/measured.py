"""Runs of a study with random numbers and without training.

They consist of measures.json and measures.npz, as stattn_jax.study writes them.
"""

import json
import pathlib
import zlib

import numpy as np

from stattn_jax.study import choice

SETTINGS = ('feature', 'blur_mute')
FRACTION = np.array([0, 0.1, 0.3, 0.6, 1.0])
# Row: (group, explanations, how often it is right).
ROWS = {
    'stan': ('ours', ('terms', 'attention', 'gradient_input', 'grad_cam', 'random'), 0.95),
    'audio_only': ('representation', ('grad_cam',), 0.5),
    'film': ('representation', ('gradient_input', 'integrated_gradients', 'grad_cam', 'random'), 0.9),
    'mbt': ('representation', (), 0.7),
    'cam': ('intrinsic', ('own',), 0.94),
    'han': ('intrinsic', ('own',), 0.99),
    'shared_time': ('ablation', ('terms', 'attention'), 0.94),
}


def write(
    folder, variants=('events',), seeds=(0, 1, 2), rows=tuple(ROWS), n=40, classes=4, measured=16
) -> pathlib.Path:
    """Writes runs into `folder`/runs; the clips differ between variants.

    The first `measured` clips of each variant have results of the perturbation tests.
    """
    for variant in variants:
        for row in rows:
            for seed in seeds:
                write_run(pathlib.Path(folder), variant, row, seed, n, classes, measured)
    return pathlib.Path(folder)


def write_run(folder, variant, row, seed, n=40, classes=4, measured=16) -> None:
    group, explainers, accuracy = ROWS[row]
    truth = np.random.default_rng(zlib.crc32(variant.encode()))
    rng = np.random.default_rng(zlib.crc32(f'{variant}{row}{seed}'.encode()))
    labels = truth.integers(0, classes, n)
    arrays = {'labels': labels, 'small': truth.random(n) < 0.4, 'partial': truth.random(n) < 0.6}
    for game in ('space', 'space_scaled', 'time', 'joint', 'energy'):
        arrays[f'chance/{game}'] = truth.uniform(0.05, 0.25, n)
    correct = rng.random(n) < accuracy
    predicted = np.where(correct, labels, (labels + 1) % classes)
    arrays['logits'] = rng.normal(size=(n, classes)) + 6 * (np.arange(classes) == predicted[:, None])
    arrays['correct'] = (arrays['logits'].argmax(axis=1) == labels).astype(float)
    arrays['chance/aopc'] = _some(rng.uniform(0.3, 0.5, n), measured)
    for explainer in explainers:
        arrays |= _explained(rng, explainer, n, measured, seen=row != 'audio_only')
    if explainers:
        arrays |= _sanity(rng, explainers, n, measured)
        arrays['surface_fraction'] = FRACTION
        for explainer in explainers:
            seen = 0 if row == 'audio_only' else 1
            arrays[f'{explainer}/surface'] = accuracy * np.outer(1 - seen * FRACTION, 1 - 0.6 * FRACTION)
    measures = {
        'variant': variant,
        'row': row,
        'seed': seed,
        'group': group,
        'key': 'x',
        'steps': 400,
        'parameters': 12345 + len(row),
    }
    measures |= {'train_seconds': 100.0 + seed, 'measure_seconds': 9.5, 'left_out': 0, 'run': {'commit': 'abc'}}
    numbers = {'classification/top1': float(arrays['correct'].mean()), 'shortcut/n': 20, 'shortcut/audio_only': 0.45}
    if group == 'ours':
        numbers |= {
            'pointing/space_chance': 0.31,
            'pointing/time_partial_chance': 0.42,
            'shortcut/mismatched_audio_chance': 0.25,
        }
        numbers |= {
            'shortcut/mismatched_audio': 0.2,
            'shortcut/mismatched_audio_follows': 0.3,
            'shortcut/mismatched_audio_undecided': 0.75,
        }
        numbers |= {
            'shortcut/mismatched_audio_decided_follows': 0.05,
            'inside/time/alpha': 1.0,
            'inside/space/alpha': 0.1 * seed,
        }
    place = folder / 'runs' / variant / f'{row}-{seed}'
    place.mkdir(parents=True)
    (place / 'measures.json').write_text(json.dumps(measures | {'numbers': numbers}))
    np.savez(place / 'measures.npz', **arrays)


def scores(variants=('events',), rows=tuple(ROWS)) -> dict:
    """Returns scores of three trials of each row, of which the second is the best."""
    return {
        (variant, row): [
            choice.Score(variant, row, number, {'optim.lr': lr}, 'val', accuracy, 0.9)
            for number, (lr, accuracy) in enumerate(((5e-4, 0.5), (1e-3, 0.8), (2e-3, None)))
        ]
        for variant in variants
        for row in rows
        if ROWS[row][0] != 'ablation'
    }


def _some(values_n, measured):
    """Replaces the values of clips that were not measured by NaN."""
    return np.where(np.arange(len(values_n)) < measured, values_n, np.nan)


def _explained(rng, explainer, n, measured, seen):
    good = {'terms': 0.9, 'own': 0.8, 'attention': 0.85, 'random': 0.2}.get(explainer, 0.6)
    found = {f'{explainer}/time': (rng.random(n) < good).astype(float), f'{explainer}/gini': rng.uniform(0.5, 0.9, n)}
    found[f'{explainer}/entropy'] = rng.uniform(0.2, 0.6, n)
    for game in ('space', 'space_scaled', 'joint') if seen else ():
        found[f'{explainer}/{game}'] = (rng.random(n) < good - 0.05).astype(float)
    found[f'{explainer}/energy'] = rng.uniform(0, good, n) if seen else np.full(n, np.nan)
    found[f'{explainer}/aopc'] = _some(np.minimum(1, rng.normal(good, 0.05, n)), measured)
    found[f'{explainer}/aopc_input'] = _some(rng.normal(good - 0.1, 0.05, n), measured)
    found[f'{explainer}/feature/volume'] = _some(rng.uniform(0.1, 0.3, n), measured)
    for setting in SETTINGS:
        drop = (good + 0.1 * rng.random((n, 1))) * np.linspace(0, 1, len(FRACTION))
        deletion, insertion = 0.95 * (1 - FRACTION**0.4 * good) + 0 * drop, 0.9 * FRACTION**0.4 * good + 0.1 * drop
        deletion[measured:], insertion[measured:] = np.nan, np.nan
        at = f'{explainer}/{setting}'
        areas = [np.trapezoid(curve, FRACTION, axis=1) for curve in (deletion, insertion)]
        found |= {f'{at}/fraction': FRACTION, f'{at}/curve_deletion': deletion, f'{at}/curve_insertion': insertion}
        found |= {f'{at}/deletion': areas[0], f'{at}/insertion': areas[1], f'{at}/difference': areas[1] - areas[0]}
        found |= {
            f'{at}/morf': 0.95 - areas[0],
            f'{at}/lerf': areas[1],
            f'{at}/logit_difference': areas[1] - areas[0] + 0.1,
            f'{at}/shifted': areas[1] - areas[0] - 0.1 * good,
        }
    return found


def _sanity(rng, explainers, n, measured):
    found = {}
    for explainer in explainers[:3]:
        # Networks differ in this way: not all have layers between the heads and the projections.
        groups = (
            ('heads', 'time', 'projections', 'trunks') if explainer != 'own' else ('heads', 'projections', 'trunks')
        )
        for depth, group in enumerate(groups):
            for kind in ('randomised', 'randomised_ssim'):
                found[f'sanity/{explainer}/{kind}/{group}'] = _some(rng.normal(0.6 / (1 + depth), 0.1, n), measured)
        for check, level in (
            ('silence', 0.5),
            ('foreign_sound', 0.4),
            ('other_class', 0.1),
            ('mirror', 0.95),
            ('roll', 0.9),
        ):
            found[f'sanity/{explainer}/{check}'] = _some(rng.normal(level, 0.05, n), measured)
    return found
