"""The record of one clip, with its content, labels and annotations, and its serialization.

Records are declared with `tfds.features`, so `tfds.builder_from_directory` opens a directory of them. Nothing here
imports TensorFlow. tfrecord.py defines the file that holds many records, and pipeline.py turns records into batches.
"""

import dataclasses
import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from stattn_jax.data import extracted, media
from stattn_jax.data import features as features_lib

MODALITIES = ('audio', 'visual', 'both')
Spec = media.ClipSpec | features_lib.FeatureSpec | extracted.ExtractedSpec
Clip = media.Clip | features_lib.FeatureClip | extracted.ExtractedClip
# Content of a clip: one of the first two and one of the last two.
_CONTENT = ('frames', 'visual', 'log_mel', 'audio')


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
class Mask:
    """The pixels of class `label` at `time` seconds from the clip's start, as a PNG of the whole source frame.

    `label` is None if the annotators named no class. A mask without a pixel says that nothing sounds and is visible at
    this time; a time without a mask was not annotated.
    """

    time: float
    label: int | None
    png: bytes

    @classmethod
    def of_pixels(cls, time: float, label: int | None, pixels_hw: np.ndarray) -> 'Mask':
        """Makes a mask from bool [h w]."""
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels_hw, bool)).save(file, 'PNG', optimize=True)
        return cls(time, label, file.getvalue())

    def pixels(self, side: int | None = None) -> np.ndarray:
        """Returns the mask as bool [h w], or made square (the nearest pixel) as [side side].

        Raises ValueError if it is no PNG.
        """
        try:
            with Image.open(io.BytesIO(self.png), formats=['PNG']) as image:
                sized = image if side is None else image.resize((side, side), Image.Resampling.NEAREST)
                return np.asarray(sized).astype(bool)
        except (OSError, SyntaxError) as error:
            raise ValueError(f'its mask at {self.time:g} s is no PNG ({error})') from None


@dataclasses.dataclass(frozen=True)
class Presence:
    """Class `label` occurs somewhere in the clip: heard, seen or both.

    `flags` are those that the annotators set (background_music, ...).
    """

    label: int
    modality: str
    flags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ClipRecord:
    """One clip with its annotations; it was cut from the file `video`, where it begins at `start` (s)."""

    clip_id: str
    clip: Clip
    labels: tuple[int, ...]
    events: tuple[Event, ...] = ()
    boxes: tuple[Box, ...] = ()
    video: str = ''
    start: float = 0.0
    presence: tuple[Presence, ...] = ()
    masks: tuple[Mask, ...] = ()


def spec_from_json(content: Mapping) -> Spec:
    """Returns the spec of a data set of videos or of features.

    Raises ValueError if a field is missing, unknown or out of range.
    """
    kinds: dict[str | None, Any] = {'features': features_lib.FeatureSpec, 'extracted': extracted.ExtractedSpec}
    return kinds.get(content.get('kind'), media.ClipSpec).from_json(content)


def make_features(classes: Iterable[str], spec: Spec) -> tfds.features.FeaturesDict:
    """Declares the record's schema: times in seconds, boxes as x0 y0 x1 y1 in 0..1 of the frame.

    The mel is stored as raw bytes: zlib saves an eighth of its size, and decompression costs seven times the rest of
    the parse.
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
            'masks': features.Sequence(
                {
                    'time': np.float32,
                    # -1: the annotators named no class.
                    'label': features.ClassLabel(names=names),
                    'png': features.Image(shape=(None, None, 1), encoding_format='png'),
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
    features, shapes = tfds.features, array_shapes(spec)
    content = {name: features.Tensor(shape=shape, dtype=np.float16, encoding='bytes') for name, shape in shapes.items()}
    if 'visual' in shapes:
        return content
    jpeg = features.Image(shape=(None, None, 3), encoding_format='jpeg')
    return {'frames': features.Sequence(jpeg, length=spec.segments), **content}


def array_shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a clip's float16 arrays by name: log_mel or audio, and visual if there are no JPEGs."""
    if isinstance(spec, features_lib.FeatureSpec):
        return {'visual': (spec.segments, *spec.visual), 'audio': (spec.segments, spec.audio)}
    if isinstance(spec, media.ClipSpec):
        return {'log_mel': spec.mel_shape}
    made = {'visual': spec.visual, 'audio': spec.audio}
    shapes = {name: part.stored(spec.segments) for name, part in made.items() if part}
    return shapes if spec.audio else {**shapes, 'log_mel': spec.media.mel_shape}


def encode(record: ClipRecord, features: tfds.features.FeaturesDict) -> bytes:
    """Serializes a record as tf.train.Example; equal records give equal bytes in every process."""
    clip = record.clip
    serialized = features.serialize_example(
        {
            'clip_id': record.clip_id,
            **{name: x for name in _CONTENT if (x := getattr(clip, name, None)) is not None},
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
            'masks': [
                {'time': m.time, 'label': -1 if m.label is None else m.label, 'png': m.png} for m in record.masks
            ],
            'video': record.video,
            'start': record.start,
            'height': clip.height,
            'width': clip.width,
            'duration': clip.duration,
            'notes': list(clip.notes),
        }
    )
    # Protobuf writes map entries in an order that differs between processes (measured with protobuf 7.36, upb).
    return tf_example_pb2.Example.FromString(serialized).SerializeToString(deterministic=True)


def decode(serialized: bytes, spec: Spec, absent: np.ndarray | None = None) -> ClipRecord:
    """Parses one record; the frames stay JPEG bytes.

    `absent`: see extracted.ExtractedClip. Raises ValueError if an array does not have the spec's shape.
    """
    feature = tf_example_pb2.Example.FromString(serialized).features.feature

    def texts(name):
        return [value.decode() for value in feature[name].bytes_list.value]

    def ints(name):
        return list(feature[name].int64_list.value)

    def floats(name):
        return list(feature[name].float_list.value)

    corners = np.reshape(floats('boxes/box'), (-1, 4)).tolist()

    content: dict[str, Any] = {
        name: np.frombuffer(feature[name].bytes_list.value[0], np.float16).reshape(shape)
        for name, shape in array_shapes(spec).items()
    }
    if 'visual' not in content:
        content['frames'] = list(feature['frames'].bytes_list.value)
    common: dict[str, Any] = {
        'valid': np.asarray(ints('valid'), bool),
        'height': ints('height')[0],
        'width': ints('width')[0],
        'duration': floats('duration')[0],
        'notes': tuple(texts('notes')),
    }
    clip: Clip
    if isinstance(spec, extracted.ExtractedSpec):
        clip = extracted.ExtractedClip(**dict.fromkeys(_CONTENT) | content, **common, absent=absent)
    else:
        clip = (media.Clip if 'frames' in content else features_lib.FeatureClip)(**content, **common)
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
        # Data sets from before masks existed have none of these fields, which reads as no masks.
        masks=tuple(
            Mask(time, None if label < 0 else label, png)
            for time, label, png in zip(
                floats('masks/time'), ints('masks/label'), feature['masks/png'].bytes_list.value, strict=True
            )
        ),
    )
