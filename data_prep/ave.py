"""Prepares AVE (Tian et al. 2018): 4,143 clips of ten seconds, each with one of 28 audio-visual events.

  python -m data_prep.ave --annotations=DIR --videos=DIR --out=DATA [--clean]
  python -m data_prep.ave --annotations=DIR --features=DIR --out=DATA [--clean]

The event is both heard and seen for some of the seconds. Annotations: Annotations.txt and train_order.h5, val_order.h5,
test_order.h5. Features: visual_feature.h5 and audio_feature.h5, and the background clips of weakly supervised training,
*_feature_noisy.h5. A clip is a row of Annotations.txt, since 45 ids occur more than once, with different labels;
`--clean` leaves out the rows of those ids that are in several splits.
"""

import collections
import csv
import pathlib
import re

import numpy as np
from absl import flags

from data_prep import cli, extras, features, prepare, published, videos
from data_prep.rows import Row, collect, read_rows

FLAGS = flags.FlagValues()
define = cli.definers(FLAGS)
define.string('annotations', None, 'Folder with Annotations.txt and *_order.h5.', required=True)
define.string('videos', None, 'Folder with the videos ID.mp4, cut to ten seconds.')
define.string('features', None, 'Folder with visual_feature.h5 and audio_feature.h5.')
define.bool('clean', False, 'Leave out the clips whose video is in several splits.')
published.define_flags(FLAGS, 'ave')
flags.mark_flags_as_mutual_exclusive(['videos', 'features'], required=True, flag_values=FLAGS)

SPLITS = ('train', 'val', 'test')
SECONDS = 10
_COLUMNS = ('category', 'id', 'quality', 'start', 'end')


def main(beam: list[str]) -> None:
    listing = read(pathlib.Path(FLAGS.annotations), clean=FLAGS.clean)
    if FLAGS.videos:
        published.prepare_videos(FLAGS, listing, beam)
        return
    folder = published.folder(FLAGS, 'features', 'the folder with visual_feature.h5 and audio_feature.h5')
    more = background(folder, pathlib.Path(FLAGS.annotations), listing)
    published.prepare_features(FLAGS, listing, folder, features.h5_record, features.AVE_SPEC, beam, more)


def read(folder: pathlib.Path, *, clean: bool = False) -> published.Listing:
    """Reads the annotations with the official split; the clips are in the order of their rows.

    Raises:
      TableError: there are faults in Annotations.txt.
      cli.UsageError: the order files do not assign each row of Annotations.txt to one split.
    """
    path = folder / 'Annotations.txt'
    with collect() as faults:
        # Class names contain commas, so the delimiter is &; nothing is quoted.
        rows = list(read_rows(path, _COLUMNS, faults, delimiter='&', header=False, quoting=csv.QUOTE_NONE))
        # The copy in the zip has a header, which the order files do not count.
        header = bool(rows) and rows[0].cells['category'] == 'Category'
        rows = rows[header:]
        parsed = [_parse(row) for row in rows]
    split_of = _splits(folder, len(rows))
    listing = published.Listing(tuple(dict.fromkeys(label for _, label, *_ in parsed)), [])
    if header:
        listing.remarks.append(f'{path}: has a header, which is not counted as a row')
    empty = []
    for number, (source, label, start, end) in enumerate(parsed):
        clip_id = f'{source}_{number}'
        names = (videos.Name(source, 'ID'), videos.Name(f'Y{source}', 'YID'))
        payload = {'file': 'main', 'row': number}
        listing.clips.append(published.ListedClip(clip_id, source, split_of[number], (label,), names, payload))
        if start < end:
            listing.events.append((clip_id, label, start, end, 'both'))
        else:
            empty.append(f'line {rows[number].line} {clip_id}')
    if empty:
        listing.remarks.append(videos.named('rows of no length, which are background throughout', empty))
    _remark_doubles(listing, clean)
    return listing


def _parse(row: Row) -> tuple[str, str, float | None, float | None]:
    source = row.check('id', re.compile(r'[\w-]{11}').fullmatch, 'a YouTube id of 11 characters')
    label = row.check('category', lambda text: text and text.isprintable(), 'a class')
    start, end = (row.number(column, 'seconds', least=0, most=SECONDS) for column in ('start', 'end'))
    if start is not None and end is not None and end < start:
        row.fault('end', f'start, {start:g}, or more')
    return source, label, start, end


def _splits(folder: pathlib.Path, count: int) -> dict[int, str]:
    """Returns the split of each row. The files *_order_match.h5 in the same folder belong to another task."""
    split_of: dict[int, str] = {}
    for split in SPLITS:
        path = folder / f'{split}_order.h5'
        order = _table(path).tolist()
        twice = len(order) - len({*order} - {*split_of})
        if twice:
            raise cli.UsageError(
                f'{path}: {twice} rows are there twice or in another order too; expected each row once'
            )
        split_of.update(dict.fromkeys(order, split))
    if split_of.keys() != set(range(count)):
        raise cli.UsageError(
            f'{folder}: the orders hold {len(split_of)} rows from {min(split_of)} to {max(split_of)}; expected 0 to '
            f'{count - 1}, '
            'those of Annotations.txt; give the files of one release (not *_order_match.h5)'
        )
    return split_of


def _table(path: pathlib.Path) -> np.ndarray:
    """Returns the only table of a small HDF5 file."""
    try:
        with extras.load('h5py', 'prep').File(path) as file:
            return next(iter(file.values()))[:]
    except (OSError, StopIteration) as error:
        raise cli.UsageError(
            f'{path} cannot be read ({error}); expected the HDF5 file that AVE is published with'
        ) from None


def _remark_doubles(listing: published.Listing, clean: bool) -> None:
    """Adds remarks on ids that occur several times.

    If `clean` is set, clips whose video is in several splits are left out.
    """
    splits_of = collections.defaultdict(list)
    for clip in listing.clips:
        splits_of[clip.source].append(clip.split)
    doubles = [source for source, splits in splits_of.items() if len(splits) > 1]
    straddling = {source for source in doubles if len(set(splits_of[source])) > 1}
    if doubles:
        listing.remarks.append(videos.named('ids occur in several rows, with different labels', doubles))
    if straddling and not clean:
        finding = 'of them are in several splits, a leak in the official split (--clean leaves them out)'
        listing.remarks.append(videos.named(finding, sorted(straddling)))
    if clean:
        dropped = [clip.clip_id for clip in listing.clips if clip.source in straddling]
        listing.remarks.append(
            videos.named('clips left out by --clean, since their video is in several splits', dropped)
        )
        listing.clips = [clip for clip in listing.clips if clip.source not in straddling]
        listing.events = [event for event in listing.events if event[0] not in set(dropped)]


def background(folder: pathlib.Path, annotations: pathlib.Path, listing: published.Listing) -> list[prepare.Job]:
    """Returns jobs without a label for the background clips that weakly supervised training adds to train.

    The data set becomes multi-label, so that no class at all is a possible answer. Raises cli.UsageError if the feature
    files do not have a row for each row of the annotations, or the noisy ones do not have a row for each row of
    labels_noisy.h5.
    """
    rows = 1 + max((clip.payload['row'] for clip in listing.clips), default=-1)
    held = features.count_rows(folder, 'main', features.AVE_SPEC)
    if held < rows:
        raise cli.UsageError(f'--features={folder}: {held} clips, expected {rows}, as many as Annotations.txt has rows')
    if not any((folder / name).exists() for name in features.H5_FILES['noisy']):
        listing.remarks.append(f'{folder}: no background clips ({", ".join(features.H5_FILES["noisy"])} are not there)')
        return []
    count = features.count_rows(folder, 'noisy', features.AVE_SPEC)
    labels = next(
        (place / 'labels_noisy.h5' for place in (folder, annotations) if (place / 'labels_noisy.h5').exists()), None
    )
    if labels and (_table(labels).argmax(-1) != len(listing.classes)).any() | (len(_table(labels)) != count):
        raise cli.UsageError(
            f'{labels}: expected {count} rows of background, column {len(listing.classes)}, as many as there are '
            'features'
        )
    listing.remarks.append(f'{folder}: {count} background clips without a label added to train')
    listing.multi_label = True
    return [
        prepare.Job(f'background_{row:03d}', 'train', (), payload={'file': 'noisy', 'row': row}) for row in range(count)
    ]


if __name__ == '__main__':
    cli.run(main, FLAGS, __doc__)
