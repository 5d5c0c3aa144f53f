"""Files that appear under their name whole or not at all."""

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def whole_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`, which gets that name if the block ends without an error.

    Otherwise it is removed and `path` stays as it was. The temporary name is unique, so that several processes, perhaps
    on several machines, may write the same file: the last one takes effect. A killed process leaves PATH.tmp-* behind.
    """
    path = pathlib.Path(path)
    part = path.with_name(f'{path.name}.tmp-{uuid.uuid4().hex}')
    try:
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
