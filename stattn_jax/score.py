"""Computes the flat numbers of eval_SPLIT.json from the network's outputs and the annotations of a split's clips.

The annotations alone determine which numbers there are. Boxes give pointing in space and the sounding-source protocol.
Events give pointing in time and the segment metrics of AVE (one audio-visual event a clip) or LLP (events of each
modality). Presence labels give the metrics of VGGSounder. The metrics are in metrics/. mask_scores.py computes the
numbers of masks, which need the validation split too.
"""

import dataclasses
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import Any

import numpy as np

from stattn_jax.data import media, pipeline, records, source
from stattn_jax.metrics import classification, events, localization, parsing, presence, segments, sounding

Numbers = dict[str, Any]
# Metrics of a clip's classes, for every data set: functions of scores [n c], which are log-probabilities, and multi-hot
# labels [n c].
CLIP_METRICS: list[Callable[[np.ndarray, np.ndarray], Numbers]] = [classification.summary]


@dataclasses.dataclass(frozen=True)
class Truth:
    """The annotations of a clip (labels, ..., masks), its valid segments and the source frame's size.

    `modalities` is bool [m]: which of the visual and the audio modality the clip has.
    """

    labels: tuple[int, ...]
    events: tuple[records.Event, ...]
    boxes: tuple[records.Box, ...]
    presence: tuple[records.Presence, ...]
    valid: np.ndarray
    height: int
    width: int
    modalities: np.ndarray = dataclasses.field(default_factory=lambda: np.ones(2, bool))
    masks: tuple[records.Mask, ...] = ()

    @property
    def paired(self) -> bool:
        """Whether the clip has both modalities, so that there is a sound whose source can be sought."""
        return bool(self.modalities.all())


def read_truth(data: source.RecordSource) -> list[Truth]:
    """Returns the annotations of every clip of a split, in order."""
    with futures.ThreadPoolExecutor() as pool:
        return list(pool.map(lambda i: truth_of(data[i]), range(len(data))))


def truth_of(r: records.ClipRecord) -> Truth:
    """Returns the annotations that a record holds of its clip."""
    clip = r.clip
    present = media.modalities(clip.notes)
    annotations = (r.labels, r.events, r.boxes, r.presence)
    return Truth(*annotations, np.asarray(clip.valid), clip.height, clip.width, present, r.masks)


def box_rows(boxes: Iterable[records.Box]) -> np.ndarray:
    """Returns boxes as float [k 5] for metrics/localization.py: time in seconds, x0, y0, x1, y1."""
    return np.array([(b.time, b.x0, b.y0, b.x1, b.y1) for b in boxes], float).reshape(-1, 5)


def event_rows(events: Iterable[records.Event]) -> np.ndarray:
    """Returns events as float [e 2] for metrics/localization.py: onset and offset in seconds."""
    return np.array([(e.onset, e.offset) for e in events], float).reshape(-1, 2)


def multi_hot(truth: list[Truth], classes: int) -> np.ndarray:
    """Returns the labels as multi-hot float32 [n c]."""
    labels = np.zeros((len(truth), classes), np.float32)
    for row, r in zip(labels, truth):
        row[list(r.labels)] = 1
    return labels


# The lines of `summary`: a name, a rate, and the rate of a predictor that ignores the clip or the modality.
HEADLINES = (
    ('accuracy', 'classification/top1', 'classification/top1_majority'),
    ('mean average precision', 'classification/map', 'classification/map_chance'),
    ('where: attention on the object', 'pointing/space', 'pointing/space_chance'),
    ('where: strongest contribution', 'pointing/space_contribution', 'pointing/space_contribution_chance'),
    ('where: cIoU at 0.5, one annotated frame', 'sounding/ciou', 'sounding/ciou_centre'),
    ('where: mIoU of the masks', 'masks/miou', 'masks/miou_chance'),
    ('where: F of the masks', 'masks/f', 'masks/f_chance'),
    ('where: attention inside the masks', 'masks/point', 'masks/point_chance'),
    ('where and when: attention inside the masks', 'masks/joint', 'masks/joint_chance'),
    ('when: strongest segment', 'pointing/time', 'pointing/time_chance'),
    ('when: strongest segment, partial events', 'pointing/time_partial', 'pointing/time_partial_chance'),
    ('segments: accuracy', 'segments/accuracy', 'segments/accuracy_background_everywhere'),
    ('segments: F of events by modality', 'parsing/segment_type', 'parsing_most_frequent/segment_type'),
    ('events: F by modality', 'parsing/event_type', 'parsing_most_frequent/event_type'),
    ('mismatched audio: the visual evidence is undecided', 'shortcut/mismatched_audio_undecided', None),
    (
        'mismatched audio: the visual evidence decides for it',
        'shortcut/mismatched_audio_decided_follows',
        'shortcut/mismatched_audio_chance',
    ),
    ('black frames: accuracy from audio alone', 'shortcut/audio_only', None),
)


def score(
    rows: dict[str, np.ndarray], truth: list[Truth], info: source.DatasetInfo, *, split: str, fit: str, binary: bool
) -> Numbers:
    """Computes every number that the annotations of a split allow, from the rows [n ...] of its clips.

    The rows come from evaluate.eval_rows. `binary`: each class has an independent sigmoid. A rate over zero clips is
    left out, and its `_n` is 0. Clips that lack a modality count where their labels are predicted; the attention on
    cells is measured only for clips with both, and no event is heard or seen in a modality that a clip lacks.
    """
    classes = len(info.classes)
    labels_nc = multi_hot(truth, classes)
    # Log-probabilities, because probabilities saturate at 1 and then tie.
    scores_nc = events.log_probabilities(rows['logits'], binary=binary)
    valid_nt = np.stack([r.valid for r in truth])
    numbers: Numbers = {'data/used': info.splits[split], 'data/wanted': info.wanted[split]}
    for metric in CLIP_METRICS:
        numbers |= metric(scores_nc, labels_nc)
    additive = 'alpha' in rows
    paired_n = np.array([r.paired for r in truth])
    if not paired_n.all():
        numbers['data/no_picture'], numbers['data/no_sound'] = (
            (~np.stack([r.modalities for r in truth])).sum(0).tolist()
        )
    if additive:
        own = np.take_along_axis(rows['sound_weight'], rows['classes'][:, :1], axis=1)
        if paired_n.any():
            numbers['attention/null'] = float(rows['null'][valid_nt & paired_n[:, None]].mean())
        if (heard_n := labels_nc.any(axis=1) & paired_n).any():
            numbers['attention/sound_weight'] = float(own[heard_n].mean())
        # Without both modalities, nothing is heard and seen at once.
        rows = rows | {'null': np.where(paired_n[:, None], rows['null'], 1)}
    pairs = _pairs(rows, truth)
    # Without any label there is no map of a label; masks may still be scored.
    pointing = len(pairs.clip) > 0
    if pointing and (additive or 'where' in rows):
        numbers |= _pointing_space(rows, truth, pairs, info, fit) | _sounding(rows, truth, pairs, info, fit)
    if pointing and (additive or 'when' in rows):
        numbers |= _pointing_time(rows, truth, pairs, info, binary)
    modalities = {event.modality for r in truth for event in r.events} if additive else set()
    if modalities == {'both'} and max(len(r.labels) for r in truth) == 1:
        numbers |= _segments(rows, truth, labels_nc, valid_nt, info, binary)
    elif modalities:
        numbers |= _parsing(rows, truth, labels_nc, valid_nt, info, binary)
    if any(r.presence for r in truth):
        numbers |= _presence(rows, truth, scores_nc)
    return numbers


def summary(numbers: Numbers) -> str:
    """Formats the HEADLINES that the numbers contain as text, each rate beside its chance level, if it has one."""
    lines = [f'{"":<54}{"":>8}{"chance":>9}']
    for name, key, chance in HEADLINES:
        if numbers.get(key) is not None:
            beside = f'{numbers[chance]:>9.1%}' if numbers.get(chance) is not None else ''
            lines.append(f'{name:<54}{numbers[key]:>8.1%}{beside}')
    return '\n'.join(lines)


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """All pairs of a clip and one of its labels, as int arrays [p].

    clip: clip number.
    place: position of the label among the clip's labels.
    label: class number.
    """

    clip: np.ndarray
    place: np.ndarray
    label: np.ndarray

    def of(self, items: list) -> list:
        """Returns, for each pair, those items of its clip that have its label."""
        return [[item for item in items[i] if item.label == c] for i, c in zip(self.clip, self.label)]


def _pairs(rows, truth) -> _Pairs:
    pairs = [(i, j, int(c)) for i, r in enumerate(truth) for j, c in enumerate(rows['classes'][i]) if c in r.labels]
    return _Pairs(*np.array(pairs, int).reshape(-1, 3).T)


def _pointing_space(rows, truth, pairs: _Pairs, info, fit) -> Numbers:
    boxes, affines, where_pthw = _maps(_where(rows, pairs), truth, pairs, fit)
    options = {'boxes': boxes, 'affines': affines, 'segment_seconds': info.spec.segment_seconds}
    numbers = localization.spatial_games(where_pthw, classes_n=pairs.label, **options)
    if 'visual' in rows:
        *_, terms_pthw = _maps(rows['visual'][pairs.clip, pairs.place], truth, pairs, fit)
        numbers |= localization.spatial_pointing(terms_pthw, **options, prefix='pointing/space_contribution')
    labelled = pairs.of([r.presence for r in truth])
    if any(labelled):
        both = np.array([any(p.modality == 'both' for p in items) for items in labelled])
        shown = [b if kept else np.zeros((0, 5)) for b, kept in zip(boxes, both)]
        numbers |= localization.spatial_pointing(where_pthw, **options | {'boxes': shown}, prefix='pointing/space_both')
    return numbers


def _where(rows, pairs: _Pairs) -> np.ndarray:
    """Returns the map [p t s] that points at the source of the sound, for each pair.

    It is the attention weights, or the model's own map for a model whose logit is not a sum of terms.
    """
    return rows['alpha'][pairs.clip] if 'alpha' in rows else rows['where'][pairs.clip, pairs.place]


def _maps(map_pts, truth, pairs: _Pairs, fit):
    """Returns for each pair its boxes, the affine map to the source frame, and its map as [t h w].

    Boxes are [k 5] (time and corners). The map is -inf in segments that are not valid or lack a modality.
    """
    boxes = [box_rows(own) for own in pairs.of([r.boxes for r in truth])]
    affines = [pipeline.frame_affine(truth[i].height, truth[i].width, fit) for i in pairs.clip]
    valid_pt = np.array([truth[i].valid & truth[i].paired for i in pairs.clip])
    side = int(np.sqrt(map_pts.shape[-1]))
    return boxes, affines, np.where(valid_pt[..., None], map_pts, -np.inf).reshape(*map_pts.shape[:2], side, side)


def _sounding(rows, truth, pairs: _Pairs, info, fit) -> Numbers:
    """Scores data sets with one annotated frame per clip, such as VGG-SS; returns {} for other data sets."""
    boxes, affines, where_pthw = _maps(_where(rows, pairs), truth, pairs, fit)
    times = [np.unique(b[:, 0]) for b in boxes]
    if not any(map(len, times)) or max(map(len, times)) > 1:
        return {}
    valid_pt = np.isfinite(where_pthw).all(axis=(2, 3))
    segment_p = [int(localization.segments_of(t, info.spec.segment_seconds)[0]) if len(t) else -1 for t in times]
    scored = [p for p, t in enumerate(segment_p) if 0 <= t < info.spec.segments and valid_pt[p, t]]
    numbers = sounding.summary(
        np.array([where_pthw[p, segment_p[p]] for p in scored]),
        [boxes[p][:, 1:] for p in scored],
        [affines[p] for p in scored],
        pairs.label[scored],
    )
    return numbers | {'sounding/masked': sum(map(len, times)) - len(scored)}


def _pointing_time(rows, truth, pairs: _Pairs, info, binary) -> Numbers:
    intervals = [event_rows(own) for own in pairs.of([r.events for r in truth])]
    valid_pt = np.array([truth[i].valid for i in pairs.clip])
    if 'when' in rows:
        curves = {'pointing/time': rows['when'][pairs.clip, pairs.place]}
    else:
        picture, sound = rows['visual'][pairs.clip, pairs.place].sum(-1), rows['audio'][pairs.clip, pairs.place]
        curves = {'pointing/time': picture + sound, 'pointing/time_picture': picture, 'pointing/time_sound': sound}
    if 'segment' in rows:
        likely = events.probabilities(rows['segment'], binary=binary)[pairs.clip, :, pairs.label]
        curves['pointing/time_event'] = likely * (1 - rows['null'][pairs.clip])
    numbers: Numbers = {}
    for prefix, curve in curves.items():
        numbers |= localization.temporal_pointing(curve, valid_pt, intervals, info.spec.segment_seconds, prefix=prefix)
    return numbers


def _truth_by_segment(truth: list[Truth], info: source.DatasetInfo) -> np.ndarray:
    """Returns which class is seen and heard in which segment, bool [n m t c].

    A segment lies in an event if its centre does.
    """
    t, seconds = info.spec.segments, info.spec.segment_seconds
    there_nmtc = np.zeros((len(truth), 2, t, len(info.classes)), bool)
    rows = {'visual': [0], 'audio': [1], 'both': [0, 1]}
    for there_mtc, r in zip(there_nmtc, truth):
        for e in r.events:
            inside_t = localization.segments_in_events(t, np.array([(e.onset, e.offset)]), seconds)
            there_mtc[rows[e.modality], :, e.label] |= inside_t
    return there_nmtc


def _segments(rows, truth, labels_nc, valid_nt, info, binary) -> Numbers:
    clip_nc = events.probabilities(rows['logits'], binary=binary)
    segment_ntc = events.probabilities(rows['segment'], binary=binary)
    found_ntc = events.joint_events(segment_ntc, rows['null'], valid_nt, events.candidates(clip_nc, single=True))
    return segments.summary(
        _class_or_none(found_ntc), _class_or_none(_truth_by_segment(truth, info)[:, 0]), _class_or_none(labels_nc > 0)
    )


def _class_or_none(there: np.ndarray) -> np.ndarray:
    """Returns the index of the class that is present, -1 where there is none: bool [... c] to int [...]."""
    return np.where(there.any(axis=-1), there.argmax(axis=-1), -1)


def _parsing(rows, truth, labels_nc, valid_nt, info, binary) -> Numbers:
    clip_nc = events.probabilities(rows['logits'], binary=binary)
    has_nm = np.stack([r.modalities for r in truth])
    unit_nmtc = events.probabilities(rows['unit'], binary=binary) * has_nm[:, :, None, None]
    found_nmtc = events.modality_events(unit_nmtc, valid_nt, events.candidates(clip_nc, single=False))
    return parsing.summary(found_nmtc, _truth_by_segment(truth, info), labels_nc > 0)


def _presence(rows, truth, scores_nc) -> Numbers:
    """Computes VGGSounder's metrics, and the audio's mean attention weight for labels heard, seen or both."""
    there = {modality: np.zeros(scores_nc.shape, bool) for modality in records.MODALITIES}
    music_n = np.zeros(len(truth), bool)
    for i, r in enumerate(truth):
        for p in r.presence:
            there[p.modality][i, p.label] = True
            music_n[i] |= 'background_music' in p.flags
    audible_nc, visible_nc = there['audio'] | there['both'], there['visual'] | there['both']
    numbers = presence.summary(scores_nc, audible_nc, visible_nc, music_n, np.log(0.5))
    for modality, there_nc in there.items():
        if 'sound_weight' in rows and there_nc.any():
            numbers[f'attention/sound_weight_{modality}'] = float(rows['sound_weight'][there_nc].mean())
    return numbers
