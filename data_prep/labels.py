"""Compares the spellings of labels, and looks a label up among the classes.

Labels are compared as they are written. Spellings that differ only by case, Unicode form or spaces are almost always
one label, which would silently become several classes: tables.py refuses them or, if asked, merges them.
"""

import collections
import difflib
import heapq
import itertools
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

from data_prep import videos
from data_prep.work import Job

# Hints are computed for this many different wrong labels, because a comparison with 10,000 classes takes a while.
_HINTS = 20
# Classes that share the most pairs of letters with a label are compared with it in full.
_COMPARED = 50


def fold(text: str) -> str:
    """Returns a form in which texts that differ only by case, Unicode form or spaces are equal."""
    caseless = unicodedata.normalize('NFD', unicodedata.normalize('NFD', text).casefold())
    return ' '.join(unicodedata.normalize('NFD', caseless).split())


def alike(counts: Mapping[str, int]) -> list[list[str]]:
    """Returns each group of several texts that are equal when folded, the most frequent (then the first) text first."""
    groups = collections.defaultdict(list)
    for text in counts:
        groups[fold(text)].append(text)
    return [sorted(group, key=lambda text: -counts[text]) for group in groups.values() if len(group) > 1]


def quoted(texts: Sequence[str]) -> list[str]:
    """Returns texts in quotes; those that look the same on a screen get their characters' numbers too."""
    looks = collections.Counter(unicodedata.normalize('NFC', text) for text in texts)
    return [
        repr(text) + (f' ({ascii(text)[1:-1]})' if looks[unicodedata.normalize('NFC', text)] > 1 else '')
        for text in texts
    ]


def show(texts: Sequence[str]) -> str:
    """Returns several texts in quotes, joined by 'and'."""
    *first, last = quoted(texts)
    return f'{", ".join(first)} and {last}'


class Classes:
    """The classes in their order, and how labels find them.

    merge: a label that equals a class only when folded is that class; `merged` counts such labels.
    """

    def __init__(self, names: Iterable[str], *, merge: bool = False):
        self.names = tuple(names)
        self.merged: collections.Counter[tuple[str, str]] = collections.Counter()
        self._merge = merge
        self._number = {name: number for number, name in enumerate(self.names)}
        self._folded = {fold(name): name for name in reversed(self.names)}
        self._hints: dict[str, str] = {}
        self._pairs: dict[str, frozenset[str]] = {}

    def find(self, text: str) -> int | None:
        """Returns the number of a label's class; None if there is none."""
        name = text.strip()
        if name not in self._number and self._merge:
            name = self._folded.get(fold(text), name)
        if self._merge and name in self._number and name != text:
            self.merged[text, name] += 1
        return self._number.get(name)

    def near(self, text: str) -> str:
        """Returns ' (did you mean ...?)' with the nearest classes, at most three; '' if none is near."""
        if text not in self._hints:
            if len(self._hints) >= _HINTS:
                return ''
            folded = fold(text)
            near = [folded] if folded in self._folded else difflib.get_close_matches(folded, self._candidates(folded))
            names = quoted([text, *(self._folded[name] for name in near)])[1:]
            self._hints[text] = f' (did you mean {" or ".join(names)}?)' if names else ''
        return self._hints[text]

    def _candidates(self, folded: str) -> list[str]:
        if not self._pairs:
            self._pairs = {name: _pairs(name) for name in self._folded}
        pairs = _pairs(folded)
        return heapq.nlargest(_COMPARED, self._pairs, key=lambda name: len(self._pairs[name] & pairs))


def _pairs(text: str) -> frozenset[str]:
    return frozenset(map(''.join, itertools.pairwise(f' {text} ')))


def warnings(jobs: Collection[Job], classes: Sequence[str]) -> list[str]:
    """Returns a line for each sign that training on these usable clips cannot go well, though it would start.

    The signs are a single class, no training split, and classes without a training clip.
    """
    splits_of: dict[int, set[str]] = {number: set() for number in range(len(classes))}
    for job in jobs:
        for label in job.labels:
            splits_of[label].add(job.split)
    used = [number for number, splits in splits_of.items() if splits]
    lines = []
    if len(used) == 1:
        lines.append(f'all labels are {classes[used[0]]!r}: a model cannot learn from one class; expected two or more')
    if not any(job.split == 'train' for job in jobs):
        return [*lines, 'no clip is in the split train, which training reads unless config.data.split names another']
    lacking = collections.defaultdict(list)
    for number, splits in splits_of.items():
        if 'train' not in splits:
            lacking[tuple(sorted(splits))].append(repr(classes[number]))
    for others, names in sorted(lacking.items()):
        where = f'only the split {" and ".join(others)} has' if others else 'no usable clip has'
        lines.append(videos.named(f'of {len(classes)} classes cannot be learned, since {where} them', names))
    return lines
