"""The record of one explained clip: predictions, the terms that add up to each logit, attention, geometry; its files.

`explanation.json` suffices to redo the sum (`check`), the `.npz` holds every array of every class, the PNG is
figure.py's. Read next: contributions.py for what a term means, figure.py for the picture.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from stattn_jax.explain import contributions as terms

SCHEMA = 'stattn_jax.explanation/1'
# Beyond this many classes the JSON holds the maps of the best ones only, and says so: 300 would be megabytes of text.
MAPS_IN_JSON = 10

_HOW_TO_READ = (
    'For each class in maps: logit = reference + sum of visual [t][h][w] + sum of audio [t]. A positive value speaks '
    'for the class, against an average clip (whose logit is the reference; it is the bias where mean_scores are 0). '
    'Values add up; they do not say what the logit would be without that cell or second.'
)
_ARRAYS = ('logits', 'probabilities', 'bias', 'reference', 'mean_scores', 'visual', 'audio', 'alpha', 'null', 'beta')
_ARRAYS += ('segment_scores', 'valid', 'log_mel')
_HEADER = ('media', 'geometry', 'model', 'classes', 'multi_label')


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
    """One clip explained; arrays are float32 unless said otherwise.

    - media: file, sha256, start and duration in seconds, height and width in pixels of the upright source frame
    - geometry: what `make_geometry` returns; model: config_hash, parameter_hash, versions, dtype, step
    - logits, probabilities, bias, reference [c]; mean_scores [m c] (0: not centred, the reference is the bias)
    - visual [c t h w], audio [c t]: the terms, `logit = reference + sum`
    - alpha [t h w] (mean over heads), null [t]: attention within a frame; valid bool [t]
    - beta, segment_scores [m t c], m = 0 picture, 1 sound
    - log_mel [t f k]; frames: the whole source frame of every segment as JPEG
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

    @classmethod
    def from_output(
        cls,
        logits: jax.Array,
        out: terms.Out,
        *,
        mean_scores: np.ndarray | None = None,
        geometry: dict[str, Any],
        classes: Sequence[str],
        multi_label: bool,
        **rest: Any,
    ) -> Self:
        """Fills the record from the model's `(logits, out)` of one clip (b = 1).

        `mean_scores` [m c] are the training means (contributions.unit_scores), stored with the checkpoint; without them
        the terms are counted from zero and the reference is the bias. `rest`: media, model, valid, log_mel, frames.
        Raises ValueError for logits that are not finite.
        """
        mean_scores = np.zeros((2, len(classes)), np.float32) if mean_scores is None else mean_scores
        reference, visual, audio = terms.centred(out, jnp.asarray(mean_scores))
        logits = jnp.asarray(logits[0], jnp.float32)
        broken = int((~jnp.isfinite(logits)).sum())
        if broken:
            raise ValueError(
                f'{broken} of {len(classes)} logits are not finite, expected numbers: use an older checkpoint'
            )
        t, h, w = geometry['grid']
        arrays = {
            'logits': logits,
            'probabilities': jax.nn.sigmoid(logits) if multi_label else jax.nn.softmax(logits),
            'bias': out['bias'],
            'reference': reference,
            'mean_scores': mean_scores,
            'visual': visual.reshape(-1, t, h, w),
            'audio': audio,
            'alpha': out['alpha'][0].mean(axis=1).reshape(t, h, w),
            'null': out['null'][0].mean(axis=1),
            'beta': out['beta'][0],
            'segment_scores': out['segment_scores'][0],
        }
        arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        return cls(geometry=geometry, classes=tuple(classes), multi_label=multi_label, **arrays, **rest)

    def top(self, k: int = 5) -> list[dict[str, Any]]:
        """The k best classes, best first, as {label, logit, probability}; equal logits keep the classes' order."""
        best = np.argsort(-self.logits, kind='stable')[:k]
        return [
            {'label': self.classes[c], 'logit': _round(self.logits[c]), 'probability': _round(self.probabilities[c])}
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

    def contributions(self, label: str | None = None) -> tuple[float, np.ndarray, np.ndarray]:
        """(reference, visual [t h w], audio [t]) of a class, of the best one without a label; they sum to its logit."""
        c = self.class_index(label)
        return float(self.reference[c]), self.visual[c], self.audio[c]

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
    # Files
    # -----------------------------------------------------------------------------------------------------------------

    def save_json(self, path: str | os.PathLike) -> None:
        """Writes schema stattn_jax.explanation/1: everything but frames and log-mel, seven significant digits.

        Maps are those of the MAPS_IN_JSON best classes; `classes_with_maps` names them.
        """
        with_maps = [row['label'] for row in self.top(MAPS_IN_JSON)]
        absolute, relative = self.residual()
        record = {
            'schema': SCHEMA,
            'how_to_read': _HOW_TO_READ,
            **{name: getattr(self, name) for name in _HEADER},
            'predicted': self.top(),
            'logits': _round(self.logits),
            'probabilities': _round(self.probabilities),
            'additivity': {'max_absolute_error': absolute, 'max_relative_error': relative},
            'attention': {'cells': _round(self.alpha), 'null': _round(self.null)},
            'valid_segments': self.valid.tolist(),
            'classes_with_maps': with_maps,
            'classes_without_maps': len(self.classes) - len(with_maps),
            'maps': [self._map(label) for label in with_maps],
        }
        with open(path, 'w', encoding='utf-8') as file:
            json.dump(record, file, allow_nan=False, ensure_ascii=False)

    def _map(self, label):
        c = self.classes.index(label)
        by_modality = {
            'mean_scores': self.mean_scores[:, c],
            'segment_scores': self.segment_scores[..., c],
            'attention_in_time': self.beta[..., c],
        }
        return {
            'label': label,
            'logit': _round(self.logits[c]),
            'probability': _round(self.probabilities[c]),
            **{name: _round(getattr(self, name)[c]) for name in ('bias', 'reference', 'visual', 'audio')},
            **{name: {'visual': _round(x[0]), 'audio': _round(x[1])} for name, x in by_modality.items()},
        }

    def save_npz(self, path: str | os.PathLike) -> None:
        """Writes every array under its name, frames as `frame_0`, ... (JPEG bytes), the rest as JSON in `header`."""
        header = {'schema': SCHEMA} | {name: getattr(self, name) for name in _HEADER}
        frames = {f'frame_{t}': np.frombuffer(jpeg, np.uint8) for t, jpeg in enumerate(self.frames)}
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        with open(path, 'wb') as file:
            np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays, **frames)

    @classmethod
    def load_npz(cls, path: str | os.PathLike) -> Self:
        """Reads what `save_npz` wrote; raises ValueError for another schema."""
        with np.load(path) as file:
            header = _checked(json.loads(str(file['header'])), path)
            arrays = {name: file[name] for name in _ARRAYS}
            frames = tuple(file[f'frame_{t}'].tobytes() for t in range(len(arrays['valid'])))
        header['classes'] = tuple(header['classes'])
        return cls(frames=frames, **arrays, **{name: header[name] for name in _HEADER})

    def save_png(self, path: str | os.PathLike, label: str | None = None, truth: Truth | None = None) -> None:
        """Draws frames with heat, log-mel strip and signed bars per segment of a class (without a label: the best)."""
        # Matplotlib takes a second to import; a program that only wants the numbers does not wait for it.
        from stattn_jax.explain import figure

        figure.draw(self, self.class_index(label), truth or Truth(), path)


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


def check(path: str | os.PathLike) -> float:
    """Adds up every map of an explanation.json: the largest |reference + sum - logit| / max(1, |logit|).

    It reads the file alone. Raises ValueError for another schema.
    """
    with open(path, encoding='utf-8') as file:
        record = _checked(json.load(file), path)
    errors = [0.0]
    for row in record['maps']:
        total = row['reference'] + np.sum(row['visual']) + np.sum(row['audio'])
        errors.append(abs(total - row['logit']) / max(1, abs(row['logit'])))
    return float(max(errors))


def _checked(record, path):
    if record.get('schema') != SCHEMA:
        raise ValueError(f'{path}: schema {record.get("schema")!r}, expected {SCHEMA!r}; explain the clip again')
    return record


def _round(values):
    """Seven significant digits: the resolution of float32, so that sums stay within 1e-7 of their terms."""
    values = np.asarray(values)
    return np.array([float(f'{x:.7g}') for x in values.ravel()]).reshape(values.shape).tolist()
