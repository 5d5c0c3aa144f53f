"""Computes the numbers `masks/*` of eval_SPLIT.json from the maps of the network and the masks of a split's clips.

Two maps are scored. The attention weights need no class (a network whose logit is not a sum of terms has its own map
instead). The contributions (`_contribution`) are the largest over the clip's labels at each cell and need labels. All
masks of a frame count together. Heat is drawn at 224 x 224 pixels of the whole source frame, where its threshold is the
one with the largest mIoU on the validation split. The metrics are in metrics/masks.py.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from stattn_jax.data import pipeline, source
from stattn_jax.metrics import joint, localization, masks, sounding
from stattn_jax.score import Numbers, Truth

# Trivial answers, which do not depend on the clip: every pixel, a blob in the middle, the mean of the training masks.
TRIVIAL = ('_everything', '_centre', '_prior')


@dataclasses.dataclass(frozen=True)
class Measured:
    """The curves of each map and of the trivial answers by their suffix, and the numbers that need no threshold."""

    curves: dict[str, masks.ThresholdCurves]
    pointing: Numbers

    def thresholds(self) -> dict[str, float]:
        """Returns the best threshold of each map; it is meant for numbers of another split."""
        return {name: curves.best_threshold() for name, curves in self.curves.items() if curves.with_object}

    def numbers(self, thresholds: dict[str, float]) -> Numbers:
        """Returns the block `masks/`: each metric of each map, of the trivial answers, and the best of these (chance).

        Without thresholds, mIoU and F at a threshold are left out.
        """
        everything = self.curves['_everything']
        thresholds = thresholds and thresholds | {'_everything': 0.0}
        rates = {name: curves.numbers(thresholds.get(name)) for name, curves in self.curves.items()}
        if thresholds and everything.frames:
            rates['_nothing'] = {'miou': 1 - everything.with_object / everything.frames}
        numbers = {f'masks/{key}{name}': rate for name, own in rates.items() for key, rate in own.items()}
        for key in rates['_everything']:
            blind = [own[key] for name, own in rates.items() if name in (*TRIVIAL, '_nothing') and key in own]
            numbers[f'masks/{key}_chance'] = max(blind)
        chosen = {f'masks/threshold{name}': x for name, x in thresholds.items() if name != '_everything'}
        return numbers | chosen | self.pointing


def prior(truth: Iterable[Truth]) -> np.ndarray | None:
    """Returns the mean of the masks of training clips [224 224], of maximum 1; None where they have none."""
    total = np.zeros((masks.SIDE, masks.SIDE))
    for r in truth:
        for mask_hw in _by_time(r).values():
            total += mask_hw
    return total / total.max() if total.any() else None


def measure(
    rows: dict[str, np.ndarray], truth: list[Truth], info: source.DatasetInfo, fit: str, prior_hw: np.ndarray | None
) -> Measured:
    """Measures the maps of a split's clips, from the rows [n ...] of evaluate.eval_rows.

    A frame is scored if its segment is valid and the clip has both modalities; `masks/skipped` counts the others. The
    pointing games ask whether the strongest cell is inside a mask, in frames that show an object (`point`), and whether
    the strongest cell of the strongest segment is (`joint`), in clips all of whose valid segments are annotated.
    """
    maps = _maps(rows, truth)
    blind = {'_everything': np.ones((masks.SIDE, masks.SIDE)), '_centre': masks.centre_heat(), '_prior': prior_hw}
    blind = {name: masks.levels(heat_hw) for name, heat_hw in blind.items() if heat_hw is not None}
    curves = {name: masks.ThresholdCurves() for name in (*maps, *blind)}
    affines = [pipeline.frame_affine(r.height, r.width, fit) for r in truth]
    targets: list[dict[int, np.ndarray]] = []
    skipped = 0
    for i, r in enumerate(truth):
        heat = {name: masks.normalise(where[i]) for name, (where, _) in maps.items() if np.isfinite(where[i]).any()}
        frames = _by_segment(r, info)
        scored = {t: mask_hw for t, mask_hw in frames.items() if r.valid[t] and r.paired}
        skipped += len({mask.time for mask in r.masks}) - len(scored)
        for t, mask_hw in scored.items():
            drawn = {name: masks.levels(sounding.draw(x[t], affines[i])) for name, x in heat.items()}
            for name, level_hw in (drawn | blind).items():
                curves[name].add(level_hw, mask_hw)
        grid = next(iter(maps.values()))[0].shape[2:] if maps else (1, 1)
        targets.append({t: masks.cells_in_mask(grid, mask_hw, affines[i]) for t, mask_hw in scored.items()})
    counts = curves['_everything']
    pointing: Numbers = {'masks/frames': counts.frames, 'masks/frames_with_object': counts.with_object}
    pointing['masks/skipped'] = skipped
    for name, (where_nthw, when_nt) in maps.items():
        pointing |= _games(where_nthw, when_nt, targets, truth, affines, name)
    return Measured(curves, pointing)


def _games(where_nthw, when_nt, targets, truth, affines, name) -> Numbers:
    """Plays the pointing games in space and in both; the latter needs `when` [n t]."""
    shown = [{t: target_hw for t, target_hw in of_clip.items() if target_hw.any()} for of_clip in targets]
    numbers = localization.spatial_rates(where_nthw, shown, affines, prefix=f'masks/point{name}')
    if when_nt is None:
        return numbers
    whole = [
        np.stack([of_clip.get(t, np.zeros(where_nthw.shape[2:], bool)) for t in range(len(r.valid))])
        if of_clip.keys() >= {*np.flatnonzero(r.valid).tolist()} and of_clip
        else None
        for of_clip, r in zip(targets, truth)
    ]
    whole = [target_thw if target_thw is not None and target_thw.any() else None for target_thw in whole]
    return numbers | joint.joint_rates(when_nt, where_nthw, whole, affines, prefix=f'masks/joint{name}')


def _maps(rows: dict[str, np.ndarray], truth: list[Truth]) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Returns each map as where [n t h w] and when [n t], by its suffix.

    A map is -inf where a segment is not valid, where the clip lacks a modality and, if the map is one of the labels,
    where it has no label.
    """
    own_nl = np.array([[c in r.labels for c in classes] for r, classes in zip(truth, rows['classes'])])
    seen_nt = np.array([r.valid & r.paired for r in truth])

    def of_labels(x):
        return np.where(own_nl.reshape(*own_nl.shape, *(1,) * (x.ndim - 2)), x, -np.inf).max(axis=1)

    found = {}
    if 'alpha' in rows:
        found[''] = rows['alpha'], rows['alpha'].sum(axis=-1)
        found['_contribution'] = of_labels(rows['visual']), of_labels(rows['visual'].sum(axis=-1) + rows['audio'])
    elif 'where' in rows:
        found[''] = of_labels(rows['where']), of_labels(rows['when']) if 'when' in rows else None
    maps = {}
    for name, (where_nts, when_nt) in found.items():
        side = int(np.sqrt(where_nts.shape[-1]))
        where_nts = np.where(seen_nt[..., None], where_nts, -np.inf)
        when_nt = None if when_nt is None else np.where(seen_nt, when_nt, -np.inf)
        maps[name] = where_nts.reshape(*where_nts.shape[:2], side, side), when_nt
    return maps


def _by_segment(r: Truth, info: source.DatasetInfo) -> dict[int, np.ndarray]:
    """Returns the union of the masks [224 224] of each segment that has some."""
    found: dict[int, np.ndarray] = {}
    for time, mask_hw in _by_time(r).items():
        t = int(localization.segments_of(np.array(time), info.spec.segment_seconds))
        if 0 <= t < info.spec.segments:
            found[t] = found[t] | mask_hw if t in found else mask_hw
    return found


def _by_time(r: Truth) -> dict[float, np.ndarray]:
    """Returns the union of the masks [224 224] of each annotated time."""
    found: dict[float, np.ndarray] = {}
    for mask in r.masks:
        mask_hw = mask.pixels(masks.SIDE)
        found[mask.time] = found[mask.time] | mask_hw if mask.time in found else mask_hw
    return found
