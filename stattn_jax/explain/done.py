"""Remembers in the folder of a video that it is explained whole, so that a repeated command need not explain it again.

done.json is written last. It counts only for the same video, model and options, and while all files are there.
"""

import dataclasses
import json
import pathlib
from typing import Any

from stattn_jax import files
from stattn_jax.explain import index

FILE = 'done.json'


@dataclasses.dataclass(frozen=True)
class VideoResult:
    """The results of one video: its explained clips, its files and its timeline, as paths relative to the index."""

    clips: list[index.ExplainedClip]
    files: list[str]
    timeline: tuple[str, str] | None = None


def read(folder: pathlib.Path, out: pathlib.Path, key: dict[str, Any]) -> VideoResult | None:
    """Returns the outcome that `write` wrote for the same `key`; None if it, or any of its files, is missing."""
    try:
        record = json.loads((folder / FILE).read_text(encoding='utf-8'))
        if record['key'] != key or not all((out / name).is_file() for name in record['files']):
            return None
        timeline = record['timeline'] and (record['timeline'][0], record['timeline'][1])
        return VideoResult(
            [index.ExplainedClip.from_json(clip) for clip in record['entries']], record['files'], timeline
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(folder: pathlib.Path, key: dict[str, Any], result: VideoResult) -> None:
    clips = [clip.to_json() for clip in result.clips]
    record = {'key': key, 'files': result.files, 'timeline': result.timeline, 'entries': clips}
    files.write_text(folder / FILE, json.dumps(record, ensure_ascii=False))


def forget(folder: pathlib.Path) -> None:
    """Marks a video as not done, before its files are written anew."""
    (folder / FILE).unlink(missing_ok=True)
