"""Tests Explanation: its sum, what-if answers against the closed form, contrasts, and the position of its cells."""

import dataclasses

import numpy as np
import pytest
from random_record import H, T, W, make

from stattn_jax.explain import sentences
from stattn_jax.explain.explanation import GroundTruth

MEANS = np.random.default_rng(1).normal(size=(2, 3)) * 4


@pytest.mark.parametrize('mean_scores', [None, MEANS])
def test_the_record_adds_up_with_and_without_centring(mean_scores):
    record, logits = make(mean_scores=mean_scores)
    for c, label in enumerate(record.classes):
        reference, visual, audio = record.contributions(label)
        assert visual.shape == (T, H, W) and audio.shape == (T,)
        assert reference + visual.sum() + audio.sum() == pytest.approx(logits[c], abs=1e-5)
        shares = record.shares(label)
        assert reference + shares['picture'] + shares['sound'] == pytest.approx(logits[c], abs=1e-5)
        assert shares['sound'] == pytest.approx(audio.sum(), abs=1e-5)
    assert max(record.residual()) < 1e-5
    assert (mean_scores is None) == np.array_equal(record.reference, record.bias)


def test_its_representation_is_one_short_line():
    record, _ = make()
    best = record.top(1)[0]
    text = repr(record)
    assert len(text) < 200 and '\n' not in text and record.media['file'] in text
    assert f'{best["label"]} {best["probability"]:.1%}' in text


def test_the_residual_is_measured_on_the_stored_arrays():
    record, logits = make()
    broken = dataclasses.replace(record, audio=record.audio + np.array([[0], [0], [0.5]], np.float32))
    absolute, relative = broken.residual()
    assert absolute == pytest.approx(T * 0.5, abs=1e-5)
    assert relative == pytest.approx(T * 0.5 / max(1, abs(logits[2])), abs=1e-5)


def test_cells_come_in_row_order():
    record, _ = make(seed=3)
    np.testing.assert_allclose(record.alpha.sum(axis=(1, 2)) + record.null, 1, atol=1e-6)
    flat = record.visual.reshape(3, T, H * W)
    assert record.visual[1, 2, 1, 0] == flat[1, 2, 2]


def test_probabilities_and_ranking():
    record, logits = make(classes=6)
    softmax = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(record.probabilities, softmax, rtol=1e-5)
    best = np.argsort(-logits)
    assert [row['label'] for row in record.top(2)] == [f'class {c}' for c in best[:2]]
    assert record.top(2)[0]['probability'] == pytest.approx(softmax[best[0]], rel=1e-5)
    assert record.class_index() == best[0]
    assert [record.runner_up(record.classes[c]) for c in best[:3]] == [record.classes[best[i]] for i in (1, 0, 0)]
    assert make(classes=1)[0].runner_up() is None
    several, logits = make(multi_label=True)
    np.testing.assert_allclose(several.probabilities, 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_the_contrast_is_the_margin_and_invariant_to_terms_that_all_classes_share():
    record, logits = make(mean_scores=MEANS)
    reference, visual, audio = record.contrast('class 2', 'class 0')
    assert reference + visual.sum() + audio.sum() == pytest.approx(logits[2] - logits[0], abs=1e-5)
    moved = dataclasses.replace(record, audio=record.audio + 1, logits=record.logits + T)
    for a, b in zip(record.contrast('class 2', 'class 0'), moved.contrast('class 2', 'class 0'), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def loop_without(record, keep, c):
    """Computes the softmax over the kept units from the logarithms of the weights, unit by unit."""
    terms = [
        (np.log(record.beta[m, t, c], dtype=float), float(record.segment_scores[m, t, c]))
        for m in range(2)
        for t in range(T)
        if keep[m, t] and record.valid[t]
    ]
    total = sum(np.exp(a) for a, _ in terms)
    return float(record.bias[c]) + sum(np.exp(a) / total * score for a, score in terms)


@pytest.mark.parametrize('seed', range(5))
def test_without_units_is_the_renormalised_softmax(seed):
    record, logits = make(seed=seed)
    rng = np.random.default_rng(seed)
    for c, label in enumerate(record.classes):
        keep = rng.random((2, T)) < 0.5
        keep[rng.integers(2), rng.integers(3)] = True
        assert record.without_units(keep, label) == pytest.approx(loop_without(record, keep, c), rel=1e-6, abs=1e-6)
        assert record.without_units(np.ones((2, T)), label) == pytest.approx(logits[c], abs=1e-5)
        alone = np.zeros((2, T), bool)
        alone[1, 2] = True
        assert record.without_units(alone, label) == pytest.approx(record.bias[c] + record.segment_scores[1, 2, c])


def test_removed_units_are_the_change_and_zero_where_nothing_was():
    record, logits = make(seed=8)
    removed = record.removed_units('class 1')
    assert removed.shape == (2, T) and not removed[:, ~record.valid].any() and removed[:, record.valid].all()
    for m, t in ((0, 1), (1, 2)):
        keep = np.ones((2, T), bool)
        keep[m, t] = False
        assert logits[1] + removed[m, t] == pytest.approx(loop_without(record, keep, 1), abs=1e-5)
    np.testing.assert_array_equal(record.removed_units(), record.removed_units(record.top(1)[0]['label']))


def test_a_unit_with_almost_all_weight_can_be_removed():
    """1 - 0.9999999 has one digit in float32, while the sum of the remaining weights has all of them."""
    record, _ = make()
    beta = np.full((2, T, 3), 1e-9, np.float32)
    beta[0, 0] = 1 - 5e-9
    scores = np.random.default_rng(0).normal(size=(2, T, 3)).astype(np.float32)
    peaked = dataclasses.replace(record, beta=beta * record.valid[:, None], segment_scores=scores)
    others = np.concatenate([scores[0, 1:3, 1], scores[1, :3, 1]])
    want = record.bias[1] + others.mean()
    assert peaked.without_units(np.ones((2, T)), 'class 1') + peaked.removed_units('class 1')[0, 0] == pytest.approx(
        want
    )


def test_masks_of_a_wrong_shape_or_without_weight_are_refused():
    record, _ = make()
    with pytest.raises(ValueError, match=r'keep has shape \(2, 3\); expected \(2, 4\)'):
        record.without_units(np.ones((2, 3)))
    only_invalid = np.zeros((2, T))
    only_invalid[:, 3] = 1
    for keep in (np.zeros((2, T)), only_invalid):
        with pytest.raises(ValueError, match='no valid unit is kept'):
            record.without_units(keep)
    lost = dataclasses.replace(record, beta=record.beta * (np.arange(T) != 1)[:, None])
    keep = np.zeros((2, T))
    keep[:, 1] = 1
    with pytest.raises(ValueError, match='2 units that are kept all have weight 0 in float32'):
        lost.without_units(keep)
    keep[0, 1] = 0
    assert lost.without_units(keep) == pytest.approx(
        float((record.bias + record.segment_scores[1, 1])[record.class_index()])
    )


def test_an_unknown_label_is_named():
    with pytest.raises(ValueError, match=r"unknown label 'dog'; expected one of class 0, "):
        make(classes=6)[0].contributions('dog')


def test_logits_that_are_not_finite_are_not_explained():
    with pytest.raises(ValueError, match='3 of 3 logits are not finite; use an older checkpoint'):
        make(scale=np.nan)


def test_without_a_source_there_is_no_video(tmp_path):
    with pytest.raises(ValueError, match=r'e\.mp4: this explanation has no source video'):
        make()[0].save_video(tmp_path / 'e.mp4')


def test_files_and_notebook_show_the_rendered_page(tmp_path, monkeypatch):
    rendered = []
    page = pytest.importorskip('stattn_jax.explain.page')
    monkeypatch.setattr(page, 'render', lambda *arguments: rendered.append(arguments) or '<p title="ä">&amp;</p>')
    record, truth = make()[0], GroundTruth([(0, 1)])
    record.save_html(tmp_path / 'e.html', 'class 1', truth)
    assert (tmp_path / 'e.html').read_bytes().decode() == '<p title="ä">&amp;</p>' and rendered == [
        (record, 'class 1', truth)
    ]
    shown = record._repr_html_()
    assert 'srcdoc="&lt;p title=&quot;ä&quot;&gt;&amp;amp;&lt;/p&gt;"' in shown and 'Explanation of häm.mp4' in shown


def test_geometry_leads_from_the_grid_to_the_source_frame():
    geometry = make()[0].geometry
    assert geometry['grid'] == [T, H, W] and geometry['segment_seconds'] == 0.5
    # Column 1 of 2 begins in the middle of the model's frame, which shows x = 0.25 .. 0.75 of 320 pixels: pixel 160.
    to = geometry['to_pixels']
    assert to['x_offset'] + to['x_scale'] * 1 / W == 160
    assert to['y_offset'] + to['y_scale'] * 2 / H == pytest.approx(160)
    assert geometry['to_source'] == {'x_scale': 0.5, 'x_offset': 0.25, 'y_scale': 1.0, 'y_offset': 0.0}


def lacking_sound(seed=0, **fields):
    """Returns an Explanation of a clip without sound: its audio has no weight and no scores."""
    record, _ = make(seed=seed)
    beta, scores = record.beta.copy(), record.segment_scores.copy()
    beta[1] = scores[1] = 0
    beta /= beta.sum(axis=(0, 1))
    visual = record.visual * (beta[0] / record.beta[0].clip(1e-9)).T[..., None, None]
    logits = record.bias + (beta * scores).sum(axis=(0, 1))
    new = {'beta': beta, 'segment_scores': scores, 'visual': visual, 'audio': np.zeros_like(record.audio)}
    new |= {'logits': logits, 'media': record.media | {'notes': ['no_sound']}, 'trust': {}}
    return dataclasses.replace(record, **new, **fields)


def test_a_clip_without_sound_adds_up_and_has_only_visual_units():
    record = lacking_sound()
    assert record.residual()[1] < 1e-5
    assert record.units.tolist() == [[True, True, True, False], [False] * 4]
    removed = record.removed_units()
    assert removed[0, :3].all() and not removed[1].any()
    with pytest.raises(ValueError, match='no valid unit'):
        record.without_units(np.array([[False] * T, [True] * T]))


def test_the_only_unit_of_a_clip_leaves_the_bias():
    record = dataclasses.replace(lacking_sound(), valid=np.arange(T) == 1)
    c = record.class_index()
    logit = record.bias[c] + record.segment_scores[0, 1, c]
    np.testing.assert_allclose(record.removed_units()[0], [0, record.bias[c] - logit, 0, 0], rtol=1e-5)


def test_notices_begin_with_the_missing_modality_and_the_weight_that_is_left():
    weights = {'split': 'val', 'picture': 0.75, 'sound': 0.25}
    record = lacking_sound(usual_weights=weights)
    record.media['notes'] += ['long', 'sound 2 of 3']
    first, second, third = sentences.notices(record, 0)
    assert first.startswith('There is no sound stream here, so the network answers by the picture alone')
    assert first.endswith(
        "Over the clips of split 'val', the sound has 25% of the attention weight in time, so that this leaves 75% of "
        'the usual evidence.'
    )
    assert second == 'Of several streams, sound 2 of 3 is used.'
    assert third == 'Only 1.5 to 3.5 s are explained; a timeline (--long) shows the whole video.'
    assert sentences.notices(lacking_sound(), 0) == [first.partition(' Over ')[0]]
