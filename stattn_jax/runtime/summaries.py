"""The logs of a run: metrics.jsonl (the record), TensorBoard events, Weights & Biases, one line on the console.

perf.py computes the FLOPs and the utilisation.
"""

import contextlib
import json
import math
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

import jax
import numpy as np
import simplejpeg

from stattn_jax import files, progress
from stattn_jax.runtime import perf

METRICS_FILE, EVENTS_FOLDER, WANDB_FILE = 'metrics.jsonl', 'tensorboard', 'wandb_id.txt'
# Names of the numbers of the evaluation at the end of a run begin so, as its files eval_SPLIT.json do.
EVALUATION = 'eval_'
# RGB, uint8 [h w 3], by name.
Pictures = Mapping[str, np.ndarray]


class Writer:
    """Writes a run's scalars to metrics.jsonl and TensorBoard (tensorboard/) in `workdir`, and to the console.

    Only process 0 writes; in other processes every method does nothing, so that callers need no check.

    config: the fields of the run by dotted name, shown by TensorBoard as a text and as hyperparameters.
    metrics: the names of scalars that TensorBoard lists beside the hyperparameters.
    wandb: a project of Weights & Biases that gets the same scalars and the config; '' for none.
    """

    def __init__(
        self,
        workdir: str,
        process_index: int = 0,
        *,
        config: Mapping[str, Any] = MappingProxyType({}),
        metrics: Sequence[str] = (),
        wandb: str = '',
    ):
        self._config, self._metrics, self._project = config, metrics, wandb
        self._wandb: _Wandb | None = None
        self._active = process_index == 0
        self._workdir = Path(workdir)
        self._path = self._workdir / METRICS_FILE
        self._file: TextIO | None = None
        self._events: _Events | None = None
        self._purge_step: int | None = None
        if self._active:
            files.make_folder(self._workdir)

    def truncate(self, step: int) -> int:
        """Drops the lines that a killed run wrote after `step`; returns how many there were.

        Call it before the first write of a resumed run. A last line that the kill left incomplete is dropped and
        counted too, and so are the numbers of an evaluation at the end, which a resumed run makes again. TensorBoard
        hides the events of the same steps. Raises ValueError, with file and line number, for any other line that cannot
        be read.
        """
        # TensorBoard hides every earlier event from purge_step on.
        self._purge_step = step + 1
        if not self._active or not self._path.exists():
            return 0
        lines = self._path.read_text(encoding='utf-8').splitlines()
        kept = [
            line
            for number, line in enumerate(lines, 1)
            if self._step_of(line, number, len(lines)) <= step and f'"{EVALUATION}' not in line
        ]
        files.write_text(self._path, ''.join(line + '\n' for line in kept))
        return len(lines) - len(kept)

    def write(
        self,
        step: int,
        scalars: Mapping[str, float | None],
        console: str | None = None,
        *,
        pictures: Pictures = MappingProxyType({}),
    ) -> None:
        """Appends {'step': step, **scalars} to the record and to the other logs; prints `console` if given.

        `pictures` go to TensorBoard and Weights & Biases only.

        Record and events are on disk before this returns. None stands for an unknown value (null in the record). Values
        that are not finite become the strings 'nan', 'inf', '-inf', because JSON has no such numbers, and `float`
        converts them back. The other logs receive neither.
        """
        if not self._active:
            return
        values = {name: None if value is None else float(value) for name, value in scalars.items()}
        with files.named(self._path):
            self._file = self._file or self._path.open('a', encoding='utf-8')
            self._file.write(json.dumps({'step': int(step), **{name: _json(x) for name, x in values.items()}}) + '\n')
            self._file.flush()
        with files.named(self._workdir / EVENTS_FOLDER):
            if self._events is None:
                self._events = _Events(self._workdir / EVENTS_FOLDER, self._purge_step)
                self._events.write_config(self._config, self._metrics)
            self._events.write(step, values, pictures)
        if self._project:
            self._wandb = self._wandb or _Wandb(self._project, self._workdir, self._config)
            self._wandb.write(step, values, pictures)
        if console is not None:
            print(console, flush=True)

    def close(self) -> None:
        """Closes the logs; may be called repeatedly."""
        record, events, online = self._file, self._events, self._wandb
        self._file = self._events = self._wandb = None
        try:
            if record is not None:
                with _never_empty(self._path), files.named(self._path):
                    record.close()
        finally:
            if events is not None:
                events.close()
            if online is not None:
                online.close()

    def _step_of(self, line, number, last):
        try:
            return json.loads(line)['step']
        except (ValueError, KeyError, TypeError) as error:
            if number == last:
                return math.inf
            raise ValueError(
                f'{self._path} line {number} is {line[:60]!r}; expected a JSON object with a step; '
                'remove that line or choose another workdir'
            ) from error


class _Events:
    """TensorBoard's file of a run, written in the thread of the caller.

    tensorboardX's own writer has a thread for it. Where that ends with an error, such as a full disk, its queue fills
    up and the run waits forever (2.6.5).
    """

    def __init__(self, folder: Path, purge_step: int | None):
        event_pb2, record_writer, _ = _tensorboard()
        folder.mkdir(exist_ok=True)
        self._event = event_pb2.Event
        self._path = folder / f'events.out.tfevents.{int(time.time())}.{socket.gethostname()}'
        self._file = record_writer.RecordWriter(str(self._path))
        self._add(file_version='brain.Event:2')
        if purge_step is not None:
            self._add(step=purge_step, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def write_config(self, config: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Writes the config as a table (Text) and as hyperparameters beside `metrics` (HParams)."""
        if not config:
            return
        summary = _tensorboard()[2]
        table = ''.join(f'| {name} | `{value}` |\n' for name, value in config.items())
        self._add(step=0, summary=summary.text('config', f'| field | value |\n|---|---|\n{table}'))
        simple = {name: x if isinstance(x, bool | int | float | str) else str(x) for name, x in config.items()}
        experiment, session, _ = summary.hparams(simple, {name: 0.0 for name in metrics})
        for each in (experiment, session):
            self._add(step=0, summary=each)

    def write(self, step: int, values: Mapping[str, float | None], pictures: Pictures) -> None:
        tagged: list[dict[str, Any]] = [{'tag': name, 'simple_value': x} for name, x in _finite(values).items()]
        for name, picture_hw3 in pictures.items():
            jpeg = simplejpeg.encode_jpeg(picture_hw3, quality=90, colorsubsampling='444')
            height, width, channels = picture_hw3.shape
            image = {'height': height, 'width': width, 'colorspace': channels, 'encoded_image_string': jpeg}
            tagged.append({'tag': name, 'image': image})
        self._add(step=int(step), summary={'value': tagged})
        self._file.flush()

    def close(self) -> None:
        with _never_empty(self._path), files.named(self._path):
            self._file.close()

    def _add(self, **content: Any) -> None:
        self._file.write(self._event(wall_time=time.time(), **content).SerializeToString())


class _Wandb:
    """A run of Weights & Biases (the extra `wandb`), named after the workdir.

    Its id is kept in the workdir, so that a resumed run continues there. Steps that a killed run had sent are sent
    again; Weights & Biases ignores them, and a resumed run computes the same numbers.
    """

    def __init__(self, project: str, workdir: Path, config: Mapping[str, Any]):
        import wandb

        path = workdir / WANDB_FILE
        if not path.exists():
            files.write_text(path, uuid.uuid4().hex)
        options = {'name': workdir.absolute().name, 'id': path.read_text(), 'resume': 'allow', 'dir': str(workdir)}
        self._image = wandb.Image
        self._run = wandb.init(project=project, config=dict(config), **options)

    def write(self, step: int, values: Mapping[str, float | None], pictures: Pictures) -> None:
        shown = {name: self._image(picture_hw3) for name, picture_hw3 in pictures.items()}
        self._run.log(_finite(values) | shown, step=int(step))

    def close(self) -> None:
        self._run.finish()


class Progress:
    """Measures the training loop between two log lines: clips/s, share of data waiting, utilisation, time left."""

    def __init__(self, total_steps: int, global_batch: int, devices: Sequence[jax.Device]):
        self._total_steps, self._global_batch, self._devices = total_steps, global_batch, devices

    def start(self, step: int, waited: float = 0.0) -> None:
        """Starts the clock after `step`.

        Call it again after compiling, evaluating or saving, which do not count as training time. `waited` is the number
        of seconds spent waiting for data so far (`prefetch(...).waited`).
        """
        self._step, self._waited, self._time = step, waited, time.perf_counter()

    def seconds(self) -> float:
        """Returns the seconds since `start` or the last call of `measure`."""
        return time.perf_counter() - self._time

    def measure(self, step: int, waited: float, flops: float | None) -> dict[str, float | None]:
        """Returns the scalars of the steps since `start` or the last call of this method.

        Call it when the results of `step` are on the host. `flops` counts one step over all devices (`compiled.flops`).
        The scalars are perf/clips_per_second, perf/step_ms, perf/wait_percent, perf/mfu_percent (None if unknown) and
        perf/eta_seconds; there are none where no step was made since `start`, as after the first one, which compiles.
        """
        if step == self._step:
            return {}
        seconds = self.seconds()
        per_step = seconds / (step - self._step)
        share = perf.mfu(flops, per_step, self._devices)
        scalars = {
            'perf/clips_per_second': self._global_batch / per_step,
            'perf/step_ms': 1e3 * per_step,
            'perf/wait_percent': 100 * (waited - self._waited) / seconds,
            'perf/mfu_percent': None if share is None else 100 * share,
            'perf/eta_seconds': (self._total_steps - step) * per_step,
        }
        self.start(step, waited)
        return scalars

    def line(self, step: int, scalars: Mapping[str, float | None]) -> str:
        """Formats the console line of a step from the scalars of `measure`, 'train/loss' and 'train/lr'."""
        width = len(str(self._total_steps))
        parts = [
            f'step {step:>{width}}/{self._total_steps}',
            f'loss {scalars["train/loss"]:.4f}',
            f'lr {scalars["train/lr"]:.2e}',
        ]
        if 'perf/step_ms' in scalars:
            mfu = scalars['perf/mfu_percent']
            parts += [
                f'{scalars["perf/clips_per_second"]:.1f} clips/s',
                f'wait {scalars["perf/wait_percent"]:.0f}%',
                *([] if mfu is None else [f'mfu {mfu:.1f}%']),
                f'eta {progress.format_seconds(scalars["perf/eta_seconds"])}',
            ]
        return '  '.join(parts)


@contextlib.contextmanager
def _never_empty(path: Path) -> Iterator[None]:
    """Removes a file that is empty at the end of the block, since the disk was full before its first line."""
    try:
        yield
    finally:
        if path.exists() and not path.stat().st_size:
            path.unlink()


def _tensorboard():
    """Returns tensorboardX's modules for events, for their file and for their content, without importing torch.

    tensorboardX imports torch where it is installed, which takes seconds and a gigabyte and is not needed here.
    """
    hidden = 'torch' not in sys.modules
    if hidden:
        sys.modules['torch'] = None
    try:
        from tensorboardX import record_writer, summary
        from tensorboardX.proto import event_pb2
    finally:
        if hidden:
            del sys.modules['torch']
    return event_pb2, record_writer, summary


def _finite(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}


def _json(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
