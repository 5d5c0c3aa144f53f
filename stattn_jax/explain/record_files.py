"""Writes and reads `explanation.json` and `explanation.npz`, and checks the sums in a JSON file.

docs/explanation.schema.json describes the JSON; SCHEMA changes whenever the content changes. The fields are those of
ExplanationData (explanation.py).
"""

import json
import os
from typing import Any

import numpy as np

from stattn_jax import files
from stattn_jax.explain import sentences
from stattn_jax.explain.explanation import ExplanationData, rounded

SCHEMA = 'stattn_jax.explanation/4'
# Schemas that are read: 3 had no finer map.
_READ = (SCHEMA, 'stattn_jax.explanation/3')
# Largest error that `check` allows, in units of max(1, |numbers added up|): float32 sums of a thousand terms, written
# with seven digits.
TOLERANCE = 1e-5

_HOW_TO_READ = (
    'For each class in maps: logit = reference + sum of visual [t][h][w] + sum of audio [t]. A positive contribution '
    'is evidence for the class and a negative one against it, relative to an average clip, whose logit is the '
    'reference (relative to the bias where mean_scores are 0). Contributions add up to the logit; they do not say '
    'what the logit would be without a cell or a segment. removed_units_exact does: it is the change of the logit '
    'when the visual or the audio part of one segment is removed from the attention in time, whose weights are '
    'renormalised over the rest. removed_cells_exact is the change when one cell of one frame is removed, which '
    'changes the attention in space and, because the pooled visual features of the segment change, in time. Both are '
    'changes of features, not of pixels or audio samples. visual_finer, on half cells [t][2h][2w], is the mean of '
    'visual contributions over frames shifted by half a cell, changed so that each segment has the same sum as in '
    'visual.'
)
_ARRAYS = tuple('logits probabilities bias reference mean_scores visual audio alpha null beta'.split())
_ARRAYS += ('segment_scores', 'valid', 'log_mel', 'removed_cells', 'visual_finer')
_HEADER = ('media', 'geometry', 'model', 'classes', 'multi_label')
_REST = ('removed_classes', 'trust', 'usual_weights')


def write_json(explanation: ExplanationData, path: str | os.PathLike, c: int, best: int) -> None:
    """Writes the record with class number `c` as target and the maps of the `best` classes and of the target."""
    target, runner_up = explanation.classes[c], explanation.runner_up(explanation.classes[c])
    with_maps = [row['label'] for row in explanation.top(best)]
    with_maps += [target] * (target not in with_maps)
    absolute, relative = explanation.residual()
    record = {
        'schema': SCHEMA,
        'how_to_read': _HOW_TO_READ,
        **{name: getattr(explanation, name) for name in _HEADER},
        'target': _target(explanation, target, runner_up),
        'predicted': explanation.top(),
        'logits': rounded(explanation.logits),
        'probabilities': rounded(explanation.probabilities),
        'additivity': {'max_absolute_error': absolute, 'max_relative_error': relative},
        'attention': {'cells': rounded(explanation.alpha), 'null': rounded(explanation.null)},
        'valid_segments': explanation.valid.tolist(),
        'modalities': dict(zip(('visual', 'audio'), explanation.modalities.tolist(), strict=True)),
        'usual_weights': explanation.usual_weights,
        'notices': sentences.notices(explanation, c),
        'trust': explanation.trust,
        'classes_with_maps': with_maps,
        'classes_without_maps': len(explanation.classes) - len(with_maps),
        'maps': [_map(explanation, label) for label in with_maps],
    }
    files.write_text(path, json.dumps(record, allow_nan=False, ensure_ascii=False))


def write_npz(explanation: ExplanationData, path: str | os.PathLike) -> None:
    """Writes every array and frame, and the other fields as JSON in `header`."""
    header = {'schema': SCHEMA} | {name: getattr(explanation, name) for name in _HEADER + _REST}
    arrays = {name: getattr(explanation, name) for name in _ARRAYS}
    arrays |= {f'frame_{t}': np.frombuffer(jpeg, np.uint8) for t, jpeg in enumerate(explanation.frames)}
    with files.whole_file(path) as file:
        np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)


def read_npz(path: str | os.PathLike) -> dict[str, Any]:
    """Returns the fields that `write_npz` wrote, which are all but `source`; raises ValueError for another schema."""
    with np.load(path) as file:
        header = _of_schema(json.loads(str(file['header'])), path)
        arrays = {name: file[name] for name in _ARRAYS if name in file}
        frames = tuple(file[f'frame_{t}'].tobytes() for t in range(len(arrays['valid'])))
    for name in ('classes', 'removed_classes'):
        header[name] = tuple(header[name])
    return {'frames': frames, **arrays, **{name: header[name] for name in _HEADER + _REST}}


def check(path: str | os.PathLike) -> dict[str, float]:
    """Recomputes an explanation.json from its own numbers alone; returns the largest relative error of each kind.

    - sum: |reference + visual + audio - logit|, the same of the target's contrast to the runner-up, and the difference
      between the sums of visual and of visual_finer in a segment
    - attention: |bias + attention_in_time . segment_scores - logit|
    - removed_units: |result of the softmax over the other units - logit - removed_units_exact|
    - probabilities: |sigmoid or softmax of the logits - probabilities|

    Errors are in units of max(1, the numbers added up). Raises ValueError for another schema and for a file that is not
    an explanation.json.
    """
    with open(path, encoding='utf-8') as file:
        try:
            record = _of_schema(json.load(file), path)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f'{path}: {error}; expected an explanation.json') from None
    try:
        errors: dict[str, Any] = {'sum': [_sum_error(row, row['logit']) for row in record['maps']]}
        errors['sum'] += [_finer_error(row) for row in record['maps'] if row.get('visual_finer') is not None]
        contrast = record['target']['contrast']
        if contrast is not None:
            errors['sum'].append(_sum_error(contrast, record['target']['logit'] - contrast['other_logit']))
        valid = np.outer([record['modalities'][name] for name in ('visual', 'audio')], record['valid_segments']).ravel()
        what_if = [_what_if_errors(row, valid) for row in record['maps']]
        errors['attention'], errors['removed_units'] = zip(*what_if, strict=True)
        expected = _probabilities(np.array(record['logits']), record['multi_label'])
        errors['probabilities'] = np.abs(expected - record['probabilities'])
    except (KeyError, TypeError) as error:
        raise ValueError(f'{path}: {error!r}, so the file does not follow {SCHEMA}; explain the clip again') from None
    return {name: float(np.max(values)) for name, values in errors.items()}


def _target(explanation: ExplanationData, target: str, runner_up: str | None) -> dict[str, Any]:
    c = explanation.class_index(target)
    content = {name: rounded(getattr(explanation, name)[c]) for name in ('bias', 'reference')}
    content |= {'label': target, 'logit': rounded(explanation.logits[c])}
    content |= {'probability': rounded(explanation.probabilities[c]), 'sentence': sentences.sentence(explanation, c)}
    content |= {'shares': {name: rounded(share) for name, share in explanation.shares(target).items()}}
    if runner_up is None:
        return content | {'contrast': None}
    reference, visual, audio = (rounded(part) for part in explanation.contrast(target, runner_up))
    other = {'other': runner_up, 'other_logit': rounded(explanation.logits[explanation.class_index(runner_up)])}
    return content | {'contrast': other | {'reference': reference, 'visual': visual, 'audio': audio}}


def _map(explanation: ExplanationData, label: str) -> dict[str, Any]:
    c = explanation.class_index(label)
    by_modality = {
        'mean_scores': explanation.mean_scores[:, c],
        'segment_scores': explanation.segment_scores[..., c],
        'attention_in_time': explanation.beta[..., c],
        'removed_units_exact': explanation.removed_units(label),
    }
    cells = explanation.removed_classes
    return {
        'label': label,
        'logit': rounded(explanation.logits[c]),
        'probability': rounded(explanation.probabilities[c]),
        **{name: rounded(getattr(explanation, name)[c]) for name in ('bias', 'reference', 'visual', 'audio')},
        **{name: {'visual': rounded(x[0]), 'audio': rounded(x[1])} for name, x in by_modality.items()},
        'visual_finer': rounded(explanation.visual_finer[c]) if explanation.visual_finer.size else None,
        'removed_cells_exact': rounded(explanation.removed_cells[cells.index(label)]) if label in cells else None,
    }


def _sum_error(row, logit):
    return abs(row['reference'] + np.sum(row['visual']) + np.sum(row['audio']) - logit) / max(1, abs(logit))


def _finer_error(row):
    difference = np.sum(row['visual'], axis=(1, 2)) - np.sum(row['visual_finer'], axis=(1, 2))
    return np.abs(difference).max() / max(1, abs(row['logit']))


def _what_if_errors(row, valid):
    """Returns the errors of `attention` and of `removed_units` (see `check`) for one class."""
    weights, scores, removed = (
        np.concatenate([row[name]['visual'], row[name]['audio']])
        for name in ('attention_in_time', 'segment_scores', 'removed_units_exact')
    )
    scale = max(1, abs(row['logit']), np.abs(scores[valid]).max())
    others = ~np.eye(len(weights), dtype=bool)[valid] * weights
    # Without its only unit, a clip has the bias as its logit.
    left = others.sum(axis=1)
    expected = row['bias'] + np.divide(others @ scores, left, out=np.zeros_like(left), where=left > 0) - row['logit']
    error = max(np.abs(expected - removed[valid]).max(), np.abs(removed[~valid]).max(initial=0))
    return abs(row['bias'] + weights @ scores - row['logit']) / scale, error / scale


def _probabilities(logits, binary):
    return 1 / (1 + np.exp(-logits)) if binary else np.exp(logits - np.logaddexp.reduce(logits))


def _of_schema(record, path):
    found = record.get('schema') if isinstance(record, dict) else None
    if found not in _READ:
        expected = ' or '.join(map(repr, _READ))
        raise ValueError(f'{path}: schema {found!r}, expected {expected}; explain the clip again')
    return record
