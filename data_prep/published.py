"""Shared code of data_prep's commands: flags, the tables of a published data set, and making records from them.

A published data set is read into a `Listing` (vggsound.py, ave.py, llp.py, kinetics_sounds.py), written as the
project's own tables, and read back through tables.py, so that all data pass the same checks. videos.py finds the video
files.
"""

import collections
import contextlib
import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags

from data_prep import cli, labels, prepare, report, rows, tables, videos
from stattn_jax import files
from stattn_jax.data import media, records
from stattn_jax.data.features import FeatureSpec

CLASSES_FILE = 'classes.txt'
TABLES = {
    'clips.csv': tables.CLIP_COLUMNS,
    'events.csv': tables.EVENT_COLUMNS,
    'boxes.csv': tables.BOX_COLUMNS,
    'presence.csv': tables.PRESENCE_COLUMNS,
}


@dataclasses.dataclass(frozen=True)
class ListedClip:
    """A clip as its publishers list it.

    source: the YouTube id that it was cut from.
    names: possible names of its file; a missing file is reported under the first one.
    payload: location of its features (data_prep/features.py).
    """

    clip_id: str
    source: str
    split: str
    labels: tuple[str, ...]
    names: tuple[videos.Name, ...]
    payload: Any = None


@dataclasses.dataclass
class Listing:
    """The content of a published data set's annotation files.

    It has clips, rows of the other tables (their columns: tables.py) and remarks on irregularities.
    """

    classes: tuple[str, ...]
    clips: list[ListedClip]
    multi_label: bool = False
    events: list[tuple] = dataclasses.field(default_factory=list)
    boxes: list[tuple] = dataclasses.field(default_factory=list)
    presence: list[tuple] = dataclasses.field(default_factory=list)
    remarks: list[str] = dataclasses.field(default_factory=list)


# ---------------------------------------------------------------------------------------------------------------------
# Flags
# ---------------------------------------------------------------------------------------------------------------------


def define_flags(flag_values: flags.FlagValues, name: str, square: bool = True) -> None:
    """Defines the flags of every command that prepares videos.

    `name` and `square` are the defaults of --name and --square.
    """
    define_engine_flags(flag_values, name)
    define = cli.definers(flag_values)
    define.integer('segments', 10, 'Segments of a clip, a frame and a mel patch each.')
    define.float('segment_seconds', 1.0, 'Length of a segment.')
    define.integer('short_side', 256, 'Short side of the stored frames, in pixels.')
    define.bool(
        'square',
        square,
        'Stores whole frames made square, which the input need not resize; configs with data.fit=crop lose pixels by '
        'it.',
    )
    define.enum(
        'silent',
        'refuse',
        ['refuse', 'keep'],
        'Clips without sound or without picture: skip them, or keep them with that modality marked as not valid.',
    )
    define_mel(flag_values)


def define_mel(flag_values: flags.FlagValues) -> None:
    """Defines the flag --mel."""
    cli.definers(flag_values).enum(
        'mel', 'vggish', list(media.MEL_PRESETS), 'Front end of the sound; published audio trunks need their own.'
    )


def define_engine_flags(flag_values: flags.FlagValues, name: str | None) -> None:
    """Defines those of these flags that set where and by which processes the records are made; see prepare_jobs."""
    define = cli.definers(flag_values)
    define.string('out', None, 'Directory to write; a stopped run continues there.', required=True)
    define.string('name', name, 'Name of the data set, the first part of the file names.')
    define.string(
        'require', None, 'Fewer usable clips are an error: a fraction of each split (0.9), or clips in all (14000).'
    )
    define.enum('runner', 'local', ['local', 'beam'], 'Processes here, or Beam; its own options stand after --.')
    define.integer('workers', None, 'Processes. Default: one per CPU. 0: none but this one.', lower_bound=0)


def clip_spec(flag_values: flags.FlagValues) -> media.ClipSpec:
    """Returns the spec for the flags; raises cli.UsageError if a value is out of range."""
    try:
        return media.ClipSpec(
            segments=flag_values.segments,
            segment_seconds=flag_values.segment_seconds,
            short_side=flag_values.short_side,
            square=flag_values.square,
            mel=flag_values.mel,
        )
    except ValueError as error:
        raise cli.UsageError(f'--{error}') from None


def folder(flag_values: flags.FlagValues, flag: str, expected: str) -> pathlib.Path:
    """Returns the folder that a flag names; raises cli.UsageError if it is not a folder."""
    # The path is absolute because Beam's workers start in other folders.
    path = pathlib.Path(flag_values[flag].value).absolute()
    if not path.is_dir():
        raise cli.UsageError(f'--{flag}={path} is not a folder; expected {expected}')
    return path


# ---------------------------------------------------------------------------------------------------------------------
# From tables to records
# ---------------------------------------------------------------------------------------------------------------------


def make_record(
    videos_folder: str, job: prepare.Job, spec: media.ClipSpec, keep_lacking: bool = False
) -> records.ClipRecord:
    """Reads a job's part of its video file; raises media.MediaError if it cannot be used.

    `keep_lacking`: see media.read_clip.
    """
    path = pathlib.Path(videos_folder) / job.video
    clip = media.read_clip(path, spec, job.start, job.end, keep_lacking=keep_lacking)
    start = job.start or 0.0
    return records.ClipRecord(
        job.clip_id, clip, job.labels, job.events, job.boxes, job.video, start, presence=job.presence
    )


def prepare_jobs(
    flag_values: flags.FlagValues,
    listing: Listing,
    jobs: list[prepare.Job],
    make: Callable[..., records.ClipRecord],
    spec: records.Spec,
    beam: list[str],
) -> None:
    """Calls prepare.prepare with the common flags; `beam` is the words after `--` (cli.beam_options).

    listing: gives the classes, whether a clip may have several, and the remarks.
    make: also takes the keyword keep_lacking, which is True for --silent=keep.
    """
    keep = flag_values.silent == 'keep'
    prepare.prepare(
        flag_values.out,
        flag_values.name,
        jobs,
        functools.partial(make, keep_lacking=True) if keep else make,
        classes=listing.classes,
        spec=spec,
        multi_label=listing.multi_label,
        workers=flag_values.workers,
        require=None if flag_values.require is None else cli.parse_require(flag_values.require),
        remarks=listing.remarks,
        beam=cli.beam_options(flag_values.runner, beam),
        options={'silent': 'keep'} if keep else {},
    )


def prepare_videos(flag_values: flags.FlagValues, listing: Listing, beam: list[str]) -> None:
    """Makes a data set from the clips' files below --videos."""
    where = folder(flag_values, 'videos', 'the folder with the video files, at any depth')
    spec = clip_spec(flag_values)
    found = videos.locate(where, {clip.clip_id: (clip.source, clip.names) for clip in listing.clips}, listing.remarks)
    with _written(flag_values, listing, found) as own:
        prepare_jobs(flag_values, listing, own.jobs, functools.partial(make_record, str(where)), spec, beam)


def prepare_features(
    flag_values: flags.FlagValues,
    listing: Listing,
    where: pathlib.Path,
    make: Callable[[str, prepare.Job, FeatureSpec], records.ClipRecord],
    spec: FeatureSpec,
    beam: list[str],
    more: Sequence[prepare.Job] = (),
) -> None:
    """Makes a data set from the clips' features in the folder `where`; `more` are jobs that are in no table."""
    for name in ('segments', 'segment_seconds', 'short_side', 'square', 'mel'):
        if flag_values[name].present:
            raise cli.UsageError(
                f'--{name}={flag_values[name].value} is for videos; the features are cut already: leave it out'
            )
    payloads = {clip.clip_id: clip.payload for clip in listing.clips}
    with _written(flag_values, listing, {}) as own:
        jobs = [dataclasses.replace(job, payload=payloads[job.clip_id]) for job in own.jobs]
        prepare_jobs(flag_values, listing, [*jobs, *more], functools.partial(make, str(where)), spec, beam)


@contextlib.contextmanager
def _written(
    flag_values: flags.FlagValues, listing: Listing, found: dict[str, videos.Found]
) -> Iterator[tables.Tables]:
    """Context with the listing as tables, which are copied to OUT/tables at its end.

    Before that, OUT may belong to another data set.
    """
    with tempfile.TemporaryDirectory() as work:
        yield write_tables(listing, found, pathlib.Path(work))
        folder = files.make_folder(pathlib.Path(flag_values.out) / report.TABLES_DIR)
        for table in pathlib.Path(work).iterdir():
            files.copy(table, folder / table.name)


def write_tables(listing: Listing, found: dict[str, videos.Found], where: pathlib.Path) -> tables.Tables:
    """Writes a listing as the project's tables and a file of its classes, and reads them back.

    Raises cli.UsageError if there are no clips, or if classes differ only by case, Unicode form or spaces.
    """
    if not listing.clips:
        raise cli.UsageError('the annotation files list no clips; fetch them again, they may be empty')
    for group in labels.alike(collections.Counter(listing.classes)):
        raise cli.UsageError(
            f'the annotations spell a class as {labels.show(group)}; write one of them everywhere in the annotations'
        )
    content = {
        'clips.csv': [_clip_row(clip, found.get(clip.clip_id)) for clip in listing.clips],
        'events.csv': listing.events,
        'boxes.csv': listing.boxes,
        'presence.csv': listing.presence,
    }
    for file, columns in TABLES.items():
        rows.write_rows(where / file, columns, content[file])
    (where / CLASSES_FILE).write_text(''.join(f'{name}\n' for name in listing.classes), encoding='utf-8')
    return tables.read_tables(
        *(where / name for name in ('clips.csv', 'events.csv', 'boxes.csv', CLASSES_FILE, 'presence.csv'))
    )


def _clip_row(clip: ListedClip, found: videos.Found | None) -> tuple:
    # A clip without a file keeps its expected name, so that preparation counts it as missing.
    found = found or videos.Found(f'{clip.names[0].stem}.mp4')
    return clip.clip_id, found.path, found.start, found.end, clip.split, '|'.join(clip.labels)
