"""Pointing games per clip, which is the unit of the confidence intervals."""

import dataclasses
from typing import Any

import numpy as np

from stattn_jax import score
from stattn_jax.attribution import Map
from stattn_jax.data import pipeline
from stattn_jax.metrics import energy, joint, localization, maps
from stattn_jax.study.networks import TimedMap


@dataclasses.dataclass(frozen=True)
class Targets:
    """Ground truth of the clips' labels.

    boxes [k 5] and events [e 2] of each clip, affine maps, valid [n t], and the length of a segment (s).
    """

    boxes: list[np.ndarray]
    events: list[np.ndarray]
    affines: list[tuple[float, float, float, float]]
    valid: np.ndarray
    seconds: float

    @classmethod
    def of(cls, truth: list[score.Truth], fit: str, seconds: float) -> 'Targets':
        """Returns the targets of each clip's first label."""
        return cls(
            [score.box_rows(b for b in r.boxes if b.label == r.labels[0]) for r in truth],
            [score.event_rows(e for e in r.events if e.label == r.labels[0]) for r in truth],
            [pipeline.frame_affine(r.height, r.width, fit) for r in truth],
            np.stack([r.valid for r in truth]),
            seconds,
        )

    def subset(self, chosen: np.ndarray) -> 'Targets':
        """Returns the targets of the clips with the given numbers."""
        return Targets(
            [self.boxes[i] for i in chosen],
            [self.events[i] for i in chosen],
            [self.affines[i] for i in chosen],
            self.valid[chosen],
            self.seconds,
        )

    @property
    def strata(self) -> dict[str, np.ndarray]:
        """Which clips have a small object, and which have an event that does not fill the clip: bool [n]."""
        segments = self.valid.shape[1]
        inside = np.array([localization.segments_in_events(segments, e, self.seconds) for e in self.events])
        return {'small': localization.small_clips(self.boxes), 'partial': (inside != self.valid).any(axis=1)}


def games(explanation: TimedMap, targets: Targets) -> dict[str, np.ndarray]:
    """Computes expected hits [n] in space, in time and in both at once, energy inside the boxes, and sparseness.

    Hits in space are also given with TorchRay's tolerance.
    """
    where_nthw = _grids(explanation.map.visual, targets.valid)
    spatial: dict[str, Any] = {'boxes': targets.boxes, 'affines': targets.affines, 'segment_seconds': targets.seconds}
    when_nt = np.asarray(explanation.when)
    together = (when_nt, where_nthw, targets.boxes, targets.events, targets.affines, targets.seconds)
    kept = [visual[valid] for visual, valid in zip(np.asarray(explanation.map.visual), targets.valid)]
    return {
        'space': localization.spatial_hits(where_nthw, **spatial),
        'space_scaled': localization.spatial_hits(where_nthw, **spatial, tau=localization.TOLERANCE),
        'time': localization.temporal_hits(when_nt, targets.valid, targets.events, targets.seconds),
        'joint': joint.joint_hits(*together),
        'energy': energy.energies(where_nthw, **spatial)[0],
        'gini': np.array([maps.gini(map_) for map_ in kept]),
        'entropy': np.array([maps.entropy(map_) for map_ in kept]),
    }


def chance(targets: Targets, cells: int) -> dict[str, np.ndarray]:
    """Computes the score [n] of a blind guess in each game: a constant map, all of whose cells tie."""
    n, t = targets.valid.shape
    blind = games(TimedMap(Map(np.ones((n, t, cells)), np.zeros((n, t))), np.zeros((n, t))), targets)
    return {name: blind[name] for name in ('space', 'space_scaled', 'time', 'joint', 'energy')}


def _grids(visual_nts, valid_nt) -> np.ndarray:
    """Returns the maps as [n t h w], with -inf where a segment is not valid."""
    n, t, s = visual_nts.shape
    side = int(np.sqrt(s))
    return np.where(valid_nt[..., None], np.asarray(visual_nts, float), -np.inf).reshape(n, t, side, side)
