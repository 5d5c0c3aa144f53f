"""Writes the files of one explanation into a folder, two at a time."""

import concurrent.futures
import pathlib
from collections.abc import Collection, Iterator

from stattn_jax.explain.explanation import GroundTruth
from stattn_jax.explain.result import Explanation

# The slowest files come first, so that they are written in parallel.
_ORDER = ('mp4', 'html', 'pdf', 'svg', 'png', 'npz', 'json', 'csv', 'vtt')


def paths(folder: pathlib.Path, kinds: Collection[str]) -> list[pathlib.Path]:
    """Returns the paths that `write` writes, in the order of its work."""
    return [folder / f'explanation.{kind}' for kind in _ORDER if kind in kinds]


def write(
    explanation: Explanation,
    folder: pathlib.Path,
    kinds: Collection[str],
    label: str | None = None,
    truth: GroundTruth | None = None,
) -> Iterator[pathlib.Path]:
    """Writes explanation.KIND of every kind (json, npz, png, ...) for a class and yields each path once it is there.

    `label` is the class to show (default: the best one) and `truth` its annotations. Raises what the methods of
    Explanation raise.
    """
    label = label or explanation.top(1)[0]['label']
    save = {
        'json': lambda path: explanation.save_json(path, label),
        'npz': explanation.save_npz,
        **dict.fromkeys(('png', 'pdf', 'svg'), lambda path: explanation.save_figure(path, label, truth)),
        'html': lambda path: explanation.save_html(path, label, truth),
        'mp4': lambda path: explanation.save_video(path, label, truth),
        'csv': explanation.save_csv,
        'vtt': explanation.save_vtt,
    }
    folder.mkdir(parents=True, exist_ok=True)
    # Encoding spends most of its time in C code, so that two threads can use two cores.
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        futures = {threads.submit(save[path.suffix[1:]], path): path for path in paths(folder, kinds)}
        for future in concurrent.futures.as_completed(futures):
            future.result()
            yield futures[future]
