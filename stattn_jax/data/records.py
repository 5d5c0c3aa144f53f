"""The record of one clip: its content, labels and annotations, and how it is written as bytes.

Records are declared with `tfds.features`, so `tfds.builder_from_directory` opens a directory of them. Nothing here imports TensorFlow.
Read next: tfrecord.py (the file that holds many), pipeline.py (records to batches).
"""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from stattn_jax.data import features as features_lib
from stattn_jax.data import media

MODALITIES = ('audio', 'visual', 'both')
Spec = media.ClipSpec | features_lib.FeatureSpec


@dataclasses.dataclass(frozen=True)
class Event:
    """An event of class `label`, heard or seen in [onset, offset) seconds from the clip's start."""

    label: int
    onset: float
    offset: float
    modality: str


@dataclasses.dataclass(frozen=True)
class Box:
    """A box of class `label` at `time` seconds from the clip's start, in 0..1 of the frame, top-left origin."""

    time: float
    label: int
    x0: float
    y0: float
    x1: float
    y1: float


@dataclasses.dataclass(frozen=True)
class Presence:
    """Class `label` is there somewhere in the clip, heard, seen or both; `flags` as the annotators set them (background_music, ...)."""

    label: int
    modality: str
    flags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ClipRecord:
    """One clip with its annotations; `video` is the file it came from and `start` its first second there."""

    clip_id: str
    clip: media.Clip | features_lib.FeatureClip
    labels: tuple[int, ...]
    events: tuple[Event, ...] = ()
    boxes: tuple[Box, ...] = ()
    video: str = ''
    start: float = 0.0
    presence: tuple[Presence, ...] = ()


def spec_from_json(content: Mapping) -> Spec:
    """The spec of a data set, of videos or of features; raises ValueError where a field is missing, unknown or out of range."""
    kind = features_lib.FeatureSpec if content.get('kind') == 'features' else media.ClipSpec
    return kind.from_json(content)


def make_features(classes: Iterable[str], spec: Spec) -> tfds.features.FeaturesDict:
    """Declares the record's schema: times in seconds, boxes as x0 y0 x1 y1 in 0..1 of the frame.

    The mel is stored as raw bytes: zlib saves an eighth of it and costs seven times the rest of the parse to undo.
    """
    features = tfds.features
    names = list(classes)
    return features.FeaturesDict(
        {
            'clip_id': features.Text(),
            **_content_features(spec),
            'valid': features.Tensor(shape=(spec.segments,), dtype=np.bool_),
            'labels': features.Sequence(features.ClassLabel(names=names)),
            'events': features.Sequence(
                {
                    'label': features.ClassLabel(names=names),
                    'onset': np.float32,
                    'offset': np.float32,
                    'modality': features.ClassLabel(names=list(MODALITIES)),
                }
            ),
            'boxes': features.Sequence(
                {
                    'time': np.float32,
                    'label': features.ClassLabel(names=names),
                    'box': features.Tensor(shape=(4,), dtype=np.float32),
                }
            ),
            'presence': features.Sequence(
                {
                    'label': features.ClassLabel(names=names),
                    'modality': features.ClassLabel(names=list(MODALITIES)),
                    'flags': features.Text(),
                }
            ),
            'video': features.Text(),
            'start': np.float32,
            'height': np.int32,
            'width': np.int32,
            'duration': np.float32,
            'notes': features.Sequence(features.Text()),
        }
    )


def _content_features(spec: Spec) -> dict[str, tfds.features.FeatureConnector]:
    features = tfds.features
    if isinstance(spec, features_lib.FeatureSpec):
        return {
            'visual': features.Tensor(shape=(spec.segments, *spec.visual), dtype=np.float16, encoding='bytes'),
            'audio': features.Tensor(shape=(spec.segments, spec.audio), dtype=np.float16, encoding='bytes'),
        }
    return {
        'frames': features.Sequence(
            features.Image(shape=(None, None, 3), encoding_format='jpeg'), length=spec.segments
        ),
        'log_mel': features.Tensor(shape=spec.mel_shape, dtype=np.float16, encoding='bytes'),
    }


def encode(record: ClipRecord, features: tfds.features.FeaturesDict) -> bytes:
    """Serializes a record as tf.train.Example; equal records give equal bytes in every process."""
    clip = record.clip
    serialized = features.serialize_example(
        {
            'clip_id': record.clip_id,
            **_content(clip),
            'valid': clip.valid,
            'labels': list(record.labels),
            'events': [dataclasses.asdict(event) for event in record.events],
            'boxes': [
                {'time': b.time, 'label': b.label, 'box': np.array([b.x0, b.y0, b.x1, b.y1], np.float32)}
                for b in record.boxes
            ],
            'presence': [
                {'label': p.label, 'modality': p.modality, 'flags': '|'.join(p.flags)} for p in record.presence
            ],
            'video': record.video,
            'start': record.start,
            'height': clip.height,
            'width': clip.width,
            'duration': clip.duration,
            'notes': list(clip.notes),
        }
    )
    # Protobuf writes map entries in an order that changes from process to process (measured with protobuf 7.36, upb).
    return tf_example_pb2.Example.FromString(serialized).SerializeToString(deterministic=True)


def _content(clip: media.Clip | features_lib.FeatureClip) -> dict:
    if isinstance(clip, features_lib.FeatureClip):
        return {'visual': clip.visual, 'audio': clip.audio}
    return {'frames': list(clip.frames), 'log_mel': clip.log_mel}


def decode(serialized: bytes, spec: Spec) -> ClipRecord:
    """Parses one record; the frames stay JPEG bytes."""
    feature = tf_example_pb2.Example.FromString(serialized).features.feature

    def texts(name):
        return [value.decode() for value in feature[name].bytes_list.value]

    def ints(name):
        return list(feature[name].int64_list.value)

    def floats(name):
        return list(feature[name].float_list.value)

    corners = np.reshape(floats('boxes/box'), (-1, 4)).tolist()

    def array(name, *shape):
        return np.frombuffer(feature[name].bytes_list.value[0], np.float16).reshape(shape)

    common = {
        'valid': np.asarray(ints('valid'), bool),
        'height': ints('height')[0],
        'width': ints('width')[0],
        'duration': floats('duration')[0],
        'notes': tuple(texts('notes')),
    }
    if isinstance(spec, features_lib.FeatureSpec):
        visual, audio = array('visual', spec.segments, *spec.visual), array('audio', spec.segments, spec.audio)
        clip = features_lib.FeatureClip(visual=visual, audio=audio, **common)
    else:
        frames = list(feature['frames'].bytes_list.value)
        clip = media.Clip(frames=frames, log_mel=array('log_mel', *spec.mel_shape), **common)
    return ClipRecord(
        clip_id=texts('clip_id')[0],
        clip=clip,
        labels=tuple(ints('labels')),
        events=tuple(
            Event(label, onset, offset, MODALITIES[modality])
            for label, onset, offset, modality in zip(
                ints('events/label'),
                floats('events/onset'),
                floats('events/offset'),
                ints('events/modality'),
                strict=True,
            )
        ),
        boxes=tuple(
            Box(time, label, *box)
            for time, label, box in zip(floats('boxes/time'), ints('boxes/label'), corners, strict=True)
        ),
        video=texts('video')[0],
        start=floats('start')[0],
        presence=tuple(
            Presence(label, MODALITIES[modality], tuple(filter(None, flags.split('|'))))
            for label, modality, flags in zip(
                ints('presence/label'), ints('presence/modality'), texts('presence/flags'), strict=True
            )
        ),
    )
