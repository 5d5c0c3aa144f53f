"""Trains one trial, or trains and measures one network, per clip: predictions, pointing, removal, sanity checks.

An entry's folder then holds measures.npz, arrays [n] over the test clips in order, NaN where a clip has no value or was
not measured, and measures.json. Names: `correct`, `logits`; `chance/GAME`; `E/GAME`, `E/SETTING/AREA`, `E/aopc` of
explanation E; `sanity/E/CHECK`; `example/E/visual` of the clips `example/clips` of their split, which are the
`example/places` of these arrays. The explained class is the clip's label, for all networks and explanations alike,
whether or not the clip is classified correctly; `E/GAME_predicted` is of the class that the network predicts.
"""

import dataclasses
import json
import time

import jax
import ml_collections
import numpy as np

from stattn_jax import files, run, train
from stattn_jax.attribution import EXPLAINERS
from stattn_jax.runtime import summaries
from stattn_jax.study import evaluation_clips, measurements, networks, plan, pointing
from stattn_jax.study.networks import TimedMap

EXAMPLES = 3


def work(job: plan.Trial | plan.Entry) -> None:
    """Trains the steps that are left, measures, and writes the result; returns without it if training stopped."""
    job.folder.mkdir(parents=True, exist_ok=True)
    if isinstance(job, plan.Trial):
        _try(job)
    else:
        _measure(job)


def _try(trial: plan.Trial) -> None:
    began, reached = time.perf_counter(), {}
    try:
        reached = train.train(trial.config, trial.workdir)
        if not reached:
            return
    except run.RunError as error:
        # A training that diverges, which is an outcome of the trial; other errors have other codes.
        if error.code != 1:
            raise
        print(f'{trial.name}: {error}', flush=True)
    numbers = reached.get(plan.VALIDATION, {})
    run.write_json(trial.result, {
        'variant': trial.variant,
        'row': trial.row,
        'number': trial.number,
        'values': trial.values,
        'split': plan.VALIDATION,
        'accuracy': numbers.get('classification/top1'),
        'precision': numbers.get('classification/map'),
        'seconds': time.perf_counter() - began,
        'key': trial.key,
    })  # fmt: skip


def _measure(entry: plan.Entry) -> None:
    if not train.train(entry.config, entry.workdir):
        return
    began = time.perf_counter()
    clips = evaluation_clips.load(entry)
    net = networks.load(entry.workdir, clips.facts)
    arrays, attention = measure(net, clips, entry.row, entry.measure)
    arrays = {name: x.astype(np.float32) if x.dtype == np.float64 else x for name, x in arrays.items()}
    with files.whole_file(entry.folder / plan.ARRAYS) as file:
        np.savez_compressed(file, **arrays)
    run.write_json(entry.result, {
        'variant': entry.variant,
        'row': entry.row,
        'seed': entry.seed,
        'group': entry.group,
        'key': entry.key,
        'steps': entry.config.train.steps,
        'parameters': sum(x.size for x in jax.tree.leaves(net.state['params'])),
        'train_seconds': _train_seconds(entry),
        'measure_seconds': time.perf_counter() - began,
        'numbers': json.loads((entry.workdir / f'eval_{plan.TEST}.json').read_text()) | attention,
        'left_out': clips.left_out,
        'run': json.loads((entry.workdir / run.RUN_FILE).read_text()),
    })  # fmt: skip


def _train_seconds(entry: plan.Entry) -> float:
    """Returns steps times the median measured time of a step, since a run may have been stopped in between."""
    rows = [json.loads(line) for line in (entry.workdir / summaries.METRICS_FILE).read_text().splitlines()]
    return (
        entry.config.train.steps
        * float(np.median([row['perf/step_ms'] for row in rows if 'perf/step_ms' in row]))
        / 1000
    )


def measure(
    net: networks.Network, clips: evaluation_clips.TestClips, row: str, options: ml_collections.ConfigDict
) -> tuple[dict, dict]:
    """Returns the arrays of a network's measures, and the scalar results of the checks that apply to STAN only."""
    arrays, own = _recognition(net, clips)
    for name, explanation in own.items():
        arrays |= _named(name, pointing.games(explanation, clips.targets))
    arrays |= _of_the_prediction(
        networks.explain_itself(net, clips.inputs, arrays['logits'].argmax(axis=1))[1], clips.targets
    )
    chosen = np.unique(np.linspace(0, len(clips) - 1, options.clips).round().astype(int))
    chosen_clips = clips.subset(chosen)
    names = tuple(options.explainers) if not own else ()
    names = tuple(EXPLAINERS) if row in options.explained else names
    posthoc = measurements.explain(net, chosen_clips, names)
    found: dict[str, np.ndarray] = {}
    for name, explanation in posthoc.items():
        found |= _named(name, pointing.games(explanation, chosen_clips.targets))
    if not own and 'grad_cam' in posthoc:
        # This explanation represents the network, so it points in all clips.
        everywhere = measurements.explain(net, clips, ('grad_cam',))
        arrays |= _named('grad_cam', pointing.games(everywhere['grad_cam'], clips.targets))
        found = {name: x for name, x in found.items() if not name.startswith('grad_cam/')}
        predicted = dataclasses.replace(clips, labels=arrays['logits'].argmax(axis=1))
        arrays |= _of_the_prediction(measurements.explain(net, predicted, ('grad_cam',)), clips.targets)
    everything = {name: _take(explanation, chosen) for name, explanation in own.items()} | posthoc
    found |= measurements.removals(net, chosen_clips, everything, shifts=options.shifts)
    if name := networks.first(everything):
        found |= _named(f'sanity/{name}', measurements.sanity_checks(net, chosen_clips, name, redraws=options.redraws))
    shared = [name for name in found if name.endswith('fraction') or name.endswith('/surface')]
    arrays |= {name: x if name in shared else _among_all(x, chosen, len(clips)) for name, x in found.items()}
    arrays['example/clips'] = clips.numbers[chosen[:EXAMPLES]]
    arrays['example/places'] = chosen[:EXAMPLES]
    for name, explanation in everything.items():
        arrays[f'example/{name}/visual'] = np.asarray(explanation.map.visual[:EXAMPLES])
        arrays[f'example/{name}/when'] = np.asarray(explanation.when[:EXAMPLES])
    return arrays, measurements.attention(net, chosen_clips, redraws=options.redraws)


def _recognition(net, clips) -> tuple[dict[str, np.ndarray], dict[str, TimedMap]]:
    """Returns labels, logits, strata and chance hits as arrays, and the network's own explanations of the labels."""
    logits, own = networks.explain_itself(net, clips.inputs, clips.labels)
    arrays = {
        'labels': clips.labels,
        'logits': logits,
        'correct': (logits.argmax(axis=1) == clips.labels).astype(float),
        **clips.targets.strata,
        **_named('chance', pointing.chance(clips.targets, int(np.prod(net.grid)))),
    }
    return arrays, own


def _of_the_prediction(explanations: dict[str, TimedMap], targets: pointing.Targets) -> dict[str, np.ndarray]:
    """Scores whether maps of the predicted class point at the label's object; names end in `_predicted`.

    A map of the label may find the object because the label names it, without knowing which object sounds; to predict
    the class, the network has to recognise the sounding object.
    """
    found: dict[str, np.ndarray] = {}
    for name, explanation in explanations.items():
        games = pointing.games(explanation, targets)
        found |= {f'{name}/{game}_predicted': games[game] for game in ('space', 'time', 'joint')}
    return found


def _take(explanation: TimedMap, chosen: np.ndarray) -> TimedMap:
    return jax.tree.map(lambda x: x[chosen], explanation)


def _named(prefix: str, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f'{prefix}/{name}': value for name, value in values.items()}


def _among_all(values: np.ndarray, chosen: np.ndarray, n: int) -> np.ndarray:
    """Places the values of the chosen clips among all clips, with NaN for the others."""
    whole = np.full((n, *values.shape[1:]), np.nan)
    whole[chosen] = values
    return whole
