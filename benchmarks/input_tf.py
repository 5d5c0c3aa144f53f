"""The same TFRecords by tf.data, as well as plain tf.data does it: interleaved shards, a shuffle buffer of bytes,
parallel parsing and decoding.

`pip install ".[test_tf]"`. Its batches hold what the pipeline's hold, pixel for pixel where a frame needs no resizing;
elsewhere it resizes
bilinearly without averaging, which is cheaper. Read next: input.py, which compares the two.
"""

from collections.abc import Iterator

import numpy as np

from data_prep import cli
from stattn_jax.data import source

# Serialized clips in the shuffle buffer: a few hundred megabytes at most.
_SHUFFLED = 512
# Shards that are read at once.
_OPEN = 16


def check() -> None:
    """Raises UsageError where TensorFlow cannot be imported."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise cli.UsageError(f'--tf needs TensorFlow ({error}); install it: pip install ".[test_tf]"') from None
    # A GPU is for JAX alone: TensorFlow would take all of its memory.
    tf.config.set_visible_devices([], 'GPU')


def batches(setting, info: source.DatasetInfo) -> Iterator[dict[str, np.ndarray]]:
    """Endless shuffled batches of an input.Setting: frames, log_mel, valid and labels, as pipeline.py has them."""
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
    """A function of a serialized record to the arrays of a clip."""
    import tensorflow as tf

    spec, side = info.spec, setting.frame_size
    # TurboJPEG shrinks by a power of two while it decodes, as far as the frame stays large enough.
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
        # Not map_fn, which is a loop: these run in parallel and are fused.
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
