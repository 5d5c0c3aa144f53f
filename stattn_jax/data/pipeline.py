"""Turns records into batches of NumPy arrays with Grain and threads.

The global batch at a step is a function of (seed, step) only: the number of processes, the number of threads and
resuming do not change it. Frames stay uint8 here, because cropping, flipping and normalising happen on the device.
source.py provides the records.
"""

import math
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np
import simplejpeg
from PIL import Image

from stattn_jax.data import extracted, media, records, tfrecord
from stattn_jax.data import source as source_lib

FITS = ('squash', 'crop')
# More steps than any run takes. Grain needs an end, and element numbers must stay below 2**63.
_MANY_STEPS = 2**31
# In bytes; XLA's alignment for host arrays that it may use in place.
_ALIGNMENT = 64

Batch = dict[str, np.ndarray]


def frame_affine(height: int, width: int, fit: str) -> tuple[float, float, float, float]:
    """Maps the model's frame to the source frame, both in 0..1: source = scale * model + offset.

    Returns:
      x_scale, x_offset, y_scale, y_offset.
    """
    if fit == 'squash':
        return 1.0, 0.0, 1.0, 0.0
    side = min(height, width)
    x_scale, y_scale = side / width, side / height
    return x_scale, (1 - x_scale) / 2, y_scale, (1 - y_scale) / 2


def clip_arrays(item: records.ClipRecord | records.Clip, frame_size: int, fit: str) -> Batch:
    """Decodes a clip for the model; training, evaluation and explanation all use this function.

    Args:
      item: a record, or a clip that was read from a file.
      frame_size: side of the square frame, in pixels.
      fit: 'squash' resizes the whole frame, 'crop' takes the centred square of the short side.

    Returns:
      frames uint8 [t h w 3], log_mel float16 [t f k], valid bool [t], modalities bool [m] (False for one that the clip
      lacks). For a clip of features, its cells float16 [t h w d] take the place of the frames, and its audio features
      float16 [t 1 k] that of the log-mel. Of several views it is the unaugmented one.
    """
    _check_fit(fit)
    clip = item.clip if isinstance(item, records.ClipRecord) else item
    arrays = {name: x.copy() for name, x in clip.arrays().items()}
    if isinstance(clip, media.Clip | extracted.ExtractedClip) and 'frames' not in arrays:
        arrays['frames'] = np.empty((len(clip.frames), frame_size, frame_size, 3), np.uint8)
        _write_frames(clip, arrays['frames'], fit)
    return arrays


def write_clip(clip: records.Clip, out: Batch, fit: str, view: int = 0) -> None:
    """Like `clip_arrays`, but writes into existing arrays such as a row of a batch, which set the frame size."""
    arrays = clip.arrays(view)
    for name, x in arrays.items():
        out[name][:] = x
    if isinstance(clip, media.Clip | extracted.ExtractedClip) and 'frames' not in arrays:
        _write_frames(clip, out['frames'], fit)


def _write_frames(clip: media.Clip | extracted.ExtractedClip, out_thwc: np.ndarray, fit: str) -> None:
    """Decodes a clip's JPEGs to the size of `out_thwc`.

    TurboJPEG shrinks while decoding, and PIL's area-aware bilinear filter does the rest.
    """
    size = out_thwc.shape[1:3]
    x_scale, x_offset, y_scale, y_offset = frame_affine(clip.height, clip.width, fit)
    # The whole frame must be at least this large for the wanted part to have `size`.
    least = {'min_height': int(size[0] / y_scale), 'min_width': int(size[1] / x_scale)}
    # All frames of a clip have the same size.
    height, width, _, _ = simplejpeg.decode_jpeg_header(clip.frames[0], **least)
    direct = (height, width) == size and x_scale == y_scale == 1
    for jpeg, out_hwc in zip(clip.frames, out_thwc, strict=True):
        if direct:
            simplejpeg.decode_jpeg(jpeg, buffer=out_hwc, **least)
            continue
        pixels = simplejpeg.decode_jpeg(jpeg, **least)
        if max(abs(x_scale * width - size[1]), abs(y_scale * height - size[0])) < 1:
            # The size is right except for rounding: cut to the nearest pixel.
            left, top = round((width - size[1]) / 2), round((height - size[0]) / 2)
            out_hwc[:] = pixels[top : top + size[0], left : left + size[1]]
            continue
        box = (x_offset * width, y_offset * height, (x_offset + x_scale) * width, (y_offset + y_scale) * height)
        resized = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR, box=box)
        out_hwc[:] = np.asarray(resized)


def train_batches(
    source: source_lib.RecordSource,
    *,
    global_batch: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    local_devices: int = 1,
    micro_batches: int = 1,
    threads: int = 4,
    frame_size: int,
    fit: str,
) -> grain.DatasetIterator[Batch]:
    """Returns endless shuffled batches of this process from `start_step` on (any step costs the same to reach).

    Each epoch is a fresh permutation, and batches run across the ends of epochs, so a split may be smaller than a
    batch. For clips that are stored in several views, one view is sampled at random by (seed, position in the stream).
    Process p of n gets the contiguous rows [p*b/n, (p+1)*b/n) of the global batch. With several `micro_batches`, the
    first of k is the contiguous rows [0, b/k) of the global batch, so that it has the same clips on any number of
    devices: each of the `local_devices` gets its share of the first micro-batch, then of the second one, and so on.

    Returns:
      An iterator, which must be closed, of batches: frames uint8 [b t h w 3], log_mel float16 [b t f k], valid bool [b
      t], modalities bool [b m] (visual, audio), labels float32 multi-hot [b c], weight float32 [b] (1 real, 0 padding),
      index int32 [b] (record number in the split, -1 for padding).
    """
    order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    rows = _Rows(global_batch, process_index, process_count, threads, local_devices, micro_batches)
    spec = source.info.spec
    views = spec.views if isinstance(spec, extracted.ExtractedSpec) else 1

    def chosen_at(position):
        view = int(np.random.default_rng([seed, position]).integers(views)) if views > 1 else 0
        return order[position], view

    return _batches(source, rows, start_step, _MANY_STEPS, chosen_at, threads, frame_size, fit)


def eval_batches(
    source: source_lib.RecordSource,
    *,
    global_batch: int,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 4,
    frame_size: int,
    fit: str,
) -> grain.DatasetIterator[Batch]:
    """Returns batches with every record of the split exactly once, in order.

    The last batch is padded with rows of weight 0 and index -1. Batches have the arrays of `train_batches`; every
    process gets the same number of them.
    """
    rows = _Rows(global_batch, process_index, process_count, threads)
    steps = -(-len(source) // global_batch)

    def chosen_at(position):
        return (position if position < len(source) else -1), 0

    return _batches(source, rows, 0, steps, chosen_at, threads, frame_size, fit)


class _Rows:
    """The positions of the global stream that this process reads.

    A thread loads `together` rows of the process's batch at a time.
    """

    def __init__(
        self,
        global_batch: int,
        process_index: int,
        process_count: int,
        threads: int,
        local_devices: int = 1,
        micro_batches: int = 1,
    ):
        if global_batch < 1 or global_batch % process_count:
            raise ValueError(
                f'global batch {global_batch} must be a positive multiple of the number of processes, {process_count}'
            )
        if micro_batches > 1 and global_batch % (process_count * local_devices * micro_batches):
            raise ValueError(
                f'global batch {global_batch} must be a multiple of {micro_batches} micro-batches on each of '
                f'{process_count * local_devices} devices'
            )
        self.local = global_batch // process_count
        # Grain's own work for an element, 0.04 ms under the interpreter's lock, is shared by a few rows.
        few = max(1, self.local // (2 * max(1, threads)))
        self.together = max(count for count in range(1, few + 1) if self.local % count == 0)
        self._global, self._micro_batches = global_batch, micro_batches
        self._first = process_index * self.local
        # The rows of a device. Those of one micro-batch are in the order of the batch, on however many devices.
        self._of_device = self.local // local_devices if micro_batches > 1 else self.local

    def position(self, step: int, row: int) -> int:
        device, row_of_device = divmod(self._first + row, self._of_device)
        micro_batch, row_of_share = divmod(row_of_device, self._of_device // self._micro_batches)
        of_micro_batch = self._global // self._micro_batches
        share = device * (self._of_device // self._micro_batches)
        return step * self._global + micro_batch * of_micro_batch + share + row_of_share


def _batches(
    source: source_lib.RecordSource,
    rows: _Rows,
    start_step: int,
    stop_step: int,
    chosen_at: Callable[[int], tuple[int, int]],
    threads: int,
    frame_size: int,
    fit: str,
) -> grain.DatasetIterator[Batch]:
    """Loads clips in threads.

    Memory holds two local batches, and more only if there are more threads than rows of a batch.
    """
    _check_fit(fit)
    if not len(source):
        raise tfrecord.DataError(f'split {source.split!r} holds no clips; prepare the data with clips in it')
    batches = _Batches(source, rows, chosen_at, frame_size, fit)
    parts = rows.local // rows.together
    loaded = grain.MapDataset.range(start_step * parts, stop_step * parts).map(batches.load)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, parts))
    return iter(loaded.to_iter_dataset(options).batch(parts, drop_remainder=True, batch_fn=batches.take))


class _Batches:
    """The batches under construction: each clip is decoded by a thread directly into its row and never copied."""

    def __init__(self, source, rows: _Rows, chosen_at: Callable[[int], tuple[int, int]], frame_size: int, fit: str):
        self._source, self._rows, self._chosen_at, self._fit = source, rows, chosen_at, fit
        info, local = source.info, rows.local
        frames, log_mel = info.spec.shapes(frame_size)
        self._like = {
            'frames': ((local, *frames[0]), frames[1]),
            'log_mel': ((local, *log_mel[0]), log_mel[1]),
            'valid': ((local, info.spec.segments), bool),
            'modalities': ((local, 2), bool),
            'labels': ((local, len(info.classes)), np.float32),
            'weight': ((local,), np.float32),
            'index': ((local,), np.int32),
        }
        self._lock, self._memory = threading.Lock(), _Memory()
        self._open: dict[int, Any] = {}

    def load(self, part: int) -> int:
        """Fills the rows of a part of a batch and returns the step of the batch."""
        step, first = divmod(part * self._rows.together, self._rows.local)
        with self._lock:
            if step not in self._open:
                self._open[step] = {name: self._memory.array(*like) for name, like in self._like.items()}
            batch = self._open[step]
        for row in range(first, first + self._rows.together):
            self._fill(batch, row, *self._chosen_at(self._rows.position(step, row)))
        return step

    def _fill(self, batch: Batch, row: int, number: int, view: int) -> None:
        """Writes a view of a record into a row; number -1 is padding."""
        batch['labels'][row], batch['weight'][row], batch['index'][row] = 0, number >= 0, number
        arrays = {name: batch[name][row] for name in ('frames', 'log_mel', 'valid', 'modalities')}
        if number >= 0:
            record = self._source[number]
            batch['labels'][row, list(record.labels)] = 1
            write_clip(record.clip, arrays, self._fit, view)
        else:
            for x in arrays.values():
                x[:] = 0

    def take(self, steps: Sequence[int]) -> Batch:
        """Returns the batch of these parts, which all belong to one step."""
        with self._lock:
            return self._open.pop(steps[0])


class _Memory:
    """Memory for arrays, reused once nothing refers to an array in it.

    Fresh pages cost a tenth of decoding into them. Addresses are aligned so that XLA uses the arrays in place on a CPU;
    others it copies (10 ms for 24 MB, jax 0.10.2).
    """

    def __init__(self):
        self._free: dict[int, list[np.ndarray]] = {}

    def array(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        """Returns an array with arbitrary content."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        free = self._free.setdefault(size, [])
        try:
            memory = free.pop()
        except IndexError:
            # Not np.zeros, which gives small pages that the threads would wait for one by one.
            memory = np.empty(size + _ALIGNMENT, np.uint8)
        first = -memory.ctypes.data % _ALIGNMENT
        loan = _Loan(memory[first : first + size].view(dtype).reshape(shape).__array_interface__)
        weakref.finalize(loan, free.append, memory).atexit = False
        return np.asarray(loan)


class _Loan:
    """Owner of an array's borrowed memory: the array and all its views refer to it.

    NumPy's own views would refer to the memory directly.
    """

    def __init__(self, interface: dict):
        self.__array_interface__ = interface


def _check_fit(fit: str) -> None:
    if fit not in FITS:
        raise ValueError(f'fit is {fit!r}, expected one of {", ".join(FITS)}')
