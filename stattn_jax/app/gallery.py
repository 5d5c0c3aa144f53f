"""The galleries of the app: folders that the explain command wrote, and the explained clips of a run's own splits."""

import hashlib
import pathlib

import numpy as np

from stattn_jax import files, run
from stattn_jax.app.work import Report, error_line
from stattn_jax.data import media, records, source, tfrecord
from stattn_jax.explain import index, outputs, reading
from stattn_jax.explain.explanation import GroundTruth
from stattn_jax.explain.model import Model


def find_page(folder: pathlib.Path) -> str:
    """Returns the page of a folder that the explain command wrote; raises RunError where there is none."""
    for name in ('index.html', 'comparison.html', 'timeline.html', 'explanation.html'):
        if (folder / name).is_file():
            return name
    raise run.RunError(f'--gallery={folder} holds no index.html; expected a folder that stattn_jax.explain --out wrote')


def open_splits(model: Model) -> dict[str, source.RecordSource]:
    """Returns the splits of the run's data that hold frames and sound; {} where the data are not there any more."""
    directory = model.trained.config.data.dir
    try:
        info = source.DatasetInfo.load(directory)
        same = info.fingerprint == model.trained.facts.fingerprint and isinstance(info.spec, media.ClipSpec)
        return {split: source.RecordSource(directory, split) for split in info.splits} if same else {}
    except (OSError, ValueError, tfrecord.DataError):
        return {}


def explain_clips(
    model: Model, data: source.RecordSource, count: int, folder: pathlib.Path, report: Report
) -> tuple[int, int]:
    """Explains `count` clips that are evenly spread over a split, and writes their pages and index.html into a folder.

    Returns the number of clips that were explained and of those that failed, which the index names.
    """
    numbers = np.unique(np.linspace(0, len(data) - 1, min(len(data), count)).round().astype(int)).tolist()
    clips, failures = [], []
    for done, number in enumerate(numbers):
        report(done / len(numbers), f'explaining clip {done + 1} of {len(numbers)}')
        # One clip's error must not end the others.
        try:
            clips.append(_explain_record(model, data[number], folder, f'clip_{number}'))
        except Exception as error:
            failures.append(index.Failure(f'{data.split} {number}', 'failed', error_line(error, f'clip {number}')))
    files.write_text(folder / 'index.html', index.render(clips, failures))
    return len(clips), len(failures)


def _explain_record(model: Model, record: records.ClipRecord, folder: pathlib.Path, name: str) -> index.ExplainedClip:
    explanation = model.explain_readings([_reading(record, model.spec)], finer=True)[0]
    truths = {model.trained.facts.classes[label]: _truth(record, label) for label in record.labels}
    best = explanation.top(1)[0]['label']
    list(outputs.write(explanation, folder / name, ('html',), best, truths.get(best)))
    true_label = best if best in truths else next(iter(truths), None)
    return index.explained_clip(explanation, f'{name}/explanation.html', true_label, truths.get(true_label))


def _reading(record: records.ClipRecord, spec: media.ClipSpec) -> reading.Reading:
    """Returns the clip of a record, which has its frames and log-mel, but neither its video nor its waveform."""
    # open_splits leaves out data of other kinds.
    assert isinstance(record.clip, media.Clip)
    digest = hashlib.sha256(b''.join(record.clip.frames) + record.clip.log_mel.tobytes()).hexdigest()
    stated = {'file': record.clip_id, 'sha256': digest, 'fps': 1 / spec.segment_seconds, 'rate': None}
    return reading.Reading(record.clip, stated | reading.of_clip(record.clip, 0.0), None)


def _truth(record: records.ClipRecord, label: int) -> GroundTruth:
    return GroundTruth(
        [(event.onset, event.offset) for event in record.events if event.label == label],
        [(box.time, box.x0, box.y0, box.x1, box.y1) for box in record.boxes if box.label == label],
    )
