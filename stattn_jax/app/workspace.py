"""The temporary folders of the app: uploaded files and results."""

import os
import pathlib
import secrets
import shutil
import tempfile
import threading
import time


class Workspace:
    """A temporary folder that is removed when the process ends, and whose content is removed when it is old.

    - uploads: the folder for the files of Gradio; results: the folder that is served, with a folder for each result
    - galleries: a folder in `results` that stays
    """

    # Seconds for which a result is kept, the number of results that are kept, and the time between two looks.
    kept_seconds, kept, _pause = 3600.0, 50, 60.0

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix='stattn-app-', ignore_cleanup_errors=True)
        self.root = pathlib.Path(self._folder.name)
        self.uploads, self.results = self.root / 'uploads', self.root / 'results'
        self.galleries = self.results / 'galleries'
        for folder in (self.uploads, self.galleries):
            folder.mkdir(parents=True)
        self._closed = threading.Event()
        threading.Thread(target=self._keep_clean, daemon=True).start()

    def new(self) -> pathlib.Path:
        """Makes and returns a folder for one result, whose name cannot be guessed."""
        folder = self.results / secrets.token_urlsafe(16)
        folder.mkdir()
        return folder

    def sweep(self) -> None:
        """Removes uploads and results that are older than `kept_seconds`, and the oldest beyond `kept` of each."""
        for folder in (self.uploads, self.results):
            newest_first = sorted(_ages(folder).items(), key=lambda item: item[1])
            for number, (path, age) in enumerate(item for item in newest_first if item[0] != self.galleries):
                if age > self.kept_seconds or number >= self.kept:
                    remove(path)

    def close(self) -> None:
        """Removes everything."""
        self._closed.set()
        self._folder.cleanup()

    def _keep_clean(self) -> None:
        while not self._closed.wait(self._pause):
            self.sweep()


def remove(path: pathlib.Path) -> None:
    """Removes a file or a folder, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _ages(folder: pathlib.Path) -> dict[pathlib.Path, float]:
    """Returns the seconds since each entry of a folder changed last; entries that vanish meanwhile are left out."""
    now, ages = time.time(), {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                ages[folder / entry.name] = now - entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        pass
    return ages
