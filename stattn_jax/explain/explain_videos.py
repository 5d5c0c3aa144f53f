"""Runs the explain command once its flags are parsed: explains the videos, writes the files and reports the times.

The flags are defined in __main__.py; model.py computes the explanations, done.py skips what is done, and index.py
writes the page of all videos.
"""

import dataclasses
import json
import os
import pathlib
from typing import Any

from absl import flags, logging

from stattn_jax import __version__, command, files, names, progress
from stattn_jax.data import media, video_files
from stattn_jax.explain import (
    compare,
    console,
    done,
    ground_truth,
    index,
    outputs,
    record_files,
    sentences,
    timeline_page,
)
from stattn_jax.explain.explanation import GroundTruth
from stattn_jax.explain.model import Model, load
from stattn_jax.explain.result import Explanation
from stattn_jax.runtime import perf

# The index links to the first of these files that is written.
_OPENED = ('html', 'png', 'svg', 'pdf', 'mp4', 'json', 'csv', 'vtt', 'npz')
# The flags that change the files of a video.
_CONTENT = ('files', 'start', 'end', 'label', 'finer', 'long', 'hop', 'top_windows')
# The files that do not hold or show the finer map.
_WITHOUT_FINER = {'csv', 'vtt'}


@dataclasses.dataclass(frozen=True)
class Call:
    """Everything that one call of the command needs.

    - models: one, or two to compare, by the name of their run
    - folders: the output folder of each video; several: whether there is a subfolder for each video, with an index
    - truths: the annotations by the stem of a video and by label
    """

    options: flags.FlagValues
    models: dict[str, Model]
    folders: dict[pathlib.Path, pathlib.Path]
    several: bool
    truths: dict[str, dict[str, GroundTruth]]
    times: console.StepTimes

    @property
    def out(self) -> pathlib.Path:
        return pathlib.Path(self.options.out)

    @property
    def finer(self) -> bool:
        """Whether the explanations need the finer map."""
        return self.options.finer and not set(self.options.files) <= _WITHOUT_FINER

    def key(self, video: pathlib.Path) -> dict[str, Any]:
        """Returns everything on which the files of a video depend, as JSON."""
        key = {
            'video': video_files.identity(video),
            'models': {run: list(model.trained.hashes.values()) for run, model in self.models.items()},
            'options': {name: self.options[name].value for name in _CONTENT},
            'truth': {label: [each.intervals, each.boxes] for label, each in self._of(video)},
            'version': [__version__, record_files.SCHEMA],
        }
        return json.loads(json.dumps(key))

    def title(self, video: pathlib.Path) -> str:
        """Returns the name of a video in the index: its path below the folder that holds all of them."""
        above = os.path.commonpath([os.path.abspath(each.parent) for each in self.folders])
        return pathlib.Path(os.path.relpath(os.path.abspath(video), above)).as_posix()

    def truth(self, video: pathlib.Path, explanation: Explanation) -> dict[str, GroundTruth]:
        """Returns the annotations of the explained part by label."""
        start, duration = explanation.media['start'], explanation.media['duration']
        return {label: ground_truth.within(each, start, duration) for label, each in self._of(video)}

    def _of(self, video: pathlib.Path):
        return self.truths.get(video.stem, {}).items()


def run(options: flags.FlagValues, times: console.StepTimes) -> int:
    """Explains every video given by the flags; returns the exit code. Raises CommandError."""
    logging.set_verbosity('warning')
    with times('restore'):
        call = _prepare(options, times)
    kept = {} if options.overwrite or not call.several else _kept(call)
    results: dict[pathlib.Path, done.VideoResult | index.Failure] = dict(kept)
    if kept:
        total = index.counted(len(call.folders), 'video')
        print(f'{len(kept)} of {total} are explained already and stay as they are; --overwrite explains them again')
    todo = [video for video in call.folders if video not in kept]
    stopped, line = False, progress.ProgressLine(options.out, len(call.folders), 'videos', done=len(kept))
    try:
        for video in todo:
            results[video] = _result(call, video)
            line.add(1)
    except KeyboardInterrupt:
        stopped = True
    line.clear()
    failed = sum(isinstance(result, index.Failure) for result in results.values())
    _write_index(call, results)
    print(f'time: {times}', flush=True)
    if stopped:
        left = len(call.folders) - len(results)
        again = '; the same command goes on with them' if call.several else ''
        return command.fail(f'stopped, {index.counted(left, "video")} left{again}', 130)
    return 1 if failed else 0


def _prepare(options, times: console.StepTimes) -> Call:
    """Finds the videos, loads the models and reads the annotations; raises CommandError."""
    if options.compile_cache:
        perf.enable_compile_cache(options.compile_cache)
    videos = console.find_videos(options.video, options.out, ('explanation.mp4', timeline_page.CLIP))
    several, out = [str(video) for video in videos] != [str(pathlib.Path(options.video[0]))], pathlib.Path(options.out)
    subfolders = video_files.distinct_names(videos, taken=('index.html',))
    models = _load(options)
    twins = len(videos) - len({video.stem for video in videos})
    if options.truth and twins:
        print(f'note: {index.counted(twins, "video")} share the name, and so the annotations, of another one')
    return Call(
        options=options,
        models=models,
        folders={video: out / subfolders[video] if several else out for video in videos},
        several=several,
        truths=ground_truth.read(pathlib.Path(options.truth), {v.stem for v in videos}) if options.truth else {},
        times=times,
    )


def _load(options) -> dict[str, Model]:
    """Returns the models by the names of their runs; raises RunError, also for flags that do not fit them."""
    workdirs = [pathlib.Path(workdir) for workdir in options.workdir]
    runs_by_name = video_files.distinct_names(workdirs, taken=('index.html', compare.PAGE, compare.RECORD))
    models = {runs_by_name[workdir]: load(workdir) for workdir in workdirs}
    for model in models.values():
        classes = model.trained.facts.classes
        if options.label is not None and options.label not in classes:
            expected = names.expected(options.label, classes, 'classes')
            raise command.RunError(f'--label={options.label} is not a class of the model; {expected}')
        if options.hop is not None and options.hop > model.spec.segments:
            raise command.RunError(
                f'--hop={options.hop}; expected at most {model.spec.segments}, the number of segments in a window'
            )
    return models


def _kept(call: Call) -> dict[pathlib.Path, done.VideoResult]:
    """Returns the results of the videos that an earlier call explained whole with the same models and options."""
    kept = {}
    for video, folder in call.folders.items():
        if (folder / done.FILE).exists():
            result = done.read(folder, call.out, call.key(video))
            if result is not None:
                kept[video] = result
    return kept


def _result(call: Call, video: pathlib.Path) -> done.VideoResult | index.Failure:
    """Explains one video, writes its files and prints a line; whatever fails becomes a Failure."""
    folder = call.folders[video]
    try:
        # The state of the video before it is read.
        key = call.key(video)
        done.forget(folder)
        explain = _compare if len(call.models) > 1 else _explain_long if call.options.long else _explain
        result = explain(call, video, folder)
        if call.several:
            done.write(folder, key, result)
        return result
    except media.MediaError as error:
        command.fail(error, 1)
        return index.Failure(call.title(video), error.reason, f'{error.detail}; {media.REASONS[error.reason]}')
    except Exception as error:
        # One video's error, of whatever kind, must not end the others.
        text = files.reason(error) if isinstance(error, OSError) else f'{type(error).__name__}: {error}'
        detail = ' '.join(text.split())
        command.fail(f'{video}: failed: {detail}', 1)
        return index.Failure(call.title(video), 'failed', detail)


def _explain(call: Call, video: pathlib.Path, folder: pathlib.Path) -> done.VideoResult:
    explanation = _read_and_explain(call, next(iter(call.models.values())), video)
    best = ', '.join(f'{row["label"]} {sentences.percent(row["probability"])}' for row in explanation.top(3))
    notices = explanation.notices(call.options.label)
    result = _write(call, video, explanation, folder)
    if call.several:
        console.say(f'{video}: {best}' + ''.join(f' {notice}' for notice in notices))
        return result
    console.say(f'{video}: {best}')
    console.say(f'  {explanation.sentence(call.options.label)}')
    for notice in notices:
        console.say(f'  note: {notice}')
    error = explanation.residual()[1]
    console.say(f'  the sum of the contributions differs from the logit by at most {error:.1e} (relative)')
    console.say(f'  {folder}: {", ".join(pathlib.Path(name).name for name in result.files)}')
    return result


def _read_and_explain(call: Call, model: Model, video: pathlib.Path) -> Explanation:
    with call.times('decode'):
        reading = model.read(video, call.options.start, call.options.end)
    with call.times('model'):
        return model.explain_readings([reading], finer=call.finer)[0]


def _explain_long(call: Call, video: pathlib.Path, folder: pathlib.Path) -> done.VideoResult:
    options, (model,) = call.options, call.models.values()
    with call.times('decode and model'):
        show = console.counter(str(video), 'windows')
        part = {'start': options.start, 'end': options.end}
        timeline = model.explain_long(video, options.hop, options.top_windows, **part, progress=show, finer=call.finer)
    console.say(
        f'{video}: {index.counted(len(timeline.windows), "window")} of {model.spec.seconds:g} s, starting every '
        f'{timeline.hop} segments; the {len(timeline.explanations)} most probable are explained, '
        f'{timeline.windows_left_out} left out'
    )
    if timeline.segments_without_data:
        console.say(f'  {timeline.segments_without_data} of {len(timeline.rows)} segments have no video or no audio')
    written: dict[int, done.VideoResult] = {}
    pages = {k: f'window_{timeline.windows[k]["start"]:07.1f}s/explanation.html' for k in timeline.explanations}
    for k, explanation in timeline.explanations.items():
        window = timeline.windows[k]
        place = sentences.clock_span(window)
        written[k] = _write(call, video, explanation, (folder / pages[k]).parent, f'{call.title(video)}, {place}')
        if not call.several:
            console.say(f'  {place}: {window["label"]} {sentences.percent(window["probability"])}')
    folder.mkdir(parents=True, exist_ok=True)
    timeline.save_json(folder / 'timeline.json')
    timeline.save_csv(folder / 'timeline.csv')
    own = ['timeline.json', 'timeline.csv']
    if 'html' in options.files:
        with call.times('timeline'):
            own += timeline_page.write(timeline, video, folder, pages)
    if not call.several:
        console.say(f'  {folder}: {", ".join(own)}')
    relative = folder.relative_to(call.out)
    # In the order of time, as a reader looks for them.
    results = [written[k] for k in sorted(written)]
    return done.VideoResult(
        [clip for result in results for clip in result.clips],
        [name for result in results for name in result.files] + [(relative / name).as_posix() for name in own],
        (call.title(video), (relative / 'timeline.html').as_posix()) if 'timeline.html' in own else None,
    )


def _compare(call: Call, video: pathlib.Path, folder: pathlib.Path) -> done.VideoResult:
    """Explains a video by two runs and writes their files into a folder each, and the page that compares them."""
    explanations = {name: _read_and_explain(call, model, video) for name, model in call.models.items()}
    written = {name: _write(call, video, each, folder / name) for name, each in explanations.items()}
    pages = {name: pathlib.PurePath(result.clips[0].href) for name, result in written.items()}
    relative = folder.relative_to(call.out)
    links = {name: path.relative_to(relative).as_posix() for name, path in pages.items()}
    comparison = compare.write(explanations, folder, links, call.options.label)
    console.say(f'{video}: {comparison.sentence()}')
    own = [(relative / name).as_posix() for name in (compare.RECORD, compare.PAGE)]
    first = next(iter(written.values())).clips[0]
    clip = dataclasses.replace(first, href=own[1], agreement=comparison.attention_correlation)
    return done.VideoResult([clip], [name for result in written.values() for name in result.files] + own)


def _write(
    call: Call, video: pathlib.Path, explanation: Explanation, folder: pathlib.Path, title: str | None = None
) -> done.VideoResult:
    """Writes the requested files of one explanation; returns them with the clip for the index."""
    label = call.options.label or explanation.top(1)[0]['label']
    truths = call.truth(video, explanation)
    paths = outputs.paths(folder, call.options.files)
    with call.times('files'):
        for _ in outputs.write(explanation, folder, call.options.files, label, truths.get(label)):
            pass
    annotated = [
        name for name, truth in truths.items() if name in explanation.classes and (truth.intervals or truth.boxes)
    ]
    true_label = label if label in annotated else next(iter(annotated), None)
    opened = min(paths, key=lambda path: _OPENED.index(path.suffix[1:]))
    href = opened.relative_to(call.out).as_posix()
    clip = index.explained_clip(explanation, href, true_label, truths.get(true_label), title or call.title(video))
    return done.VideoResult([clip], [path.relative_to(call.out).as_posix() for path in paths])


def _write_index(call: Call, results: dict[pathlib.Path, done.VideoResult | index.Failure]) -> None:
    """Writes index.html in the order of the videos, where it has more than one clip, and prints how many it holds."""
    in_order = [results[video] for video in call.folders if video in results]
    explained = [result for result in in_order if isinstance(result, done.VideoResult)]
    failures = [result for result in in_order if isinstance(result, index.Failure)]
    clips = [clip for result in explained for clip in result.clips]
    if not in_order or (len(clips) < 2 and not call.several):
        return
    path = call.out / 'index.html'
    path.parent.mkdir(parents=True, exist_ok=True)
    timelines = [result.timeline for result in explained if result.timeline is not None]
    files.write_text(path, index.render(clips, failures, timelines))
    counts = [index.counted(len(clips), 'explanation')]
    if call.several:
        counts.append(f'{len(explained)} of {index.counted(len(call.folders), "video")} explained')
    counts += [f'{len(failures)} failed, with their reasons in the index'] if failures else []
    print(f'{path}: {", ".join(counts)}')
