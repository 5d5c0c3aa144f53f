"""Finds the video files of published clips, whose names have many forms and do not always identify the clip.

The possible names of a clip are -0BIyqJj9ZU_000030 (VGGSound), -0BIyqJj9ZU_30000_40000 (ms),
-0BIyqJj9ZU_000030_000040 (Kinetics), -0BIyqJj9ZU_30_40 (LLP), -0BIyqJj9ZU_30, Y-0BIyqJj9ZU (cut out, PANNs) and
-0BIyqJj9ZU (the whole video).

The times of these names may be written in any way: -0BIyqJj9ZU_30.000_40.000, -0BIyqJj9ZU_030, -0BIyqJj9ZU-30,
Y-0BIyqJj9ZU_30_40. published.py writes the paths into the clips table.
"""

import collections
import dataclasses
import os
import pathlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

from stattn_jax.data import video_files

_NAMED = 50
_SEPARATOR = r'[-_. ]+'
_TIME = r'(\d+(?:\.\d+)?)s?'
_TIMED = re.compile(f'([\\w-]{{11}}){_SEPARATOR}{_TIME}(?:{_SEPARATOR}(?:to{_SEPARATOR})?{_TIME})?', re.ASCII)


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


def possible_names(source: str, start: float, end: float, *, whole: bool = True) -> tuple[Name, ...]:
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

    Remarks on the forms of names that were found, on every doubt, and on files that are not used are added to
    `remarks`. A file is found by its exact name first, then by the times in its name, however they are written.
    wanted: clip_id -> (source video of the clip, names to try in this order).
    """
    files = Files(folder, remarks)
    clips_of = collections.Counter(source for source, _ in wanted.values())
    found, doubtful = {}, []
    forms: collections.Counter[str] = collections.Counter()
    searched: set[str] = set()
    for clip_id, (source, options) in wanted.items():
        there = [(name, path, how) for name in options for path, how in files.of_stem(name.stem)]
        # A file of the clip goes before one of the whole video, and an exact name before another spelling.
        there.sort(key=lambda item: (item[0].vague or item[0].start is not None, bool(item[2])))
        searched.update(path for _, path, _ in there)
        sure = [item for item in there if not item[0].vague or clips_of[source] == 1]
        if sure:
            name, path, how = sure[0]
            found[clip_id] = Found(path, name.start, name.end)
            forms[name.form + how] += 1
        elif there:
            doubtful.append(f'{clip_id} ({there[0][1]})')
    remarks.append(f'{folder}: {len(files.paths)} video files; {len(found)} of {len(wanted)} clips are there')
    if found:
        remarks[-1] += ': ' + ', '.join(f'{count} as {form}' for form, count in forms.most_common())
    elif wanted:
        clip_id, (_, options) = next(iter(wanted.items()))
        remarks[-1] += (
            f'; {clip_id} for one was looked for as {", ".join(name.stem for name in options)} with '
            f'{", ".join(video_files.SUFFIXES)}'
        )
    if doubtful:
        remarks.append(named('clips not used, since the name of their file fits several clips of one video', doubtful))
    remarks += _unused(files, {file.path for file in found.values()}, searched)
    return found


def _unused(files: 'Files', used: set[str], searched: set[str]) -> list[str]:
    """Returns remarks on the files of a folder that are not used: copies, other files of clips, and all others."""
    copies = [paths for paths in files.of_exact.values() if len(paths) > 1 and paths[0] in used]
    twice = [f'{first}, not {", ".join(others)}' for first, *others in copies]
    known = {path for paths in copies for path in paths}
    return named_all(
        ('files of one name in several folders, of which the first in sorted order is used', twice),
        (
            'more files fit clips that have another file, or fit several clips; they are not used',
            sorted(searched - used - known),
        ),
        ('video files are of no clip of the annotations', sorted(set(files.paths) - searched)),
    )


class Files:
    """The video files below a folder, by their names without suffix; the Unicode form of names does not matter.

    paths: all files, sorted, relative to the folder. Links are followed, because large data sets may be spread over
      several disks. Folders that cannot be read are added to `remarks`.
    """

    def __init__(self, folder: pathlib.Path, remarks: list[str], suffixes: tuple[str, ...] = video_files.SUFFIXES):
        self.paths = _scan(folder, suffixes, remarks)
        self.of_exact: dict[str, list[str]] = {}
        self._of_times: dict[tuple, list[str]] = {}
        for path in self.paths:
            stem = _composed(pathlib.PurePath(path).stem)
            self.of_exact.setdefault(stem, []).append(path)
            for key in _times(stem):
                self._of_times.setdefault(key, []).append(path)

    def of_stem(self, stem: str) -> list[tuple[str, str]]:
        """Returns the files of a name as (path, how it differs from the name: '' or a remark)."""
        exact = self.of_exact.get(_composed(stem), [])
        alike = {path: None for key in _times(stem) for path in self._of_times.get(key, ()) if path not in exact}
        return [(path, '') for path in exact] + [(path, ' spelt otherwise') for path in alike]


def _composed(text: str) -> str:
    return unicodedata.normalize('NFC', text)


def _times(stem: str) -> list[tuple]:
    """Returns what a stem such as ID_000030 or ID-30.0-40.0 says, (ID, start, end or None).

    A Y before the ID does not count. There are two readings if the ID itself may begin with Y.
    """
    matches = (_TIMED.fullmatch(text) for text in dict.fromkeys((stem, stem.removeprefix('Y'))))
    return [(m[1], float(m[2]), m[3] and float(m[3])) for m in matches if m]


def match_paths(folder: pathlib.Path, wanted: Collection[str], remarks: list[str]) -> dict[str, str]:
    """Returns, for paths below a folder that are there only in another Unicode form, the path that is there.

    Remarks count these paths and the video files that are not wanted.
    """
    own = {pathlib.PurePosixPath(path).suffix.lower() for path in wanted} - {''}
    files = Files(folder, remarks, (*video_files.SUFFIXES, *own))
    exact = set(files.paths)
    of_composed: dict[str, str] = {}
    for path in files.paths:
        of_composed.setdefault(_composed(path), path)
    others = {}
    for path in dict.fromkeys(wanted):
        plain = str(pathlib.PurePosixPath(path))
        there = of_composed.get(_composed(plain))
        if there and plain not in exact and not os.path.exists(folder / path):
            others[path] = there
    used = {others.get(path, str(pathlib.PurePosixPath(path))) for path in wanted}
    shown = [f'{path!r} as {ascii(there)}' for path, there in others.items()]
    remarks += named_all(
        ('videos are found under another Unicode form of their name', shown),
        (
            f'video files in {folder} are in no row of the clips table',
            [path for path in files.paths if path not in used],
        ),
    )
    return others


def _scan(folder: pathlib.Path, suffixes: tuple[str, ...], remarks: list[str]) -> list[str]:
    """Returns the video files below a folder, sorted, as paths relative to it.

    Folders that cannot be read, and files whose names are not UTF-8, become remarks.
    """
    found = video_files.scan(folder, suffixes)
    remarks += named_all(
        ('folders cannot be read, so that videos in them are not found', found.unreadable),
        ('video files are left out, since their names are not UTF-8', found.not_utf8),
    )
    return found.paths


def named_all(*findings: tuple[str, Collection[str]]) -> list[str]:
    """Returns a remark for each (finding, items) that has any items."""
    return [named(finding, items) for finding, items in findings if items]


def named(finding: str, items: Iterable[str]) -> str:
    """Returns a remark with the number and the names of items, '3 clips without ...: a, b, c'; at most 50 names."""
    items = list(items)
    more = f', ... and {len(items) - _NAMED} more' if len(items) > _NAMED else ''
    return f'{len(items)} {finding}: {", ".join(items[:_NAMED])}{more}'
