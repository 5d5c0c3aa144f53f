"""One line on stderr about how much of a long work is done and the time left."""

import sys
import time

# Seconds between two lines: on a terminal, where a line replaces the one before, and elsewhere, such as in a log.
_TERMINAL, _LOG = 0.2, 30.0
_FIRST_LOG = 10.0


class ProgressLine:
    """Prints 'WHAT: 40/100 clips, 0:30 left'; work that takes less than ten seconds prints nothing into a log.

    The time left follows from the rate since the first items were done, so that starting and compiling, which come
    before them, do not count.
    """

    def __init__(self, title: str, total: int, unit: str = 'clips', done: int = 0):
        """`done` items were there before this work began."""
        self._title, self._total, self._unit, self._done = title, total, unit, done
        self._terminal = sys.stderr.isatty()
        self._next = time.perf_counter() + (0 if self._terminal else _FIRST_LOG)
        self._first: tuple[int, float] | None = None

    def add(self, items: int) -> None:
        """Counts items as done; a negative number takes some back."""
        self._done += items
        now = time.perf_counter()
        self._first = self._first or (self._done, now)
        if now >= self._next and self._done < self._total:
            self._next = now + (_TERMINAL if self._terminal else _LOG)
            self._print(self.line(now))

    def line(self, now: float) -> str:
        """Returns the line; it has no time left before there is a rate."""
        text = f'{self._title}: {self._done}/{self._total} {self._unit}'
        done, began = self._first or (self._done, now)
        if self._done > done:
            text += f', {format_seconds((now - began) / (self._done - done) * (self._total - self._done))} left'
        return text

    def note(self, text: str) -> None:
        """Prints a line that stays."""
        self.clear()
        print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        clear_line()

    def _print(self, text: str) -> None:
        begin, end = ('\r', '\x1b[K') if self._terminal else ('', '\n')
        print(begin + text, end=end, file=sys.stderr, flush=True)


def clear_line() -> None:
    """Removes a progress line from a terminal, where the next item prints it again."""
    if sys.stderr.isatty():
        print('\r\x1b[K', end='', file=sys.stderr, flush=True)


def format_seconds(seconds: float) -> str:
    """Formats a duration in seconds as '0:07', '12:34', '3:25:09' or '2d 01:00:00'."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f'{days}d {hour:02d}:{minute:02d}:{second:02d}'
    return f'{hour}:{minute:02d}:{second:02d}' if hour else f'{minute}:{second:02d}'
