"""Small clips and data sets made from seeds, for the tests of data/ and data_prep/; worker processes can import it."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import simplejpeg

from data_prep import prepare
from stattn_jax.data import extracted, features, media, records, source

SPEC = media.ClipSpec(segments=3, short_side=24)
FEATURE_SPEC = features.FeatureSpec(2, 1.0, (1, 1, 4), 3, 'numbers of a generator')
SEEN = extracted.Extraction('net', 'w.npz', 'ab' * 32, 'CC0-1.0', (2, 2, 4), views=3, frame_size=24, fit='squash')
HEARD = extracted.Extraction('ear', 'a.npz', 'cd' * 32, 'CC0-1.0', (5,))
CLASSES = ('bell', 'cat', 'dog')


# This runs as a separate program, so that a signal reaches a process of its own.
_COMMAND = """
import fakes
from absl import flags
from data_prep import cli

FLAGS = flags.FlagValues()
flags.DEFINE_enum('runner', 'local', ['local', 'beam'], '', flag_values=FLAGS)
flags.DEFINE_integer('workers', None, '', flag_values=FLAGS)

def own_record(job, spec):
    return fakes.slow_record(job, spec)

def main(arguments):
    beam = cli.beam_options(FLAGS.runner, arguments[1:])
    # A worker of multiprocessing cannot import from -c.
    make = fakes.slow_record if beam is None else own_record
    fakes.dataset(arguments[0], 40, 4, make, workers=FLAGS.workers, beam=beam)

cli.run(main, FLAGS, '', positional=1)
"""


def write_info(directory: pathlib.Path, splits: dict[str, int], multi_label: bool = False) -> None:
    """Writes the description of a data set alone, without its shards."""
    shards = {split: 1 for split in splits}
    info = source.DatasetInfo('fake', CLASSES, multi_label, SPEC, splits, splits, shards, '0' * 64)
    (directory / source.INFO_FILE).write_text(json.dumps(info.to_json()))


def clip(seed: int, spec: media.ClipSpec = SPEC, height: int = 24, width: int = 32) -> media.Clip:
    """Returns a clip of noise that depends on the seed; its last segment is padding when the seed is odd."""
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
    """Returns a record whose times and boxes are exact in float32."""
    return records.ClipRecord(
        clip_id=clip_id or f'clip{seed}',
        clip=clip(seed),
        labels=(seed % 3,),
        events=tuple(records.Event(i % 3, i / 2, i + 1.25, records.MODALITIES[i]) for i in range(seed % 4)),
        boxes=tuple(records.Box(i / 4, i % 3, i / 8, 0.25, 0.75, 1.0) for i in range(seed % 3)),
        video=video,
        start=seed / 4,
        masks=tuple(
            records.Mask.of_pixels(i + 0.5, (1, None)[i], np.arange(48 * 64).reshape(48, 64) % (seed + 2) == 0)
            for i in range(seed % 3)
        ),
    )


def jobs(train: int, test: int = 0) -> list[prepare.Job]:
    counts = {'train': train, 'test': test}
    return [prepare.Job(f'{split}{i}', split, (i % 3,)) for split, count in counts.items() for i in range(count)]


def make_record(job: prepare.Job, spec: media.ClipSpec) -> records.ClipRecord:
    """Returns a record derived from the job's id; the payload may request a failure.

    The payloads 'bad' and 'missing' are clips that cannot be used, and 'bug' is an unforeseen exception. 'segfault' and
    'exit' end the process, and ('die once', path) does unless the file exists. Any other string is added as a note.
    """
    made = clip(zlib.crc32(job.clip_id.encode()), spec)
    match job.payload:
        case 'bad':
            raise media.MediaError('no_sound', 'has no audio stream')
        case 'missing':
            raise media.MediaError('missing', 'no such file')
        case 'bug':
            raise ZeroDivisionError
        case 'segfault':
            os.kill(os.getpid(), signal.SIGSEGV)
        case 'exit':
            os._exit(3)
        case (_, path):
            marker = pathlib.Path(path)
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        case str(note):
            made = dataclasses.replace(made, notes=(*made.notes, note))
    return records.ClipRecord(job.clip_id, made, job.labels, video=job.video, start=float(job.start or 0))


def feature_record(job: prepare.Job, spec: features.FeatureSpec) -> records.ClipRecord:
    """Returns a record of features derived from the job's id."""
    rng = np.random.default_rng(zlib.crc32(job.clip_id.encode()))
    clip = features.FeatureClip(
        visual=rng.standard_normal((spec.segments, *spec.visual)).astype(np.float16),
        audio=rng.standard_normal((spec.segments, spec.audio)).astype(np.float16),
        valid=np.ones(spec.segments, bool),
        duration=spec.seconds,
    )
    return records.ClipRecord(job.clip_id, clip, job.labels)


def extracted_record(job: prepare.Job, spec: extracted.ExtractedSpec) -> records.ClipRecord:
    """Returns a record derived from the job's id with extracted features of one or both modalities.

    Each view of the visual features holds its own number.
    """
    made = make_record(job, spec.media)
    rng, t = np.random.default_rng(zlib.crc32(job.clip_id.encode())), spec.segments
    content = {'frames': made.clip.frames, 'log_mel': made.clip.log_mel, 'visual': None, 'audio': None}
    if spec.visual:
        content |= {'frames': None, 'visual': rng.standard_normal(spec.visual.stored(t)).astype(np.float16)}
        content['visual'][..., 0] = np.arange(spec.visual.views)[:, None, None, None]
    if spec.audio:
        content |= {'log_mel': None, 'audio': rng.standard_normal(spec.audio.stored(t)).astype(np.float16)}
    kept = {name: getattr(made.clip, name) for name in ('valid', 'height', 'width', 'duration', 'notes')}
    return dataclasses.replace(made, clip=extracted.ExtractedClip(**content, **kept))


def extracted_dataset(out: pathlib.Path, train: int, test: int, visual=SEEN, audio=HEARD) -> pathlib.Path:
    """Prepares a data set as `dataset` does, of extracted records; the features of a black frame are all ones."""
    spec = extracted.ExtractedSpec(SPEC, visual, audio, 'fingerprint')

    def finish(out):
        if visual:
            extracted.write_absent(out, np.ones(visual.shape, np.float16))

    options = {'workers': 0, 'shard_size': 4, 'multi_label': False, 'classes': CLASSES, 'finish': finish}
    prepare.prepare(out, 'fake', jobs(train, test), extracted_record, spec=spec, **options)
    return out


def slow_record(job: prepare.Job, spec: media.ClipSpec) -> records.ClipRecord:
    time.sleep(0.05)
    return make_record(job, spec)


def dataset(out: pathlib.Path, train: int, test: int = 1, make=make_record, **options) -> pathlib.Path:
    """Prepares a data set of `train` and `test` clips in this process."""
    options = {'workers': 0, 'shard_size': 4, 'multi_label': False, **options}
    prepare.prepare(out, 'fake', jobs(train, test), make, classes=CLASSES, spec=SPEC, **options)
    return out


def command(out: pathlib.Path, *words: str) -> subprocess.Popen:
    """Starts a process that slowly prepares dataset(out, 40, 4).

    `words` are --workers=N or --runner=beam, and Beam's own options after `--`.
    """
    paths = [os.path.dirname(__file__), *sys.path]
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(paths)}
    line = [sys.executable, '-c', _COMMAND, str(out), *words]
    return subprocess.Popen(line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def stopped(out: pathlib.Path, signal_number: int, shards: int, *words: str) -> tuple[int, str]:
    """Sends a signal to a command once `shards` shards are complete; returns its exit code and stderr."""
    process = command(out, *words)
    deadline = time.monotonic() + 60
    while len(finished(out)) < shards:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal_number)
    # `communicate` returns when the last process that holds the pipe ends, and the workers hold it too.
    errors = process.communicate(timeout=300)[1]
    return process.returncode, errors


def finished(out: pathlib.Path) -> list[str]:
    """Returns the names of the completed shards."""
    return [path.stem for path in out.glob('prepare/fake-*.json')]


def tree(directory: pathlib.Path) -> dict[str, bytes]:
    """Returns the content of every file of a directory by its relative path."""
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob('*')) if path.is_file()
    }


def flip_byte(path: pathlib.Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)
