"""WeightsError, the only error of this package, and helpers for its messages and for limits on reading."""

import lzma
import pathlib
import struct
import zipfile
import zlib

from stattn_jax.command_error import CommandError

# The exceptions that zipfile raises for a damaged archive.
ZIP_ERRORS = (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError, struct.error, zlib.error, lzma.LZMAError)


class Allowance:
    """A budget that is used up by reading, so that a small file cannot cause a large use of memory."""

    def __init__(self, most: int):
        self.left = most

    def lasts(self, count: int) -> bool:
        """Takes `count` from the budget; returns False if less than that was left."""
        self.left -= count
        return self.left >= 0


class WeightsError(CommandError):
    """Raised if weights cannot be used; the one-line message has the file, the fault, what is expected and the fix."""

    code = 2

    def __init__(self, message: str):
        super().__init__(printable(message))


def printable(text: str) -> str:
    """Returns the text as one line without control characters, which the names in a file may contain."""
    return ''.join(letter if letter.isprintable() else '?' for letter in ' '.join(text.split()))


def damaged(path: str | pathlib.Path, fault: str) -> WeightsError:
    """Returns the error for a file that is cut off or inconsistent."""
    return WeightsError(f'{path} is damaged or cut off: {fault}; expected a whole file; download it again')


def listed(names: list[str], most: int = 8) -> str:
    """Returns a text with at most `most` names, and the number of further names."""
    more = len(names) - most
    return ', '.join(names[:most]) + (f' and {more} more' if more > 0 else '')
