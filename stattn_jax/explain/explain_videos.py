"""Runs the explain command once its flags are parsed: explains the videos, writes the files and reports the times.

The flags are defined in __main__.py; model.py computes the explanations.
"""

import concurrent.futures
import pathlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from absl import flags, logging

from stattn_jax import run as runs
from stattn_jax.data import media
from stattn_jax.explain import ground_truth, page, record_files
from stattn_jax.explain.explanation import GroundTruth
from stattn_jax.explain.model import Model, load
from stattn_jax.explain.result import Explanation
from stattn_jax.runtime import checkpoint, perf

# The slowest files come first, so that they are written in parallel.
_ORDER = ('mp4', 'html', 'png', 'npz', 'json', 'csv', 'vtt')


class Clock:
    """Adds up the seconds spent on each named step."""

    def __init__(self, **seconds: float):
        self.seconds = dict(seconds)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def __str__(self):
        return ', '.join(f'{name} {seconds:.1f} s' for name, seconds in self.seconds.items())


class Progress:
    """Prints how much of a long video is done and the estimated time left, to stderr, at most every two seconds."""

    def __init__(self, video: pathlib.Path):
        self._video, self._began = video, time.perf_counter()
        self._printed = self._began

    def __call__(self, done: int, total: int) -> None:
        now = time.perf_counter()
        if now - self._printed >= 2 or done == total:
            self._printed = now
            left = (now - self._began) * (total - done) / done
            print(f'{self._video}: window {done} of {total}, {left:.0f} s left', file=sys.stderr, flush=True)


def run(options: flags.FlagValues, imports: float) -> int:
    """Explains every video given by the flags; returns the exit code.

    `imports` is the time in seconds that importing this module took.
    """
    logging.set_verbosity('warning')
    clock = Clock(imports=imports)
    try:
        with clock('restore'):
            folders, model, truths = _prepare(options)
    except runs.RunError as error:
        return _fail(error, error.code)
    except checkpoint.CheckpointError as error:
        return _fail(error, 1)
    entries, failed = [], 0
    for video, out in folders.items():
        try:
            explain = _explain_long if options.long else _explain
            for folder, explanation in explain(options, model, video, out, clock):
                entries += _write(options, explanation, folder, truths[video], clock)
        except media.MediaError as error:
            failed += 1
            _fail(error, 1)
    if len(entries) > 1:
        index = pathlib.Path(options.out) / 'index.html'
        record_files.write_text(index, page.render_index(entries))
        print(f'{index}: {len(entries)} explanations')
    print(f'time: {clock}', flush=True)
    return 1 if failed else 0


def _prepare(options) -> tuple[dict[pathlib.Path, pathlib.Path], Model, dict[pathlib.Path, dict[str, GroundTruth]]]:
    """Returns each video's output folder, the model, and each video's annotations by label.

    Raises RunError and CheckpointError.
    """
    if options.compile_cache:
        perf.enable_compile_cache(options.compile_cache)
    videos, out = [pathlib.Path(video) for video in options.video], pathlib.Path(options.out)
    folders = {video: out / video.stem if len(videos) > 1 else out for video in videos}
    if len(set(folders.values())) < len(videos):
        raise runs.RunError(
            f'--video={" --video=".join(options.video)}: two files of the same name would share a '
            f'subfolder of --out={out}'
        )
    model = load(options.workdir)
    classes = model.trained.facts.classes
    if options.label is not None and options.label not in classes:
        raise runs.RunError(
            f'--label={options.label} is not a class of the model; expected one of {", ".join(classes)}'
        )
    if options.hop is not None and options.hop > model.spec.segments:
        raise runs.RunError(
            f'--hop={options.hop}; expected at most {model.spec.segments}, the number of segments in a window'
        )
    tables = None if options.truth is None else pathlib.Path(options.truth)
    return folders, model, {video: ground_truth.read(tables, video.stem) if tables else {} for video in videos}


def _explain(options, model: Model, video, out, clock) -> Iterator[tuple[pathlib.Path, Explanation]]:
    with clock('decode'):
        reading = model.read(video, options.start, options.end)
    with clock('model'):
        explanation = model.explain_readings([reading])[0]
    print(f'{video}: ' + ', '.join(f'{row["label"]} {row["probability"]:.1%}' for row in explanation.top(3)))
    print(f'  {explanation.sentence(options.label)}')
    for notice in explanation.notices():
        print(f'  note: {notice}')
    error = explanation.residual()[1]
    print(f'  the sum of the contributions differs from the logit by at most {error:.1e} (relative)')
    yield out, explanation


def _explain_long(options, model: Model, video, out, clock) -> Iterator[tuple[pathlib.Path, Explanation]]:
    with clock('decode and model'):
        timeline = model.explain_long(
            video, options.hop, options.top_windows, options.start, options.end, Progress(video)
        )
    out.mkdir(parents=True, exist_ok=True)
    timeline.save_json(out / 'timeline.json')
    timeline.save_csv(out / 'timeline.csv')
    print(
        f'{video}: {len(timeline.windows)} windows of {model.spec.seconds:g} s, starting every {timeline.hop} segments'
    )
    if timeline.segments_without_data:
        print(f'  {timeline.segments_without_data} of {len(timeline.rows)} segments have no video or no audio')
    print(f'  {out}/timeline.json, timeline.csv')
    print(f'  {len(timeline.explanations)} most probable windows explained, {timeline.windows_left_out} left out')
    for k, explanation in timeline.explanations.items():
        window = timeline.windows[k]
        print(f'  {window["start"]:g} to {window["end"]:g} s: {window["label"]} {window["probability"]:.1%}')
        for notice in explanation.notices():
            print(f'    note: {notice}')
        yield out / f'window_{window["start"]:07.1f}s', explanation


def _write(
    options, explanation: Explanation, out: pathlib.Path, truths: dict[str, GroundTruth], clock
) -> list[page.Entry]:
    """Writes the requested files; returns the clip's index entry in a list, which is empty without an HTML page."""
    label = options.label or explanation.top(1)[0]['label']
    start, duration = explanation.media['start'], explanation.media['duration']
    truths = {name: ground_truth.within(truth, start, duration) for name, truth in truths.items()}
    save = {
        'json': lambda path: explanation.save_json(path, label),
        'npz': explanation.save_npz,
        'png': lambda path: explanation.save_png(path, label, truths.get(label)),
        'html': lambda path: explanation.save_html(path, label, truths.get(label)),
        'mp4': lambda path: explanation.save_video(path, label),
        'csv': explanation.save_csv,
        'vtt': explanation.save_vtt,
    }
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f'explanation.{kind}' for kind in _ORDER if kind in options.files]
    # Encoding spends most of its time in C code, so that two threads can use two cores.
    with clock('files'), concurrent.futures.ThreadPoolExecutor(2) as threads:
        for job in [threads.submit(save[path.suffix[1:]], path) for path in paths]:
            job.result()
    print(f'  {out}: {", ".join(path.name for path in paths)}', flush=True)
    if 'html' not in options.files:
        return []
    annotated = [
        name for name, truth in truths.items() if name in explanation.classes and (truth.intervals or truth.boxes)
    ]
    true_label = label if label in annotated else next(iter(annotated), None)
    href = (out / 'explanation.html').relative_to(options.out).as_posix()
    return [page.index_entry(explanation, href, true_label, truths.get(true_label))]


def _fail(error, code: int) -> int:
    print('error: ' + ' '.join(str(error).split()), file=sys.stderr)
    return code
