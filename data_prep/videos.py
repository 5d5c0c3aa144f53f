"""Finds the video files of published clips, whose names have many forms and do not always identify the clip.

  names('-0BIyqJj9ZU', 30, 40)   -0BIyqJj9ZU_000030 (VGGSound), -0BIyqJj9ZU_30000_40000 (ms), -0BIyqJj9ZU_000030_000040
                                 (Kinetics), -0BIyqJj9ZU_30_40 (LLP), -0BIyqJj9ZU_30, Y-0BIyqJj9ZU (cut out, PANNs),
                                 -0BIyqJj9ZU (the whole video)

published.py writes the paths into the clips table.
"""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence

SUFFIXES = ('.mp4', '.mkv', '.webm', '.avi', '.mov', '.m4v', '.flv', '.3gp', '.mpg', '.mpeg', '.ts', '.wmv')
_NAMED = 50


@dataclasses.dataclass(frozen=True)
class Name:
    """A stem that a clip's file may have.

    form: the pattern of the stem, for the report.
    start, end: the interval (s) of the clip in that file; None: the file's start or end.
    vague: the stem names the source video only, so it may be any of several clips cut from it.
    """

    stem: str
    form: str
    start: float | None = None
    end: float | None = None
    vague: bool = False


def names(source: str, start: float, end: float, *, whole: bool = True) -> tuple[Name, ...]:
    """Returns the names of the clip [start, end) (s) of a YouTube video, unambiguous names first.

    whole: a file named by the id alone is the whole video, of which the clip is a part; otherwise it is the clip.
    """
    forms = {
        'ID_000030': f'{source}_{start:06g}',
        'ID_000030_000040': f'{source}_{start:06g}_{end:06g}',
        'ID_30000_40000': f'{source}_{1000 * start:.0f}_{1000 * end:.0f}',
        'ID_30_40': f'{source}_{start:g}_{end:g}',
        'ID_30': f'{source}_{start:g}',
    }
    alone = Name(source, 'ID', start, end) if whole else Name(source, 'ID', vague=True)
    return (*(Name(stem, form) for form, stem in forms.items()), Name(f'Y{source}', 'YID', vague=True), alone)


@dataclasses.dataclass(frozen=True)
class Found:
    """A clip's file, relative to the videos folder, and the interval (s) of the clip in it."""

    path: str
    start: float | None = None
    end: float | None = None


def locate(
    folder: pathlib.Path, wanted: Mapping[str, tuple[str, Sequence[Name]]], remarks: list[str]
) -> dict[str, Found]:
    """Returns the file of each clip that has one.

    Remarks on the forms of names that were found, and on every doubt, are added to `remarks`.
    wanted: clip_id -> (source video of the clip, names to try in this order).
    """
    paths = _scan(folder)
    clips_of = collections.Counter(source for source, _ in wanted.values())
    found, forms, doubtful = {}, collections.Counter(), []
    for clip_id, (source, options) in wanted.items():
        there = [name for name in options if name.stem in paths]
        sure = [name for name in there if not name.vague or clips_of[source] == 1]
        if sure:
            found[clip_id] = Found(paths[sure[0].stem][0], sure[0].start, sure[0].end)
            forms[sure[0].form] += 1
        elif there:
            doubtful.append(f'{clip_id} ({paths[there[0].stem][0]})')
    remarks.append(
        f'{folder}: {sum(map(len, paths.values()))} video files; {len(found)} of {len(wanted)} clips are there'
    )
    if found:
        remarks[-1] += ': ' + ', '.join(f'{count} as {form}' for form, count in forms.most_common())
    elif wanted:
        clip_id, (_, options) = next(iter(wanted.items()))
        remarks[-1] += (
            f'; {clip_id} for one was looked for as {", ".join(name.stem for name in options)} with '
            f'{", ".join(SUFFIXES)}'
        )
    if doubtful:
        remarks.append(named('clips not used, since the name of their file fits several clips of one video', doubtful))
    used = {found_.path for found_ in found.values()}
    twice = [f'{first}, not {", ".join(others)}' for first, *others in paths.values() if others and first in used]
    if twice:
        remarks.append(named('files of one name in several folders, of which the first in sorted order is used', twice))
    return found


def _scan(folder: pathlib.Path) -> dict[str, list[str]]:
    """Returns the video files below a folder by stem, as sorted paths relative to the folder.

    Links are followed, because large data sets may be spread over several disks.
    """
    paths = []
    for parent, _, files in os.walk(folder, followlinks=True):
        paths += [
            os.path.relpath(os.path.join(parent, file), folder) for file in files if file.lower().endswith(SUFFIXES)
        ]
    stems: dict[str, list[str]] = {}
    for path in sorted(paths):
        stems.setdefault(pathlib.PurePath(path).stem, []).append(path)
    return stems


def named_all(*findings: tuple[str, Collection[str]]) -> list[str]:
    """Returns a remark for each (what, items) that has any items."""
    return [named(what, items) for what, items in findings if items]


def named(what: str, items: Iterable[str]) -> str:
    """Returns a remark with the number and the names of items, '3 clips without ...: a, b, c'; at most 50 names."""
    items = list(items)
    more = f', ... and {len(items) - _NAMED} more' if len(items) > _NAMED else ''
    return f'{len(items)} {what}: {", ".join(items[:_NAMED])}{more}'
