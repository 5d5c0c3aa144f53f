"""Runs the predict command once its flags are parsed.

Processes read the videos ahead, while this one predicts a batch and keeps its rows.
"""

import contextlib
import functools
import itertools
import os
import pathlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging

from stattn_jax import __version__, command, progress
from stattn_jax.data import media, pipeline, processes, video_files
from stattn_jax.explain import console
from stattn_jax.explain.explanation import cell_centre, rounded
from stattn_jax.explain.model import Model, load
from stattn_jax.models import contributions
from stattn_jax.predict import predictions
from stattn_jax.runtime import perf
from stattn_jax.training import step

Read = tuple[pathlib.Path, media.Clip | media.MediaError]


class Predictor:
    """Predicts clips with one compiled program: probabilities and the strongest evidence for the best class."""

    def __init__(self, model: Model, batch: int):
        self.model, self.batch = model, batch

    def __call__(self, clips: list[media.Clip]) -> list[dict[str, Any]]:
        """Returns the row of each of at most `batch` clips, without its video; raises ValueError for broken logits."""
        config = self.model.trained.config.data
        rows = [pipeline.clip_arrays(clip, config.frame_size, config.fit) for clip in clips]
        rows += [rows[-1]] * (self.batch - len(rows))
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        arrays = jax.device_get(self._forward(self.model.trained.state, batch))
        return [self._row(clip, {name: x[b] for name, x in arrays.items()}) for b, clip in enumerate(clips)]

    @functools.cached_property
    def _forward(self):
        graphdef, frame_size = self.model.trained.graphdef, self.model.trained.config.model.frame_size

        def forward(state, batch):
            logits, out = step.forward(graphdef, state, batch, frame_size=frame_size)
            record = contributions.record(logits, out, state['score_mean'], self.model.binary)
            best = jnp.argmax(record['logits'], axis=1)
            of_best = {name: jax.vmap(lambda x, c: x[c])(record[name], best) for name in ('visual', 'audio')}
            return of_best | {name: record[name] for name in ('logits', 'probabilities')}

        return jax.jit(forward, compiler_options=perf.compile_options())

    def _row(self, clip: media.Clip, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        if not np.isfinite(arrays['logits']).all():
            raise ValueError('some logits are not finite; use an older checkpoint')
        classes, order = self.model.trained.facts.classes, np.argsort(-arrays['logits'], kind='stable')
        probabilities = {classes[c]: rounded(arrays['probabilities'][c]) for c in order}
        label = classes[order[0]]
        return {
            'error': None,
            'label': label,
            'probability': probabilities[label],
            'strongest_segment': self._segment(clip, arrays['visual'].sum(axis=1) + arrays['audio']),
            'strongest_cell': self._cell(clip, arrays['visual']),
            'notes': list(clip.notes),
            'probabilities': probabilities,
        }

    def _segment(self, clip: media.Clip, evidence_t: np.ndarray) -> dict[str, Any]:
        t = int(np.where(clip.valid, evidence_t, -np.inf).argmax())
        return self._seconds(t) | {'evidence': rounded(evidence_t[t])}

    def _cell(self, clip: media.Clip, visual_ts: np.ndarray) -> dict[str, Any] | None:
        """Returns where the largest positive visual contribution lies, in 0..1 of the source frame, or None."""
        t, s = np.unravel_index(visual_ts.argmax(), visual_ts.shape)
        if visual_ts[t, s] <= 0:
            return None
        geometry = self.model.geometry(clip, visual_ts.shape[1])
        i, j = divmod(int(s), geometry['grid'][2])
        x, y = cell_centre(geometry, i, j)
        return self._seconds(int(t)) | {'row': i, 'column': j, 'x': rounded(x), 'y': rounded(y)}

    def _seconds(self, t: int) -> dict[str, float]:
        length = self.model.spec.segment_seconds
        return {'start': t * length, 'end': (t + 1) * length}


def run(options: flags.FlagValues, times: console.StepTimes) -> int:
    """Predicts every video given by the flags; returns the exit code. Raises CommandError and OSError."""
    logging.set_verbosity('warning')
    out = pathlib.Path(options.out)
    if out.exists() and not options.overwrite:
        raise command.RunError(f'--out={out} exists already; give another file, or --overwrite to replace it')
    predictions.check(out)
    videos = console.find_videos(options.video, options.out)
    with times('restore'):
        if options.compile_cache:
            perf.enable_compile_cache(options.compile_cache)
        predictor = Predictor(load(options.workdir), options.batch)
    journal = predictions.Journal(out, _settings(options, predictor.model), options.overwrite)
    with contextlib.closing(journal):
        return _predict(options, predictor, journal, videos, times)


def _predict(
    options, predictor: Predictor, journal: predictions.Journal, videos: list[pathlib.Path], times: console.StepTimes
) -> int:
    """Predicts the videos that are not in the journal and writes the table; returns the exit code."""
    out, classes = pathlib.Path(options.out), predictor.model.trained.facts.classes
    identities = {video: video_files.identity(video) for video in videos}
    todo = [video for video in videos if identities[video] not in journal]
    if len(todo) < len(videos):
        print(f'{len(videos) - len(todo)} of {len(videos)} videos are predicted already; the others follow')
    failed, began = 0, time.perf_counter()
    line = progress.ProgressLine(options.out, len(videos), 'videos', done=len(videos) - len(todo))
    try:
        for video, row in _rows(options, predictor, todo, times):
            journal.add(identities[video], row)
            failed += row['error'] is not None
            line.add(1)
    except KeyboardInterrupt:
        return command.fail(f'stopped; the same command goes on from {journal.path}', 130)
    line.clear()
    seconds = time.perf_counter() - began
    predictions.write(out, journal.rows(list(identities.values())), classes, options.top)
    journal.remove()
    speed = f'; {len(todo)} videos in {seconds:.1f} s' if todo else ''
    print(f'{out}: {len(videos)} rows, {failed} with an error{speed}')
    print(f'time: {times}')
    return 1 if failed else 0


def _settings(options, model: Model) -> dict[str, Any]:
    return {'top': options.top, 'version': __version__, **model.trained.hashes}


def _rows(
    options, predictor: Predictor, videos: Iterable[pathlib.Path], times: console.StepTimes
) -> Iterator[tuple[pathlib.Path, dict[str, Any]]]:
    """Yields each video with its row, in the order of the videos."""
    workers = os.cpu_count() if options.workers is None else options.workers
    ahead = 2 * options.batch + workers
    read = processes.read_clips(videos, predictor.model.spec, workers, ahead)
    while True:
        with times('waiting for videos'):
            batch = list(itertools.islice(read, options.batch))
        if not batch:
            return
        clips = [clip for _, clip in batch if isinstance(clip, media.Clip)]
        # The first batch compiles the program.
        with times('model' if 'compile' in times.seconds else 'compile'):
            rows = iter(_predicted(predictor, clips))
        for video, clip in batch:
            if isinstance(clip, media.MediaError):
                command.fail(clip, 1)
                row = _failed(f'{clip.reason}: {clip.detail}')
            else:
                row = next(rows)
                if row['error']:
                    command.fail(f'{video}: {row["error"]}', 1)
            probabilities = dict(itertools.islice(row['probabilities'].items(), options.top))
            yield video, {'video': str(video)} | row | {'probabilities': probabilities}


def _predicted(predictor: Predictor, clips: list[media.Clip]) -> list[dict[str, Any]]:
    """Returns the rows of the clips of one batch; clips that only together cannot be predicted are tried one by one."""
    if not clips:
        return []
    try:
        return predictor(clips)
    except Exception as error:
        if len(clips) == 1:
            return [_failed('failed: ' + ' '.join(f'{type(error).__name__}: {error}'.split()))]
        return [row for clip in clips for row in _predicted(predictor, [clip])]


def _failed(error: str) -> dict[str, Any]:
    names = ('label', 'probability', 'strongest_segment', 'strongest_cell')
    return {'error': error} | dict.fromkeys(names) | {'notes': [], 'probabilities': {}}
