"""What an explanation costs beside the forward pass it explains, by XLA's count: wall time differs from run to run."""

import jax
import numpy as np
import pytest

from configs import synthetic
from stattn_jax import run
from stattn_jax.data import media
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
