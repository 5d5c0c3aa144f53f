"""The one error of this package, and what its files have in common when they raise it or guard against it."""

import lzma
import pathlib
import struct
import zipfile
import zlib

# What zipfile raises for a damaged archive.
ZIP_ERRORS = (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError, struct.error, zlib.error, lzma.LZMAError)


class Allowance:
    """How much may still be taken: a small file must not ask for much memory."""

    def __init__(self, most: int):
        self.left = most

    def lasts(self, count: int) -> bool:
        """Takes `count`; False where there was less."""
        self.left -= count
        return self.left >= 0


class WeightsError(Exception):
    """A file of weights cannot be used; the message is one line: file, what is wrong, what was expected, the fix."""

    def __init__(self, message: str):
        super().__init__(printable(message))


def printable(text: str) -> str:
    """The text in one line; names in a file may hold line ends and what a terminal takes for commands."""
    return ''.join(letter if letter.isprintable() else '?' for letter in ' '.join(text.split()))


def damaged(path: str | pathlib.Path, what: str) -> WeightsError:
    """The error for a file that breaks off or contradicts itself."""
    return WeightsError(f'{path} is damaged or cut off: {what}; expected a whole file; download it again')


def listed(names: list[str], most: int = 8) -> str:
    """At most `most` names, then how many more there are."""
    more = len(names) - most
    return ', '.join(names[:most]) + (f' and {more} more' if more > 0 else '')
