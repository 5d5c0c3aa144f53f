"""Measurements that need many forward passes per clip: post-hoc explanations, removal, sanity checks.

The functions take a network and some test clips, and return arrays [n] over these clips, by name.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stattn_jax import attribution
from stattn_jax.attribution import Map, explainers, perturb, removal, sanity
from stattn_jax.metrics import perturbation
from stattn_jax.models import parameter_groups
from stattn_jax.study import attention_checks, networks
from stattn_jax.study.evaluation_clips import TestClips
from stattn_jax.study.networks import Network, TimedMap

BASELINE = removal.PAIRS[0]
SHIFTED = ('feature', BASELINE)
KEY = 0


def explain(net: Network, clips: TestClips, names: tuple[str, ...]) -> dict[str, TimedMap]:
    """Computes post-hoc explanations of the clips' labels, by the explainers' names.

    The baseline of the explainers is the clip with blurred frames and muted sound (`BASELINE`).
    """
    if not names:
        return {}
    mute = np.stack([absent[BASELINE[1]] for absent in clips.absent_sounds])
    found = {}
    for name in names:
        compiled = net.compile(functools.partial(_of_clip, explainers.find(name), clips.mean_picture))
        each = [
            compiled(jax.tree.map(lambda x, i=i: x[i], clips.inputs), mute[i], clips.labels[i])
            for i in range(len(clips))
        ]
        found[name] = jax.tree.map(lambda *x: np.stack(x), *each)
    return found


def _of_clip(explainer, mean_picture, model, clip, absent_mel, class_) -> TimedMap:
    return networks.timed(_explained(explainer, mean_picture, model, clip, absent_mel, class_))


def removals(
    net: Network, clips: TestClips, explanations: dict[str, TimedMap], *, shifts: int
) -> dict[str, np.ndarray]:
    """Computes deletion and insertion areas and curves, AOPC and the removal surface of some clips, as named arrays.

    Areas and curves are given for each explanation and for a random map in each removal setting; for the first
    explanation also after shifting its map, in the settings `SHIFTED`. AOPC is measured in these settings too. The
    surface is that of the first explanation, averaged over clips.
    """
    scorer = perturb.Scorer(net.classifier, net.variables, binary=net.binary, mean_hw3=clips.mean_picture)
    rows = [
        _removals_of_clip(scorer, net.grid, clips, i, jax.tree.map(lambda x, i=i: x[i], explanations), shifts)
        for i in range(len(clips))
    ]
    found = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    for name in [name for name in found if name.endswith('fraction')]:
        found[name] = found[name][0]
    for name in [name for name in found if name.endswith('/surface')]:
        found[name] = found[name].mean(axis=0)
    return found


def _removals_of_clip(scorer, grid, clips, i, explanations, shifts) -> dict[str, Any]:
    """Computes the measures of one clip, by name."""
    clip, label, absent = jax.tree.map(lambda x: x[i], clips.inputs), int(clips.labels[i]), clips.absent_sounds[i]
    rng = np.random.default_rng(int(clips.numbers[i]))
    first = networks.first(explanations)
    t, s = len(clip.valid), grid[0] * grid[1]
    maps = {name: one.map for name, one in explanations.items()} | {'random': Map(rng.random((t, s)), rng.random(t))}
    whens = {name: one.when for name, one in explanations.items()}
    found: dict[str, Any] = {}
    for setting in removal.SETTINGS:
        name = setting if isinstance(setting, str) else '_'.join(setting)
        score = scorer.score(clip, label, setting, None if setting == 'feature' else absent[setting[1]])
        rolled = _rolled(explanations[first].map, grid, shifts) if explanations and setting in SHIFTED else []
        curves = perturb.curves(score, clip.valid, [*maps.values(), *rolled])
        for explainer, curve in zip(maps, curves):
            found |= {f'{explainer}/{name}/{key}': value for key, value in _areas(curve).items()}
        if rolled:
            areas = [_areas(curve)['difference'] for curve in curves[len(maps) :]]
            found[f'{first}/{name}/shifted'] = np.mean(areas)
        if setting in SHIFTED:
            key = 'aopc' if setting == 'feature' else 'aopc_input'
            scores = perturb.segment_scores(score, clip.valid, s)
            normalised, blind = perturb.segment_aopc(scores, clip.valid, np.array(list(whens.values())).reshape(-1, t))
            found |= {f'{explainer}/{key}': value for explainer, value in zip(whens, normalised)}
            found[f'chance/{key}'] = blind
        if setting == 'feature' and explanations:
            surface = perturb.surface(score, clip.valid, maps[first])
            found[f'{first}/feature/volume'] = surface.volume()[perturb.PROBABILITY]
            found[f'{first}/surface'] = surface.scores[..., perturb.PROBABILITY]
            found['surface_fraction'] = np.asarray(perturb.SURFACE_FRACTIONS, float)
    return found


def _areas(curve: perturbation.Curves) -> dict[str, np.ndarray]:
    """Computes areas and curves of the class probability, and the difference of areas of the normalised logit.

    `logit_difference` uses the logit scaled so that the empty clip is at 0 and the whole clip at 1.
    """
    areas = {key: value[perturb.PROBABILITY] for key, value in curve.summary().items()}
    normalised = curve.normalised().summary()['difference'][perturb.LOGIT]
    return {
        'deletion': areas['deletion'],
        'insertion': areas['insertion'],
        'difference': areas['difference'],
        'logit_difference': normalised,
        'morf': areas['aopc_morf'],
        'lerf': areas['aopc_lerf'],
        'curve_deletion': curve.deletion[:, perturb.PROBABILITY],
        'curve_insertion': curve.insertion[:, perturb.PROBABILITY],
        'fraction': curve.fraction,
    }


def _rolled(map_: Map, grid: tuple[int, int], shifts: int) -> list[Map]:
    """Rolls the map in space and time by `shifts` random offsets, which keeps its shape and destroys its position."""
    t = len(map_.audio)
    visual = perturbation.shifted(np.asarray(map_.visual).reshape(t, *grid), shifts)
    audio = perturbation.shifted(np.asarray(map_.audio), shifts)
    return [Map(v.reshape(t, -1), a) for v, a in zip(visual, audio)]


def sanity_checks(net: Network, clips: TestClips, name: str, *, redraws: int) -> dict[str, np.ndarray]:
    """Tests whether an explanation depends on the parameters, the sound, the class, place and time.

    Returns rank correlations [n] (SSIM under `randomised_ssim`) by name; see sanity.py.
    """
    explain_one = _explainer(net, clips, name)
    inputs = (explain_one, net.variables, clips.inputs, clips.labels)
    groups = parameter_groups.groups(net.state['params'])
    cascade = sanity.randomisation(*inputs, fresh=net.fresh, groups=groups, grid=net.grid, seeds=redraws)
    found = {f'randomised/{group}': rows['visual'] for group, rows in cascade.items()}
    found |= {f'randomised_magnitude/{group}': rows['visual_magnitude'] for group, rows in cascade.items()}
    found |= {f'randomised_ssim/{group}': rows['visual_ssim'] for group, rows in cascade.items()}
    sounds = sanity.other_sounds(*inputs, silence=clips.silence)
    found |= {'foreign_sound': sounds['other'], 'silence': sounds['silent'], 'moved_sound': sounds['moved']}
    found['other_class'] = sanity.other_class(*inputs, classes=len(net.facts.classes))['visual']
    follows = sanity.equivariance(*inputs, grid=net.grid)
    return found | {'mirror': follows['mirror_visual'], 'roll': follows['roll_visual']}


def _explainer(net, clips, name):
    """Returns the explanation called `name` as a function of variables, clip and class, as sanity.py expects it."""
    if name in networks.OWN:

        def explain_one(variables, clip, class_):
            batch = jax.tree.map(lambda x: x[None], clip)
            own = networks.own(net.module(variables), batch, class_[None])[1]
            return jax.tree.map(lambda x: x[0], own[name].map)
    else:
        # The checks change the sound of a clip as log-mel, and the faded mute of `explain` needs its waveform. The
        # sound that replaces it is therefore silence from the first to the last frame, for every clip alike.
        explainer, silence, mean_picture = explainers.find(name), float(clips.silence), np.asarray(clips.mean_picture)

        def explain_one(variables, clip, class_):
            absent_mel = jnp.full_like(clip.log_mel, silence)
            return _explained(explainer, mean_picture, net.module(variables), clip, absent_mel, class_)

    return explain_one


def _explained(explainer, mean_picture, model, clip, absent_mel, class_) -> Map:
    """Returns an explainer's map; its baseline is the clip with blurred frames and the sound `absent_mel`."""
    network = attribution.of_model(model, *clip.frames.shape[1:3])
    absent = removal.absent(clip, absent_mel, BASELINE[0], jnp.asarray(mean_picture))
    return explainer(network, clip, absent, class_, jax.random.key(KEY))


def attention(net: Network, clips: TestClips, *, redraws: int) -> dict[str, float]:
    """Computes means over clips of the checks in attention_checks.py, which apply to STAN only; {} for other networks.

    Their names begin with 'inside/'.
    """
    if net.config.model.kind != 'stan':
        return {}
    inputs = (net.graphdef, net.variables, clips.inputs, clips.labels)
    modules = attention_checks.modular(*inputs, fresh=net.fresh, seeds=redraws)
    found = {f'inside/{module}/{part}': x for module, parts in modules.items() for part, x in parts.items()}
    found |= {f'inside/permuted/{name}': x for name, x in attention_checks.permuted(*inputs).items()}
    return {name: float(np.nanmean(x)) for name, x in found.items() if not np.isnan(x).all()}
