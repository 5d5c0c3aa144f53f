"""The record: it adds up, its JSON alone adds up, its npz gives everything back, and nothing is dropped in silence."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stattn_jax.explain import explanation as explain

T, H, W, N, E, D = 4, 3, 2, 2, 5, 6
AFFINE = (0.5, 0.25, 1.0, 0.0)


def make(classes=3, *, seed=0, mean_scores=None, multi_label=False, scale=1.0):
    """An Explanation of a random model output, and its logits in float64."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(H * W + 1), (1, T, N))
    valid = np.arange(T) < 3
    beta = rng.random((1, 2, T, classes)) * valid[:, None]
    beta /= beta.sum(axis=(1, 2), keepdims=True)
    out = {
        'alpha': weights[..., :-1],
        'null': weights[..., -1],
        'beta': beta,
        'cell_values': rng.normal(size=(1, T, N, H * W, E)) * scale,
        'audio': rng.normal(size=(1, T, D)) * scale,
        'visual_head': rng.normal(size=(classes, N, E)),
        'audio_head': rng.normal(size=(classes, D)),
        'bias': rng.normal(size=classes),
    }
    visual = np.einsum('btns,btnse,cne->btc', out['alpha'], out['cell_values'], out['visual_head'])
    out['segment_scores'] = np.stack([visual, np.einsum('btd,cd->btc', out['audio'], out['audio_head'])], axis=1)
    logits = out['bias'] + (beta * out['segment_scores']).sum(axis=(1, 2))
    record = explain.Explanation.from_output(
        jnp.asarray(logits, jnp.float32),
        jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), out),
        mean_scores=mean_scores,
        geometry=explain.make_geometry((T, H, W), 0.5, AFFINE, 240, 320),
        classes=[f'class {c}' for c in range(classes)],
        multi_label=multi_label,
        media={'file': 'häm.mp4', 'sha256': 'ab', 'duration': 2.0, 'start': 1.5, 'height': 240, 'width': 320},
        model={'config_hash': 'c', 'parameter_hash': 'p', 'versions': {'jax': '0'}, 'dtype': 'bfloat16', 'step': 7},
        valid=valid,
        log_mel=rng.normal(size=(T, 6, 5)).astype(np.float16),
        frames=tuple(rng.bytes(20 + t) for t in range(T)),
    )
    return record, logits[0]


@pytest.mark.parametrize('mean_scores', [None, np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32) * 4])
def test_the_record_adds_up_with_and_without_centring(mean_scores):
    record, logits = make(mean_scores=mean_scores)
    for c, label in enumerate(record.classes):
        reference, visual, audio = record.contributions(label)
        assert visual.shape == (T, H, W) and audio.shape == (T,)
        assert reference + visual.sum() + audio.sum() == pytest.approx(logits[c], abs=1e-5)
    assert max(record.residual()) < 1e-5
    assert (mean_scores is None) == np.array_equal(record.reference, record.bias)


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
    best = np.argsort(-logits)[:2]
    assert [row['label'] for row in record.top(2)] == [f'class {c}' for c in best]
    assert record.top(2)[0]['probability'] == pytest.approx(softmax[best[0]], rel=1e-5)
    assert record.class_index() == best[0]
    several, logits = make(multi_label=True)
    np.testing.assert_allclose(several.probabilities, 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_an_unknown_label_is_named():
    with pytest.raises(
        ValueError, match=r"unknown label 'dog': expected one of the 6 classes of the model \('class 0', "
    ):
        make(classes=6)[0].contributions('dog')


@pytest.mark.parametrize('scale', [1.0, 50.0])
def test_the_json_alone_adds_up(tmp_path, scale):
    record, logits = make(scale=scale, mean_scores=np.ones((2, 3), np.float32))
    record.save_json(tmp_path / 'e.json')
    assert explain.check(tmp_path / 'e.json') <= 1e-5
    read = json.loads((tmp_path / 'e.json').read_text(encoding='utf-8'))
    assert read['schema'] == 'stattn_jax.explanation/1'
    assert read['media']['file'] == 'häm.mp4' and read['model']['step'] == 7
    np.testing.assert_allclose(read['logits'], logits, rtol=1e-5, atol=1e-6)
    row = next(row for row in read['maps'] if row['label'] == 'class 1')
    np.testing.assert_allclose(row['visual'], record.visual[1], rtol=1e-6)
    np.testing.assert_allclose(row['attention_in_time']['audio'], record.beta[1, :, 1], rtol=1e-6)
    assert read['valid_segments'] == [True, True, True, False]
    assert read['additivity']['max_relative_error'] <= 1e-5
    assert 'frames' not in read and 'log_mel' not in read


def test_check_finds_a_changed_number(tmp_path):
    record, _ = make()
    record.save_json(tmp_path / 'e.json')
    read = json.loads((tmp_path / 'e.json').read_text(encoding='utf-8'))
    read['maps'][1]['visual'][0][0][0] += 0.25
    (tmp_path / 'e.json').write_text(json.dumps(read), encoding='utf-8')
    assert explain.check(tmp_path / 'e.json') == pytest.approx(0.25 / max(1, abs(read['maps'][1]['logit'])), abs=1e-5)


def test_the_json_says_which_classes_have_no_maps(tmp_path):
    record, _ = make(classes=14)
    record.save_json(tmp_path / 'e.json')
    read = json.loads((tmp_path / 'e.json').read_text(encoding='utf-8'))
    assert (
        read['classes_with_maps'] == [row['label'] for row in record.top(10)] == [row['label'] for row in read['maps']]
    )
    assert read['classes_without_maps'] == 4 and len(read['classes']) == len(read['logits']) == 14


def test_logits_that_are_not_finite_are_not_explained():
    with pytest.raises(ValueError, match='3 of 3 logits are not finite, expected numbers: .*older checkpoint'):
        make(scale=np.nan)


def test_the_npz_gives_everything_back(tmp_path):
    record, _ = make(classes=12, mean_scores=np.ones((2, 12), np.float32))
    record.save_npz(tmp_path / 'e.npz')
    read = explain.Explanation.load_npz(tmp_path / 'e.npz')
    for field in dataclasses.fields(record):
        want, got = getattr(record, field.name), getattr(read, field.name)
        if isinstance(want, np.ndarray):
            assert want.dtype == got.dtype and np.array_equal(want, got), field.name
        else:
            assert want == got, field.name


def test_another_schema_is_refused(tmp_path):
    (tmp_path / 'e.json').write_text('{"schema": "other/3"}', encoding='utf-8')
    with pytest.raises(ValueError, match="schema 'other/3', expected 'stattn_jax.explanation/1'"):
        explain.check(tmp_path / 'e.json')


def test_geometry_leads_from_the_grid_to_the_source_frame():
    geometry = make()[0].geometry
    assert geometry['grid'] == [T, H, W] and geometry['segment_seconds'] == 0.5
    # Column 1 of 2 begins in the middle of the model's frame, which shows x = 0.25 .. 0.75 of 320 pixels: pixel 160.
    to = geometry['to_pixels']
    assert to['x_offset'] + to['x_scale'] * 1 / W == 160
    assert to['y_offset'] + to['y_scale'] * 2 / H == pytest.approx(160)
    assert geometry['to_source'] == {'x_scale': 0.5, 'x_offset': 0.25, 'y_scale': 1.0, 'y_offset': 0.0}
