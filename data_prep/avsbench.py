"""Prepares AVSBench (Zhou et al. 2022, 2023): frames a second apart, with masks of the sounding objects.

  python -m data_prep.avsbench --data=Single-source --subset=s4 --out=DATA
  python -m data_prep.avsbench --data=Multi-sources --subset=ms3 --classes=DATA/tables/classes.txt --out=DATA2
  python -m data_prep.avsbench --data=AVSBench-semantic --subset=semantic --out=DATA3

The authors give the files out on request. --data is the folder with the list: s4_meta_data.csv beside s4_data,
ms3_meta_data.csv beside ms3_data, or metadata.csv and label2idx.json beside v1s, v1m and v2. Frames and masks are read
by the numbers in their names, the sound from the wav files. The published log-mel files are pickles and are never read.

Frame t stands for segment t, and its mask for the middle of that segment. The labels of a clip of S4 are its category,
and those of a clip of the semantic set are the classes of its masks. MS3 names no classes: its clips have no label, and
--classes says which network they are for.
"""

import csv
import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator
from concurrent import futures

import numpy as np
from absl import flags

from data_prep import avsbench_masks, cli, prepare, published, report, rows, videos
from data_prep.avsbench_masks import PALETTE_FILE, Palette
from stattn_jax import files
from stattn_jax.data import decode, media, records
from stattn_jax.progress import ProgressLine

FLAGS = flags.FlagValues()
define = cli.definers(FLAGS)
define.string('data', None, 'Folder with the list and the files of the subset.', required=True)
define.enum('subset', None, ['s4', 'ms3', 'semantic'], 'Part of AVSBench.', required=True)
define.string('classes', None, 'Text file of the classes, one a line, for masks that name none.')
published.define_flags(FLAGS, 'avsbench')

SPLITS = ('train', 'val', 'test')
LISTS = {'s4': 's4_meta_data.csv', 'ms3': 'ms3_meta_data.csv', 'semantic': 'metadata.csv'}
# Frames of a clip by the folders of the semantic set; those of S4 and MS3 have five.
FRAMES = {'v1s': 5, 'v1m': 5, 'v2': 10}
SECONDS = {'s4': 5, 'ms3': 5, 'semantic': 10}


@dataclasses.dataclass(frozen=True)
class ClipFiles:
    """A clip of the list with its files, as paths relative to --data.

    sounds: files that may hold the sound, the first of which that exists is read.
    masks: one path for each frame; `annotated` says how many of the first frames were annotated.
    """

    clip_id: str
    split: str
    labels: tuple[str, ...]
    frames: tuple[str, ...]
    sounds: tuple[str, ...]
    masks: tuple[str, ...]
    annotated: int


def main(beam: list[str]) -> None:
    where = published.folder(FLAGS, 'data', f'the folder with {LISTS[FLAGS.subset]}')
    for name in ('segments', 'segment_seconds'):
        if FLAGS[name].present:
            raise cli.UsageError(f'--{name}={FLAGS[name].value}: AVSBench has one frame a second; leave it out')
    spec = dataclasses.replace(published.clip_spec(FLAGS), segments=SECONDS[FLAGS.subset], segment_seconds=1.0)
    clips = read(where, FLAGS.subset)
    palette = avsbench_masks.read_palette(where / PALETTE_FILE) if FLAGS.subset == 'semantic' else None
    remarks: list[str] = []
    if palette:
        clips = label_by_masks(where, clips, palette, FLAGS.workers, remarks)
    classes = _classes(clips, palette)
    jobs = list_jobs(where, clips, classes, remarks)
    listing = published.Listing(classes, [], multi_label=palette is not None, remarks=remarks)
    published.prepare_jobs(FLAGS, listing, jobs, functools.partial(make_record, str(where), palette), spec, beam)
    # A network that was trained on these classes is evaluated on MS3 by this file.
    folder = files.make_folder(pathlib.Path(FLAGS.out) / report.TABLES_DIR)
    files.write_text(folder / published.CLASSES_FILE, ''.join(f'{name}\n' for name in classes))


# ---------------------------------------------------------------------------------------------------------------------
# Lists and classes
# ---------------------------------------------------------------------------------------------------------------------


def read(where: pathlib.Path, subset: str) -> list[ClipFiles]:
    """Reads the list of a subset, in its order; raises TableError for its faults."""
    path = where / LISTS[subset]
    name = 'uid' if subset == 'semantic' else _first_column(path)
    more = {'s4': ('category', 'split'), 'ms3': ('split',), 'semantic': ('label', 'split')}[subset]
    clips: dict[str, ClipFiles] = {}
    with rows.collect() as faults:
        for row in rows.read_rows(path, (name, *more), faults):
            for column in (name, *more[:-1]):
                row.check(column, _is_plain, 'a name without / and \\')
            row.check('split', SPLITS.__contains__, f'one of {", ".join(SPLITS)}')
            if subset == 'semantic':
                row.check('label', FRAMES.__contains__, f'one of {", ".join(FRAMES)}')
            if row.bad:
                continue
            clip = _MAKERS[subset](*(row.cells[column].strip() for column in (name, *more)))
            if clip.clip_id in clips:
                row.fault(name, 'a name that is there once')
            clips[clip.clip_id] = clip
        if not clips and not faults:
            faults.append(f'{path}: lists no clips; fetch it again')
    return list(clips.values())


def _first_column(path: pathlib.Path) -> str:
    """Returns the name of a list's first column, which holds the names of the clips, whatever it is called."""
    try:
        with open(path, encoding='utf-8-sig', newline='') as file:
            return next(csv.reader(file))[0].strip()
    except (OSError, UnicodeDecodeError, csv.Error, StopIteration, IndexError):
        # rows.read_rows names the fault of the file.
        return 'name'


def _is_plain(text: str) -> bool:
    return text.isprintable() and not set(text) & {'/', '\\'} and text not in ('', '.', '..')


def _s4(name: str, category: str, split: str) -> ClipFiles:
    inside = f'{split}/{category}/{name}'
    return ClipFiles(
        name,
        split,
        (category,),
        tuple(f's4_data/visual_frames/{inside}/{name}_{i}.png' for i in range(1, 6)),
        (f's4_data/audio_wav/{inside}.wav', f's4_data/raw_videos/{inside}.mp4'),
        tuple(f's4_data/gt_masks/{inside}/{name}_{i}.png' for i in range(1, 6)),
        1 if split == 'train' else 5,
    )


def _ms3(name: str, split: str) -> ClipFiles:
    return ClipFiles(
        name,
        split,
        (),
        tuple(f'ms3_data/visual_frames/{name}/{name}.mp4_{i}.png' for i in range(1, 6)),
        (f'ms3_data/audio_wav/{split}/{name}.wav', f'ms3_data/raw_videos/{name}.mp4'),
        tuple(f'ms3_data/gt_masks/{split}/{name}/{name}_{i}.png' for i in range(1, 6)),
        5,
    )


def _semantic(uid: str, label: str, split: str) -> ClipFiles:
    count = FRAMES[label]
    return ClipFiles(
        f'{label}_{uid}',
        split,
        (),
        tuple(f'{label}/{uid}/frames/{i}.jpg' for i in range(count)),
        (f'{label}/{uid}/audio.wav',),
        tuple(f'{label}/{uid}/labels_rgb/{i}.png' for i in range(count)),
        1 if (label, split) == ('v1s', 'train') else count,
    )


_MAKERS: dict[str, Callable[..., ClipFiles]] = {'s4': _s4, 'ms3': _ms3, 'semantic': _semantic}


def _classes(clips: list[ClipFiles], palette: Palette | None) -> tuple[str, ...]:
    if palette:
        if FLAGS.classes:
            raise cli.UsageError(f'--classes={FLAGS.classes}: the classes are those of {PALETTE_FILE}; leave it out')
        return palette.classes
    named = sorted({label for clip in clips for label in clip.labels})
    if not FLAGS.classes:
        if not named:
            raise cli.UsageError(
                f'--subset={FLAGS.subset}: its masks name no classes; give --classes=FILE, those of the network that '
                'will be evaluated, such as OUT/tables/classes.txt of --subset=s4'
            )
        return tuple(named)
    with rows.collect() as faults:
        classes = rows.read_lines(FLAGS.classes, 'a text file with one class a line', faults)
        unknown = [label for label in named if label not in classes]
        if len(set(classes)) < len(classes) or unknown or not (classes or faults):
            wrong = f'; {", ".join(unknown)} of the list is missing' if unknown else ''
            faults.append(f'{FLAGS.classes}: expected different classes, one a line, with all of the list{wrong}')
    return tuple(classes)


def label_by_masks(
    where: pathlib.Path, clips: list[ClipFiles], palette: Palette, workers: int | None, remarks: list[str]
) -> list[ClipFiles]:
    """Returns the clips of the semantic set with the classes of their masks as labels.

    Pixels of colours that are no class belong to none; `remarks` counts and names their clips.
    """

    def read_one(clip: ClipFiles) -> tuple[set[int], int]:
        found: set[int] = set()
        unknown = 0
        for path in clip.masks:
            if os.path.exists(where / path):
                try:
                    masks, pixels = avsbench_masks.split_colours(avsbench_masks.read_picture(where / path), palette)
                except media.MediaError:
                    # Its record is skipped with this error.
                    continue
                found |= masks.keys()
                unknown += pixels
        return found, unknown

    labelled, strange, blank = [], [], []
    line = ProgressLine('reading the labels of masks', len(clips))
    with futures.ThreadPoolExecutor(max(1, workers or os.cpu_count())) as pool:
        for clip, (found, unknown) in zip(clips, pool.map(read_one, clips)):
            names = tuple(palette.classes[label] for label in sorted(found))
            labelled.append(dataclasses.replace(clip, labels=names))
            strange += [f'{clip.clip_id} ({unknown} pixels)'] if unknown else []
            blank += [] if names else [clip.clip_id]
            line.add(1)
    line.clear()
    remarks += videos.named_all(
        (f'clips have masks with colours of no class of {PALETTE_FILE}, which count as background', strange),
        ('clips have no label, since no mask of theirs shows a class', blank),
    )
    return labelled


# ---------------------------------------------------------------------------------------------------------------------
# Jobs and records
# ---------------------------------------------------------------------------------------------------------------------


def list_jobs(
    where: pathlib.Path, clips: list[ClipFiles], classes: tuple[str, ...], remarks: list[str]
) -> list[prepare.Job]:
    """Returns a job for each clip; `remarks` names missing masks, and files that are no mask of the clip.

    Missing frames and sounds are left to the records, which count the clip as missing.
    """
    jobs, missing, strange = [], [], []
    number = {name: i for i, name in enumerate(classes)}
    there = _Folders(where)
    for clip in clips:
        masks = [(t, path) for t, path in enumerate(clip.masks) if path in there]
        missing += sorted({*clip.masks[: clip.annotated]} - {path for _, path in masks})
        strange += sorted(there.beside(clip.masks[0]) - {*clip.masks})
        sound = next((path for path in clip.sounds if path in there), clip.sounds[0])
        payload = {'frames': clip.frames, 'sound': sound, 'masks': masks}
        labels = tuple(number[label] for label in clip.labels)
        jobs.append(prepare.Job(clip.clip_id, clip.split, labels, video=sound, payload=payload))
    remarks += videos.named_all(
        ('masks are missing, so that their frames are not scored', missing),
        ('files are in folders of masks, but are no mask of the clip, and are not read', strange),
    )
    return jobs


class _Folders:
    """The files below a folder, listed once for each folder that is looked into."""

    def __init__(self, where: pathlib.Path):
        self._list = functools.lru_cache(maxsize=64)(lambda folder: frozenset(_names(where / folder)))

    def __contains__(self, path: str) -> bool:
        folder, _, name = path.rpartition('/')
        return name in self._list(folder)

    def beside(self, path: str) -> set[str]:
        """Returns the paths of all files in the folder of a path."""
        folder = path.rpartition('/')[0]
        return {f'{folder}/{name}' for name in self._list(folder)}


def _names(folder: pathlib.Path) -> Iterator[str]:
    try:
        yield from os.listdir(folder)
    except OSError:
        # The files are missing, which is reported for each of them.
        return


def make_record(
    folder: str, palette: Palette | None, job: prepare.Job, spec: media.ClipSpec, keep_lacking: bool = False
) -> records.ClipRecord:
    """Makes the record of a clip from its frames, its sound and its masks.

    With `keep_lacking`, a clip whose sound is missing has the note 'no_sound'. Raises media.MediaError for an unusable
    clip.
    """
    where = pathlib.Path(folder)
    frames = [avsbench_masks.read_picture(where / path) for path in job.payload['frames']]
    if len({frame.shape for frame in frames}) > 1:
        raise media.MediaError('unreadable', 'its frames differ in size', where / job.payload['frames'][0])
    waveform, end, notes = _sound(where / job.payload['sound'], spec, keep_lacking)
    begin_t = np.arange(spec.segments) * spec.segment_seconds
    valid = (np.arange(spec.segments) < len(frames)) & (end - begin_t >= spec.segment_seconds / 2)
    if not valid.any():
        raise media.MediaError(
            'empty_interval', 'its sound lasts less than half a second', where / job.payload['sound']
        )
    frames += [np.zeros_like(frames[0])] * (spec.segments - len(frames))
    clip = media.clip_from_arrays(np.stack(frames), waveform, spec, media.MEL_PRESETS[spec.mel].rate, valid=valid)
    clip = dataclasses.replace(clip, notes=clip.notes + notes)
    label = job.labels[0] if job.labels else None
    masks = itertools.chain.from_iterable(
        avsbench_masks.read_masks(where / path, (t + 0.5) * spec.segment_seconds, palette, label)
        for t, path in job.payload['masks']
    )
    return records.ClipRecord(job.clip_id, clip, job.labels, video=job.video, masks=tuple(masks))


def _sound(path: pathlib.Path, spec: media.ClipSpec, keep_lacking: bool) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """Returns the waveform [n], the second at which the sound ends, and notes."""
    rate = media.MEL_PRESETS[spec.mel].rate
    samples = round(spec.seconds * rate)
    try:
        waveform, track = decode.MediaFile(path).sound(0.0, spec.seconds, rate, samples)
    except media.MediaError as error:
        if not keep_lacking or error.reason not in ('missing', 'no_sound'):
            raise
        return np.zeros(samples, np.float32), spec.seconds, ('no_sound',)
    notes = {'silent': np.abs(waveform).max() <= media.SILENCE, 'damaged': track.damaged > 0}
    return waveform, track.end, tuple(note for note, holds in notes.items() if holds)


if __name__ == '__main__':
    # Imported by this name, not as __main__, so that workers of any runner find make_record.
    from data_prep import avsbench

    cli.run(avsbench.main, avsbench.FLAGS, __doc__)
