"""Tests that each statement of the sentence agrees with a number of the record."""

import dataclasses

import numpy as np
import pytest
from explained import make

from stattn_jax.explain import sentences


def test_the_sentence_states_the_numbers():
    visual, audio = np.zeros((2, 4, 3, 3)), np.zeros((2, 4))
    visual[0, 2, 0, 2], visual[0, 1, 1, 1] = 2.0, 0.5
    audio[0] = [-0.25, 0.6, 1.0, 0.2]
    record = make(visual, audio, seconds=0.5, probabilities=(0.987, 0.013))
    assert record.sentence() == (
        'a, 99%. Relative to the bias, the visual evidence contributes +2.50 and the audio evidence +1.55 to the '
        'logit. Strongest evidence for it: visual at 1 to 1.5 s (strongest cell: upper right at 1 to 1.5 s); '
        'audio at 0.5 to 1.5 s. Strongest evidence against it: audio at 0 to 0.5 s (−0.25). '
        '20% of the spatial attention is on the null cell (no visible source).'
    )


def test_terms_that_round_to_zero_are_not_mentioned():
    record = make(np.full((2, 2, 1, 1), 0.004), np.full((2, 2), -0.004))
    assert record.sentence('b') == (
        'b, 30%. Relative to the bias, the visual evidence contributes +0.01 and the audio evidence −0.01 to the '
        'logit. 20% of the spatial attention is on the null cell (no visible source).'
    )


def test_an_average_clip_is_named_where_there_is_one():
    record = make(np.zeros((2, 2, 1, 1)), np.zeros((2, 2)))
    record.mean_scores[:] = 1
    text = 'Relative to an average clip, the visual evidence contributes +0.00 and the audio evidence +0.00'
    assert text in record.sentence()


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (0, '0%'),
        (1e-9, 'below 1%'),
        (0.012, '1%'),
        (0.5, '50%'),
        (0.991, 'above 99%'),
        (1 - 1e-9, 'above 99%'),
        (1, '100%'),
    ],
)
def test_percentages_are_neither_nothing_nor_all_by_rounding(value, text):
    assert sentences.percent(value) == text


def test_a_signed_zero_has_no_minus():
    assert [sentences.signed(x) for x in (-0.001, 0.0, -1.234, 5)] == ['+0.00', '+0.00', '−1.23', '+5.00']


def test_places_are_thirds_of_the_source_frame():
    plain = make(np.zeros((1, 1, 3, 3)), np.zeros((1, 1)), classes='a', probabilities=[1])
    assert sentences.place(plain, 0, 0) == 'upper left' and sentences.place(plain, 1, 1) == 'centre'
    assert sentences.place(plain, 2, 1) == 'lower' and sentences.place(plain, 1, 2) == 'right'
    # In a wide frame cropped to its middle third, all columns of the crop lie in the centre.
    cropped = make(
        np.zeros((1, 1, 3, 3)), np.zeros((1, 1)), classes='a', probabilities=[1], affine=(1 / 3, 1 / 3, 1, 0)
    )
    assert [sentences.place(cropped, 1, j) for j in range(3)] == ['centre'] * 3


# ---------------------------------------------------------------------------------------------------------------------
# Notices
# ---------------------------------------------------------------------------------------------------------------------


def balanced(audio=1.0, media=None, distance=None):
    """A clip whose largest sums over a segment are 1 for the visual evidence and `audio` for the audio."""
    visual = np.zeros((2, 4, 2, 2))
    visual[:, 1] = 0.25
    record = make(visual, np.array([[0, 0, -audio, 0]] * 2))
    trust = {} if distance is None else {'training_distance': distance}
    return dataclasses.replace(record, media=record.media | (media or {}), trust=trust)


@pytest.mark.parametrize('audio', [0.11, 1, 9.9])
def test_an_ordinary_clip_has_no_notice(audio):
    near = {'distance': 0.9, 'threshold': 1.0}
    distance = {'false_alarm_rate': 0.01, 'held_out_clips': 99, 'visual': near, 'audio': near}
    assert balanced(audio, distance=distance).notices() == balanced(audio).notices() == []


def test_evidence_that_contributes_next_to_nothing_is_named():
    (weak_audio,) = balanced(0.09).notices('b')
    assert weak_audio == (
        'The audio evidence contributes next to nothing to b: at most 0.09 in a segment, the visual evidence up to '
        '1.00.'
    )
    (weak_visual,) = balanced(10.1).notices()
    assert 'The visual evidence contributes next to nothing to a: at most 1.00' in weak_visual
    # A modality that is missing is named as such only.
    (lacking,) = balanced(0.09, {'notes': ['no_sound']}).notices()
    assert lacking.startswith('There is no sound stream here')


@pytest.mark.parametrize(
    ('media', 'text'),
    [
        ({'start': 0.0, 'end': 8.0, 'file_duration': 14.04}, 'Only the first 8 s of 14.04 s are explained'),
        ({'start': 3.5, 'end': 11.5, 'file_duration': 125.0}, 'Only 3.5 to 11.5 s of 125 s are explained'),
        ({'start': 0.0, 'end': 8.0, 'file_duration': None}, 'Only the first 8 s are explained'),
    ],
)
def test_a_cut_clip_states_its_share_of_the_file(media, text):
    (notice,) = balanced(media=media | {'notes': ['long']}).notices()
    assert notice == f'{text}; a timeline (--long) shows the whole video.'


def test_a_clip_unlike_those_of_training_is_called_so_first():
    far, near = {'distance': 2.0, 'threshold': 1.25}, {'distance': 1.0, 'threshold': 1.1}
    rate = {'false_alarm_rate': 0.01, 'held_out_clips': 99}
    one, silent = balanced(media={'notes': ['silent']}, distance=rate | {'visual': near, 'audio': far}).notices()
    assert one == (
        'The audio of this clip is unlike the training clips (distance 2.00, limit 1.25; at most 1% of '
        'clips like those get this notice). The prediction may mean nothing.'
    )
    assert silent.startswith('The sound track is silent')
    (both,) = balanced(distance=rate | {'visual': far, 'audio': far}).notices()
    assert both.startswith(
        'The picture and the audio of this clip are unlike the training clips (distances 2.00 and 2.00, limits 1.25 '
    )
    assert balanced(distance=rate | {'audio': near}).notices() == []
