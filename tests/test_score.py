"""Tests scores on rows made by hand, whose results can be computed on paper, for each kind of annotation."""

import dataclasses

import numpy as np
import pytest

from stattn_jax import score
from stattn_jax.data import media, records, source


def info(multi_label):
    spec = media.ClipSpec(segments=2)
    return source.DatasetInfo('fake', ('a', 'b', 'c'), multi_label, spec, {'test': 2}, {'test': 3}, {'test': 1}, 'abc')


def truth(labels, events=(), boxes=(), valid=(True, True), presence=()):
    events = tuple(records.Event(label, onset, offset, 'both') for label, onset, offset in events)
    boxes = tuple(records.Box(time, label, *corners) for label, time, *corners in boxes)
    return score.Truth(labels, events, boxes, presence, np.array(valid), 40, 80)


def hand_made():
    """Two clips of two segments and 2 x 2 cells, three classes; the first has labels 0 and 2, the second label 1."""
    alpha, visual = np.zeros((2, 2, 4)), np.zeros((2, 2, 2, 4))
    alpha[0, 0, 0] = alpha[0, 1, 3] = alpha[1, 0, 1] = alpha[1, 1, 1] = 1
    visual[0, 0, 0] = [0.1, 0.2, 0.3, 2.0]
    visual[0, 1, 1] = [5.0, 1.0, 1.0, 1.0]
    visual[1, 0, 0] = [-1.0, 0.5, -1.0, -1.0]
    rows = {
        'logits': np.array([[2.0, 0.0, 1.0], [0.0, -1.0, -2.0]]),
        'alpha': alpha,
        'null': np.array([[0.2, 0.4], [0.6, 0.9]]),
        'sound_weight': np.array([[0.1, 0.9, 0.9], [0.9, 0.5, 0.9]]),
        'segment': np.array([[[1.0, -1, -1], [2.0, -1, -1]], [[-1.0, 1, -1], [-1.0, 1, -1]]]),
        'unit': np.array(
            [
                [[[1.0, -1, -1], [-1.0, -1, -1]], [[1.0, 1, -1], [1.0, 1, 1]]],
                [[[-1.0, 1, -1], [-1.0, 1, -1]], [[-1.0, -1, -1], [-1.0, 1, -1]]],
            ]
        ),
        'classes': np.array([[0, 2], [1, 0]]),
        'visual': visual,
        'audio': np.array([[[0.0, 3.0], [0.0, 0.0]], [[1.0, 0.0], [9.0, 9.0]]]),
    }
    # A wide frame cropped to its middle square: the left column of cells is x in 0.25..0.5 of the source.
    first = truth(
        (0, 2),
        events=((0, 1.0, 2.0), (2, 0.0, 1.0)),
        boxes=((0, 0.5, 0.2, 0.0, 0.5, 0.5), (2, 1.5, 0.0, 0.0, 1.0, 1.0)),
    )
    second = truth(
        (1,),
        events=((1, 0.0, 1.0),),
        boxes=((1, 0.5, 0.5, 0.0, 1.0, 0.5), (1, 1.5, 0.0, 0.0, 0.1, 0.1)),
        valid=(True, False),
    )
    return rows, [first, second]


def test_clips_without_sound_count_for_their_labels_but_not_for_the_attention_of_sound():
    rows, known = hand_made()
    known[1] = dataclasses.replace(known[1], modalities=np.array([True, False]))
    numbers = score.score(rows, known, info(True), split='test', fit='crop', binary=True)
    assert (numbers['data/no_sound'], numbers['data/no_picture']) == (1, 0)
    assert numbers['classification/n'] == 2 and numbers['pointing/space_n'] == 2
    assert numbers['attention/null'] == pytest.approx((0.2 + 0.4) / 2)
    assert numbers['attention/sound_weight'] == pytest.approx(0.1)
    assert not any(
        name.startswith('data/no_')
        for name in score.score(*hand_made(), info(True), split='test', fit='crop', binary=True)
    )


def test_score_of_rows_made_by_hand():
    rows, known = hand_made()
    numbers = score.score(rows, known, info(True), split='test', fit='crop', binary=True)
    assert numbers['classification/top1'] == 0.5 and numbers['classification/n'] == 2
    assert numbers['attention/null'] == pytest.approx((0.2 + 0.4 + 0.6) / 3)
    assert numbers['attention/sound_weight'] == pytest.approx((0.1 + 0.5) / 2)
    # There are three pairs of clip and label. Attention points at cell 0, in the box of label 0; at a cell in the box
    # of label 2, which covers all cells; and at cell 1, in the box of label 1. The second box of label 1 lies in an
    # invalid segment and does not count.
    assert numbers['pointing/space'] == 1 and numbers['pointing/space_n'] == 3
    # The contributions of label 0 point at cell 3, a miss.
    assert numbers['pointing/space_contribution'] == pytest.approx(2 / 3)
    # In time, label 0 has visual 2.6 + 0 and audio 0 + 3, so the second segment is chosen, a hit; visual alone misses.
    # Label 2: visual chooses segment 2, a miss; audio ties. Label 1 has only one valid segment.
    assert numbers['pointing/time'] == pytest.approx(2 / 3)
    assert numbers['pointing/time_picture'] == pytest.approx(1 / 3)
    assert numbers['pointing/time_sound'] == pytest.approx((1 + 0.5 + 1) / 3)
    assert numbers['pointing/time_partial_n'] == 2


def test_a_model_that_is_no_sum_of_terms_points_by_its_own_maps():
    rows, known = hand_made()
    where = np.zeros((2, 2, 2, 4))
    # Label 0 of clip 0 points at its upper left cell, a hit; label 2 at any cell; label 1 of clip 1 at a lower cell, a
    # miss.
    where[0, 0, 0, 0] = where[0, 1, 1, 1] = where[1, 0, 0, 2] = 1
    when = np.array([[[0.0, 1.0], [0.0, 1.0]], [[-1.0, 5.0], [0.0, 0.0]]])
    base = {'logits': rows['logits'], 'classes': rows['classes']}
    both = score.score({**base, 'where': where, 'when': when}, known, info(True), split='test', fit='crop', binary=True)
    assert both['pointing/space'] == pytest.approx(2 / 3) and both['pointing/space_n'] == 3
    # Label 0 chooses the second second, a hit; label 2 the first, a miss; label 1 has one valid second.
    assert both['pointing/time'] == pytest.approx(2 / 3)
    none = score.score(base, known, info(True), split='test', fit='crop', binary=True)
    plain = score.score(rows, known, info(True), split='test', fit='crop', binary=True)
    shared = {name: value for name, value in plain.items() if name.split('/')[0] in ('data', 'classification')}
    assert none == shared and {k: v for k, v in both.items() if not k.startswith('pointing')} == shared
    timed = score.score({**base, 'when': when}, known, info(True), split='test', fit='crop', binary=True)
    assert timed['pointing/time'] == both['pointing/time'] and 'pointing/space' not in timed


def test_score_without_events_and_boxes_holds_only_their_zero_counts():
    rows, known = hand_made()
    bare = [dataclasses.replace(t, events=(), boxes=()) for t in known]
    numbers = score.score(rows, bare, info(True), split='test', fit='crop', binary=True)
    assert numbers['pointing/space_n'] == numbers['pointing/time_n'] == 0
    assert 'pointing/space' not in numbers and 'pointing/time' not in numbers and 'pointing/space_chance' not in numbers
    assert numbers['classification/n'] == 2


def test_clips_without_any_label_have_no_maps_to_score():
    rows, known = hand_made()
    bare = [dataclasses.replace(t, labels=(), events=(), boxes=()) for t in known]
    numbers = score.score(rows, bare, info(True), split='test', fit='crop', binary=True)
    assert numbers['classification/unlabelled'] == 2 and numbers['attention/null'] == pytest.approx(
        (0.2 + 0.4 + 0.6) / 3
    )
    assert not any(name.startswith('pointing') for name in numbers) and 'attention/sound_weight' not in numbers


def test_score_ranks_single_labels_by_probability_and_several_by_their_own():
    logits = np.array([[5.0, 4.0, 0.0], [0.0, 3.0, 0.0]])
    rows = {**hand_made()[0], 'logits': logits, 'classes': np.array([[0], [1]])}
    known = [truth((0,)), truth((1,))]
    # Class b scores 4 in clip 0 and 3 in clip 1, which has it; its probability is 0.27 and 0.91.
    single, several = (
        score.score(rows, known, info(True), split='test', fit='squash', binary=multi_label)
        for multi_label in (False, True)
    )
    assert single['classification/map'] == 1 and several['classification/map'] == pytest.approx((1 + 1 / 2) / 2)
    assert single['classification/map_skipped'] == 1


def one_label(rows, known):
    """The same two clips with their first label alone."""
    return (
        rows | {'classes': rows['classes'][:, :1], 'visual': rows['visual'][:, :1], 'audio': rows['audio'][:, :1]},
        [dataclasses.replace(t, labels=t.labels[:1], events=t.events[:1]) for t in known],
    )


def test_one_audio_visual_event_a_clip_is_scored_by_segment():
    rows, known = one_label(*hand_made())
    numbers = score.score(rows, known, info(True), split='test', fit='crop', binary=True)
    # Class 0 is predicted in both segments of clip 0 and is true in the second; in clip 1, class 0 is best but
    # predicted nowhere.
    assert numbers['segments/accuracy'] == 2 / 4 and numbers['segments/n'] == 2
    assert numbers['segments/accuracy_true_label_everywhere'] == 2 / 4
    rows['null'] = np.array([[0.5, 0.4], [0.6, 0.9]])
    numbers = score.score(rows, known, info(True), split='test', fit='crop', binary=True)
    assert numbers['segments/accuracy'] == 3 / 4
    # The likelier second of clip 0 is the true one; clip 1 has one valid segment.
    assert numbers['pointing/time_event'] == 1
    assert not any(name.startswith('parsing') for name in numbers)


def test_events_of_each_modality_are_parsed():
    rows, known = hand_made()
    heard = (records.Event(0, 0.0, 2.0, 'audio'), records.Event(0, 0.0, 1.0, 'visual'))
    known = [dataclasses.replace(known[0], labels=(0,), events=heard), dataclasses.replace(known[1], events=())]
    numbers = score.score(rows, known, info(True), split='test', fit='crop', binary=True)
    # Candidates of clip 0 are classes 0, 1 and 2 (logits 2, 0, 1). Audio predicts 1 and 2 in error: F of 1, 0, 0.
    # Visual predicts class 0 in the first second, which is right. Clip 1 has candidate 0 alone; nothing is predicted
    # and nothing is true, which scores 1.
    assert numbers['parsing/segment_audio'] == pytest.approx((1 / 3 + 1) / 2)
    assert numbers['parsing/segment_visual'] == 1 and numbers['parsing/n'] == 2
    assert not any(name.startswith('segments') for name in numbers)


def test_one_annotated_frame_a_clip_is_scored_as_a_sounding_source():
    rows, known = one_label(*hand_made())
    boxes = ((records.Box(0.5, 0, 0.25, 0.0, 0.5, 1.0),), (records.Box(1.5, 1, 0.0, 0.0, 1.0, 1.0),))
    known = [dataclasses.replace(t, boxes=b) for t, b in zip(known, boxes)]
    numbers = score.score(rows, known, info(True), split='test', fit='crop', binary=True)
    # Clip 1's frame is not valid. Clip 0 points at the upper left cell of the middle square, inside its box.
    assert numbers['sounding/n'] == 1 and numbers['sounding/masked'] == 1 and numbers['sounding/point'] == 1
    several, known = hand_made()
    numbers = score.score(several, known, info(True), split='test', fit='crop', binary=True)
    assert not any(name.startswith('sounding') for name in numbers)


def test_presence_labels_are_scored_by_modality():
    rows, known = one_label(*hand_made())
    presence = (
        (records.Presence(0, 'both'), records.Presence(2, 'audio')),
        (records.Presence(1, 'visual', ('background_music',)),),
    )
    known = [dataclasses.replace(t, presence=p) for t, p in zip(known, presence)]
    numbers = score.score(rows, known, info(True), split='test', fit='crop', binary=True)
    assert numbers['presence/a_hit1'] == 1 and numbers['presence/a_n'] == numbers['presence/v_n'] == 1
    assert numbers['presence_music/v_n'] == 2 and numbers['presence_music/v_hit1'] == 0.5
    weights = rows['sound_weight']
    assert numbers['attention/sound_weight_both'] == weights[0, 0]
    assert numbers['attention/sound_weight_audio'] == weights[0, 2]
    assert numbers['attention/sound_weight_visual'] == weights[1, 1]
    # Only clip 0's box is of a label that is audible and visible.
    assert numbers['pointing/space_n'] == 2 and numbers['pointing/space_both_n'] == 1


def test_the_summary_puts_chance_levels_beside_rates():
    numbers = {
        'classification/n': 3, 'classification/top1': 0.5, 'classification/top1_majority': 0.25, 'pointing/time': 1.0,
        'pointing/time_chance': None, 'shortcut/audio_only': 0.125, 'classification/dprime': 2.0,
    }  # fmt: skip
    lines = [' '.join(line.split()) for line in score.summary(numbers).splitlines()]
    assert lines == [
        'chance',
        'accuracy 50.0% 25.0%',
        'when: strongest segment 100.0%',
        'black frames: accuracy from audio alone 12.5%',
    ]
