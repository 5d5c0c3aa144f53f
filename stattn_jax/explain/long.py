"""Explains videos longer than the model's clip: overlapping windows of the clip's length make one timeline.

By default the windows start half a window apart. Each segment is decoded once; windows are assembled from decoded
segments and explained a few at a time, so that memory does not grow with the length of the video. `Model.explain_long`
in model.py is the entry point.
"""

import csv
import dataclasses
import itertools
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from stattn_jax import files
from stattn_jax.data import decode, media
from stattn_jax.explain import reading
from stattn_jax.explain.explanation import BEST, rounded
from stattn_jax.explain.result import Explanation

SCHEMA = 'stattn_jax.timeline/2'
# Reasons why a part of an otherwise good file holds no data: a gap, or a stream that ends before the other.
_GAPS = ('no_picture', 'no_sound', 'empty_interval')
_NUMBERS = {'probability': 'probabilities', 'logit': 'logits'}
_HOW_TO_READ = (
    'Each segment takes its values from the window whose middle is nearest. label and probability are those of the '
    'best class of that window. picture and sound are the visual and the audio contribution of the segment to the '
    'logit of that class, relative to an average clip. Segments without data have no window.'
)


@dataclasses.dataclass(frozen=True)
class Timeline:
    """The explanation of a long video, segment by segment.

    - media: as in Explanation, for the whole explained part; model, classes: as in Explanation
    - segment_seconds, hop: length of a segment (s), and segments from a window to the next
    - probabilities: float32 [k c] of each window and class, NaN where the window holds no data
    - windows: {start, end (s in the file), label, probability, logit} of each window; label, probability and logit are
      None where it holds no data
    - rows: {start, end (s in the file), window (its number), label, probability (of the window), picture, sound (what
      this segment adds to the logit of the label)}; window, label, probability, picture and sound are None where the
      segment holds no data
    - explanations: the most probable windows, {number of the window: Explanation}, best first
    """

    media: dict[str, Any]
    model: dict[str, Any]
    classes: tuple[str, ...]
    segment_seconds: float
    hop: int
    probabilities: np.ndarray
    windows: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    explanations: dict[int, Explanation]

    @property
    def windows_left_out(self) -> int:
        """The number of windows that hold data but have no Explanation."""
        return sum(window['label'] is not None for window in self.windows) - len(self.explanations)

    @property
    def segments_without_data(self) -> int:
        return sum(row['window'] is None for row in self.rows)

    def shown(self, number: int = BEST) -> list[int]:
        """Returns the classes, at most `number`, that are most probable in any window, the most probable one first."""
        peaks = np.nan_to_num(self.probabilities).max(axis=0)
        return np.argsort(-peaks, kind='stable')[:number].tolist()

    def save_json(self, path: str | os.PathLike) -> None:
        """Writes schema stattn_jax.timeline/2: everything but the explanations, whose window numbers are listed.

        `shown_classes` are those of `shown`, and each window has its `probabilities` of them (None without data).
        """
        names = ('media', 'model', 'classes', 'segment_seconds', 'hop', 'windows', 'rows', 'segments_without_data')
        record = {name: getattr(self, name) for name in names}
        shown = self.shown()
        record |= {'windows_explained': list(self.explanations), 'windows_left_out': self.windows_left_out}
        record |= {'shown_classes': [self.classes[c] for c in shown]}
        numbers = [None if np.isnan(row[0]) else rounded(row[shown]) for row in self.probabilities]
        record['windows'] = [window | {'probabilities': row} for window, row in zip(self.windows, numbers, strict=True)]
        content = {'schema': SCHEMA, 'how_to_read': _HOW_TO_READ} | record
        files.write_text(path, json.dumps(content, allow_nan=False, ensure_ascii=False))

    def save_csv(self, path: str | os.PathLike) -> None:
        """Writes one row per segment, with empty fields where it holds no data."""
        with files.whole_text(path) as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)


@dataclasses.dataclass(frozen=True)
class _Segment:
    """Segment t of a decoded clip, or a segment without data (clip is None)."""

    clip: media.Clip | None = None
    t: int = 0

    @property
    def valid(self) -> bool:
        return self.clip is not None and bool(self.clip.valid[self.t])


def explain(
    model,
    video: str | os.PathLike,
    hop: int | None,
    top_windows: int,
    start: float | None,
    end: float | None,
    progress: Callable[[int, int], None] | None,
    finer: bool = False,
) -> Timeline:
    """Implements Model.explain_long, which documents the arguments (model.py)."""
    spec, first = model.spec, float(start or 0.0)
    hop = max(1, spec.segments // 2) if hop is None else hop
    if not 1 <= hop <= spec.segments:
        raise ValueError(f'hop is {hop}; expected 1 to {spec.segments} segments, so that the windows leave no gap')
    if top_windows < 0:
        raise ValueError(f'top_windows is {top_windows}; expected 0 or more')
    last, total = _extent(video, spec, first, end)
    starts = window_starts(total, spec.segments, hop)
    summaries: list[dict[str, Any] | None] = []
    best: list[tuple[float, int, media.Clip]] = []
    clips = _windows(_segments(video, spec, first, last, total), starts, spec)
    for number, (clip, summary) in enumerate(_summaries(model, clips, min(len(starts), model.batch))):
        summaries.append(summary)
        if summary is not None:
            best = sorted([*best, (-summary['probability'], number, clip)], key=lambda row: row[:2])[:top_windows]
        if progress is not None:
            progress(number + 1, len(starts))
    names, source, file = model.trained.facts.classes, pathlib.Path(video), reading.of_file(video)
    seconds = [first + begin * spec.segment_seconds for begin in starts]
    readings = [reading.Reading(clip, file | reading.of_clip(clip, seconds[k]), source) for _, k, clip in best]
    explained = zip((k for _, k, _ in best), model.explain_readings(readings, finer=finer), strict=True)
    windows = [_window(begin, summary, names, spec) for begin, summary in zip(seconds, summaries, strict=True)]
    part = {'start': first, 'end': min(last, first + total * spec.segment_seconds)}
    part |= {'notes': [f'no_{kind}' for kind in decode.MediaFile(video).lacking]}
    return Timeline(
        media=file | part | {'duration': part['end'] - part['start']},
        model=model.identity,
        classes=names,
        segment_seconds=spec.segment_seconds,
        hop=hop,
        probabilities=np.stack([np.full(len(names), np.nan) if each is None else each['all'] for each in summaries]),
        windows=windows,
        rows=_rows(starts, summaries, windows, total, first, spec),
        explanations=dict(explained),
    )


def window_starts(total: int, segments: int, hop: int) -> list[int]:
    """Returns the first segments of the windows over `total` segments; the last window ends with the video."""
    last = max(0, total - segments)
    return [*range(0, last, hop), last]


def _extent(video, spec, first, end) -> tuple[float, int]:
    """Returns the end of the explained part (s in the file) and its number of segments, rounded, at least 1.

    Half a segment counts as one.
    """
    file = decode.MediaFile(video)
    last = min(math.inf if end is None else float(end), file.duration)
    if not 0 <= first < last:
        raise file.error(
            'empty_interval',
            f'{first:g} s to {last:g} s contains no part of the file, which lasts {file.duration:.2f} s',
        )
    if math.isinf(last):
        raise file.error('empty_interval', 'the file does not state its duration; give the end of the part to explain')
    return last, max(1, math.floor((last - first) / spec.segment_seconds + 0.5))


def _segments(video, spec: media.ClipSpec, first: float, last: float, total: int) -> Iterator[_Segment]:
    """Yields every segment of the explained part, decoded one clip at a time.

    Raises MediaError; a gap raises it only if no part of the video holds data.
    """
    found = False
    # In a file that has the stream, a part without it is a gap.
    keep_lacking = bool(decode.MediaFile(video).lacking)
    for begin in range(0, total, spec.segments):
        start = first + begin * spec.segment_seconds
        count = min(spec.segments, total - begin)
        try:
            clip = media.read_clip(video, spec, start, min(last, start + spec.seconds), keep_lacking=keep_lacking)
        except media.MediaError as error:
            if error.reason not in _GAPS or (begin + count == total and not found):
                raise
            yield from [_Segment()] * count
        else:
            found = True
            yield from (_Segment(clip, t) for t in range(count))


def _windows(segments: Iterator[_Segment], starts: list[int], spec: media.ClipSpec) -> Iterator[media.Clip | None]:
    """Yields each window's clip, or None if no segment of it is valid; keeps one window's segments in memory."""
    window: list[_Segment] = []
    first = 0
    for begin in starts:
        window, first = window[begin - first :], begin
        window += itertools.islice(segments, spec.segments - len(window))
        yield _clip(window, spec)


def _clip(segments: list[_Segment], spec: media.ClipSpec) -> media.Clip | None:
    """Assembles a clip from segments of other clips.

    It is black and silent where a segment holds no data and after the end of the explained part. Returns None if no
    segment is valid.
    """
    valid = np.zeros(spec.segments, bool)
    valid[: len(segments)] = [segment.valid for segment in segments]
    if not valid.any():
        return None
    first = segments[int(valid.argmax())].clip
    black = first.without_picture().frames[0]
    frames, log_mel = [black] * spec.segments, np.full(spec.mel_shape, spec.silence, np.float16)
    for t in np.flatnonzero(valid):
        frames[t], log_mel[t] = segments[t].clip.frames[segments[t].t], segments[t].clip.log_mel[segments[t].t]
    clips = [segments[t].clip for t in np.flatnonzero(valid)]
    notes = {
        'short': not valid.all(),
        'silent': all('silent' in clip.notes for clip in clips),
        'damaged': any('damaged' in clip.notes for clip in clips),
        **{note: note in first.notes for note in media.LACKING},
    }
    return media.Clip(
        frames=frames,
        log_mel=log_mel,
        valid=valid,
        height=first.height,
        width=first.width,
        duration=len(segments) * spec.segment_seconds,
        notes=tuple(note for note, holds in notes.items() if holds),
    )


def _summaries(model, clips: Iterator[media.Clip | None], size: int) -> Iterator[tuple[media.Clip | None, dict | None]]:
    """Yields each window with the parts of its explanation that the timeline needs; runs `size` windows at a time."""
    while batch := list(itertools.islice(clips, size)):
        valid = [clip for clip in batch if clip is not None]
        arrays = model.record(valid, size)[0] if valid else {}
        summaries = iter([_summary(arrays, b, clip) for b, clip in enumerate(valid)])
        yield from ((clip, None if clip is None else next(summaries)) for clip in batch)


def _summary(arrays, b, clip):
    c = int(arrays['logits'][b].argmax())
    return {
        'class': c,
        'all': arrays['probabilities'][b],
        **{name: rounded(arrays[source][b, c]) for name, source in _NUMBERS.items()},
        'picture': rounded(arrays['visual'][b, c].sum(axis=-1)),
        'sound': rounded(arrays['audio'][b, c]),
        'valid': clip.valid,
    }


def _window(start, summary, names, spec):
    numbers = dict.fromkeys(_NUMBERS) if summary is None else {name: summary[name] for name in _NUMBERS}
    label = None if summary is None else names[summary['class']]
    return {'start': start, 'end': start + spec.seconds, 'label': label, **numbers}


def _rows(starts, summaries, windows, total, first, spec) -> list[dict[str, Any]]:
    nearest: dict[int, tuple[float, int, int]] = {}
    for k, (begin, summary) in enumerate(zip(starts, summaries, strict=True)):
        for t in np.flatnonzero(summary['valid']).tolist() if summary else ():
            candidate = (abs(t + 0.5 - spec.segments / 2), k, t)
            nearest[begin + t] = min(candidate, nearest.get(begin + t, candidate))
    rows = []
    for g in range(total):
        start = first + g * spec.segment_seconds
        row = {'start': start, 'end': start + spec.segment_seconds}
        row |= dict.fromkeys(('window', 'label', 'probability', 'picture', 'sound'))
        if g in nearest:
            _, k, t = nearest[g]
            row |= {'window': k, 'label': windows[k]['label'], 'probability': windows[k]['probability']}
            row |= {'picture': summaries[k]['picture'][t], 'sound': summaries[k]['sound'][t]}
        rows.append(row)
    return rows
