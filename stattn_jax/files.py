"""Files that appear under their name whole or not at all, and the one line about a file that cannot be written."""

import contextlib
import errno
import fcntl
import io
import os
import pathlib
import tempfile
import uuid
from collections.abc import Iterator
from typing import BinaryIO, TextIO

_TEMPORARY = '.tmp-'
_ELSEWHERE = 'give a folder that can be written to'
_FULL = 'free some space, or use another disk, and run the same command again'
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _ELSEWHERE,
    errno.EACCES: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE,
    errno.ENOTDIR: 'a part of this path is a file; give a folder, or one that does not exist yet',
    errno.EEXIST: 'a file has this name; give a folder, or one that does not exist yet',
    errno.ENOENT: 'give a path below a folder that exists',
    errno.EISDIR: 'a folder has this name; give another, or remove it',
    errno.ENAMETOOLONG: 'give a shorter name',
}


def reason(error: OSError) -> str:
    """Returns one line about an error of the file system: the path, the system's reason, and the remedy."""
    advice = _ADVICE.get(error.errno, 'mend that and run the same command again')
    name = '' if error.filename is None else f'{os.fsdecode(error.filename)}: '
    return f'{name}{error.strerror or error}; {advice}'


def of_file_system(error: BaseException, path: str | os.PathLike) -> OSError | None:
    """Returns an error of another library as the error of the file system at `path` that it reports, if it does so.

    Libraries written in other languages report such an error only in the text of an exception of their own, and a
    thread's exception may be the cause of another one.
    """
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in _ADVICE:
            return OSError(cause.errno, os.strerror(cause.errno), os.fspath(path))
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR):
        if any(os.strerror(number) in str(cause) for cause in causes):
            return OSError(number, os.strerror(number), os.fspath(path))
    return None


@contextlib.contextmanager
def named(path: str | os.PathLike) -> Iterator[None]:
    """Names `path` in an error of the file system that names no file, as that of a full disk, or a temporary one."""
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None or _TEMPORARY in os.fsdecode(error.filename)
        if error.errno is None or not unnamed:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def make_folder(path: str | os.PathLike) -> pathlib.Path:
    """Makes a folder with its parents, unless it is there, and returns it; raises OSError if no file can be made in it.

    Commands call it before their work, so that hours of it are not lost for want of a place to write the result.
    """
    path = pathlib.Path(path)
    path.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


@contextlib.contextmanager
def whole_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`, which gets that name if the block ends without an error.

    Otherwise it is removed and `path` stays as it was. The temporary name is unique, so that several processes, perhaps
    on several machines, may write the same file: the last one takes effect. A killed process leaves PATH.tmp-* behind,
    which the next writer of the same path removes. An OSError names `path`.
    """
    path = pathlib.Path(path)
    part = path.with_name(f'{path.name}{_TEMPORARY}{uuid.uuid4().hex}')
    with named(path), _locked(part):
        try:
            _remove_leftovers(path)
            yield part
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Yields a binary file under the rules of `whole_path`; its content reaches the disk before its name."""
    with whole_path(path) as part, open(part, 'wb') as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def whole_text(path: str | os.PathLike) -> Iterator[TextIO]:
    """Yields a text file in memory, which is written in UTF-8 under the rules of `whole_file`, line ends unchanged."""
    text = io.StringIO(newline='')
    yield text
    write_text(path, text.getvalue())


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text in UTF-8 under the rules of `whole_file`."""
    with whole_file(path) as file:
        file.write(text.encode())


def copy(source: str | os.PathLike, path: str | os.PathLike) -> None:
    """Copies a file's content to `path` under the rules of `whole_file`."""
    with whole_file(path) as file:
        file.write(pathlib.Path(source).read_bytes())


@contextlib.contextmanager
def _locked(part: pathlib.Path) -> Iterator[None]:
    """Makes a temporary file and locks it while the block runs; the lock ends with the process, however it ends."""
    descriptor = os.open(part, os.O_CREAT | os.O_WRONLY, 0o666)
    try:
        # Some file systems have no locks; leftovers then stay.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_leftovers(path: pathlib.Path) -> None:
    """Removes the temporary files of `path` whose writers have ended, which their locks tell."""
    with os.scandir(path.parent) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(path.name + _TEMPORARY)]
    for name in names:
        with contextlib.suppress(OSError):
            descriptor = os.open(path.with_name(name), os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path.with_name(name))
            finally:
                os.close(descriptor)
