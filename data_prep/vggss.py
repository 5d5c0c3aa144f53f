"""Reads VGG-SS (Chen et al. 2021): boxes of the sounding object in the middle frame of 5,158 VGGSound test clips.

`vggss.json` is a list of {"file": "zpWuikVorYg_000032", "class": "elk bugling", "bbox": [[x0, y0, x1, y1], ...]}, with
corners as fractions of the frame from its top left. 18 of the 5,941 boxes have no area or a corner at -2.9e16; two
clips have no other box. vggsound.py calls `attach`.
"""

import json
import os
from typing import Any

from data_prep import cli, published, videos

# Time (s) of the middle frame of clips of ten seconds, in which the boxes were drawn.
TIME = 5.0


def clip_ids(path: str | os.PathLike) -> set[str]:
    """Returns the clips that have an entry; raises cli.UsageError if the file is not the one of VGG-SS."""
    return {item['file'] for item in _read(path)}


def attach(path: str | os.PathLike, listing: published.Listing) -> None:
    """Adds the valid boxes to a listing of VGGSound.

    Raises cli.UsageError if a clip of the listing is not a test clip or has another class there.
    """
    clips = {clip.clip_id: clip for clip in listing.clips}
    unknown, broken, unscorable = [], [], []
    for item in _read(path):
        clip_id, label, boxes = item['file'], item['class'], item['bbox']
        clip = clips.get(clip_id)
        if clip is None:
            unknown.append(clip_id)
            continue
        if clip.split != 'test' or clip.labels != (label,):
            raise cli.UsageError(
                f'{path}: {clip_id} is {label!r} there, and {clip.labels[0]!r} of the {clip.split} split in the '
                'annotations; '
                'expected the same class, and a test clip; give the files of one release'
            )
        sound = [box for box in boxes if _is_sound(box)]
        broken += [f'{clip_id} {box}' for box in boxes if not _is_sound(box)]
        if not sound:
            unscorable.append(clip_id)
        listing.boxes += [(clip_id, TIME, label, *box) for box in sound]
    listing.remarks.append(
        f'{path}: {len(listing.boxes)} boxes of {len({box[0] for box in listing.boxes})} clips, at {TIME:g} s'
    )
    listing.remarks += videos.named_all(
        (f'boxes of {path} without area or outside the frame left out', broken),
        (f'clips of {path} without a sound box, which cannot be scored', unscorable),
        (f'clips of {path} that are not in the annotations', unknown),
    )


def _is_sound(box: list[float]) -> bool:
    x0, y0, x1, y1 = box
    return 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1


def _read(path: str | os.PathLike) -> list[dict[str, Any]]:
    try:
        with open(path, encoding='utf-8-sig') as file:
            items = json.load(file)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise cli.UsageError(f'{path} cannot be read ({error}); expected the vggss.json of VGG-SS') from None
    for number, item in enumerate(items if isinstance(items, list) else [items]):
        if not _is_item(item):
            raise cli.UsageError(
                f'{path}: item {number} is {json.dumps(item)[:80]}; expected '
                f'{{"file": "ID_000030", "class": ..., "bbox": [[x0, y0, x1, y1], ...]}}'
            )
    return items


def _is_item(item: Any) -> bool:
    if not isinstance(item, dict) or {'file', 'class', 'bbox'} - set(item) or not isinstance(item['bbox'], list):
        return False
    numbers = [
        isinstance(box, list) and len(box) == 4 and all(isinstance(x, int | float) for x in box) for box in item['bbox']
    ]
    return isinstance(item['file'], str) and isinstance(item['class'], str) and all(numbers)
