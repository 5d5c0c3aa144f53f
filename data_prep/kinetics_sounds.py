"""Prepares Kinetics-Sounds: clips of Kinetics-400 whose action is both heard and seen.

  python -m data_prep.kinetics_sounds --annotations=FILE_OR_DIR --classes=NAME_OR_FILE --videos=DIR --out=DATA

There is no single list of its classes and no single split. Annotations: the csv files of Kinetics-400
(label,youtube_id,time_start,time_end,split), or the lists my_train.txt and my_test.txt of OGM-GE
(github.com/GeWu-Lab/OGM-GE_CVPR2022), which have class numbers and no names. Classes: CLASS_LISTS, or a text file of
one class a line.
"""

import pathlib
import re

from absl import flags

from data_prep import cli, published, videos
from data_prep.rows import Row, collect, read_lines, read_rows

# github.com/IBM/AdaMML, issue 3 (2022-03-22).
_ADAMML = (
    'blowing nose', 'blowing out candles', 'bowling', 'chopping wood', 'dribbling basketball', 'laughing',
    'mowing lawn',
    'playing accordion', 'playing bagpipes', 'playing bass guitar', 'playing clarinet', 'playing drums',
    'playing guitar',
    'playing harmonica', 'playing keyboard', 'playing organ', 'playing piano', 'playing saxophone', 'playing trombone',
    'playing trumpet', 'playing violin', 'playing xylophone', 'ripping paper', 'shoveling snow', 'shuffling cards',
    'singing',
    'stomping grapes', 'tap dancing', 'tapping guitar', 'tapping pen', 'tickling',
)  # fmt: skip
_NUMBERED = tuple(f'class {number:02d}' for number in range(31))
CLASS_LISTS = {
    'adamml31': _ADAMML,
    # github.com/pritamqu/CrissCross, issue 4 (2023-03-21).
    'crisscross32': tuple(sorted((*_ADAMML, 'strumming guitar'))),
    # The class numbers of OGM-GE's lists, unchanged.
    'ogmge31': _NUMBERED,
}
LISTS = {'train': 'my_train.txt', 'test': 'my_test.txt'}
_SPLITS = {'train': 'train', 'val': 'val', 'validate': 'val', 'validation': 'val', 'test': 'test'}
_COLUMNS = ('label', 'youtube_id', 'time_start', 'time_end', 'split')

FLAGS = flags.FlagValues()
define = cli.definers(FLAGS)
define.string(
    'annotations', None, 'Folder with the csv files of Kinetics-400 or the lists of OGM-GE, or one file.', required=True
)
define.string('classes', None, f'One of {", ".join(CLASS_LISTS)}, or a text file of one class a line.')
define.string('videos', None, 'Folder with the videos, at any depth.', required=True)
published.define_flags(FLAGS, 'kinetics_sounds', square=False)


def main(beam: list[str]) -> None:
    published.prepare_videos(FLAGS, read(pathlib.Path(FLAGS.annotations), FLAGS.classes), beam)


def read(path: pathlib.Path, classes: str | None) -> published.Listing:
    """Reads a file or a folder of them with the classes of a list; raises TableError and cli.UsageError."""
    names = _class_names(classes)
    if path.is_dir():
        lists = [path / name for name in LISTS.values() if (path / name).is_file()]
        files = lists or sorted(path.glob('*.csv'))
    else:
        files = [path]
    if not files:
        raise cli.UsageError(f'--annotations={path} holds no csv file, {" or ".join(LISTS.values())}')
    if any(file.name in LISTS.values() for file in files):
        return _read_lists(files, names, classes)
    if names == _NUMBERED:
        raise cli.UsageError(
            f'--classes={classes} numbers the classes of {", ".join(LISTS.values())}; {path} has names: give a list of '
            'names'
        )
    return _read_csv(files, names)


def _class_names(classes: str | None) -> tuple[str, ...]:
    known = (
        f'{", ".join(f"{name} ({len(names)} classes)" for name, names in CLASS_LISTS.items())}, or a text file of one '
        'class a line'
    )
    if not classes:
        raise cli.UsageError(f'--classes is missing: papers use different classes of Kinetics-400; give {known}')
    if classes in CLASS_LISTS:
        return CLASS_LISTS[classes]
    if not pathlib.Path(classes).is_file():
        raise cli.UsageError(f'--classes={classes} is no list and no file; give {known}')
    with collect() as faults:
        return tuple(read_lines(classes, 'a text file with one class a line', faults))


def _read_lists(files: list[pathlib.Path], names: tuple[str, ...], classes: str) -> published.Listing:
    """Reads OGM-GE's lists, whose columns are the clip, its length in seconds and the class number.

    Examples: -00nar1nEPc_000033_000043,10,13 in train and -3Mwkq-7TV4_2,10,23 in test.
    """
    if len(names) != len(_NUMBERED):
        raise cli.UsageError(
            f'--classes={classes} has {len(names)} classes; the lists of OGM-GE number {len(_NUMBERED)}, from 0'
        )
    split_of = {name: split for split, name in LISTS.items()}
    with collect() as faults:
        found = [
            _listed(row, split_of[file.name], names)
            for file in files
            for row in read_rows(file, ('clip', 'seconds', 'class'), faults, header=False)
        ]
    listing = published.Listing(names, [clip for clip in found if clip])
    if names == _NUMBERED:
        listing.remarks.append(
            'the lists name no classes; --classes=adamml31 would take their numbers as that list in its order'
        )
    else:
        listing.remarks.append(f'the lists name no classes; their numbers are taken as the lines of {classes}')
    missing = [name for name, file in LISTS.items() if file not in {path.name for path in files}]
    if missing:
        listing.remarks.append(
            f'no {" and no ".join(missing)} split: {", ".join(LISTS[name] for name in missing)} not there'
        )
    return listing


def _listed(row: Row, split: str, names: tuple[str, ...]) -> published.ListedClip | None:
    match = re.fullmatch(r'([\w-]{11})_(\d+)(?:_(\d+))?', row.cells['clip'].strip())
    if not match:
        row.fault('clip', 'a name such as -00nar1nEPc_000033_000043 or -3Mwkq-7TV4_2')
    seconds = row.number('seconds', 'the length of the clip in seconds', least=1)
    number = row.check(
        'class', lambda text: text.isdecimal() and int(text) < len(names), f'a class from 0 to {len(names) - 1}'
    )
    if row.bad:
        return None
    source, start = match.group(1), int(match.group(2))
    clip_id = match.group()
    options = (videos.Name(clip_id, 'as listed'), *videos.possible_names(source, start, start + seconds))
    return published.ListedClip(clip_id, source, split, (names[int(number)],), options)


def _read_csv(files: list[pathlib.Path], names: tuple[str, ...]) -> published.Listing:
    """Reads Kinetics' own tables and uses only the rows of the given classes."""
    with collect() as faults:
        rows = [row for file in files for row in read_rows(file, _COLUMNS, faults)]
        clips = [_clip(row) for row in rows if row.cells['label'].strip() in names]
    listing = published.Listing(names, clips)
    listing.remarks.append(
        f'{", ".join(map(str, files))}: {len(clips)} of {len(rows)} clips are of the {len(names)} classes'
    )
    absent = sorted(set(names) - {label for clip in clips for label in clip.labels})
    if absent:
        listing.remarks.append(videos.named('classes have no clip in the annotations', absent))
    return listing


def _clip(row: Row) -> published.ListedClip:
    source = row.check('youtube_id', re.compile(r'[\w-]{11}').fullmatch, 'a YouTube id of 11 characters')
    start = row.check('time_start', str.isdecimal, 'a whole second')
    end = row.check('time_end', str.isdecimal, 'a whole second')
    split = row.check('split', _SPLITS.__contains__, f'one of {", ".join(_SPLITS)}')
    if row.bad:
        start = end = '0'
    clip_id = f'{source}_{int(start):06d}_{int(end):06d}'
    # Kinetics' own form comes first, because a missing file is reported under the first name.
    options = sorted(videos.possible_names(source, int(start), int(end)), key=lambda name: name.stem != clip_id)
    return published.ListedClip(clip_id, source, _SPLITS.get(split, ''), (row.cells['label'].strip(),), tuple(options))


if __name__ == '__main__':
    cli.run(main, FLAGS, __doc__)
