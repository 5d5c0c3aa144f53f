"""Reads VGGSounder (Zverev et al. 2025): several labels per VGGSound test clip, each heard, seen or both.

`vggsounder.csv` has a row for each clip and label: video_id,label,modality (A, V or
AV),background_music,static_image,voice_over. The rows become records.Presence; the clip's own label stays that of
VGGSound. vggsound.py calls `attach`.
"""

import os

from data_prep import published, videos
from data_prep.rows import collect, read_rows

FLAGS = ('background_music', 'static_image', 'voice_over')
MODALITIES = {'A': 'audio', 'V': 'visual', 'AV': 'both'}


def attach(path: str | os.PathLike, listing: published.Listing) -> None:
    """Adds the rows to a listing of VGGSound; raises TableError.

    Rows of unknown clips and labels are counted and named in a remark.
    """
    known, classes = {clip.clip_id for clip in listing.clips if clip.split == 'test'}, set(listing.classes)
    lines: dict[tuple[str, str], int] = {}
    strange_clips: dict[str, None] = {}
    strange_labels: dict[str, None] = {}
    repeated: list[str] = []
    with collect() as faults:
        for row in read_rows(path, ('video_id', 'label', 'modality', *FLAGS), faults):
            clip_id, label = row.cells['video_id'].strip(), row.cells['label'].strip()
            modality = row.check('modality', MODALITIES.__contains__, 'A, V or AV')
            flags = [
                flag for flag in FLAGS if row.check(flag, ('True', 'False').__contains__, 'True or False') == 'True'
            ]
            if row.bad:
                continue
            if clip_id not in known:
                strange_clips[clip_id] = None
            elif label not in classes:
                strange_labels[f'line {row.line} {label!r}'] = None
            elif lines.setdefault((clip_id, label), row.line) != row.line:
                repeated.append(f'line {row.line} (as line {lines[clip_id, label]})')
            else:
                listing.presence.append((clip_id, label, MODALITIES[modality], '|'.join(flags)))
    clips = {clip_id for clip_id, *_ in listing.presence}
    listing.remarks.append(f'{path}: {len(listing.presence)} labels of {len(clips)} clips')
    listing.remarks += videos.named_all(
        (f'clips of {path} that are not test clips of the annotations', strange_clips),
        (f'rows of {path} with a label that is no class', strange_labels),
        (f'rows of {path} that repeat a clip and label, of which the first is used', repeated),
    )
