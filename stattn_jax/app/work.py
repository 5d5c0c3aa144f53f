"""Explains one video for the app: writes the files of the explain command and returns the content of the app's summary.

Nothing here needs Gradio.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Mapping

import numpy as np

from stattn_jax import files
from stattn_jax.data import decode, media, video_files
from stattn_jax.explain import compare, console, index, outputs, sentences, timeline_page
from stattn_jax.explain.model import Model
from stattn_jax.explain.result import Explanation

_BEST = 5
# Called with the share of the work that is done, 0..1, and the name of the present step.
Report = Callable[[float, str], object]


class Refused(Exception):
    """Raised for a video that the app does not take; the message is one line that names the fix."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of an upload: its size (MB) and its length (minutes)."""

    megabytes: float = 200.0
    minutes: float = 10.0


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of one video as the app shows it; paths are relative to its folder.

    - sentence: the result in words; notices: warnings about the clip and its evidence
    - header, rows: the table of the best classes
    - pages: the pages to show by their titles, the main one first; files: every file that was written
    """

    sentence: str
    notices: list[str]
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    pages: dict[str, str]
    files: list[str]


def explain(
    models: Mapping[str, Model],
    video: pathlib.Path,
    folder: pathlib.Path,
    *,
    limits: Limits,
    start: float | None = None,
    whole: bool = True,
    report: Report = lambda share, text: None,
) -> Result:
    """Explains a video by one model, or by two to compare, given by the names of their runs, into an empty folder.

    With `whole`, a video that is longer than the clip of a single model gets a timeline; otherwise the clip that begins
    at `start` (s) is explained. The name of the video is shown, but is no part of any path in the folder. Raises
    Refused beyond the limits and media.MediaError for a video that cannot be read.
    """
    name = video.name
    report(0.0, 'reading the video')
    copy = folder / f'source{video.suffix.lower() if video.suffix.lower() in video_files.SUFFIXES else ""}'
    try:
        _check_size(video, limits)
        shutil.copyfile(video, copy)
        _check_length(copy, limits)
        if len(models) > 1:
            return _compare(models, copy, folder, name, start, report)
        (model,) = models.values()
        if whole and not start and is_long(model, copy):
            return _explain_long(model, copy, folder, name, report)
        return _explain(model, copy, folder, name, start, report)
    finally:
        copy.unlink(missing_ok=True)


def is_long(model: Model, video: pathlib.Path) -> bool:
    """Returns whether a video is at least a segment longer than the model's clip; False where no length is known."""
    seconds = decode.MediaFile(video).duration
    return bool(np.isfinite(seconds)) and seconds >= model.spec.seconds + model.spec.segment_seconds


def error_line(error: Exception, name: str) -> str:
    """Returns one line about the error that kept a video from being explained, with the name of the video alone."""
    if isinstance(error, media.MediaError):
        return str(media.MediaError(error.reason, error.detail, name))
    if isinstance(error, Refused):
        return f'{name}: {error}'
    text = files.reason(error) if isinstance(error, OSError) else f'{type(error).__name__}: {error}'
    return f'{name}: failed: {" ".join(text.split())}'


def _check_size(video: pathlib.Path, limits: Limits) -> None:
    if not video.is_file():
        raise media.MediaError('missing', 'the upload is no longer there, since uploads are kept for an hour', video)
    megabytes = video.stat().st_size / 1e6
    if megabytes > limits.megabytes:
        raise Refused(f'it has {megabytes:.3g} MB; expected at most {limits.megabytes:g} MB')


def _check_length(video: pathlib.Path, limits: Limits) -> None:
    seconds = decode.MediaFile(video).duration
    if np.isfinite(seconds) and seconds > 60 * limits.minutes:
        raise Refused(f'it lasts {seconds / 60:.3g} minutes; expected at most {limits.minutes:g}; cut it')


def _named(explanation: Explanation, name: str) -> Explanation:
    return dataclasses.replace(explanation, media=explanation.media | {'file': name})


def _read_and_explain(model: Model, video: pathlib.Path, name: str, start: float | None) -> Explanation:
    return _named(model.explain_readings([model.read(video, start or None)], finer=True)[0], name)


def _write(explanation: Explanation, folder: pathlib.Path, report: Report, begin: float, end: float) -> None:
    """Writes all files of an explanation, and reports shares of the work between `begin` and `end`."""
    total = len(console.KINDS)
    report(begin, f'writing files: 0 of {total} done')
    for number, _ in enumerate(outputs.write(explanation, folder, console.KINDS), 1):
        report(begin + (end - begin) * number / total, f'writing files: {number} of {total} done')


def _explain(model: Model, video: pathlib.Path, folder: pathlib.Path, name: str, start, report: Report) -> Result:
    report(0.1, 'running the network')
    explanation = _read_and_explain(model, video, name, start)
    _write(explanation, folder, report, 0.3, 1.0)
    return Result(
        sentence=explanation.sentence(),
        notices=explanation.notices(),
        header=('class', 'probability'),
        rows=[(row['label'], f'{row["probability"]:.1%}') for row in explanation.top(_BEST)],
        pages={'Explanation': 'explanation.html'},
        files=_listed(folder),
    )


def _explain_long(model: Model, video: pathlib.Path, folder: pathlib.Path, name: str, report: Report) -> Result:
    def show(done: int, total: int) -> None:
        report(0.1 + 0.4 * done / total, f'running the network: {done} of {index.counted(total, "window")}')

    timeline = model.explain_long(video, progress=show, finer=True)
    explanations = {k: _named(each, name) for k, each in timeline.explanations.items()}
    timeline = dataclasses.replace(timeline, media=timeline.media | {'file': name}, explanations=explanations)
    pages = {}
    for number, (k, explanation) in enumerate(explanations.items()):
        folder_of_window = f'window_{timeline.windows[k]["start"]:07.1f}s'
        share = 0.4 / len(explanations)
        _write(explanation, folder / folder_of_window, report, 0.5 + share * number, 0.5 + share * (number + 1))
        pages[k] = f'{folder_of_window}/explanation.html'
    report(0.9, 'writing the timeline')
    timeline.save_json(folder / 'timeline.json')
    timeline.save_csv(folder / 'timeline.csv')
    timeline_page.write(timeline, video, folder, pages)
    windows = [timeline.windows[k] for k in explanations]
    return Result(
        sentence=f'{name}: {index.counted(len(timeline.windows), "window")} of {model.spec.seconds:g} s; the '
        f'{len(explanations)} most probable are explained, {timeline.windows_left_out} left out.',
        notices=[],
        header=('class', 'probability', 'from', 'to'),
        rows=[
            (
                window['label'],
                f'{window["probability"]:.1%}',
                sentences.clock_time(window['start']),
                sentences.clock_time(window['end']),
            )
            for window in windows
        ],
        pages={'Timeline': timeline_page.PAGE},
        files=_listed(folder),
    )


def _compare(
    models: Mapping[str, Model], video: pathlib.Path, folder: pathlib.Path, name: str, start, report: Report
) -> Result:
    explanations: dict[str, Explanation] = {}
    links = {}
    for number, (run, model) in enumerate(models.items()):
        share = 0.9 / len(models)
        report(0.05 + share * number, f'running the network of {run}')
        explanation = _read_and_explain(model, video, name, start)
        _write(explanation, folder / run, report, 0.05 + share * (number + 0.4), 0.05 + share * (number + 1))
        explanations[run], links[run] = explanation, f'{run}/explanation.html'
    report(0.95, 'comparing the runs')
    comparison = compare.write(explanations, folder, links)
    return Result(
        sentence=f'{comparison.sentence()}.',
        notices=[f'{run}: {notice}' for run, each in explanations.items() for notice in each.notices()],
        header=('class', *comparison.runs, 'difference'),
        rows=[compare.probability_texts(row) for row in comparison.probabilities],
        pages={'Comparison': compare.PAGE, **{f'Explanation by {run}': link for run, link in links.items()}},
        files=_listed(folder),
    )


def _listed(folder: pathlib.Path) -> list[str]:
    """Returns the files below a folder, those of the folder itself first, without the copy of the video."""
    found = [path.relative_to(folder) for path in folder.rglob('*') if path.is_file() and path.stem != 'source']
    return [path.as_posix() for path in sorted(found, key=lambda path: (len(path.parts), path))]
