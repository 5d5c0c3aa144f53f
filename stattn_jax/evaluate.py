"""A split to one JSON of numbers, each beside its chance rate and its n, and the two leak checks of every run.

The numbers do not depend on batch size, device count or strategy: every clip counts once, and the sounds that are swapped in a leak
check are chosen by clip number. Read next: metrics/, explain/contributions.py.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import simplejpeg
from jax.experimental import multihost_utils

from stattn_jax import run
from stattn_jax.data import pipeline, records, source
from stattn_jax.explain import contributions
from stattn_jax.metrics import classification, localization
from stattn_jax.runtime import summaries
from stattn_jax.training import losses, step

# What the compiled functions see of a batch; `index` and `weight` stay on the host.
DEVICE_KEYS = ('frames', 'log_mel', 'valid', 'labels')


def device_part(batch: pipeline.Batch) -> pipeline.Batch:
    """The arrays of a batch that the step uses."""
    return {name: batch[name] for name in DEVICE_KEYS}


def splits_of(config: ml_collections.ConfigDict, info: source.DatasetInfo) -> tuple[str, ...]:
    """cfg.eval.splits, or every split but the training one where that is empty; raises RunError for an unknown one."""
    splits = tuple(config.eval.splits) or tuple(split for split in info.splits if split != config.data.split)
    unknown = [split for split in splits if split not in info.splits]
    if unknown:
        raise run.RunError(f'config.eval.splits names {unknown}; {config.data.dir} has {sorted(info.splits)}')
    return splits


def eval_rows(
    graphdef, state: step.State, batch: step.Batch, *, frame_size: int, labels_per_clip: int
) -> dict[str, jax.Array]:
    """What the numbers need of each clip: logits and the picture's own part [b c], attention, terms of the true labels."""
    logits, out = step.forward(graphdef, state, batch, frame_size=frame_size)
    _, classes_bl = jax.lax.top_k(batch['labels'], labels_per_clip)
    terms = [contributions.contributions(out, classes_bl[:, i]) for i in range(labels_per_clip)]
    return {
        'logits': logits,
        'picture': losses.path(out, 0),
        'alpha': out['alpha'].mean(2),
        'null': out['null'].mean(2),
        'sound_weight': out['beta'][:, 1].sum(1),
        'classes': classes_bl,
        'visual': jnp.stack([visual for visual, _ in terms], axis=1),
        'audio': jnp.stack([audio for _, audio in terms], axis=1),
    }


class Evaluator:
    """Compiles the forward pass once per data set and turns splits into numbers."""

    def __init__(self, graphdef, strategy, config: ml_collections.ConfigDict):
        self._graphdef, self._strategy, self._config = graphdef, strategy, config
        self._compiled = {}

    def write(self, state: step.State, split: str, number: int, workdir: pathlib.Path) -> dict[str, Any]:
        """Evaluates a split and writes eval_SPLIT.json into the workdir (process 0); `number` is the checkpoint's step."""
        numbers = {'checkpoint/step': number} | self.split(state, split, leaks=True)
        if jax.process_index() == 0:
            run.write_json(workdir / f'eval_{split}.json', numbers)
        return numbers

    def split(self, state: step.State, split: str, leaks: bool) -> dict[str, Any]:
        """The flat `group/name` numbers of a split; `leaks` adds the leak checks."""
        data = source.RecordSource(self._config.data.dir, split)
        truth = _read_truth(data)
        rows = self._rows(state, data, max(len(r.labels) for r in truth))
        numbers = score(rows, truth, data.info, self._config.model.frame_size, self._config.data.fit)
        return numbers | (self._leaks(state, data, truth) if leaks else {})

    def _leaks(self, state, data, truth) -> dict[str, Any]:
        chosen = np.unique(
            np.linspace(0, len(data) - 1, min(len(data), self._config.eval.leak_clips)).round().astype(int)
        )
        pairs = [(i, other) for i in chosen if (other := _foreign(truth, i)) is not None]
        if not pairs:
            return {'leak/n': 0}
        labels = _multi_hot([truth[i] for i, _ in pairs], data.info)
        foreign = _multi_hot([truth[other] for _, other in pairs], data.info)
        widest = max(len(truth[i].labels) for i, _ in pairs)
        swapped = self._rows(state, _Altered(data, pairs, _with_sound_of(data)), widest)
        black = self._rows(state, _Altered(data, pairs, lambda record, _: _with_black_frames(record)), widest)
        said = np.argmax(swapped['picture'], axis=1)
        rows = np.arange(len(pairs))
        undecided = jax.nn.softmax(swapped['picture'], axis=1).max(1) < 0.5
        return {
            'leak/swap_sound': float(labels[rows, said].mean()),
            'leak/swap_sound_follows_sound': float(foreign[rows, said].mean()),
            'leak/swap_sound_chance': float(foreign.mean(0).sum() / labels.shape[1]),
            'leak/swap_sound_undecided': float(np.mean(undecided)),
            'leak/swap_sound_decided_follows_sound': float((foreign[rows, said] * ~undecided).mean()),
            'leak/audio_only': classification.top_k(black['logits'], labels),
            'leak/n': len(pairs),
        }

    def _rows(self, state, data, labels_per_clip: int) -> dict[str, np.ndarray]:
        """The rows of every clip of `data`, in order, from all processes."""
        if labels_per_clip not in self._compiled:
            self._compiled[labels_per_clip] = self._strategy.compile_eval(
                lambda state, batch: eval_rows(
                    self._graphdef,
                    state,
                    batch,
                    frame_size=self._config.model.frame_size,
                    labels_per_clip=labels_per_clip,
                )
            )
        batches = pipeline.eval_batches(
            data,
            global_batch=self._config.eval.batch,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            threads=self._config.data.threads,
            frame_size=self._config.data.frame_size,
            fit=self._config.data.fit,
        )
        parts = []
        clock = _Clock(len(data), data.split)
        with contextlib.closing(batches):
            for batch in batches:
                rows = self._compiled[labels_per_clip](state, self._strategy.place_batch(device_part(batch)))
                parts.append(rows | {'index': batch['index']})
                clock.tick(self._config.eval.batch)
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if jax.process_count() > 1:
            rows = {name: np.concatenate(multihost_utils.process_allgather(x)) for name, x in rows.items()}
        real = np.flatnonzero(rows['index'] >= 0)
        order = real[np.argsort(rows['index'][real])]
        return {name: x[order] for name, x in rows.items()}


class _Clock:
    """Says how far a long evaluation is, every ten seconds."""

    def __init__(self, clips: int, split: str):
        self._clips, self._split, self._done = clips, split, 0
        self._start = self._said = time.perf_counter()

    def tick(self, clips: int) -> None:
        self._done = min(self._clips, self._done + clips)
        now = time.perf_counter()
        if now - self._said > 10 and jax.process_index() == 0:
            eta = (now - self._start) / self._done * (self._clips - self._done)
            print(
                f'evaluating {self._split}: {self._done}/{self._clips} clips, eta {summaries.format_seconds(eta)}',
                flush=True,
            )
            self._said = now


def score(
    rows: dict[str, np.ndarray], truth: list['Truth'], info: source.DatasetInfo, frame_size: int, fit: str
) -> dict[str, Any]:
    """Classification and pointing numbers from the rows [n ...] of a split's clips and what is known about them."""
    labels = _multi_hot(truth, info)
    if info.multi_label:
        scores = -np.logaddexp(0, -rows['logits'])
    else:
        scores = rows['logits'] - np.logaddexp.reduce(rows['logits'], axis=1, keepdims=True)
    numbers = classification.summary(scores, labels)
    numbers['attention/null'] = float(rows['null'][[r.valid for r in truth]].mean())
    own = np.take_along_axis(rows['sound_weight'], rows['classes'][:, :1], axis=1)
    numbers['attention/sound_weight'] = float(own.mean())
    pairs = [(i, j, int(c)) for i, r in enumerate(truth) for j, c in enumerate(rows['classes'][i]) if c in r.labels]
    clip, place, label = (np.array(x) for x in zip(*pairs))
    return (
        numbers
        | _pointing_space(rows, truth, clip, place, label, info, fit)
        | _pointing_time(rows, truth, clip, place, label, info)
    )


def _pointing_space(rows, truth, clip, place, label, info, fit) -> dict[str, Any]:
    side = int(np.sqrt(rows['alpha'].shape[-1]))
    boxes = [np.array([b[1:] for b in truth[i].boxes if b[0] == c], float).reshape(-1, 5) for i, c in zip(clip, label)]
    affines = [pipeline.frame_affine(truth[i].height, truth[i].width, fit) for i in clip]
    valid_nt = np.array([truth[i].valid for i in clip])
    maps = {'pointing/space': rows['alpha'][clip], 'pointing/space_contribution': rows['visual'][clip, place]}
    numbers = {}
    for prefix, map_nts in maps.items():
        map_nthw = np.where(valid_nt[..., None], map_nts, -np.inf).reshape(*map_nts.shape[:2], side, side)
        numbers |= localization.spatial_pointing(map_nthw, boxes, affines, info.spec.segment_seconds, prefix=prefix)
    return numbers


def _pointing_time(rows, truth, clip, place, label, info) -> dict[str, Any]:
    events = [
        np.array([e[1:] for e in truth[i].events if e[0] == c], float).reshape(-1, 2) for i, c in zip(clip, label)
    ]
    valid = np.array([truth[i].valid for i in clip])
    picture, sound = rows['visual'][clip, place].sum(-1), rows['audio'][clip, place]
    curves = {'pointing/time': picture + sound, 'pointing/time_picture': picture, 'pointing/time_sound': sound}
    numbers = {}
    for prefix, curve in curves.items():
        numbers |= localization.temporal_pointing(curve, valid, events, info.spec.segment_seconds, prefix=prefix)
    return numbers


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is known about a clip: labels, events (label, onset, offset), boxes (label, time, x0, y0, x1, y1)."""

    labels: tuple[int, ...]
    events: tuple[tuple[float, ...], ...]
    boxes: tuple[tuple[float, ...], ...]
    valid: np.ndarray
    height: int
    width: int


def _read_truth(data: source.RecordSource) -> list[Truth]:
    def read(i):
        r = data[i]
        return Truth(
            tuple(r.labels),
            tuple((e.label, e.onset, e.offset) for e in r.events),
            tuple((b.label, b.time, b.x0, b.y0, b.x1, b.y1) for b in r.boxes),
            np.asarray(r.clip.valid),
            r.clip.height,
            r.clip.width,
        )

    with futures.ThreadPoolExecutor() as pool:
        return list(pool.map(read, range(len(data))))


def _multi_hot(truth: list[Truth], info: source.DatasetInfo) -> np.ndarray:
    labels = np.zeros((len(truth), len(info.classes)), np.float32)
    for row, r in zip(labels, truth):
        row[list(r.labels)] = 1
    return labels


def _foreign(truth: list[Truth], i: int) -> int | None:
    """The next clip, cyclically, that shares no label with clip i."""
    others = ((i + k) % len(truth) for k in range(1, len(truth)))
    return next((j for j in others if not set(truth[j].labels) & set(truth[i].labels)), None)


class _Altered:
    """Some records of a source, each changed by `alter(record, partner)`: a source itself."""

    def __init__(self, data: source.RecordSource, pairs: list[tuple[int, int]], alter: Callable):
        self._data, self._pairs, self._alter = data, pairs, alter
        self.info, self.split = data.info, data.split

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, number: int) -> records.ClipRecord:
        own, partner = self._pairs[number]
        return self._alter(self._data[own], partner)


def _with_sound_of(data: source.RecordSource) -> Callable:
    def alter(record, partner):
        return dataclasses.replace(record, clip=dataclasses.replace(record.clip, log_mel=data[partner].clip.log_mel))

    return alter


def _with_black_frames(record: records.ClipRecord) -> records.ClipRecord:
    height, width, _, _ = simplejpeg.decode_jpeg_header(record.clip.frames[0])
    black = simplejpeg.encode_jpeg(np.zeros((height, width, 3), np.uint8))
    return dataclasses.replace(record, clip=dataclasses.replace(record.clip, frames=[black] * len(record.clip.frames)))
