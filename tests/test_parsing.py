"""Tests LLP's F-scores against a clip-by-clip loop, closed forms, and the published table of trivial predictors."""

import numpy as np
import pytest

from stattn_jax.metrics import parsing


def loop_events(row):
    """Runs of True of one class in one clip, as sets of segments."""
    runs = []
    for t, there in enumerate(row):
        if there and t and row[t - 1]:
            runs[-1].add(t)
        elif there:
            runs.append({t})
    return runs


def loop_counts(level, predicted_tc, truth_tc):
    """TP, FP and FN of one clip, by class."""
    counts = []
    for predicted, true in zip(predicted_tc.T, truth_tc.T, strict=True):
        if level == 'segment':
            pairs = list(zip(predicted, true, strict=True))
            counts.append([sum(p and g for p, g in pairs), sum(p > g for p, g in pairs), sum(p < g for p, g in pairs)])
        else:
            p, g = loop_events(predicted), loop_events(true)
            hit = lambda run, others: any(len(run & o) / len(run | o) >= 0.5 for o in others)
            counts.append([sum(hit(a, g) for a in p), sum(not hit(a, g) for a in p), sum(not hit(a, p) for a in g)])
    return counts


def loop_f(counts):
    scores = [2 * tp / (2 * tp + fp + fn) for tp, fp, fn in counts if tp + fp + fn]
    return sum(scores) / len(scores) if scores else 1.0


def loop_scores(predicted, truth):
    """The ten scores, computed one clip at a time; m 0 is visual and m 1 is audio."""
    numbers = {}
    for level in ('segment', 'event'):
        per_clip = []
        for p, g in zip(predicted, truth, strict=True):
            visual, audio = loop_counts(level, p[0], g[0]), loop_counts(level, p[1], g[1])
            both = loop_counts(level, p[0] & p[1], g[0] & g[1])
            summed = [[x + y for x, y in zip(a, v, strict=True)] for a, v in zip(audio, visual, strict=True)]
            a, v, av = loop_f(audio), loop_f(visual), loop_f(both)
            per_clip.append((a, v, av, (a + v + av) / 3, loop_f(summed)))
        kinds = ('audio', 'visual', 'av', 'type', 'event')
        numbers |= {f'{level}_{kind}': x for kind, x in zip(kinds, np.mean(per_clip, axis=0), strict=True)}
    return numbers


def random_events(rng, n=60, t=10, c=4):
    """Random events of which some are broken up, and some clips without any."""
    there = np.repeat(rng.random((n, 2, t // 2, c)) < 0.45, 2, axis=2) & (rng.random((n, 2, t, c)) < 0.85)
    there[rng.random(n) < 0.15] = False
    there[:, rng.integers(2)][rng.random(n) < 0.2] = False
    return there


@pytest.mark.parametrize('seed', range(3))
def test_scores_match_a_loop(seed):
    rng = np.random.default_rng(seed)
    truth, other = random_events(rng), random_events(rng)
    predicted = np.where(rng.random((60, 1, 1, 4)) < 0.5, truth, other)
    assert parsing.scores(predicted, truth) == pytest.approx(loop_scores(predicted, truth), abs=1e-12)


def test_every_pair_of_ten_segments_counts_events_as_the_loop_does():
    rows = (np.arange(1024)[:, None] >> np.arange(10)) & 1 == 1
    rng = np.random.default_rng(3)
    predicted, truth = rows[rng.permutation(1024)][:, :, None], rows[:, :, None]
    found = parsing.event_counts(predicted, truth)
    want = [loop_counts('event', p, g) for p, g in zip(predicted, truth, strict=True)]
    assert np.array_equal(found, np.transpose(want, (2, 0, 1)))


def clip(*intervals):
    row = np.zeros((1, 10, 1), bool)
    for a, b in intervals:
        row[0, a:b] = True
    return row


@pytest.mark.parametrize(
    'predicted, truth, counts',
    [
        ([(0, 5)], [(0, 10)], (1, 0, 0)),  # exactly half is enough
        ([(0, 4)], [(0, 10)], (0, 1, 1)),
        ([(0, 5), (6, 10)], [(0, 10)], (1, 1, 0)),
        ([(0, 10)], [(0, 5), (6, 10)], (1, 0, 1)),
        ([(2, 4)], [], (0, 1, 0)),
        ([], [(9, 10)], (0, 0, 1)),
        ([], [], (0, 0, 0)),
    ],
)
def test_events_match_from_half_an_overlap_on(predicted, truth, counts):
    assert tuple(parsing.event_counts(clip(*predicted), clip(*truth))[:, 0, 0]) == counts


def test_a_clip_without_events_and_without_predictions_scores_one():
    nothing = np.zeros((2, 2, 10, 3), bool)
    assert set(parsing.scores(nothing, nothing).values()) == {1.0}
    predicted = nothing.copy()
    predicted[0, 1, :, 0] = True
    found = parsing.scores(predicted, nothing)
    assert (found['segment_audio'], found['segment_visual'], found['event_event']) == (0.5, 1.0, 0.5)


def test_summary_names_its_rows_and_never_lets_them_look_at_the_prediction():
    truth = random_events(np.random.default_rng(4))
    truth[:, 1, 0, 2] = True  # class 2 is audible in every clip
    labels = truth.any((1, 2))
    found = parsing.summary(truth, truth, labels)
    assert found['parsing/n'] == 60
    assert {found[f'parsing/{level}_{kind}'] for level in ('segment', 'event') for kind in parsing.KINDS} == {1.0}
    often = np.zeros_like(truth)
    often[:, 1, :, 2] = True
    everywhere = np.repeat(np.repeat(labels[:, None, None], 10, axis=2), 2, axis=1)
    modality = np.repeat(truth.any(2)[:, :, None], 10, axis=2)
    rows = {'nothing': np.zeros_like(truth), 'most_frequent': often, 'labels': everywhere, 'modality_labels': modality}
    for row, predicted in rows.items():
        want = {f'parsing_{row}/{name}': x for name, x in loop_scores(predicted, truth).items()}
        assert {name: found[name] for name in want} == pytest.approx(want, abs=1e-12)
    assert len(found) == 51


def test_summary_refuses_other_shapes():
    truth = np.zeros((2, 2, 10, 3), bool)
    with pytest.raises(ValueError, match=r'labels \(2, 4\): expected'):
        parsing.summary(truth, truth, np.zeros((2, 4), bool))


# Percent on LLP's test split: segment-level audio, visual, audio-visual, Type@AV, Event@AV, then the same of events.
PUBLISHED = {
    'parsing_nothing': (0.5, 10.1, 14.5, 8.4, 0.0, 0.5, 10.1, 14.5, 8.4, 0.0),
    'parsing_most_frequent': (16.6, 10.1, 14.5, 13.7, 14.4, 9.3, 10.1, 14.5, 11.3, 7.7),
    'parsing_labels': (76.1, 60.3, 52.6, 63.0, 71.7, 63.0, 55.8, 44.7, 54.5, 61.6),
    'parsing_modality_labels': (80.1, 89.8, 82.8, 84.2, 82.0, 66.1, 83.7, 71.4, 73.7, 68.3),
}


def llp_test(folder):
    """Truth [n m t c] and the labels of the weak file [n c] of LLP's test split."""
    weak = [line.split('\t') for line in (folder / 'AVVP_test_pd.csv').read_text().splitlines()[1:]]
    names = sorted({name for _, labels in weak for name in labels.split(',')})
    place = {row[0]: i for i, row in enumerate(weak)}
    labels, truth = np.zeros((len(weak), 25), bool), np.zeros((len(weak), 2, 10, 25), bool)
    for i, (_, row) in enumerate(weak):
        labels[i, [names.index(name) for name in row.split(',')]] = True
    for m, kind in enumerate(('visual', 'audio')):
        for line in (folder / f'AVVP_eval_{kind}.csv').read_text().splitlines()[1:]:
            name, onset, offset, label = line.split('\t')
            if name in place:
                truth[place[name], m, int(onset) : int(offset), names.index(label)] = True
    return truth, labels


def test_the_published_table_of_trivial_predictors_on_llp(annotations):
    truth, labels = llp_test(annotations / 'llp')
    found = parsing.summary(truth, truth, labels)
    assert found['parsing/n'] == 1200
    for row, want in PUBLISHED.items():
        got = [found[f'{row}/{level}_{kind}'] for level in ('segment', 'event') for kind in parsing.KINDS]
        assert tuple(round(100 * x, 1) for x in got) == want, row
    # The published row uses the labels of the weak file, not the union of the dense ones.
    union = truth.any((1, 2))
    assert (union != labels).any(axis=1).sum() == 53
    assert round(100 * parsing.summary(truth, truth, union)['parsing_labels/segment_audio'], 1) == 77.0
