"""The record of one explained clip: predictions, the terms that add up to each logit, attention weights and what-if.

The methods use only the stored arrays. result.py adds the methods that write files. models/contributions.py defines
the terms.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from stattn_jax import names
from stattn_jax.data import media as media_lib

# The record holds removed cells, and the JSON holds maps, of this many of the best classes. Those of 300 classes would
# be megabytes of text.
BEST = 10


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """The annotations of a clip, which are drawn beside the model's predictions.

    `intervals` is [(onset, offset)] in seconds from the clip's start, `boxes` is [(time, x0, y0, x1, y1)] with
    coordinates in 0..1 of the source frame.
    """

    intervals: Sequence[tuple[float, float]] = ()
    boxes: Sequence[tuple[float, float, float, float, float]] = ()

    def boxes_near(self, time: float, seconds: float) -> list[tuple[float, float, float, float]]:
        """Returns the boxes (x0, y0, x1, y1) annotated nearest to `time` in its segment, which lasts `seconds`."""
        segment = [box for box in self.boxes if int(box[0] / seconds + 1e-6) == int(time / seconds + 1e-6)]
        nearest = min((box[0] for box in segment), key=lambda annotated: abs(annotated - time), default=None)
        return [box[1:] for box in segment if box[0] == nearest]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ExplanationData:
    """One explained clip: its predictions, the terms that sum to each logit, attention weights and what-if results.

    Arrays are float32 and in units of the logit unless stated otherwise. Axes: class c, segment t, cell h w, modality m
    (0 visual, 1 audio), mel frame f and mel band k.

    - media: file, sha256; start, end (s in the file), duration (s), file_duration (s, of the whole file; missing for
      arrays); fps and rate (Hz) of the source, None where the
      file does not state them; height and width in pixels of the upright source frame; notes (see Clip in
      data/media.py)
    - geometry: the result of `make_geometry`; model: config_hash, parameter_hash, versions, dtype, step, trunks
    - multi_label: True for an independent sigmoid per class, False for a softmax over the classes
    - logits, probabilities, bias, reference [c]; mean_scores [m c] (if all are 0, the terms are not centred and the
      reference is the bias)
    - visual [c t h w], audio [c t]: the contributions, `logit = reference + sum`
    - visual_finer [c t 2h 2w]: the visual contributions on half cells (half_cells.py); in each segment they add up to
      the same as `visual`; empty if it was not computed
    - alpha [t h w] (mean over heads), null [t]: attention weights of a frame's cells and of its null cell; valid bool
      [t]
    - beta, segment_scores [m t c]: attention weights in time and the scores that they weight
    - log_mel [t f k]; frames: the whole source frame of every segment as JPEG
    - removed_cells [k t h w], removed_classes: the change in the logits of the k best classes when one cell is removed.
      The attention is recomputed, so the change is exact and includes the shift of attention in space and in time.
      Empty if it was not computed.
    - trust: {'silence', 'shifted_sound'}: {'label', 'probability', 'map_correlation'}, the predictions for the same
      frames with silence, and with the clip's own audio moved by `by_segments`, half the clip. They are the best class
      then, the probability then of this clip's best class, and Pearson's correlation of the attention weights on the
      cells of valid segments with the original ones (None where one map is constant). Both are absent if they were not
      computed, and for a clip that lacks a modality. 'training_distance', for a run that has these numbers: 'visual'
      and 'audio', each with the `distance` of the clip from the training clips (metrics/training_distance.py) and its
      `threshold`; `false_alarm_rate`, the share of clips like those of training that exceeds a threshold, at most;
      `held_out_clips`, from which both come.
    - usual_weights: {split, picture, sound}, the attention weight in time of each modality, averaged over the clips of
      a split that the network was evaluated on; empty if it was not evaluated
    - source: the video file; None for arrays and for a record read from npz
    """

    media: dict[str, Any]
    geometry: dict[str, Any]
    model: dict[str, Any]
    classes: tuple[str, ...]
    multi_label: bool
    logits: np.ndarray
    probabilities: np.ndarray
    bias: np.ndarray
    reference: np.ndarray
    mean_scores: np.ndarray
    visual: np.ndarray
    audio: np.ndarray
    alpha: np.ndarray
    null: np.ndarray
    beta: np.ndarray
    segment_scores: np.ndarray
    valid: np.ndarray
    log_mel: np.ndarray
    frames: tuple[bytes, ...]
    removed_cells: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0, 0, 0), np.float32))
    removed_classes: tuple[str, ...] = ()
    visual_finer: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0, 0, 0), np.float32))
    trust: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    usual_weights: dict[str, Any] = dataclasses.field(default_factory=dict)
    source: pathlib.Path | None = None

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], *, geometry: dict[str, Any], **rest: Any) -> Self:
        """Builds the record of one clip from the arrays of contributions.record (without axis b).

        The cells are put into rows and columns. `rest` holds the other fields. Raises ValueError for logits that are
        not finite.
        """
        fields: dict[str, Any] = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        broken = int((~np.isfinite(fields['logits'])).sum())
        if broken:
            raise ValueError(f'{broken} of {len(fields["logits"])} logits are not finite; use an older checkpoint')
        t, h, w = geometry['grid']
        fields['visual'] = fields['visual'].reshape(-1, t, h, w)
        fields['alpha'] = fields['alpha'].reshape(t, h, w)
        return cls(geometry=geometry, **fields, **rest)

    def __repr__(self) -> str:
        media = self.media
        best = ', '.join(f'{each["label"]} {each["probability"]:.1%}' for each in self.top(3))
        return f'<Explanation of {media["file"]}, {media["start"]:g} to {media["end"]:g} s: {best}>'

    @property
    def modalities(self) -> np.ndarray:
        """Which modalities (visual, audio) the clip has, bool [m]; the network uses nothing of one that it lacks."""
        return media_lib.modalities(self.media.get('notes', ()))

    @property
    def units(self) -> np.ndarray:
        """Which (modality, segment) units the network used: bool [m t]."""
        return self.valid & self.modalities[:, None]

    def top(self, k: int = 5) -> list[dict[str, Any]]:
        """Returns the k best classes, best first, as {label, logit, probability}; ties keep the classes' order."""
        best = np.argsort(-self.logits, kind='stable')[:k]
        return [
            {'label': self.classes[c], 'logit': rounded(self.logits[c]), 'probability': rounded(self.probabilities[c])}
            for c in best
        ]

    def class_index(self, label: str | None = None) -> int:
        """Returns the index of a class (default: the best one); raises ValueError for an unknown label."""
        if label is None:
            return int(np.argmax(self.logits))
        if label not in self.classes:
            raise ValueError(f'unknown label {label!r}; {names.expected(label, self.classes, "classes")}')
        return self.classes.index(label)

    def runner_up(self, label: str | None = None) -> str | None:
        """Returns the best class other than `label` (default: the second best); None if the model has one class."""
        c = self.class_index(label)
        return next((self.classes[i] for i in np.argsort(-self.logits, kind='stable') if i != c), None)

    def contributions(self, label: str | None = None) -> tuple[float, np.ndarray, np.ndarray]:
        """Returns (reference, visual [t h w], audio [t]) of a class (default: the best one); they sum to its logit."""
        c = self.class_index(label)
        return float(self.reference[c]), self.visual[c], self.audio[c]

    def contrast(self, label: str, other: str) -> tuple[float, np.ndarray, np.ndarray]:
        """Returns (reference, visual [t h w], audio [t]) that sum to logit(label) - logit(other).

        The terms explain why the model prefers the one class to the other.
        """
        reference, visual, audio = self.contributions(label)
        other_reference, other_visual, other_audio = self.contributions(other)
        return reference - other_reference, visual - other_visual, audio - other_audio

    def shares(self, label: str | None = None) -> dict[str, float]:
        """Returns the signed sum of each modality's terms, {'picture', 'sound'}, relative to an average clip."""
        _, visual, audio = self.contributions(label)
        return {'picture': float(visual.sum(dtype=float)), 'sound': float(audio.sum(dtype=float))}

    def painted(self, c: int) -> np.ndarray:
        """Returns the heat maps of class number c, per area of a cell: [t 2h 2w] of the finer map, or [t h w].

        A value on half cells is multiplied by four, so that both maps have one colour scale.
        """
        return 4 * self.visual_finer[c] if self.visual_finer.size else self.visual[c]

    def residual(self) -> tuple[float, float]:
        """Returns the largest |reference + sum - logit| over the classes, and the largest error / max(1, |logit|)."""
        total = (
            self.reference.astype(float)
            + self.visual.sum(axis=(1, 2, 3), dtype=float)
            + self.audio.sum(axis=1, dtype=float)
        )
        error = np.abs(total - self.logits)
        return float(error.max()), float((error / np.maximum(1, np.abs(self.logits))).max())

    def without_units(self, keep_mt: np.ndarray, label: str | None = None) -> float:
        """Returns the logit when only the (modality, segment) units in `keep_mt` (bool [m t]) are kept.

        The result is exact at the level of features: a softmax over the remaining units is the original softmax
        renormalised, and the score of a unit does not change (a visual unit keeps the spatial attention that its audio
        gave it). Units that are not valid are never kept. Raises ValueError for another shape and where no unit is
        left.
        """
        c = self.class_index(label)
        keep_mt = np.asarray(keep_mt, bool)
        if keep_mt.shape != self.beta.shape[:2]:
            raise ValueError(
                f'keep has shape {keep_mt.shape}; expected {self.beta.shape[:2]}, one value per modality and segment'
            )
        keep_mt = keep_mt & self.units
        if not keep_mt.any():
            raise ValueError('no valid unit is kept, so the softmax is undefined; keep at least one')
        weights, scores = self.beta[keep_mt, c].astype(float), self.segment_scores[keep_mt, c].astype(float)
        # Weights can underflow to 0 in float32. Then only a single remaining unit has a known share, which is 1.
        weights = weights if weights.any() or len(weights) > 1 else np.ones(1)
        if not weights.any():
            raise ValueError(
                f'the {len(weights)} units that are kept all have weight 0 in float32; keep one with a positive weight'
            )
        return float(self.bias[c] + weights @ scores / weights.sum())

    def removed_units(self, label: str | None = None) -> np.ndarray:
        """Returns the exact change of the logit when one (modality, segment) unit is removed: [m t], 0 if not valid.

        Without its only unit, a clip has the bias as its logit.
        """
        logit = self.without_units(np.ones(self.beta.shape[:2], bool), label)
        change = np.zeros(self.beta.shape[:2], np.float32)
        for m, t in np.argwhere(self.units):
            keep = np.ones(change.shape, bool)
            keep[m, t] = False
            alone = self.units.sum() == 1
            change[m, t] = (self.bias[self.class_index(label)] if alone else self.without_units(keep, label)) - logit
        return change


def make_geometry(
    grid: tuple[int, int, int], segment_seconds: float, affine: Sequence[float], height: int, width: int
) -> dict[str, Any]:
    """Returns where the grid cells lie in the source frame and in time.

    `grid` is (t, h, w), and `affine` maps the model's frame to the source frame (frame_affine in data/pipeline.py).
    Cell (t, i, j) covers x = x_offset + x_scale * [j, j + 1] / w, y likewise, and seconds [t, t + 1] * segment_seconds
    of the clip. `to_source` is in 0..1 of the source frame, `to_pixels` in its pixels (height, width).
    """
    names = ('x_scale', 'x_offset', 'y_scale', 'y_offset')
    return {
        'grid': [int(n) for n in grid],
        'segment_seconds': float(segment_seconds),
        'to_source': {name: float(a) for name, a in zip(names, affine, strict=True)},
        'to_pixels': {
            name: float(a * (width if name[0] == 'x' else height)) for name, a in zip(names, affine, strict=True)
        },
    }


def cell_centre(geometry: dict[str, Any], i: int, j: int) -> tuple[float, float]:
    """Returns x and y of the centre of the cell in row i and column j, in 0..1 of the source frame."""
    (_, h, w), to = geometry['grid'], geometry['to_source']
    return to['x_offset'] + to['x_scale'] * (j + 0.5) / w, to['y_offset'] + to['y_scale'] * (i + 0.5) / h


def strongest_cell(visual_thw: np.ndarray) -> tuple[int, int, int] | None:
    """Returns (t, row, column) of the largest term, or None where no cell has a positive term."""
    t, i, j = np.unravel_index(np.argmax(visual_thw), visual_thw.shape)
    return (int(t), int(i), int(j)) if visual_thw[t, i, j] > 0 else None


def rounded(values: Any) -> Any:
    """Rounds to seven significant digits, the resolution of float32, so that sums stay within 1e-7 of their terms."""
    values = np.asarray(values)
    return np.array([float(f'{x:.7g}') for x in values.ravel()]).reshape(values.shape).tolist()
