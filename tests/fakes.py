"""Small clips and data sets made from seeds, for the tests of data/ and data_prep/. Importable by worker processes."""

import os
import pathlib
import signal
import time
import zlib

import numpy as np
import simplejpeg

from data_prep import prepare
from stattn_jax.data import media, records

SPEC = media.ClipSpec(segments=3, short_side=24)
CLASSES = ('bell', 'cat', 'dog')


def clip(seed: int, spec: media.ClipSpec = SPEC, height: int = 24, width: int = 32) -> media.Clip:
    """A clip of noise that differs with the seed; its last segment is padding when the seed is odd."""
    rng = np.random.default_rng(seed)
    valid = np.ones(spec.segments, bool)
    valid[-1] = seed % 2 == 0
    pixels = rng.integers(0, 256, (spec.segments, height, width, 3), np.uint8)
    return media.Clip(
        frames=[simplejpeg.encode_jpeg(frame, quality=spec.jpeg_quality) for frame in pixels],
        log_mel=rng.standard_normal(spec.mel_shape).astype(np.float16),
        valid=valid,
        height=height * 2,
        width=width * 2,
        duration=float(valid.sum()),
        notes=() if seed % 2 == 0 else ('short',),
    )


def record(seed: int, clip_id: str | None = None, video: str = '') -> records.ClipRecord:
    """A record whose times and boxes are exact in float32."""
    return records.ClipRecord(
        clip_id=clip_id or f'clip{seed}',
        clip=clip(seed),
        labels=(seed % 3,),
        events=tuple(records.Event(i % 3, i / 2, i + 1.25, records.MODALITIES[i]) for i in range(seed % 4)),
        boxes=tuple(records.Box(i / 4, i % 3, i / 8, 0.25, 0.75, 1.0) for i in range(seed % 3)),
        video=video,
        start=seed / 4,
    )


def jobs(train: int, test: int = 0) -> list[prepare.Job]:
    counts = {'train': train, 'test': test}
    return [prepare.Job(f'{split}{i}', split, (i % 3,)) for split, count in counts.items() for i in range(count)]


def make_record(job: prepare.Job, spec: media.ClipSpec) -> records.ClipRecord:
    """A record by the job's id; the payload may ask for trouble.

    Payloads: 'bad' is a clip that cannot be used, 'bug' an unforeseen exception; ('die once', path) kills the process
    unless the file is there.
    """
    if job.payload == 'bad':
        raise media.MediaError('no_sound', 'has no audio stream')
    if job.payload == 'bug':
        raise ZeroDivisionError
    if job.payload:
        marker = pathlib.Path(job.payload[1])
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    seed = zlib.crc32(job.clip_id.encode())
    return records.ClipRecord(job.clip_id, clip(seed, spec), job.labels, video=job.video, start=float(job.start or 0))


def slow_record(job: prepare.Job, spec: media.ClipSpec) -> records.ClipRecord:
    time.sleep(0.05)
    return make_record(job, spec)


def dataset(out: pathlib.Path, train: int, test: int = 1, **options) -> pathlib.Path:
    """Prepares a data set of `train` and `test` clips in this process."""
    options = {'workers': 1, 'shard_size': 4, 'multi_label': False, **options}
    prepare.prepare(out, 'fake', jobs(train, test), make_record, classes=CLASSES, spec=SPEC, **options)
    return out


def flip_byte(path: pathlib.Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)
