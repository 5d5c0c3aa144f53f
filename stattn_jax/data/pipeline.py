"""Records to batches of NumPy arrays, by Grain with threads.

The global batch at a step is a function of (seed, step) alone: neither the number of processes nor of threads nor a
resume changes it. Cropping, flipping and normalising happen on the device, so frames stay uint8 here. Read next:
source.py (where records come from).
"""

import threading
from collections.abc import Callable, Sequence

import grain
import numpy as np
import simplejpeg
from PIL import Image

from stattn_jax.data import features, media, records, tfrecord
from stattn_jax.data import source as source_lib

FITS = ('squash', 'crop')
# More steps than any run takes; Grain wants an end, and element numbers must stay below 2**63.
_MANY_STEPS = 2**31

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


def clip_arrays(item: records.ClipRecord | media.Clip | features.FeatureClip, frame_size: int, fit: str) -> Batch:
    """Decodes a clip for the model; training, evaluation and explaining all see a clip through this function.

    Args:
      item: a record, or a clip straight from a file.
      frame_size: side of the square frame, in pixels.
      fit: 'squash' resizes the whole frame, 'crop' takes the centred square of the short side.

    Returns:
      frames uint8 [t h w 3], log_mel float16 [t f k], valid bool [t]; of a clip of features its cells float16 [t h w d] stand for
      the frames, and the sound's numbers float16 [t 1 k] for the log-mel.
    """
    _check_fit(fit)
    clip = item.clip if isinstance(item, records.ClipRecord) else item
    if isinstance(clip, features.FeatureClip):
        return clip.arrays()
    frames = np.empty((len(clip.frames), frame_size, frame_size, 3), np.uint8)
    arrays = {'frames': frames, 'log_mel': np.empty_like(clip.log_mel), 'valid': np.empty_like(clip.valid)}
    write_clip(clip, arrays, fit)
    return arrays


def write_clip(clip: media.Clip | features.FeatureClip, out: Batch, fit: str) -> None:
    """As `clip_arrays`, into arrays that are there, such as a row of a batch; the frames get the size of theirs."""
    if isinstance(clip, features.FeatureClip):
        for name, x in clip.arrays().items():
            out[name][:] = x
        return
    out['log_mel'][:], out['valid'][:] = clip.log_mel, clip.valid
    _write_frames(clip, out['frames'], fit)


def _write_frames(clip: media.Clip, out_thwc: np.ndarray, fit: str) -> None:
    """Decodes a clip's JPEGs to the size of `out_thwc`; TurboJPEG shrinks while decoding, PIL's area-aware bilinear does the rest."""
    size = out_thwc.shape[1:3]
    x_scale, x_offset, y_scale, y_offset = frame_affine(clip.height, clip.width, fit)
    # As large as the part that is wanted must be.
    least = {'min_height': int(size[0] / y_scale), 'min_width': int(size[1] / x_scale)}
    for jpeg, out_hwc in zip(clip.frames, out_thwc, strict=True):
        height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg, **least)
        if (height, width) == size and x_scale == y_scale == 1:
            simplejpeg.decode_jpeg(jpeg, buffer=out_hwc, **least)
            continue
        pixels = simplejpeg.decode_jpeg(jpeg, **least)
        if max(abs(x_scale * width - size[1]), abs(y_scale * height - size[0])) < 1:
            # As large as asked for but for a rounding: cut to the nearest pixel.
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
    threads: int = 4,
    frame_size: int,
    fit: str,
) -> grain.DatasetIterator[Batch]:
    """Endless shuffled batches of this process, from `start_step` on (any step costs the same to reach).

    Each epoch is a fresh permutation, and batches run across the ends of epochs, so a split may be smaller than a batch.
    Process p of n gets the contiguous rows [p*b/n, (p+1)*b/n) of the global batch.

    Returns:
      An iterator to be closed, of batches: frames uint8 [b t h w 3], log_mel float16 [b t f k], valid bool [b t],
      labels float32 multi-hot [b c], weight float32 [b] (1 real, 0 padding), index int32 [b] (record number in the
      split, -1 for padding).
    """
    order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    rows = _Rows(global_batch, process_index, process_count)
    return _batches(source, rows, start_step, _MANY_STEPS, lambda position: order[position], threads, frame_size, fit)


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
    """Every record of the split exactly once, in order; the last batch is filled up with rows of weight 0 and index -1.

    Batches are those of `train_batches`; every process gets the same number of them.
    """
    rows = _Rows(global_batch, process_index, process_count)
    steps = -(-len(source) // global_batch)
    return _batches(
        source, rows, 0, steps, lambda position: position if position < len(source) else -1, threads, frame_size, fit
    )


class _Rows:
    """Which positions of the global stream this process reads: its n-th element belongs to step n // local."""

    def __init__(self, global_batch: int, process_index: int, process_count: int):
        if global_batch < 1 or global_batch % process_count:
            raise ValueError(
                f'global batch {global_batch} must be a positive multiple of the number of processes, {process_count}'
            )
        self.local = global_batch // process_count
        self._global = global_batch
        self._first = process_index * self.local

    def position(self, element: int) -> int:
        step, row = divmod(element, self.local)
        return step * self._global + self._first + row


def _batches(
    source: source_lib.RecordSource,
    rows: _Rows,
    start_step: int,
    stop_step: int,
    number_at: Callable[[int], int],
    threads: int,
    frame_size: int,
    fit: str,
) -> grain.DatasetIterator[Batch]:
    """Loads clip by clip in threads; memory holds two local batches, and more only where threads outnumber a batch's rows."""
    _check_fit(fit)
    if not len(source):
        raise tfrecord.DataError(f'split {source.split!r} holds no clips; prepare the data with clips in it')
    batches = _Batches(source, rows, number_at, frame_size, fit)
    clips = grain.MapDataset.range(start_step * rows.local, stop_step * rows.local).map(batches.load)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, rows.local))
    return iter(clips.to_iter_dataset(options).batch(rows.local, drop_remainder=True, batch_fn=batches.take))


class _Batches:
    """The batches under way: each clip is decoded into its row of one, by whichever thread has it, and never copied."""

    def __init__(self, source, rows: _Rows, number_at: Callable[[int], int], frame_size: int, fit: str):
        self._source, self._rows, self._number_at, self._fit = source, rows, number_at, fit
        info, local = source.info, rows.local
        frames, log_mel = info.spec.shapes(frame_size)
        self._like = {
            'frames': ((local, *frames[0]), frames[1]),
            'log_mel': ((local, *log_mel[0]), log_mel[1]),
            'valid': ((local, info.spec.segments), bool),
            'labels': ((local, len(info.classes)), np.float32),
            'weight': ((local,), np.float32),
            'index': ((local,), np.int32),
        }
        self._lock, self._open = threading.Lock(), {}

    def load(self, element: int) -> int:
        """Fills the row of an element, number -1 being padding; returns its step."""
        step, row = divmod(element, self._rows.local)
        with self._lock:
            if step not in self._open:
                # Not zeros: those are small pages, which the threads would wait for one by one.
                self._open[step] = {name: np.empty(*like) for name, like in self._like.items()}
            batch = self._open[step]
        number = self._number_at(self._rows.position(element))
        batch['labels'][row], batch['weight'][row], batch['index'][row] = 0, number >= 0, number
        arrays = {name: batch[name][row] for name in ('frames', 'log_mel', 'valid')}
        if number >= 0:
            record = self._source[number]
            batch['labels'][row, list(record.labels)] = 1
            write_clip(record.clip, arrays, self._fit)
        else:
            for x in arrays.values():
                x[:] = 0
        return step

    def take(self, steps: Sequence[int]) -> Batch:
        """The batch of these elements, which all belong to one step."""
        with self._lock:
            return self._open.pop(steps[0])


def _check_fit(fit: str) -> None:
    if fit not in FITS:
        raise ValueError(f'fit is {fit!r}, expected one of {", ".join(FITS)}')
