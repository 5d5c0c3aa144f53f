"""Prepares VGGSound (309 classes, one per clip), with VGG-SS and VGGSounder for its test clips.

  python -m data_prep.vggsound --annotations=DIR_OR_CSV --videos=DIR --out=DATA [--vggss=vggss.json]
  [--vggsounder=vggsounder.csv]

VGG-SS has boxes, and VGGSounder has labels by modality. Annotations: vggsound.csv, or train.csv and test.csv
(github.com/hche11/VGGSound, data/). Videos: any of the names in videos.py, at any depth. There is no official val
split; --val=0.02 takes whole source videos from train.
"""

import collections
import dataclasses
import hashlib
import pathlib
import re

from absl import flags

from data_prep import cli, published, vggsounder, vggss, videos
from data_prep.rows import Row, collect, read_lines, read_rows

FLAGS = flags.FlagValues()
define = cli.definers(FLAGS)
define.string('annotations', None, 'Folder with vggsound.csv or train.csv and test.csv, or one file.', required=True)
define.string('videos', None, 'Folder with the videos, at any depth.', required=True)
define.string('vggss', None, 'vggss.json: boxes for test clips.')
define.string('vggsounder', None, 'vggsounder.csv: labels by modality for test clips.')
define.string('train_list', None, 'Text file of the clips to train on, ID_000030 one a line.')
define.bool('drop_test_clips', False, 'Leave test clips out of --train_list instead of refusing it.')
define.float('val', 0.0, 'Part of the source videos of train that becomes val.', lower_bound=0, upper_bound=0.5)
published.define_flags(FLAGS, 'vggsound', square=False)

CLASSES = 309
SECONDS = 10
_ONE_FILE = ('id', 'start', 'label', 'split')
_SPLIT_FILE = ('file', 'label')


def main(beam: list[str]) -> None:
    listing = read(pathlib.Path(FLAGS.annotations))
    if FLAGS.train_list:
        restrict_train(listing, FLAGS.train_list, FLAGS.vggss, drop=FLAGS.drop_test_clips)
    carve_val(listing, FLAGS.val)
    if FLAGS.vggss:
        vggss.attach(FLAGS.vggss, listing)
    if FLAGS.vggsounder:
        vggsounder.attach(FLAGS.vggsounder, listing)
    published.prepare_videos(FLAGS, listing, beam)


def read(path: pathlib.Path) -> published.Listing:
    """Reads a folder of VGGSound's files, or one file.

    Raises TableError, and cli.UsageError if none of the files is there.
    """
    folder = path if path.is_dir() else path.parent
    files = [path] if path.is_file() else [folder / 'vggsound.csv']
    if not files[0].is_file():
        files = [folder / name for name in ('train.csv', 'test.csv') if (folder / name).is_file()]
    if not files:
        raise cli.UsageError(
            f'--annotations={path} holds no vggsound.csv, train.csv or test.csv; give their folder, or a file'
        )
    with collect() as faults:
        stat = folder / 'stat.csv'
        known = (
            sorted(row.cells['class'] for row in _rows(stat, ('class', 'count', 'group'), faults))
            if stat.is_file()
            else []
        )
        listed = [_clip(row, file, known) for file in files for row in _rows(file, _columns(file), faults)]
    remarks: list[str] = []
    clips = _once([clip for clip in listed if clip], remarks)
    classes = known or sorted({label for clip in clips for label in clip.labels})
    remarks.insert(
        0,
        f'annotations: {", ".join(map(str, files))}; classes: {"stat.csv" if known else "the labels found"}, in '
        'alphabetical order',
    )
    if len(classes) < CLASSES:
        remarks.append(
            f'{len(classes)} classes where VGGSound has {CLASSES}; put its stat.csv beside the annotations to have all'
        )
    remarks += _shared_sources(clips)
    return published.Listing(tuple(classes), clips, remarks=remarks)


def _rows(file: pathlib.Path, columns: tuple[str, ...], faults: list[str]) -> list[Row]:
    return list(read_rows(file, columns, faults, header=False))


def _columns(file: pathlib.Path) -> tuple[str, ...]:
    """Returns the columns of a file.

    train.csv and test.csv have a file and a label; the split is in their names.
    """
    return _SPLIT_FILE if file.stem in ('train', 'test') else _ONE_FILE


def _clip(row: Row, file: pathlib.Path, known: list[str]) -> published.ListedClip | None:
    cells = row.cells
    if 'file' in cells:
        match = re.fullmatch(r'([\w-]{11})_(\d{6})(\.mp4)?', cells['file'].strip())
        if not match:
            row.fault('file', 'a file such as -0BIyqJj9ZU_000030.mp4')
        source, start = match.group(1, 2) if match else ('', '')
        split = file.stem
    else:
        source = row.check('id', re.compile(r'[\w-]{11}').fullmatch, 'a YouTube id of 11 characters')
        start = row.check('start', str.isdecimal, 'a whole second')
        split = row.check('split', lambda text: text in ('train', 'test'), 'train or test')
    label = row.check(
        'label', lambda text: text and (not known or text in known), 'a class of stat.csv' if known else 'a label'
    )
    if row.bad:
        return None
    clip_id = f'{source}_{int(start):06d}'
    return published.ListedClip(
        clip_id, source, split, (label,), videos.possible_names(source, int(start), int(start) + SECONDS)
    )


def _once(clips: list[published.ListedClip], remarks: list[str]) -> list[published.ListedClip]:
    """Returns each clip once: its test row if there are train and test rows, otherwise its first row."""
    kept: dict[str, published.ListedClip] = {}
    repeated: dict[str, bool] = {}
    for clip in clips:
        first = kept.setdefault(clip.clip_id, clip)
        if first is clip:
            continue
        repeated[clip.clip_id] = repeated.get(clip.clip_id, False) or (first.split, first.labels) != (
            clip.split,
            clip.labels,
        )
        if (first.split, clip.split) == ('train', 'test'):
            kept[clip.clip_id] = clip
    if repeated:
        described = [clip_id + (' (contradicting)' if differs else '') for clip_id, differs in repeated.items()]
        remarks.append(
            videos.named('clips listed several times, of which the test row, or else the first, is kept', described)
        )
    return list(kept.values())


def _shared_sources(clips: list[published.ListedClip]) -> list[str]:
    splits_of = collections.defaultdict(set)
    for clip in clips:
        splits_of[clip.source].add(clip.split)
    count = collections.Counter(clip.source for clip in clips)
    several = [source for source, number in count.items() if number > 1]
    remarks = [f'{len(clips)} clips of {len(count)} source videos; {len(several)} source videos give several clips']
    straddling = [clip.clip_id for clip in clips if clip.split == 'test' and 'train' in splits_of[clip.source]]
    if straddling:
        remarks.append(videos.named('test clips whose source video gives training clips too', straddling))
    return remarks


def restrict_train(listing: published.Listing, path: str, boxes: str | None, *, drop: bool) -> None:
    """Keeps only the training clips that a list names.

    Raises cli.UsageError if the list names test clips, unless `drop` is set. Some lists that are in use
    (vggss_144k.txt) hold thousands of VGGSound's test clips, and most of VGG-SS.
    """
    with collect() as faults:
        named = {re.sub(r'\.\w+$', '', line) for line in read_lines(path, 'a clip a line, ID_000030', faults)}
    split_of = {clip.clip_id: clip.split for clip in listing.clips}
    test = sorted(name for name in named if split_of.get(name) == 'test')
    scored = sorted(named & vggss.clip_ids(boxes)) if boxes else []
    if (test or scored) and not drop:
        raise cli.UsageError(
            f'--train_list={path} names {len(test)} clips of the test split and {len(scored)} of VGG-SS '
            f'(the first: {", ".join((test + scored)[:3])}); add --drop_test_clips to train without them'
        )
    dropped = sorted({*test, *scored})
    unknown = sorted(named - set(split_of))
    wanted = named - set(dropped)
    before = sum(clip.split == 'train' for clip in listing.clips)
    listing.clips = [clip for clip in listing.clips if clip.split != 'train' or clip.clip_id in wanted]
    after = sum(clip.split == 'train' for clip in listing.clips)
    listing.remarks.append(f'{path}: {len(named)} names, {after} of {before} training clips kept')
    listing.remarks += videos.named_all(
        (f'names of {path} are test clips and left out', dropped), (f'names of {path} are in no annotation', unknown)
    )


def carve_val(listing: published.Listing, part: float) -> None:
    """Moves a fraction of the source videos of train to val, so that no video has clips in both.

    The videos are selected by a hash of their YouTube id.
    """

    def is_val(clip: published.ListedClip) -> bool:
        number = int.from_bytes(hashlib.sha256(clip.source.encode()).digest()[:8], 'big')
        return clip.split == 'train' and number < part * 2**64

    moved = [dataclasses.replace(clip, split='val') if is_val(clip) else clip for clip in listing.clips]
    if part:
        count = sum(clip.split == 'val' for clip in moved)
        listing.remarks.append(f'--val={part:g}: {count} clips of whole source videos moved from train to val')
    listing.clips = moved


if __name__ == '__main__':
    cli.run(main, FLAGS, __doc__)
