"""Evaluates a split to one flat JSON of numbers, each with its chance level and its n, and checks for shortcuts.

The numbers do not depend on batch size, device count or strategy: every clip counts once, and the mismatched audio of a
shortcut check is chosen by clip number. score.py computes the numbers from the rows that are gathered here.
"""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sized
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils

from stattn_jax import mask_scores, names, progress, run, score, strip
from stattn_jax.data import pipeline, records, source
from stattn_jax.metrics import classification, events, training_distance
from stattn_jax.models import contributions
from stattn_jax.training import losses, step

# The arrays of a batch that the compiled functions use; `index` and `weight` stay on the host.
DEVICE_KEYS = ('frames', 'log_mel', 'valid', 'modalities', 'labels')
# The number of training clips whose masks give the place where objects are most often.
PRIOR_CLIPS = 2000
# The number of training clips from which usual distances are measured, and the share of them that counts as unusual.
DISTANCE_CLIPS, FALSE_ALARM_RATE = 2000, 0.01


def device_part(batch: pipeline.Batch) -> pipeline.Batch:
    """Returns the arrays of a batch that the compiled functions use."""
    return {name: batch[name] for name in DEVICE_KEYS}


def splits_of(config: ml_collections.ConfigDict, info: source.DatasetInfo) -> tuple[str, ...]:
    """Returns cfg.eval.splits, or every split but the training one where that field is empty.

    Raises RunError for an unknown split.
    """
    splits = tuple(config.eval.splits) or tuple(split for split in info.splits if split != config.data.split)
    unknown = [split for split in splits if split not in info.splits]
    if unknown:
        raise run.RunError(f'config.eval.splits names {unknown}; {config.data.dir} has {sorted(info.splits)}')
    return splits


def selects(config: ml_collections.ConfigDict, info: source.DatasetInfo) -> bool:
    """Returns whether the best checkpoint is chosen on cfg.eval.select_split.

    The answer is False where the field is '' and for data without a split val. Raises RunError for a split that the
    data do not have, and for a split called test: test numbers of a checkpoint that was chosen on test would be biased.
    """
    split = config.eval.select_split
    if split in info.splits and split != 'test':
        return True
    if split not in ('', 'val'):
        raise run.RunError(
            f'config.eval.select_split is {split!r}; expected a split of {config.data.dir} for choosing the checkpoint '
            "('val'), or '' to keep the last; never 'test'"
        )
    return False


def check_metric(config: ml_collections.ConfigDict, numbers: dict[str, Any]) -> None:
    """Raises RunError where cfg.train.best_metric is not among the numbers of the split used for selection."""
    name = config.train.best_metric
    if name not in numbers:
        raise run.RunError(
            f'config.train.best_metric is {name!r}, which split {config.eval.select_split!r} does not give; '
            f'{names.expected(name, sorted(numbers), "numbers")}; the steps so far are saved'
        )


def eval_rows(
    graphdef, state: step.State, batch: step.Batch, *, frame_size: int, labels_per_clip: int, by_segment: bool
) -> dict[str, jax.Array]:
    """Returns, for each clip, the arrays from which the numbers of a split are computed.

    Every model gives the logits [b c] and classes [b l], the clip's labels first. A model whose logit is a sum of terms
    also gives the contribution of the visual path to each logit [b c], its attention weights, and the terms of the
    classes [b l]; with `by_segment` it also gives the logits of each segment alone [b t c], and of the segment's visual
    and audio input alone [b m t c]. Another model gives its maps of the classes [b l], as far as it has them: where
    [b l t s] and when [b l t].
    """
    logits, out = step.forward(graphdef, state, batch, frame_size=frame_size)
    _, classes_bl = jax.lax.top_k(batch['labels'], labels_per_clip)
    rows = {'logits': logits, 'classes': classes_bl}
    model = nnx.merge(graphdef, state['params'], state['rest'])
    if not model.additive:
        shown = zip(*(model.maps(out, classes_b) for classes_b in classes_bl.T))
        maps = zip(('where', 'when'), shown)
        return rows | {name: jnp.stack(parts, axis=1) for name, parts in maps if parts[0] is not None}
    means = state['score_mean']
    terms = [contributions.centred_contributions(out, classes_b, means) for classes_b in classes_bl.T]
    segment, unit = contributions.segment_logits(out)
    by_segment_rows = {'segment': segment, 'unit': unit} if by_segment else {}
    return {
        **rows,
        **by_segment_rows,
        'picture': losses.modality_logits(out, 0),
        'alpha': out['alpha'].mean(2),
        'null': out['null'].mean(2),
        'sound_weight': out['beta'][:, 1].sum(1),
        'visual': jnp.stack([visual for visual, _ in terms], axis=1),
        'audio': jnp.stack([audio for _, audio in terms], axis=1),
    }


def feature_rows(graphdef, state: step.State, batch: step.Batch, *, frame_size: int) -> dict[str, jax.Array]:
    """Returns the features of each segment, visual (mean over cells) and audio [b t d], and valid [b t]."""
    _, out = step.forward(graphdef, state, batch, frame_size=frame_size)
    return {'visual': out['values'].mean(axis=2), 'audio': out['audio'], 'valid': batch['valid']}


class Evaluator:
    """Evaluates splits; each variant of the forward pass is compiled once, on first use."""

    def __init__(self, graphdef, strategy, config: ml_collections.ConfigDict):
        self._graphdef, self._strategy, self._config = graphdef, strategy, config
        self._compiled: dict[Any, Callable] = {}
        self._mask_prior: tuple[np.ndarray | None] | None = None

    def write(self, state: step.State, split: str, number: int, workdir: pathlib.Path) -> dict[str, Any]:
        """Evaluates a split, writes eval_SPLIT.json into the workdir (process 0 only) and returns the numbers.

        `number` is the step of the checkpoint.
        """
        numbers = {'checkpoint/step': number} | self.split(state, split, shortcuts=True)
        if jax.process_index() == 0:
            run.write_json(workdir / f'eval_{split}.json', numbers)
        return numbers

    def write_training_distance(self, state: step.State, number: int, workdir: pathlib.Path) -> None:
        """Writes the distance of clips from those of training, by which explanations recognise unusual clips.

        At most DISTANCE_CLIPS training clips are read; `number` is the step of the checkpoint. Only a model whose logit
        is a sum of terms is explained and has this file.
        """
        data = source.RecordSource(self._config.data.dir, self._config.data.split)
        if 'score_mean' not in state or len(data) < 4:
            return
        rows = self._map(feature_rows, 'features', state, _spread(data, DISTANCE_CLIPS))
        if jax.process_index() == 0:
            parameters = run.parameter_hash(state)
            training_distance.save(workdir / run.TRAINING_DISTANCE, rows, FALSE_ALARM_RATE, number, parameters)

    def split(self, state: step.State, split: str, shortcuts: bool) -> dict[str, Any]:
        """Returns the flat `group/name` numbers of a split; with `shortcuts` they include the shortcut checks."""
        data, truth, rows = self._read(state, split)
        numbers = self._numbers(state, data, truth, rows)
        return numbers | (self._shortcuts(state, data, truth) if shortcuts else {})

    def split_with_strip(self, state: step.State, split: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Returns the numbers of a split without the shortcut checks, and its strip of explained clips by name.

        There is a strip (strip.draw) of cfg.eval.strip_clips clips with labels, which are spread over the split, where
        the data have frames and the logits are sums of terms; otherwise there is none. It takes its contributions from
        the rows of the evaluation. Only process 0 has it.
        """
        data, truth, rows = self._read(state, split)
        numbers = self._numbers(state, data, truth, rows)
        labelled = [i for i, r in enumerate(truth) if r.labels]
        chosen = [labelled[i] for i in _spread_numbers(labelled, self._config.eval.strip_clips)]
        frames, _ = data.info.spec.shapes(self._config.data.frame_size)
        if jax.process_index() or not chosen or 'visual' not in rows or frames[1] != np.uint8:
            return numbers, {}
        likely = events.probabilities(rows['logits'], binary=self._binary(data))
        visual, audio, fit = rows['visual'][:, 0], rows['audio'][:, 0], self._config.data.fit
        clips = [strip.explained(data[i], visual[i], audio[i], likely[i], data.info, fit) for i in chosen]
        return numbers, {f'explained/{split}': strip.draw(clips)}

    def _read(self, state, split: str) -> tuple[source.RecordSource, list[score.Truth], dict[str, np.ndarray]]:
        """Returns the clips of a split, their annotations and their rows."""
        data = source.RecordSource(self._config.data.dir, split)
        truth = score.read_truth(data)
        return data, truth, self._rows(state, data, *_kind(truth))

    def _binary(self, data: source.RecordSource) -> bool:
        return run.is_binary(self._config, run.DataFacts.of(data.info))

    def _numbers(self, state, data: source.RecordSource, truth, rows) -> dict[str, Any]:
        options = {'split': data.split, 'fit': self._config.data.fit, 'binary': self._binary(data)}
        numbers = score.score(rows, truth, data.info, **options)
        return numbers | (self._masks(state, data, truth, rows) if any(r.masks for r in truth) else {})

    def _masks(self, state, data: source.RecordSource, truth, rows) -> dict[str, Any]:
        """Scores the masks of a split, at thresholds that the split for choosing the checkpoint picks."""
        directory, fit = self._config.data.dir, self._config.data.fit
        if self._mask_prior is None:
            training = source.RecordSource(directory, self._config.data.split)
            some = (score.truth_of(training[int(i)]) for i in _spread_numbers(training, PRIOR_CLIPS))
            self._mask_prior = (mask_scores.prior(some),)
        (prior,) = self._mask_prior
        own = mask_scores.measure(rows, truth, data.info, fit, prior)
        if not selects(self._config, data.info):
            return own.numbers({})
        chooser = source.RecordSource(directory, self._config.eval.select_split)
        if chooser.split == data.split:
            return own.numbers(own.thresholds())
        known = score.read_truth(chooser)
        chosen = mask_scores.measure(self._rows(state, chooser, _widest(known)), known, data.info, fit, prior)
        return own.numbers(chosen.thresholds())

    def _shortcuts(self, state, data, truth) -> dict[str, Any]:
        # The program of the split itself is used again, although it computes more than is needed here.
        chosen = _spread_numbers(data, self._config.eval.shortcut_clips)
        pairs = [(i, other) for i in chosen if (other := _clip_with_other_label(truth, i)) is not None]
        if not pairs:
            return {'shortcut/n': 0}
        classes = len(data.info.classes)
        labels = score.multi_hot([truth[i] for i, _ in pairs], classes)
        other_labels = score.multi_hot([truth[other] for _, other in pairs], classes)
        kind = _kind(truth)
        black = self._rows(state, _Altered(data, pairs, lambda clip, _: clip.without_picture()), *kind)
        numbers = {'shortcut/audio_only': classification.top_k(black['logits'], labels), 'shortcut/n': len(pairs)}
        if 'picture' not in black:
            return numbers
        swapped = self._rows(state, _Altered(data, pairs, lambda clip, i: clip.with_sound_of(data[i].clip)), *kind)
        predicted = np.argmax(swapped['picture'], axis=1)
        rows = np.arange(len(pairs))
        undecided = jax.nn.softmax(swapped['picture'], axis=1).max(1) < 0.5
        return numbers | {
            'shortcut/mismatched_audio': float(labels[rows, predicted].mean()),
            'shortcut/mismatched_audio_follows': float(other_labels[rows, predicted].mean()),
            'shortcut/mismatched_audio_chance': float(other_labels.mean(0).sum() / labels.shape[1]),
            'shortcut/mismatched_audio_undecided': float(np.mean(undecided)),
            'shortcut/mismatched_audio_decided_follows': float((other_labels[rows, predicted] * ~undecided).mean()),
        }

    def _rows(self, state, data, labels_per_clip: int, by_segment: bool = False) -> dict[str, np.ndarray]:
        """Returns the rows of every clip of `data`, in clip order, gathered from all processes."""
        function = functools.partial(eval_rows, labels_per_clip=labels_per_clip, by_segment=by_segment)
        return self._map(function, (labels_per_clip, by_segment), state, data)

    def _map(self, function, kind, state, data) -> dict[str, np.ndarray]:
        """Returns the results of `function` for every clip, in clip order; one `kind` is compiled once."""
        if kind not in self._compiled:
            frame_size = self._config.model.frame_size

            def rows_of(state, batch):
                return function(self._graphdef, state, batch, frame_size=frame_size)

            self._compiled[kind] = self._strategy.compile_eval(rows_of)
        options = run.input_options(self._config)
        batches = pipeline.eval_batches(data, global_batch=self._config.eval.batch, **options)
        parts = []
        line = progress.ProgressLine(f'evaluating {data.split}', len(data))
        with contextlib.closing(batches):
            for batch in batches:
                rows = self._compiled[kind](state, self._strategy.place_batch(device_part(batch)))
                parts.append(rows | {'index': batch['index']})
                if jax.process_index() == 0:
                    line.add(int((batch['index'] >= 0).sum()) * jax.process_count())
        line.clear()
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if jax.process_count() > 1:
            rows = {name: np.concatenate(multihost_utils.process_allgather(x)) for name, x in rows.items()}
        real = np.flatnonzero(rows['index'] >= 0)
        order = real[np.argsort(rows['index'][real])]
        return {name: x[order] for name, x in rows.items()}


def _widest(truth: list[score.Truth]) -> int:
    """Returns the largest number of labels of a clip, at least 1; it fixes the size l of the compiled arrays."""
    return max([1, *(len(r.labels) for r in truth)])


def _kind(truth: list[score.Truth]) -> tuple[int, bool]:
    """Returns `labels_per_clip` and `by_segment` of the compiled function for clips with this truth."""
    return _widest(truth), any(r.events for r in truth)


def _clip_with_other_label(truth: list[score.Truth], i: int) -> int | None:
    """Returns the next clip, cyclically, that has labels but shares none of them with clip i.

    Both have both modalities. Returns None where there is no such clip, or where clip i has no labels.
    """
    if not truth[i].labels or not truth[i].paired:
        return None
    others = ((i + k) % len(truth) for k in range(1, len(truth)))
    own = set(truth[i].labels)
    return next((j for j in others if truth[j].labels and truth[j].paired and not set(truth[j].labels) & own), None)


def _spread_numbers(data: Sized, most: int) -> np.ndarray:
    """Returns the numbers of at most `most` clips, evenly spread over them."""
    return np.unique(np.linspace(0, len(data) - 1, min(len(data), most)).round().astype(int))


def _spread(data: source.RecordSource, most: int) -> '_Altered':
    return _Altered(data, [(i, i) for i in _spread_numbers(data, most)], lambda clip, _: clip)


class _Altered:
    """A data source of some records of another source, with each clip changed by `alter(clip, partner)`."""

    def __init__(self, data: source.RecordSource, pairs: list[tuple[int, int]], alter: Callable):
        self._data, self._pairs, self._alter = data, pairs, alter
        self.info, self.split = data.info, data.split

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, number: int) -> records.ClipRecord:
        own, partner = self._pairs[number]
        record = self._data[own]
        return dataclasses.replace(record, clip=self._alter(record.clip, partner))
