"""Tests the classification metrics against naive loops and closed forms."""

import math

import numpy as np
import pytest

from stattn_jax.metrics import classification


def loop_average_precision(scores, positive):
    """Returns the precision at every threshold that adds positives, weighted by the positives that it adds."""
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


def loop_auc(scores, positive):
    """Returns the share of pairs of a positive and a negative clip that are ordered correctly; ties count half."""
    pairs = [(a > b) + (a == b) / 2 for a, p in zip(scores, positive) if p for b, q in zip(scores, positive) if not q]
    return sum(pairs) / len(pairs)


@pytest.mark.parametrize('levels', [1, 3, 1000])
def test_roc_auc_matches_a_loop_over_pairs_with_and_without_ties(levels):
    rng = np.random.default_rng(levels)
    for _ in range(20):
        scores, positive = rng.integers(0, levels, 40) * 0.1 - 3, rng.random(40) < 0.3
        positive[:2] = True, False
        found = classification.roc_auc(scores, positive)
        assert found == pytest.approx(loop_auc(scores, positive), abs=1e-12)
        assert classification.roc_auc(-scores, positive) == pytest.approx(1 - found, abs=1e-12)
        assert classification.roc_auc(np.exp(scores), positive) == found


def test_roc_auc_without_positives_or_negatives_is_not_a_number():
    assert classification.roc_auc(np.arange(4.0), np.array([0, 0, 1, 1])) == 1.0
    assert math.isnan(classification.roc_auc(np.arange(4.0), np.zeros(4)))
    assert math.isnan(classification.roc_auc(np.arange(4.0), np.ones(4)))


def test_d_prime_is_the_distance_of_two_normal_distributions_of_that_auc():
    # Phi(d / sqrt 2) is the AUC of two unit normal distributions whose means differ by d; Phi is computed by the error
    # function.
    for d in (-1.0, 0.0, 0.3, 2.735):
        assert classification.d_prime((1 + math.erf(d / 2)) / 2) == pytest.approx(d, abs=1e-9)
    # This is VGGSound's published pair: AUC .973, d' 2.735, where the AUC is rounded.
    assert classification.d_prime(0.9725) < 2.735 < classification.d_prime(0.9735)
    assert (classification.d_prime(1.0), classification.d_prime(0.0)) == (math.inf, -math.inf)


def test_f1_matches_another_implementation():
    metrics = pytest.importorskip('sklearn.metrics')
    rng = np.random.default_rng(0)
    predicted, truth = rng.random((50, 6)) < 0.3, rng.random((50, 6)) < 0.2
    want = metrics.f1_score(truth, predicted, average='micro')
    assert classification.f1(predicted, truth) == pytest.approx(want, abs=1e-12)
    assert classification.f1(np.zeros(3, bool), np.zeros(3, bool)) == 0


def test_summary_matches_another_implementation_with_clips_of_several_and_of_no_labels():
    metrics = pytest.importorskip('sklearn.metrics')
    rng = np.random.default_rng(1)
    labels = (rng.random((80, 6)) < [0.1, 0.2, 0.3, 0.4, 0.5, 0.0]).astype(np.float32)
    scores = rng.integers(0, 12, (80, 6)) + labels
    labelled = labels.any(axis=1)
    assert 0 < (~labelled).sum() < 40
    found = classification.summary(scores, labels)
    aps = [metrics.average_precision_score(labels[:, c], scores[:, c]) for c in range(5)]
    auc = np.mean([metrics.roc_auc_score(labels[:, c], scores[:, c]) for c in range(5)])
    assert found['classification/map'] == pytest.approx(np.mean(aps), abs=1e-12)
    assert found['classification/auc'] == pytest.approx(auc, abs=1e-12)
    # This is the d' of the mean AUC, not the mean of the classes' d'.
    assert (1 + math.erf(found['classification/dprime'] / 2)) / 2 == pytest.approx(auc, abs=1e-12)
    assert found['classification/map_skipped'] == found['classification/auc_skipped'] == 1
    assert found['classification/map_chance'] == pytest.approx(labels[:, :5].mean(), abs=1e-6)
    hits = [labels[i, scores[i].argmax()] for i in range(80) if labelled[i]]
    assert found['classification/top1'] == pytest.approx(np.mean(hits), abs=1e-12)
    assert found['classification/top1_majority'] == pytest.approx(labels[:, 4].sum() / labelled.sum(), abs=1e-6)
    assert (found['classification/n'], found['classification/unlabelled']) == (80, (~labelled).sum())


def test_the_majority_row_is_that_of_its_own_scores_and_a_constant_score_has_the_map_chance():
    labels = np.eye(4)[[0, 1, 1, 2, 1, 3]]
    found = classification.summary(np.zeros((6, 4)), labels)
    assert found['classification/top1_majority'] == 0.5
    assert found['classification/map'] == pytest.approx(found['classification/map_chance'], abs=1e-12) == 0.25
    assert found['classification/auc'] == 0.5 and found['classification/dprime'] == 0


def test_summary_leaves_out_and_counts_classes_without_positives():
    scores = np.array([[5.0, 1, 2, 0, 0, 0, 0], [1, 5, 2, 0, 0, 0, 0], [5, 4, 0, 0, 0, 0, 0]])
    labels = np.eye(7)[[0, 1, 1]]
    found = classification.summary(scores, labels)
    assert found == {
        'classification/top1': pytest.approx(2 / 3),
        'classification/top1_majority': pytest.approx(2 / 3),
        'classification/top5': 1.0,
        'classification/map': pytest.approx((0.5 + 1.0) / 2),
        'classification/map_skipped': 5,
        'classification/map_chance': pytest.approx(0.5),
        'classification/auc': pytest.approx((0.75 + 1.0) / 2),
        'classification/auc_skipped': 5,
        'classification/dprime': pytest.approx(math.sqrt(2) * 1.1503493803760079),
        'classification/n': 3,
        'classification/unlabelled': 0,
    }
    assert 'classification/top5' not in classification.summary(scores[:, :3], labels[:, :3])


def test_summary_refuses_zero_clips_and_scores_that_are_not_finite():
    good, labels = np.zeros((2, 3)), np.eye(3)[[0, 1]]
    with pytest.raises(ValueError, match='0 clips'):
        classification.summary(good[:0], labels[:0])
    with pytest.raises(ValueError, match='1 of 2 clips have a score that is not finite'):
        classification.summary(np.array([[0, 1, np.nan], [0, 0, 0]]), labels)


def test_numbers_over_nothing_and_an_infinite_d_prime_are_left_out():
    background = classification.summary(np.zeros((2, 3)), np.zeros((2, 3)))
    assert background == {
        'classification/map_skipped': 3,
        'classification/auc_skipped': 3,
        'classification/n': 2,
        'classification/unlabelled': 2,
    }
    perfect = classification.summary(np.eye(3), np.eye(3))
    assert perfect['classification/auc'] == 1 and 'classification/dprime' not in perfect
