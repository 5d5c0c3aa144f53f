"""Tests of labels.py: the lines that warn of classes that cannot be learned."""

import pytest

from data_prep import labels
from data_prep.prepare import Job


def jobs(**labels_of):
    """Returns a clip for each label of each split."""
    return [
        Job(f'{split}{n}', split, (label,)) for split, numbers in labels_of.items() for n, label in enumerate(numbers)
    ]


@pytest.mark.parametrize(
    ('clips', 'expected'),
    [
        (jobs(train=[0, 1, 2], test=[0]), []),
        (
            jobs(train=[0], test=[0]),
            [
                "all labels are 'dog': a model cannot learn from one class; expected two or more",
                "2 of 3 classes cannot be learned, since no usable clip has them: 'cat', 'cow'",
            ],
        ),
        (
            jobs(train=[0, 1], test=[2]),
            ["1 of 3 classes cannot be learned, since only the split test has them: 'cow'"],
        ),
        (
            jobs(train=[0], val=[1, 2], test=[2, 0]),
            [
                "1 of 3 classes cannot be learned, since only the split test and val has them: 'cow'",
                "1 of 3 classes cannot be learned, since only the split val has them: 'cat'",
            ],
        ),
        (
            jobs(test=[0, 1, 2]),
            ['no clip is in the split train, which training reads unless config.data.split names another'],
        ),
    ],
)
def test_a_line_for_each_sign(clips, expected):
    assert labels.warnings(clips, ('dog', 'cat', 'cow')) == expected


def test_clips_without_labels_cause_no_warning():
    assert labels.warnings([*jobs(train=[0, 1]), Job('b', 'train', ())], ('dog', 'cat')) == []
