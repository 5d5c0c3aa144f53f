"""VGGSounder: hit rates, F1 and mAP of the classes that are audible, visible or both in a clip.

The benchmark (arXiv 2508.08237, and its package `vggsounder` 1.0) scores a prediction against the labels of one
modality: `a` the audible ones and `v` the visible ones (both include the audible and visible labels), `av` the audible
and visible ones alone, `all` every label. A clip without a label of the modality does not count there. Clips with
background music are left out, as the benchmark does by default. segments.py scores when things happen.
"""

import numpy as np

from stattn_jax.metrics import classification


def summary(
    scores_nc: np.ndarray, audible_nc: np.ndarray, visible_nc: np.ndarray, music_n: np.ndarray, threshold: float
) -> dict[str, float | int]:
    """Returns the `presence/` block of eval_SPLIT.json, and `presence_music/`, which includes clips with music.

    `audible` and `visible` are bool [n c]: an audible and visible label is in both. `music` is bool [n] and marks
    background music. In each block, for `a`, `v`, `av`, `all`: `_hit1`, `_hit5` (if more than five classes; a label is
    among the k best classes), `_f1` of the classes whose score reaches `threshold`, all clips and classes pooled,
    `_map` and `_map_skipped` (classes without a positive), `_n`. A constant predictor that ranks the classes by
    frequency for every clip gives `_hit1_majority`, `_hit5_majority`, `_f1_majority` (one class), `_map_chance`. Where
    no clip has a label, `_n` is 0 and the rest is left out. Raises ValueError on an empty split or a score that is not
    finite.
    """
    classification.check_scores(scores_nc)
    truths = {'a': audible_nc, 'v': visible_nc, 'av': audible_nc & visible_nc, 'all': audible_nc | visible_nc}
    numbers: dict[str, float | int] = {}
    for block, kept_n in (('presence', ~music_n), ('presence_music', np.ones_like(music_n))):
        for name, truth_nc in truths.items():
            scored_n = kept_n & truth_nc.any(axis=1)
            numbers |= _rates(scores_nc[scored_n], truth_nc[scored_n], threshold, f'{block}/{name}_')
    return numbers


def _rates(scores_nc, truth_nc, threshold, prefix):
    n, c = truth_nc.shape
    if not n:
        return {f'{prefix}n': 0}
    majority_nc = classification.most_frequent(truth_nc)
    numbers = {
        f'{prefix}f1': classification.f1(scores_nc >= threshold, truth_nc),
        f'{prefix}f1_majority': classification.f1(np.arange(c) == majority_nc.argmax(axis=1)[:, None], truth_nc),
        f'{prefix}n': n,
    }
    for k in (1, 5):
        if c > k:
            numbers[f'{prefix}hit{k}'] = classification.top_k(scores_nc, truth_nc, k)
            numbers[f'{prefix}hit{k}_majority'] = classification.top_k(majority_nc, truth_nc, k)
    return numbers | classification.mean_average_precision(scores_nc, truth_nc, prefix)
