"""Finds the video files that a command line names: files, whole folders and patterns; gives their results names."""

import collections
import dataclasses
import glob
import os
import pathlib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

SUFFIXES = ('.mp4', '.mkv', '.webm', '.avi', '.mov', '.m4v', '.flv', '.3gp', '.mpg', '.mpeg', '.ts', '.wmv')


@dataclasses.dataclass(frozen=True)
class Scan:
    """The files below a folder.

    - paths: the video files, sorted, relative to the folder; not_utf8: those whose names are not UTF-8, in ASCII
    - others: the number of other files; unreadable: folders that cannot be read, with the reason
    """

    paths: list[str]
    not_utf8: list[str]
    others: int
    unreadable: list[str]


def scan(folder: str | os.PathLike, suffixes: tuple[str, ...] = SUFFIXES) -> Scan:
    """Lists the files below a folder, which are videos if their names end with one of `suffixes` in either case.

    Links are followed, because large data sets may be spread over several disks.
    """
    found, unreadable, others = [], [], 0
    waiting: list[tuple[str, frozenset]] = [(str(folder), frozenset())]
    while waiting:
        parent, above = waiting.pop()
        try:
            status = os.stat(parent)
            entries = list(os.scandir(parent))
        except OSError as error:
            unreadable.append(f'{parent} ({error.strerror})')
            continue
        place = (status.st_dev, status.st_ino)
        # A link to a folder that contains it would be followed forever.
        if place in above:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path)):
                waiting.append((entry.path, above | {place}))
            # macOS keeps further data of a file NAME in ._NAME on disks of other systems.
            elif entry.name.lower().endswith(suffixes) and not entry.name.startswith('._'):
                found.append(os.path.relpath(entry.path, folder))
            else:
                others += 1
    not_utf8 = {path for path in found if not is_text(path)}
    return Scan(sorted(set(found) - not_utf8), sorted(map(ascii, not_utf8)), others, sorted(unreadable))


def is_text(path: str) -> bool:
    """Returns whether a path can be written to a table; bytes that are not UTF-8 are surrogates in it."""
    return not any('\ud800' <= character <= '\udfff' for character in path)


def identity(video: pathlib.Path) -> dict[str, Any]:
    """Returns values that identify a version of a video; only its path where it is missing."""
    named: dict[str, Any] = {'path': os.path.abspath(video)}
    try:
        status = os.stat(video)
    except OSError:
        return named
    return named | {'bytes': status.st_size, 'modified_ns': status.st_mtime_ns}


def printable(path: str) -> str:
    """Returns a path with escapes in place of bytes that are not UTF-8."""
    return path.encode(errors='backslashreplace').decode()


def find(arguments: Iterable[str]) -> tuple[list[pathlib.Path], list[str]]:
    """Returns the video files that `arguments` name, each once and in their order, and remarks on those left out.

    An argument is a file, whatever its suffix; a folder, which stands for every video file below it; or a pattern of
    `glob` (`**` for any number of folders), which stands for the files that match it: all of them if it states their
    suffix, otherwise those with the suffix of a video. A file that does not exist is returned too, for its reader to
    report.
    """
    found: dict[str, pathlib.Path] = {}
    remarks = []
    for argument in arguments:
        path = pathlib.Path(argument)
        paths: list[pathlib.Path]
        if not argument or not is_text(argument):
            paths, left_out = [], ['left out, since its name is not UTF-8; rename it'] if argument else []
        elif path.is_dir():
            paths, left_out = _in_folder(path)
        elif glob.has_magic(argument) and not path.exists():
            paths, left_out = _matching(argument)
        else:
            paths, left_out = [path], []
        remarks += [f'{printable(argument)}: {remark}' for remark in left_out]
        for each in paths:
            found.setdefault(os.path.realpath(each), each)
    return list(found.values()), remarks


def distinct_names(paths: Sequence[pathlib.Path], taken: Iterable[str] = ()) -> dict[pathlib.Path, str]:
    """Returns a distinct name for the results of each file: its stem, or as much of its path as tells it from others.

    Of a/clip.mp4, a/clip.mkv and b/clip.mkv these are clip.mp4, a_clip.mkv and b_clip.mkv. Names that differ only in
    case or Unicode form count as equal, as on the file systems of macOS and Windows. `taken` lists names that no file
    may get.
    """
    parts = {path: pathlib.Path(os.path.abspath(path)).parts[1:] for path in paths}
    # The number of parts of its path in each name; 0 stands for the stem.
    used = dict.fromkeys(paths, 0)

    def name(path: pathlib.Path) -> str:
        return '_'.join(parts[path][-used[path] :]) if used[path] else path.stem

    while True:
        count = collections.Counter(_folded(each) for each in ('.', '..', *taken, *map(name, paths)))
        longer = [path for path in paths if count[_folded(name(path))] > 1 and used[path] < len(parts[path])]
        if not longer:
            break
        for path in longer:
            used[path] += 1
    distinct: dict[str, tuple[pathlib.Path, str]] = {}
    for path in paths:
        candidate, number = name(path), 2
        while _folded(candidate) in distinct:
            candidate, number = f'{name(path)}_{number}', number + 1
        distinct[_folded(candidate)] = path, candidate
    return dict(distinct.values())


def _in_folder(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[str]]:
    listed = scan(folder)
    return [folder / path for path in listed.paths], _remarks(
        (listed.others, 'other files'),
        (len(listed.not_utf8), 'video files whose names are not UTF-8'),
        (len(listed.unreadable), f'folders that cannot be read: {", ".join(listed.unreadable)}'),
    )


def _matching(pattern: str) -> tuple[list[pathlib.Path], list[str]]:
    matches = [path for path in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(path)]
    suffix = pathlib.PurePath(pattern).suffix
    states_suffix = suffix and not glob.has_magic(suffix)
    videos = [path for path in matches if states_suffix or path.lower().endswith(SUFFIXES)]
    readable = [pathlib.Path(path) for path in videos if is_text(path)]
    return readable, _remarks(
        (len(matches) - len(videos), 'other files'), (len(videos) - len(readable), 'files whose names are not UTF-8')
    )


def _remarks(*counted: tuple[int, str]) -> list[str]:
    return [f'left out {count} {kind}' for count, kind in counted if count]


def _folded(name: str) -> str:
    return unicodedata.normalize('NFC', name).casefold()
