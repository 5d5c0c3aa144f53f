"""The record of one explained clip: predictions, the terms that add up to each logit, attention, what-if; its files.

The methods that answer questions work on the arrays alone, so that a record read from its npz answers them too. Read
next: models/contributions.py for what a term means, record_files.py for JSON and NPZ, words.py for the sentence.
"""

import dataclasses
import html
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from stattn_jax.explain import record_files, words

# Of how many classes, the best ones, the record holds removed cells and the JSON holds maps: 300 would be megabytes of
# text.
BEST = 10


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is known about a clip, drawn beside what the model says.

    `intervals` [(onset, offset)] in seconds from the clip's start, `boxes` [(time, x0, y0, x1, y1)] in 0..1 of the
    source frame.
    """

    intervals: Sequence[tuple[float, float]] = ()
    boxes: Sequence[tuple[float, float, float, float, float]] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """One clip explained; arrays are float32 unless said otherwise. Axes: class c, segment t, cell h w, modality m
    (0 picture, 1 sound), mel frame f and band k; units of the logit unless said otherwise.

    - media: file, sha256; start, end (s in the file), duration (s); fps and rate (Hz) of the source, None where it does
      not say; height and width in pixels of the upright source frame; notes (data/media.py, Clip)
    - geometry: what `make_geometry` returns; model: config_hash, parameter_hash, versions, dtype, step, trunks
    - multi_label: each class is a yes or no of its own (sigmoid), else one of all (softmax)
    - logits, probabilities, bias, reference [c]; mean_scores [m c] (0: not centred, the reference is the bias)
    - visual [c t h w], audio [c t]: the terms, `logit = reference + sum`
    - alpha [t h w] (mean over heads), null [t]: attention within a frame; valid bool [t]
    - beta, segment_scores [m t c]: attention in time and what it weighs
    - log_mel [t f k]; frames: the whole source frame of every segment as JPEG
    - removed_cells [k t h w], removed_classes: the change of the logit of the k best classes when one cell is taken
      away, by re-running the attention: exact, and it moves the attention in space and in time. Empty where it was not
      asked.
    - trust: {'silence', 'shifted_sound'}: {'label', 'probability', 'map_correlation'}, what the network says of the
      same picture with silence, and with its own sound moved by `by_segments`, half the clip: the best class then, the
      probability of the class that is best here, and Pearson's correlation of the attention on the cells of valid
      segments (None where one map is constant). Empty where it was not asked.
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
    trust: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    source: pathlib.Path | None = None

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], *, geometry: dict[str, Any], **rest: Any) -> Self:
        """Fills the record from what contributions.record gives of one clip (no b), cells put into rows and columns.

        `rest`: the other fields. Raises ValueError for logits that are not finite.
        """
        arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        broken = int((~np.isfinite(arrays['logits'])).sum())
        if broken:
            raise ValueError(
                f'{broken} of {len(arrays["logits"])} logits are not finite, expected numbers: use an older checkpoint'
            )
        t, h, w = geometry['grid']
        arrays['visual'] = arrays['visual'].reshape(-1, t, h, w)
        arrays['alpha'] = arrays['alpha'].reshape(t, h, w)
        return cls(geometry=geometry, **arrays, **rest)

    def top(self, k: int = 5) -> list[dict[str, Any]]:
        """The k best classes, best first, as {label, logit, probability}; equal logits keep the classes' order."""
        best = np.argsort(-self.logits, kind='stable')[:k]
        return [
            {
                'label': self.classes[c],
                'logit': record_files.rounded(self.logits[c]),
                'probability': record_files.rounded(self.probabilities[c]),
            }
            for c in best
        ]

    def class_index(self, label: str | None = None) -> int:
        """The number of a class, of the best one without a label; raises ValueError for an unknown label."""
        if label is None:
            return int(np.argmax(self.logits))
        if label not in self.classes:
            some = ', '.join(map(repr, self.classes[:5])) + (', ...' if len(self.classes) > 5 else '')
            raise ValueError(
                f'unknown label {label!r}: expected one of the {len(self.classes)} classes of the model ({some})'
            )
        return self.classes.index(label)

    def runner_up(self, label: str | None = None) -> str | None:
        """The best class beside `label` (without a label: the second best); None where the model knows one class."""
        c = self.class_index(label)
        return next((self.classes[i] for i in np.argsort(-self.logits, kind='stable') if i != c), None)

    def contributions(self, label: str | None = None) -> tuple[float, np.ndarray, np.ndarray]:
        """(reference, visual [t h w], audio [t]) of a class, of the best one without a label; they sum to its logit."""
        c = self.class_index(label)
        return float(self.reference[c]), self.visual[c], self.audio[c]

    def contrast(self, label: str, other: str) -> tuple[float, np.ndarray, np.ndarray]:
        """(reference, visual [t h w], audio [t]) that sum to logit(label) - logit(other): why the one and not the
        other.
        """
        of_label, of_other = self.contributions(label), self.contributions(other)
        return tuple(a - b for a, b in zip(of_label, of_other, strict=True))

    def shares(self, label: str | None = None) -> dict[str, float]:
        """The sum of each modality's terms, {'picture', 'sound'}: signed, against an average clip."""
        _, visual, audio = self.contributions(label)
        return {'picture': float(visual.sum(dtype=float)), 'sound': float(audio.sum(dtype=float))}

    def sentence(self, label: str | None = None) -> str:
        """What the numbers of a class say, in words."""
        return words.sentence(self, self.class_index(label))

    def residual(self) -> tuple[float, float]:
        """The largest |reference + sum - logit| over the classes, and the largest such error / max(1, |logit|)."""
        total = (
            self.reference.astype(float)
            + self.visual.sum(axis=(1, 2, 3), dtype=float)
            + self.audio.sum(axis=1, dtype=float)
        )
        error = np.abs(total - self.logits)
        return float(error.max()), float((error / np.maximum(1, np.abs(self.logits))).max())

    # -----------------------------------------------------------------------------------------------------------------
    # What if
    # -----------------------------------------------------------------------------------------------------------------

    def without_units(self, keep_mt: np.ndarray, label: str | None = None) -> float:
        """The logit when of all (modality, segment) units only those in `keep_mt` (bool [m t]) are left.

        Exact, on the level of features: the softmax over what is left is its own renormalised, and what a unit says
        does not change (a picture keeps the attention that its sound gave it). Units that are not valid are never left.
        Raises ValueError for another shape and where nothing is left.
        """
        c = self.class_index(label)
        keep_mt = np.asarray(keep_mt, bool)
        if keep_mt.shape != self.beta.shape[:2]:
            raise ValueError(
                f'keep {keep_mt.shape}: expected {self.beta.shape[:2]}, one value for each modality and segment'
            )
        left = keep_mt & self.valid
        if not left.any():
            raise ValueError('no valid unit is left, and the softmax over none has no value: keep one at least')
        weights, scores = self.beta[left, c].astype(float), self.segment_scores[left, c].astype(float)
        # Weights so small that float32 has no number for them: only one of them alone still has a known share, all of
        # it.
        weights = weights if weights.any() or len(weights) > 1 else np.ones(1)
        if not weights.any():
            raise ValueError(f'the {len(weights)} units that are left have no weight in float32: keep one with weight')
        return float(self.bias[c] + weights @ scores / weights.sum())

    def removed_units(self, label: str | None = None) -> np.ndarray:
        """The change of the logit when one (modality, segment) unit is removed, [m t]; exact, 0 where not valid."""
        logit = self.without_units(np.ones(self.beta.shape[:2], bool), label)
        change = np.zeros(self.beta.shape[:2], np.float32)
        for m, t in np.argwhere(np.broadcast_to(self.valid, change.shape)):
            keep = np.ones(change.shape, bool)
            keep[m, t] = False
            change[m, t] = self.without_units(keep, label) - logit
        return change

    # -----------------------------------------------------------------------------------------------------------------
    # Files. What a file needs is imported with it: Matplotlib takes a second, and numbers do not wait for it.
    # -----------------------------------------------------------------------------------------------------------------

    def save_json(self, path: str | os.PathLike, label: str | None = None) -> None:
        """Writes schema stattn_jax.explanation/2 (docs/explanation.schema.json): everything but frames and log-mel.

        Seven significant digits. Maps are those of the BEST classes and of `label`, the target (without it: the best
        class).
        """
        record_files.write_json(self, path, self.class_index(label), BEST)

    def save_npz(self, path: str | os.PathLike) -> None:
        """Writes every array under its name, frames as `frame_0`, ... (JPEG bytes), the rest as JSON in `header`."""
        record_files.write_npz(self, path)

    @classmethod
    def load_npz(cls, path: str | os.PathLike) -> Self:
        """Reads what `save_npz` wrote; raises ValueError for another schema."""
        return cls(**record_files.read_npz(path))

    def save_png(self, path: str | os.PathLike, label: str | None = None, truth: Truth | None = None) -> None:
        """Draws frames with heat, log-mel strip and signed bars per segment of a class (without a label: the best)."""
        from stattn_jax.explain import figure

        figure.draw(self, self.class_index(label), truth or Truth(), path)

    def save_html(self, path: str | os.PathLike, label: str | None = None, truth: Truth | None = None) -> None:
        """Writes one page that works without network: the clip with sound, heat, timeline, what-if."""
        from stattn_jax.explain import page

        record_files.write_text(path, page.render(self, label, truth))

    def save_video(self, path: str | os.PathLike, label: str | None = None) -> None:
        """Writes the stretch as mp4 with the heat of a class burnt in and its own sound; raises ValueError without
        a source.
        """
        from stattn_jax.explain import video

        if self.source is None:
            raise ValueError(
                f'{path}: there is no video file behind this record; explain the file to get one with its source'
            )
        video.write_overlay(self, path, label)

    def save_csv(self, path: str | os.PathLike) -> None:
        """Writes one row for each segment: terms of the best classes, attention, strongest cell."""
        from stattn_jax.explain import tables

        tables.write_csv(self, path)

    def save_vtt(self, path: str | os.PathLike) -> None:
        """Writes WebVTT cues, one for each segment, in words."""
        from stattn_jax.explain import tables

        tables.write_vtt(self, path)

    def _repr_html_(self) -> str:
        """The page in a notebook, in a frame of its own so that its style and script stay there."""
        from stattn_jax.explain import page

        inside = html.escape(page.render(self), quote=True)
        title = html.escape(f'Explanation of {self.media["file"]}', quote=True)
        return f'<iframe title="{title}" srcdoc="{inside}" style="width: 100%; height: 900px; border: 0"></iframe>'


def make_geometry(
    grid: tuple[int, int, int], segment_seconds: float, affine: Sequence[float], height: int, width: int
) -> dict[str, Any]:
    """Where a grid cell lies: grid (t, h, w), segment_seconds, affine maps of the model's frame to the source frame.

    Cell (t, i, j) covers x = x_offset + x_scale * [j, j + 1] / w, y likewise, and seconds [t, t + 1] * segment_seconds
    of the clip; `to_source` is in 0..1 of the source frame, `to_pixels` in its pixels (height, width). `affine`:
    data/pipeline.py, frame_affine.
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
