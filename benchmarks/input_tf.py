"""Reads the same TFRecords with plain tf.data: interleaved shards, a shuffle buffer, parallel parsing and decoding.

It needs `pip install ".[test_tf]"`. Its batches equal the pipeline's, pixel for pixel where a frame needs no resizing;
elsewhere it resizes bilinearly without averaging, which is cheaper. input.py compares the two.
"""

from collections.abc import Iterator

import numpy as np

from data_prep import cli
from stattn_jax.data import source

# Serialized clips in the shuffle buffer, which takes a few hundred megabytes at most.
_SHUFFLED = 512
# Number of shards that are read at once.
_OPEN = 16


def check() -> None:
    """Raises UsageError if TensorFlow cannot be imported."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise cli.UsageError(f'--tf needs TensorFlow ({error}); install it: pip install ".[test_tf]"') from None
    # The GPU is hidden from TensorFlow, which would otherwise take all of its memory from JAX.
    tf.config.set_visible_devices([], 'GPU')


def batches(setting, info: source.DatasetInfo) -> Iterator[dict[str, np.ndarray]]:
    """Yields endless shuffled batches of an input.Setting: frames, log_mel, valid and labels, as in pipeline.py."""
    import tensorflow as tf

    paths = [str(path) for path in info.shard_paths(setting.data, setting.split)]
    files = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths))
    data = files.interleave(
        tf.data.TFRecordDataset,
        cycle_length=min(_OPEN, len(paths)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=False,
    )
    data = data.shuffle(min(_SHUFFLED, info.splits[setting.split])).repeat()
    data = data.map(parser(setting, info), num_parallel_calls=setting.threads, deterministic=False)
    data = data.batch(setting.batch, drop_remainder=True).prefetch(2)
    options = tf.data.Options()
    options.threading.private_threadpool_size = setting.threads
    return data.with_options(options).as_numpy_iterator()


def parser(setting, info: source.DatasetInfo):
    """Returns a function from a serialized record to the arrays of a clip."""
    import tensorflow as tf

    spec, side = info.spec, setting.frame_size
    # TurboJPEG can shrink by a power of two while decoding; the largest one that keeps the frame large enough is used.
    shrink = max(ratio for ratio in (1, 2, 4, 8) if ratio == 1 or spec.short_side // ratio >= side)
    description = {
        'frames': tf.io.FixedLenFeature([spec.segments], tf.string),
        'log_mel': tf.io.FixedLenFeature([], tf.string),
        'valid': tf.io.FixedLenFeature([spec.segments], tf.int64),
        'labels': tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
    }

    def frame(jpeg):
        pixels = tf.io.decode_jpeg(jpeg, channels=3, ratio=shrink, dct_method='INTEGER_ACCURATE')
        fits = tf.reduce_all(tf.shape(pixels)[:2] == side)
        pixels = tf.cond(fits, lambda: pixels, lambda: _resized(tf, pixels, side, setting.fit))
        return tf.ensure_shape(pixels, (side, side, 3))

    def parse(serialized):
        found = tf.io.parse_single_example(serialized, description)
        # A Python loop instead of map_fn: its operations run in parallel and are fused.
        frames = tf.stack([frame(found['frames'][t]) for t in range(spec.segments)])
        return {
            'frames': frames,
            'log_mel': tf.reshape(tf.io.decode_raw(found['log_mel'], tf.float16), spec.mel_shape),
            'valid': tf.cast(found['valid'], tf.bool),
            'labels': tf.reduce_sum(tf.one_hot(found['labels'], len(info.classes)), 0),
        }

    return parse


def _resized(tf, pixels, side: int, fit: str):
    if fit == 'crop':
        height, width = tf.shape(pixels)[0], tf.shape(pixels)[1]
        short = tf.minimum(height, width)
        pixels = tf.image.crop_to_bounding_box(pixels, (height - short) // 2, (width - short) // 2, short, short)
    return tf.cast(tf.round(tf.image.resize(pixels, (side, side))), tf.uint8)
