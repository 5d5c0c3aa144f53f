"""Checks that need STAN's attention: which modules each part depends on, and whether shuffled attention matters.

`variables` are those of study/networks.py; the batches and the results have the form described in
attribution/sanity.py.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from stattn_jax.attribution import ClipArrays, sanity
from stattn_jax.models import parameter_groups
from stattn_jax.models.baselines.compared import of_class

MODULES = {'space': ('space',), 'time': ('time',), 'heads': parameter_groups.HEADS, 'sound': ('audio',)}
LEAST = 1e-6


def modular(
    graphdef: nnx.GraphDef,
    variables: sanity.Variables,
    clips: ClipArrays,
    classes_n: np.ndarray,
    *,
    fresh: Callable[[int], sanity.Variables],
    seeds: int = 5,
    batch: int = 16,
) -> dict[str, dict[str, np.ndarray]]:
    """Rank correlation with the trained network's alpha, beta and terms after re-initialising one of `MODULES`.

    Terms are visual and audio. The correlation is exactly 1 where a part does not depend on the module: alpha with
    another `time` or other `heads`, beta with other `heads`.
    """
    trained = _parts(_attention(graphdef, variables, clips, classes_n, batch))
    found: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in MODULES}
    for seed in range(sanity.FIRST_SEED, sanity.FIRST_SEED + seeds):
        new = fresh(seed)
        for module, names in MODULES.items():
            parts = _parts(_attention(graphdef, sanity.redrawn(variables, new, names), clips, classes_n, batch))
            found[module].append({name: sanity.correlations(trained[name], parts[name], clips.valid) for name in parts})
    return {module: sanity.over_seeds(rows) for module, rows in found.items()}


def _parts(attention):
    """Returns the arrays that are compared, each [n t ...]."""
    visual = attention['beta'][:, 0, :, None] * (attention['alpha'] * attention['evidence']).sum(axis=2)
    audio = attention['beta'][:, 1] * attention['scores'][:, 1]
    return {'alpha': attention['alpha'], 'beta': attention['beta'].swapaxes(1, 2), 'visual': visual, 'audio': audio}


def permuted(
    graphdef: nnx.GraphDef,
    variables: sanity.Variables,
    clips: ClipArrays,
    classes_n: np.ndarray,
    *,
    draws: int = 100,
    seed: int = 0,
    batch: int = 16,
) -> dict[str, np.ndarray]:
    """Computes how far STAN's logit moves when its attention is shuffled and everything else is kept.

    If the logit does not move, the attention explains nothing. `space`: alpha is shuffled over the cells of each frame
    and head; `time`: beta is shuffled over the valid units of both modalities. Both are the mean magnitude of the
    change over `draws` shuffles, in units of the logit. `space_share`, `time_share`: the same divided by the distance
    between the largest and the smallest logit that any distribution of the same weight gives; NaN where these are less
    than 1e-6 apart. The objection is that of Jain and Wallace 2019 (Attention is not Explanation); here the change has
    a closed form.
    """
    attention = _attention(graphdef, variables, clips, classes_n, batch)
    rows = []
    for i, valid in enumerate(clips.valid):
        alpha, evidence = attention['alpha'][i, valid].astype(float), attention['evidence'][i, valid]
        beta, scores = attention['beta'][i][:, valid].astype(float), attention['scores'][i][:, valid]
        rng = np.random.default_rng((seed, i))
        moved = rng.permuted(np.broadcast_to(alpha, (draws, *alpha.shape)), axis=-1) - alpha
        space = np.einsum('t,jtns,tns->j', beta[0], moved, evidence, optimize=True)
        moved = rng.permuted(np.broadcast_to(beta.ravel(), (draws, beta.size)), axis=1) - beta.ravel()
        room = {'space': beta[0] @ (alpha.sum(axis=2) * np.ptp(evidence, axis=2)).sum(axis=1), 'time': np.ptp(scores)}
        change = {'space': np.abs(space).mean(), 'time': np.abs(moved @ scores.ravel()).mean()}
        rows.append(
            change | {f'{name}_share': change[name] / room[name] if room[name] >= LEAST else np.nan for name in room}
        )
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@functools.partial(jax.jit, static_argnums=0)
def _attention_of_batch(graphdef, variables, clips, classes_b):
    _, out = nnx.merge(graphdef, variables['params'], variables['rest'])(*clips, train=False)
    head_bne = out['visual_head'][classes_b]
    evidence = jnp.einsum('btnse,bne->btns', out['cell_values'], head_bne, precision='highest')
    found = {name: of_class(out[name], classes_b) for name in ('beta', 'segment_scores')}
    return {'alpha': out['alpha'], 'evidence': evidence, 'beta': found['beta'], 'scores': found['segment_scores']}


def _attention(graphdef, variables, clips, classes_n, batch) -> dict[str, np.ndarray]:
    """Returns, for each clip's class, alpha and the cells' evidence [n t heads s], beta and segment scores [n m t]."""
    return sanity.in_batches(functools.partial(_attention_of_batch, graphdef), variables, clips, classes_n, batch)
