"""Tests segment accuracy against loops, an argmax over 29 classes, and the published trivial predictors on AVE."""

import h5py
import numpy as np
import pytest

from stattn_jax.metrics import segments


def random_split(rng, n=40, t=10, c=4):
    label = rng.integers(0, c, n)
    truth = np.full((n, t), -1)
    for i, (a, b) in enumerate(np.sort(rng.integers(0, t + 1, (n, 2)), axis=1)):
        truth[i, a:b] = label[i]
    truth[:5] = label[:5, None]
    return np.where(rng.random((n, t)) < 0.5, truth, rng.integers(-1, c, (n, t))), truth, label


def test_accuracy_is_the_fields_agreement_of_argmax_over_events_and_background():
    predicted, truth, label = random_split(np.random.default_rng(0))
    # Background is the last column, as in the label files of the literature.
    one_hot = np.eye(5)
    want = np.mean(one_hot[predicted].argmax(-1) == one_hot[truth].argmax(-1))
    assert segments.summary(predicted, truth, label)['segments/accuracy'] == pytest.approx(want, abs=1e-12)


def loop(predicted, truth, kept):
    """Accuracy, event F1 and background F1 of some clips, counted one segment at a time."""
    right = n = tp = fp = fn = btp = bfp = bfn = 0
    for i in kept:
        for guess, true in zip(predicted[i], truth[i], strict=True):
            right += guess == true
            n += 1
            tp += guess == true != -1
            fp += guess != -1 and guess != true
            fn += true != -1 and guess != true
            btp += guess == true == -1
            bfp += guess == -1 != true
            bfn += true == -1 != guess
    return right / n, 2 * tp / (2 * tp + fp + fn), 2 * btp / (2 * btp + bfp + bfn)


def test_summary_matches_a_loop():
    predicted, truth, label = random_split(np.random.default_rng(1))
    partial = [i for i in range(40) if -1 in truth[i] and set(truth[i]) != {-1}]
    found = segments.summary(predicted, truth, label)
    assert 0 < len(partial) < 35 and (found['segments/n'], found['segments/n_partial']) == (40, len(partial))
    everywhere = np.repeat(label[:, None], 10, axis=1)
    for subset, kept in (('', range(40)), ('_partial', partial)):
        for row, predictions in (('', predicted), ('_true_label_everywhere', everywhere)):
            got = [found[f'segments/{name}{subset}{row}'] for name in ('accuracy', 'event_f1', 'background_f1')]
            assert got == pytest.approx(loop(predictions, truth, kept), abs=1e-12)
        share = np.mean([truth[i] == -1 for i in kept])
        assert found[f'segments/background{subset}'] == pytest.approx(share, abs=1e-12)
        assert found[f'segments/accuracy{subset}_background_everywhere'] == pytest.approx(share, abs=1e-12)
        assert found[f'segments/event_f1{subset}_background_everywhere'] == 0


def test_perfect_and_whole_clip_predictions():
    _, truth, label = random_split(np.random.default_rng(2))
    found = segments.summary(truth, truth, label)
    names = [
        f'segments/{name}{subset}' for name in ('accuracy', 'event_f1', 'background_f1') for subset in ('', '_partial')
    ]
    assert [found[name] for name in names] == [1.0] * 6
    whole = segments.summary(truth[:5], truth[:5], label[:5])
    assert whole['segments/n_partial'] == 0 and not any('partial' in name for name in whole if name[-9:] != 'n_partial')
    assert whole['segments/background_f1'] == 0


def test_a_background_clip_has_no_label_and_is_not_partial():
    truth = np.full((1, 10), -1)
    found = segments.summary(truth, truth, np.array([-1]))
    assert found['segments/accuracy'] == found['segments/accuracy_true_label_everywhere'] == 1
    assert found['segments/n_partial'] == 0 and found['segments/event_f1'] == 0


def test_summary_refuses_other_shapes():
    with pytest.raises(ValueError, match=r'predicted \(2, 9\), true \(2, 10\), labels \(2,\): expected \[n t\]'):
        segments.summary(np.zeros((2, 9), int), np.zeros((2, 10), int), np.zeros(2, int))
    with pytest.raises(ValueError, match='at least one clip'):
        segments.summary(np.zeros((0, 10), int), np.zeros((0, 10), int), np.zeros(0, int))


# Split: clips, label everywhere (of all, of the partial clips), background, partial clips. The partial clips of train
# leave out the one without any event.
AVE = {
    'train': (3339, 83.1, 49.2, 16.9, 1107),
    'val': (402, 81.8, 49.2, 18.2, 144),
    'test': (402, 82.2, 49.3, 17.8, 141),
}


@pytest.mark.parametrize('split', AVE)
def test_the_true_label_everywhere_scores_82_on_ave(annotations, split):
    """Reproduces the published rates of trivial predictors on AVE.

    They are 82.2 % on test, 81.8 % on val, background 16.9, 18.2, 17.8 %, foreground 49.3 % of 141 partial clips.
    """
    rows = [line.split('&') for line in (annotations / 'ave/Annotations.txt').read_text().splitlines() if line]
    names = list(dict.fromkeys(row[0] for row in rows))
    label = np.array([names.index(row[0]) for row in rows])
    truth = np.full((len(rows), 10), -1)
    for i, row in enumerate(rows):
        truth[i, int(row[3]) : int(row[4])] = label[i]
    with h5py.File(annotations / f'ave/{split}_order.h5') as file:
        order = file['order'][:]
    found = segments.summary(np.full_like(truth[order], -1), truth[order], label[order])
    keys = ('accuracy_true_label_everywhere', 'accuracy_partial_true_label_everywhere', 'background')
    rounded = [round(100 * found[f'segments/{key}'], 1) for key in keys]
    assert (found['segments/n'], *rounded, found['segments/n_partial']) == AVE[split]
    assert found['segments/accuracy'] == found['segments/background']
