"""Tests VGGSounder's scores against another implementation, clip-by-clip loops, and the published counts."""

import csv

import numpy as np
import pytest

from stattn_jax.metrics import presence


def random_split(rng, n=60, c=8):
    there = rng.random((n, c)) < np.linspace(0.05, 0.3, c)
    kind = rng.integers(0, 3, (n, c))
    scores = rng.normal(size=(n, c)) + there
    return scores, there & (kind != 1), there & (kind != 0), rng.random(n) < 0.3


def subsets(audible, visible):
    return {'a': audible, 'v': visible, 'av': audible & visible, 'all': audible | visible}


def test_summary_matches_another_implementation():
    metrics = pytest.importorskip('sklearn.metrics')
    scores, audible, visible, music = random_split(np.random.default_rng(0))
    found = presence.summary(scores, audible, visible, music, 0.7)
    for block, clips in (('presence', ~music), ('presence_music', music | True)):
        for name, truth in subsets(audible, visible).items():
            kept = clips & truth.any(axis=1)
            s, y = scores[kept], truth[kept]
            classes = np.flatnonzero(y.any(axis=0))
            ap = np.mean([metrics.average_precision_score(y[:, c], s[:, c]) for c in classes])
            want = {
                'f1': metrics.f1_score(y, s >= 0.7, average='micro'),
                'map': ap,
                'map_skipped': 8 - len(classes),
                'map_chance': y[:, classes].mean(),
                'n': kept.sum(),
            }
            got = {key: found[f'{block}/{name}_{key}'] for key in want}
            assert got == pytest.approx(want, abs=1e-12)
    counts = [found[f'{name}_n'] for name in ('presence/av', 'presence/a', 'presence/all', 'presence_music/all')]
    assert 0 < counts[0] < counts[1] < counts[2] < counts[3] < 60


def test_hits_and_the_most_frequent_classes_match_a_loop():
    scores, audible, visible, music = random_split(np.random.default_rng(1))
    found = presence.summary(scores, audible, visible, music, 0.0)
    for name, truth in subsets(audible, visible).items():
        kept = [i for i in range(60) if not music[i] and truth[i].any()]
        often = sorted(range(8), key=lambda c: -sum(truth[i, c] for i in kept))
        for k in (1, 5):
            hits = [any(truth[i, c] for c in np.argsort(scores[i])[::-1][:k]) for i in kept]
            assert found[f'presence/{name}_hit{k}'] == pytest.approx(np.mean(hits), abs=1e-12)
            hits = [any(truth[i, c] for c in often[:k]) for i in kept]
            assert found[f'presence/{name}_hit{k}_majority'] == pytest.approx(np.mean(hits), abs=1e-12)
        # One class predicted for every clip: 2 TP / (clips + labels).
        tp, labels = sum(truth[i, often[0]] for i in kept), sum(truth[i].sum() for i in kept)
        assert found[f'presence/{name}_f1_majority'] == pytest.approx(2 * tp / (len(kept) + labels), abs=1e-12)


def test_a_modality_that_no_clip_has_is_left_out():
    there = np.eye(3, dtype=bool)
    found = presence.summary(np.eye(3), there, np.zeros_like(there), np.zeros(3, bool), 1.0)
    assert (found['presence/v_n'], found['presence/av_n'], found['presence/a_n']) == (0, 0, 3)
    assert not {'presence/v_hit1', 'presence/av_map', 'presence/a_hit5'} & set(found)
    # A score equal to the threshold counts as a prediction.
    assert (found['presence/a_hit1'], found['presence/a_f1'], found['presence/all_map']) == (1, 1, 1)
    music = presence.summary(np.eye(3), there, there, np.ones(3, bool), 0.5)
    assert music['presence/all_n'] == 0 and music['presence_music/all_n'] == 3


def test_summary_refuses_scores_that_are_not_finite():
    with pytest.raises(ValueError, match='1 of 2 clips have a score that is not finite'):
        presence.summary(np.array([[np.nan, 0], [0, 0]]), *[np.ones((2, 2), bool)] * 2, np.zeros(2, bool), 0.5)


def test_the_clips_of_vggsounder(annotations):
    """12,014 clips and 29,509 labels, without background music; clips with labels of each modality are recounted."""
    with (annotations / 'vggsounder/vggsounder.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    clips, names = list({row['video_id']: 0 for row in rows}), sorted({row['label'] for row in rows})
    clip, name = ({x: i for i, x in enumerate(xs)} for xs in (clips, names))
    heard, seen = np.zeros((2, len(clips), len(names)), bool)
    music = np.zeros(len(clips), bool)
    for row in rows:
        place = clip[row['video_id']], name[row['label']]
        heard[place], seen[place] = 'A' in row['modality'], 'V' in row['modality']
        music[place[0]] |= row['background_music'] == 'True'
    found = presence.summary((heard | seen).astype(float), heard, seen, music, 0.5)
    assert (len(rows), len(names), found['presence/all_n']) == (29509, 309, 12014)
    for kind, n in (('A', 11917), ('V', 10188), ('AV', 9889)):
        with_label = {row['video_id'] for row in rows if set(kind) <= set(row['modality'])}
        assert found[f'presence/{kind.lower()}_n'] == len(with_label) == n
    assert found['presence/all_hit1'] == found['presence/all_f1'] == found['presence/all_map'] == 1
    # Predicting every label predicts too many where one modality counts; F1 is computed from counts of rows.
    for kind, truth in (('A', heard), ('V', seen)):
        there = sum(kind in row['modality'] for row in rows)
        predicted = (heard | seen)[truth.any(axis=1)].sum()
        assert found[f'presence/{kind.lower()}_f1'] == pytest.approx(2 * there / (predicted + there), abs=1e-12)
