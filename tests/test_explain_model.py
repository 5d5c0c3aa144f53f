"""Tests the cost of an explanation relative to its forward pass, by XLA's operation counts.

Wall time would differ from run to run.
"""

import shutil

import jax
import numpy as np
import pytest

from configs import common, synthetic
from stattn_jax import run
from stattn_jax.data import media
from stattn_jax.data.features import FeatureSpec
from stattn_jax.explain import model as models
from stattn_jax.explain.model import Model
from stattn_jax.runtime import perf
from stattn_jax.training import step


@pytest.mark.parametrize('visual', ['tiny', 'small', 'resnet18'])
def test_an_explanation_costs_a_tenth_of_the_forward_pass_at_most(visual):
    config = synthetic.get_config()
    config.model.visual = visual
    facts = run.DataFacts(tuple('abcdefghij'), False, media.ClipSpec(), '')
    graphdef, state, *_ = run.make_state(config, facts, None, abstract=True)
    model = Model(run.Trained(config, facts, graphdef, state, 0, None))
    (frames, frames_type), (log_mel, mel_type) = facts.spec.shapes(config.data.frame_size)
    batch = {
        'frames': jax.ShapeDtypeStruct((1, *frames), frames_type),
        'log_mel': jax.ShapeDtypeStruct((1, *log_mel), mel_type),
        'valid': jax.ShapeDtypeStruct((1, facts.spec.segments), np.bool_),
    }
    plain = jax.jit(lambda state, batch: step.forward(graphdef, state, batch, frame_size=config.model.frame_size)[0])
    flops = {name: perf.lowered_flops(f.lower(state, batch)) for name, f in (('plain', plain), ('all', model._forward))}
    assert flops['plain'] > 1e7 and 1 < flops['all'] / flops['plain'] < 1.1
    # A pass of the finer map has no audio trunk.
    audio = jax.ShapeDtypeStruct((1, facts.spec.segments, config.model.width), np.float32)
    shifted = model._shifted.lower(state, batch, audio, jax.ShapeDtypeStruct((2,), np.int32))
    assert 0.1 < perf.lowered_flops(shifted) / flops['plain'] < 1


def test_the_finer_map_adds_up_and_differs_within_a_cell(trained, scene_video):
    model = models.load(trained)
    explanation, plain = model.explain(scene_video, finer=True), model.explain(scene_video)
    t, h, w = explanation.geometry['grid']
    assert explanation.visual_finer.shape == (len(explanation.classes), t, 2 * h, 2 * w) and not plain.visual_finer.size
    np.testing.assert_array_equal(explanation.visual, plain.visual)
    sums = (explanation.visual_finer.sum(axis=(2, 3)), explanation.visual.sum(axis=(2, 3)))
    np.testing.assert_allclose(*sums, atol=1e-6)
    total = explanation.reference + explanation.visual_finer.sum(axis=(1, 2, 3)) + explanation.audio.sum(axis=1)
    np.testing.assert_allclose(total, explanation.logits, atol=1e-5)
    within = explanation.visual_finer.reshape(-1, t, h, 2, w, 2)
    assert np.ptp(within, axis=(3, 5)).max() > 1e-3 * np.abs(within).max()
    assert model._shifted._cache_size() == 1


def test_the_distance_from_training_is_that_of_the_run(trained, tmp_path):
    assert models.load(trained).distance['held_out'] == 8
    workdir = shutil.copytree(trained, tmp_path / 'run')
    path = workdir / run.TRAINING_DISTANCE
    path.write_bytes(b'x')
    with pytest.raises(run.RunError, match='cannot be read'):
        models.load(workdir)
    path.unlink()
    assert models.load(workdir).distance == {}


@pytest.mark.parametrize('kind, spec, named', [
    ('concat', media.ClipSpec(), "kind 'concat', whose logits are not a sum of contributions; expected 'stan'"),
    ('stan', FeatureSpec(3, 1.0, (1, 1, 8), 4, 'some network'), r'trained on features \(some network\)'),
])  # fmt: skip
def test_models_that_cannot_be_explained_are_refused(monkeypatch, kind, spec, named):
    config = common.get_config()
    config.model.kind = kind
    facts = run.DataFacts(('a', 'b'), False, spec, '')
    monkeypatch.setattr(run, 'load', lambda *_, **__: run.Trained(config, facts, None, None, 0, None))
    with pytest.raises(run.RunError, match=named):
        models.load('RUN')
