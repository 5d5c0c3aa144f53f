"""Classification numbers against naive loops and closed forms."""

import math

import numpy as np
import pytest

from stattn_jax.metrics import classification


def loop_average_precision(scores, positive):
    """Precision at every threshold that adds positives, weighted by the positives it adds."""
    total, found, taken = 0.0, 0, 0
    for threshold in sorted(set(scores), reverse=True):
        new = sum(1 for s, p in zip(scores, positive, strict=True) if s == threshold and p)
        found += new
        taken += sum(1 for s in scores if s == threshold)
        total += new * found / taken
    return total / found


def test_top_k_single_label():
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    labels = np.eye(3)[[1, 2, 0, 1]]
    assert classification.top_k(scores, labels, 1) == 0.25
    assert classification.top_k(scores, labels, 2) == 0.75
    assert classification.top_k(scores, labels, 3) == 1.0


def test_top_1_of_several_labels_asks_whether_the_best_class_is_among_them():
    scores = np.array([[3.0, 2, 1], [1, 2, 3], [1, 3, 2]])
    labels = np.array([[1, 0, 1], [1, 0, 1], [1, 0, 1]])
    assert classification.top_k(scores, labels, 1) == pytest.approx(2 / 3)


def test_equal_scores_rank_by_class_number():
    assert classification.top_k(np.zeros((4, 4)), np.eye(4), 1) == 0.25
    assert classification.top_k(np.zeros((4, 4)), np.eye(4), 3) == 0.75


def test_top_k_matches_a_loop():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 4, (60, 7)).astype(float), rng.random((60, 7)) < 0.3
    for k in (1, 2, 5):
        hits = [
            any(row[c] for c in sorted(range(7), key=lambda c: (-s[c], c))[:k])
            for s, row in zip(scores, labels, strict=True)
        ]
        assert classification.top_k(scores, labels, k) == np.mean(hits)


@pytest.mark.parametrize('levels', [1, 3, 1000])
def test_average_precision_matches_a_loop_with_and_without_ties(levels):
    rng = np.random.default_rng(levels)
    for _ in range(20):
        scores, positive = rng.integers(0, levels, 40).astype(float), rng.random(40) < 0.3
        positive[0] = True
        want = loop_average_precision(scores, positive)
        assert classification.average_precision(scores, positive) == pytest.approx(want, abs=1e-12)
        shuffle = rng.permutation(40)
        assert classification.average_precision(scores[shuffle], positive[shuffle]) == pytest.approx(want, abs=1e-12)


def test_average_precision_closed_forms():
    assert classification.average_precision(np.arange(5.0), np.array([0, 0, 0, 1, 1])) == 1.0
    assert classification.average_precision(np.arange(4.0), np.array([1, 0, 0, 0])) == 0.25
    assert classification.average_precision(np.zeros(8), np.array([1, 1, 0, 0, 0, 0, 0, 0])) == 0.25
    assert math.isnan(classification.average_precision(np.arange(4.0), np.zeros(4)))


def test_summary_leaves_out_and_counts_classes_without_positives():
    scores = np.array([[5.0, 1, 2, 0, 0, 0, 0], [1, 5, 2, 0, 0, 0, 0], [5, 4, 0, 0, 0, 0, 0]])
    labels = np.eye(7)[[0, 1, 1]]
    found = classification.summary(scores, labels)
    assert found == {
        'classification/top1': pytest.approx(2 / 3),
        'classification/top5': 1.0,
        'classification/map': pytest.approx((0.5 + 1.0) / 2),
        'classification/map_skipped': 5,
        'classification/n': 3,
    }
    assert 'classification/top5' not in classification.summary(scores[:, :3], labels[:, :3])


def test_summary_refuses_what_it_cannot_score():
    good, labels = np.zeros((2, 3)), np.eye(3)[[0, 1]]
    with pytest.raises(ValueError, match='0 clips'):
        classification.summary(good[:0], labels[:0])
    with pytest.raises(ValueError, match='1 of 2 clips have a score that is not finite'):
        classification.summary(np.array([[0, 1, np.nan], [0, 0, 0]]), labels)
    with pytest.raises(ValueError, match='1 of 2 clips have no label'):
        classification.summary(good, np.array([[1, 0, 0], [0, 0, 0]]))
