"""A driver of headless Chromium for the tests of pages and of the app, which needs only the browser itself.

It speaks the DevTools protocol over two pipes. `--remote-debugging-pipe` reads commands on descriptor 3 and writes
answers and events on 4, each a JSON text that ends with a zero byte (https://chromium.googlesource.com/chromium/src,
content/browser/devtools/devtools_pipe_handler.cc).
"""

import base64
import fcntl
import io
import json
import os
import pathlib
import select
import shutil
import signal
import time

import numpy as np
import PIL.Image
import pytest

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
KEYS = {' ': ('Space', 32), 'ArrowLeft': ('ArrowLeft', 37), 'ArrowRight': ('ArrowRight', 39), 'Enter': ('Enter', 13)}


class Browser:
    """One browser process with one page; `events` holds every message that is not an answer to a command."""

    def __init__(self, profile: pathlib.Path, *more_flags: str):
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            pytest.skip(f'no browser: none of {", ".join(NAMES)} is on the path (Debian: apt-get install chromium)')
        flags = (
            '--headless=new',
            '--no-sandbox',
            '--disable-gpu',
            '--mute-audio',
            '--hide-scrollbars',
            '--no-first-run',
        )
        flags += ('--remote-debugging-pipe', f'--user-data-dir={profile}', '--disable-background-networking')
        flags += more_flags
        ours, theirs = zip(*map(_pipe, 'wr'))
        quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        actions = [*quiet, (os.POSIX_SPAWN_DUP2, theirs[0], 3), (os.POSIX_SPAWN_DUP2, theirs[1], 4)]
        self._pid = os.posix_spawn(
            program, [program, *flags, 'about:blank'], os.environ, file_actions=actions, setpgroup=0
        )
        for fd in theirs:
            os.close(fd)
        self._write, self._read = ours
        self._rest, self._count, self._session, self.events = b'', 0, None, []
        target = next(x for x in self.call('Target.getTargets')['targetInfos'] if x['type'] == 'page')
        attached = self.call('Target.attachToTarget', targetId=target['targetId'], flatten=True)
        self._session = attached['sessionId']
        for domain in ('Page', 'Runtime', 'Network', 'Log'):
            self.call(f'{domain}.enable')

    def call(self, method: str, **parameters):
        """Sends one command and returns its result; raises RuntimeError with the browser's error message."""
        self._count += 1
        message = {'id': self._count, 'method': method, 'params': parameters}
        message |= {'sessionId': self._session} if self._session else {}
        data = json.dumps(message).encode() + b'\0'
        while data:
            data = data[os.write(self._write, data) :]
        while (answer := self._next(60)).get('id') != self._count:
            self.events.append(answer)
        if 'error' in answer:
            raise RuntimeError(f'{method}: {answer["error"]}')
        return answer['result']

    def _next(self, seconds: float):
        while b'\0' not in self._rest:
            if not select.select([self._read], [], [], seconds)[0]:
                raise TimeoutError(f'the browser said nothing for {seconds} s')
            part = os.read(self._read, 1 << 20)
            if not part:
                raise EOFError('the browser ended')
            self._rest += part
        text, _, self._rest = self._rest.partition(b'\0')
        return json.loads(text)

    def open(self, path: pathlib.Path | str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Loads a file by its file:// address, or an address, and waits until it is loaded."""
        self.size(width, height)
        scheme = [{'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}]
        self.call('Emulation.setEmulatedMedia', features=scheme)
        self.events.clear()
        self.call('Page.navigate', url=path if isinstance(path, str) else path.resolve().as_uri())
        self.until('document.readyState === "complete" && location.href !== "about:blank"')

    def size(self, width: int, height: int) -> None:
        """Sets the size of the window in CSS pixels, each of which is one pixel of a screenshot."""
        self.call(
            'Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def run(self, script: str):
        """Returns the value of a JavaScript expression and awaits promises; raises RuntimeError where it throws."""
        answer = self.call('Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True)
        if 'exceptionDetails' in answer:
            raise RuntimeError(f'{script}: {answer["exceptionDetails"]}')
        return answer['result'].get('value')

    def text(self, selector: str) -> str:
        """Returns the text content of an element."""
        return self.run(f'document.querySelector({json.dumps(selector)}).textContent')

    def _holds(self, condition: str) -> bool:
        try:
            return bool(self.run(condition))
        except RuntimeError as error:
            # A page that leads to another one answers nothing meanwhile.
            if 'navigated' not in str(error):
                raise
            return False

    def until(self, condition: str, seconds: float = 60) -> None:
        """Waits until a JavaScript expression is true; raises TimeoutError, which names the expression."""
        end = time.monotonic() + seconds
        while not self._holds(condition):
            if time.monotonic() > end:
                raise TimeoutError(f'not within {seconds} s: {condition}')
            time.sleep(0.05)

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Scrolls an element into the window and returns its left, top, width and height there."""
        return tuple(
            self.run(
                '(() => '
                f'{{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: "center"}});'
                ' const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()'
            )
        )

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Sends real mouse events that click an element at a position given in 0..1 of its size."""
        left, top, width, height = self.box(selector)
        for kind in ('mouseMoved', 'mousePressed', 'mouseReleased'):
            at = {'x': left + x * width, 'y': top + y * height, 'button': 'left', 'clickCount': 1}
            self.call('Input.dispatchMouseEvent', type=kind, **at)

    def press(self, key: str) -> None:
        """Sends real key events; characters are given as they are, other keys by their DOM name."""
        code, number = KEYS.get(key, ('', 0))
        text = {' ': ' ', 'Enter': '\r'}.get(key, key if len(key) == 1 else '')
        down = {'key': key, 'code': code, 'windowsVirtualKeyCode': number} | ({'text': text} if text else {})
        self.call('Input.dispatchKeyEvent', type='keyDown', **down)
        self.call('Input.dispatchKeyEvent', type='keyUp', key=key, code=code, windowsVirtualKeyCode=number)

    def screenshot(self, whole: bool = False) -> np.ndarray:
        """Returns a screenshot, uint8 [h w 3]; with `whole` it covers the full page instead of the window."""
        answer = self.call('Page.captureScreenshot', format='png', captureBeyondViewport=whole)
        return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(answer['data']))).convert('RGB'))

    def requests(self) -> list[str]:
        """Returns the addresses that were requested since `open`."""
        self.run('1')
        return [x['params']['request']['url'] for x in self.events if x.get('method') == 'Network.requestWillBeSent']

    def complaints(self) -> list[str]:
        """Returns the errors and warnings of the console since `open`, including breaches of the content policy."""
        self.run('1')
        found = [x['params'] for x in self.events if x.get('method') == 'Runtime.exceptionThrown']
        console = [x['params'] for x in self.events if x.get('method') == 'Runtime.consoleAPICalled']
        found += [x for x in console if x['type'] in ('error', 'warning', 'assert')]
        entries = [x['params']['entry'] for x in self.events if x.get('method') == 'Log.entryAdded']
        return [str(x) for x in found + [x for x in entries if x['level'] in ('error', 'warning')]]

    def close(self) -> None:
        """Ends the process and its children."""
        os.close(self._write)
        os.close(self._read)
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _pipe(end: str) -> tuple[int, int]:
    """Makes a pipe and returns our end first: the one that we write (w) or the one that we read (r).

    Both descriptors are above 9, so that duplicating two ends to 3 and 4 closes no other descriptor.
    """
    read, write = (_above(fd) for fd in os.pipe())
    return (write, read) if end == 'w' else (read, write)


def _above(fd):
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return moved
