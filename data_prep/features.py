"""Reads clips of published feature files: AVE's HDF5 tables and LLP's folders of npy files.

The payload of a job gives the location of its features: {'file': 'main' or 'noisy', 'row': 17} for AVE, {'id':
'BjCEufrlXm4'} for LLP. One row is read at a time, so that a table of any size needs only a few megabytes of memory.
ave.py and llp.py make the jobs.
"""

import functools
import pathlib
from typing import Any

import numpy as np

from data_prep import cli, extras
from data_prep.prepare import Job
from stattn_jax.data import media, records
from stattn_jax.data.features import FeatureClip, FeatureSpec

AVE_SPEC = FeatureSpec(
    10, 1.0, (7, 7, 512), 128, 'VGG-19 pool5 of 16 frames a second; VGGish without its post-processor'
)
LLP_SPEC = FeatureSpec(10, 1.0, (1, 1, 2560), 128, 'ResNet-152, the mean of 8 frames a second, and R(2+1)D-18; VGGish')
# AVE's files of the clips in the annotation file, and of the 178 background clips.
H5_FILES = {
    'main': ('visual_feature.h5', 'audio_feature.h5'),
    'noisy': ('visual_feature_noisy.h5', 'audio_feature_noisy.h5'),
}
# A chunk of a compressed table may hold many rows; caching it (bytes) lets its rows share one decompression.
_CHUNK_CACHE = 128 * 2**20
_FRAMES_A_SEGMENT = 8


def count_rows(folder: pathlib.Path, which: str, spec: FeatureSpec) -> int:
    """Returns the number of clips in the tables `which` of H5_FILES.

    Raises cli.UsageError if a table is missing or has another shape.
    """
    shapes = ((spec.segments, *spec.visual), (spec.segments, spec.audio))
    counts = set()
    for name, expected in zip(H5_FILES[which], shapes):
        try:
            table = _table(folder / name)
        except OSError as error:
            raise cli.UsageError(
                f'--features={folder}: {name} cannot be read ({error}); expected {", ".join(H5_FILES[which])}'
            ) from None
        if table.shape[1:] != expected:
            raise cli.UsageError(
                f'{folder / name} holds {table.shape}; expected (clips, {", ".join(map(str, expected))})'
            )
        counts.add(len(table))
    if len(counts) > 1:
        raise cli.UsageError(f'{folder}: {" and ".join(H5_FILES[which])} hold {sorted(counts)} clips; expected as many')
    return counts.pop()


def h5_record(folder: str, job: Job, spec: FeatureSpec, keep_lacking: bool = False) -> records.ClipRecord:
    """Returns a record with the features of one row of AVE's tables, which hold both modalities of every clip."""
    del keep_lacking
    visual, audio = (
        _read(_table(pathlib.Path(folder) / name), job.payload['row'], pathlib.Path(folder) / name)
        for name in H5_FILES[job.payload['file']]
    )
    return _record(job, spec, visual, audio)


def npy_record(folder: str, job: Job, spec: FeatureSpec, keep_lacking: bool = False) -> records.ClipRecord:
    """Returns a record with the features of one LLP video.

    They are read from vggish/ID.npy (10, 128), res152/ID.npy (80, 2048) and r2plus1d_18/ID.npy (10, 512). With
    `keep_lacking`, a clip without the first, or without the last two, has the note 'no_sound' or 'no_picture'.
    """
    shapes = {
        'vggish': (spec.segments, spec.audio),
        'res152': (spec.segments * _FRAMES_A_SEGMENT, 2048),
        'r2plus1d_18': (spec.segments, 512),
    }
    paths = {name: pathlib.Path(folder) / name / f'{job.payload["id"]}.npy' for name in shapes}
    absent = {name for name, path in paths.items() if not path.exists()} if keep_lacking else set()
    of_modality = {'no_sound': {'vggish'}, 'no_picture': {'res152', 'r2plus1d_18'}}
    notes = tuple(note for note, names in of_modality.items() if names == absent)
    arrays = {}
    for name, shape in shapes.items():
        path = paths[name]
        if notes and name in absent:
            arrays[name] = np.zeros(shape, np.float32)
            continue
        try:
            arrays[name] = np.load(path)
        except FileNotFoundError:
            raise media.MediaError('missing', f'no such file {name}/{path.name}', path) from None
        except (OSError, ValueError, EOFError) as error:
            raise media.MediaError('bad_features', f'{name}: {error}', path) from None
        if arrays[name].shape != shape:
            raise media.MediaError('bad_features', f'{name} holds {arrays[name].shape}, expected {shape}', path)
    frames = arrays['res152'].reshape(spec.segments, _FRAMES_A_SEGMENT, -1).mean(1)
    visual = np.concatenate([frames, arrays['r2plus1d_18']], axis=1)[:, None, None]
    return _record(job, spec, visual, arrays['vggish'], notes)


def _record(
    job: Job, spec: FeatureSpec, visual: np.ndarray, audio: np.ndarray, notes: tuple[str, ...] = ()
) -> records.ClipRecord:
    with np.errstate(over='ignore'):
        visual, audio = visual.astype(np.float16), audio.astype(np.float16)
    for name, array in (('visual', visual), ('audio', audio)):
        if not np.isfinite(array).all():
            raise media.MediaError('bad_features', f'the {name} features hold NaN or values that are no float16')
    clip = FeatureClip(visual, audio, valid=np.ones(spec.segments, bool), duration=spec.seconds, notes=notes)
    return records.ClipRecord(job.clip_id, clip, job.labels, job.events, job.boxes, job.video)


@functools.lru_cache
def _table(path: pathlib.Path) -> Any:
    """Returns the only table of a file, an h5py.Dataset; the file stays open in this process."""
    file = extras.load('h5py', 'prep').File(path, 'r', rdcc_nbytes=_CHUNK_CACHE, rdcc_nslots=10_007)
    if len(file) != 1:
        raise OSError(f'it has the keys {sorted(file)}, expected one')
    return next(iter(file.values()))


def _read(table: Any, row: int, path: pathlib.Path) -> np.ndarray:
    try:
        return table[row]
    except OSError as error:
        raise media.MediaError('bad_features', f'row {row}: {error}', path) from None
