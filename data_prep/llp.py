"""Prepares LLP (Tian et al. 2020): 11,849 clips of ten seconds with several of 25 events.

  python -m data_prep.llp --annotations=DIR --videos=DIR --out=DATA
  python -m data_prep.llp --annotations=DIR --features=DIR --out=DATA

The annotations of val and test give the times at which each event is heard and at which it is seen. Annotations:
AVVP_train.csv, AVVP_val_pd.csv, AVVP_test_pd.csv, AVVP_eval_audio.csv, AVVP_eval_visual.csv, all of them separated by
tabs (github.com/YapengTian/AVVP-ECCV20, data/). Features: vggish/ID.npy, res152/ID.npy, r2plus1d_18/ID.npy.
"""

import hashlib
import pathlib
import re

from absl import flags

from data_prep import cli, features, published, videos
from data_prep.rows import Row, collect, read_rows

FLAGS = flags.FlagValues()
define = cli.definers(FLAGS)
define.string('annotations', None, 'Folder with the AVVP_*.csv files.', required=True)
define.string('videos', None, 'Folder with the videos, at any depth.')
define.string('features', None, 'Folder with vggish, res152 and r2plus1d_18.')
published.define_flags(FLAGS, 'llp')
flags.mark_flags_as_mutual_exclusive(['videos', 'features'], required=True, flag_values=FLAGS)

WEAK = {'train': 'AVVP_train.csv', 'val': 'AVVP_val_pd.csv', 'test': 'AVVP_test_pd.csv'}
DENSE = {'audio': 'AVVP_eval_audio.csv', 'visual': 'AVVP_eval_visual.csv'}
# In the order of the authors' code, which evaluation scripts and saved predictions of other people use.
CLASSES = (
    'Speech', 'Car', 'Cheering', 'Dog', 'Cat', 'Frying_(food)', 'Basketball_bounce', 'Fire_alarm', 'Chainsaw', 'Cello',
    'Banjo',
    'Singing', 'Chicken_rooster', 'Violin_fiddle', 'Vacuum_cleaner', 'Baby_laughter', 'Accordion', 'Lawn_mower',
    'Motorcycle',
    'Helicopter', 'Acoustic_guitar', 'Telephone_bell_ringing', 'Baby_cry_infant_cry', 'Blender', 'Clapping',
)  # fmt: skip
SECONDS = 10
# SHA-256 of AVVP_eval_audio.csv with the three rows that were corrected in April 2024, and size (bytes) without.
MENDED_SHA256 = 'd5435664668bec6e7eafb39059d2f424ed2682f6b55395262fc3cb691b7d0778'
BROKEN_SIZE = 134_360


def main(beam: list[str]) -> None:
    listing = read(pathlib.Path(FLAGS.annotations))
    if FLAGS.videos:
        published.prepare_videos(FLAGS, listing, beam)
        return
    folder = published.folder(FLAGS, 'features', 'the folder with vggish, res152 and r2plus1d_18')
    published.prepare_features(FLAGS, listing, folder, features.npy_record, features.LLP_SPEC, beam)


def read(folder: pathlib.Path) -> published.Listing:
    """Reads the annotations; raises TableError.

    Overlapping intervals of one class are kept, because scores are computed per second, not per row.
    """
    listing = published.Listing(CLASSES, [], multi_label=True)
    with collect() as faults:
        for split, name in WEAK.items():
            rows = list(read_rows(folder / name, ('filename', 'event_labels'), faults, delimiter='\t'))
            clips = [_clip(row, split) for row in rows]
            listing.clips += filter(None, clips)
            repeated = [
                f'line {row.line} {row.cells["event_labels"]}'
                for row in rows
                if len(set(_labels(row))) < len(_labels(row))
            ]
            if repeated:
                listing.remarks.append(videos.named(f'rows of {name} name a label twice, which is used once', repeated))
        annotated = {clip.clip_id: clip.split for clip in listing.clips if clip.split != 'train'}
        for modality, name in DENSE.items():
            columns = ('filename', 'onset', 'offset', 'event_labels')
            rows = list(read_rows(folder / name, columns, faults, delimiter='\t'))
            events = _events(rows, modality, name, annotated, listing.remarks)
            listing.events += events
            without = sorted(set(annotated) - {clip_id for clip_id, *_ in events})
            counts = ', '.join(
                f'{sum(annotated[clip_id] == split for clip_id in without)} in {split}' for split in ('val', 'test')
            )
            listing.remarks.append(videos.named(f'clips have no {modality} event ({counts})', without))
    listing.remarks.append(_version(folder / DENSE['audio']))
    return listing


def _clip(row: Row, split: str) -> published.ListedClip | None:
    # The id is the first 11 characters, since it may contain _ itself; five clips begin at a fraction of a second.
    match = re.fullmatch(r'([\w-]{11})_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)', row.cells['filename'].strip())
    if not match:
        row.fault('filename', 'a name such as BjCEufrlXm4_20_30')
    labels = tuple(dict.fromkeys(_labels(row)))
    if not labels or not set(labels) <= set(CLASSES):
        row.fault('event_labels', f'some of the {len(CLASSES)} classes joined by commas')
    if row.bad:
        return None
    source, start, end = match.groups()
    clip_id = match.group()
    names = (videos.Name(clip_id, 'ID_30_40'), *videos.possible_names(source, float(start), float(end), whole=False))
    return published.ListedClip(clip_id, source, split, labels, names, {'id': source})


def _labels(row: Row) -> list[str]:
    return row.cells['event_labels'].strip().split(',')


def _events(rows: list[Row], modality: str, name: str, annotated: dict[str, str], remarks: list[str]) -> list[tuple]:
    """Returns the rows as rows of the events table; unusable rows are left out and named in a remark."""
    events: dict[tuple, None] = {}
    empty, repeated = [], []
    unknown: dict[str, list[int]] = {}
    for row in rows:
        clip_id = row.cells['filename'].strip()
        onset = row.number('onset', 'seconds', least=0, most=SECONDS)
        offset = row.number('offset', 'seconds', least=0, most=SECONDS)
        label = row.check('event_labels', CLASSES.__contains__, f'one of the {len(CLASSES)} classes')
        if row.bad:
            continue
        event = (clip_id, label, onset, offset, modality)
        described = f'line {row.line} {clip_id} {onset:g}-{offset:g} {label}'
        if onset >= offset:
            empty.append(described)
        elif clip_id not in annotated:
            unknown.setdefault(clip_id, []).append(row.line)
        elif event in events:
            repeated.append(described)
        else:
            events[event] = None
    names = [f'{clip_id} (lines {", ".join(map(str, lines))})' for clip_id, lines in unknown.items()]
    remarks += videos.named_all(
        (f'empty or inverted intervals of {name} left out', empty),
        (f'names of {name} are not in val or test, and left out', names),
        (f'rows of {name} repeat another exactly, which counts once', repeated),
    )
    return list(events)


def _version(path: pathlib.Path) -> str:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest == MENDED_SHA256:
        version = 'the version of April 2024'
    elif len(content) == BROKEN_SIZE:
        version = 'the version before April 2024, of which three rows are broken: fetch it anew'
    else:
        version = 'neither the version of April 2024 nor the one before'
    return f'{path}: {len(content)} bytes, SHA-256 {digest}: {version}'


if __name__ == '__main__':
    cli.run(main, FLAGS, __doc__)
