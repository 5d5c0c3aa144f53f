"""Tests explanations of a network on each trunk.

Terms add up, removal gives the network's own answers, cells lie on the frame, and the page is written.
"""

import jax
import numpy as np
import pytest
from flax import nnx

from configs import common
from stattn_jax import run
from stattn_jax.data import media, pipeline
from stattn_jax.explain import reading
from stattn_jax.explain.model import Model
from stattn_jax.models.trunks import registry
from stattn_jax.training import step

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('quick_compile')]
SEGMENTS, RATE = 2, 16000
TRUNKS = [(modality, name) for modality in ('visual', 'audio') for name in registry.trunks(modality)]


def make_model(modality, name):
    """Returns a network with random weights and the side of its frames.

    It has the trunk for one modality and a tiny one for the other.
    """
    trunk = registry.find(modality, name)
    side = 4 * trunk.stride if modality == 'visual' else 16
    config = common.tiny(common.get_config())
    config.model.update({'width': 16, 'hidden': 8, 'frame_size': side, modality: name})
    config.data.frame_size = side
    spec = media.ClipSpec(segments=SEGMENTS, short_side=side, mel=trunk.mel or 'vggish')
    facts = run.DataFacts(tuple('abc'), False, spec, '')
    graphdef, state, *_ = run.make_state(config, facts, None)
    state['score_mean'] = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    return Model(run.Trained(config, facts, graphdef, state, 0, None)), side


def clip(side):
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (SEGMENTS, side, side, 3), np.uint8)
    return frames, rng.normal(0, 0.1, SEGMENTS * RATE).astype(np.float32)


@pytest.mark.parametrize('modality, name', TRUNKS)
def test_terms_add_up_and_removal_matches_the_masked_network(modality, name, tmp_path):
    model, side = make_model(modality, name)
    explanation = model.explain_arrays(*clip(side), RATE)
    assert explanation.residual()[1] < 1e-5 and np.ptp(explanation.logits) > 1e-4
    stride = registry.find('visual', name).stride if modality == 'visual' else 8
    assert explanation.geometry['grid'] == [SEGMENTS, side // stride, side // stride]

    # The trunks run once; every removal is then also computed by the network itself, with masks.
    graphdef, state = model.trained.graphdef, model.trained.state
    batch = {key: np.asarray(x)[None] for key, x in arrays_of(model, side).items()}
    cells = int(np.prod(explanation.geometry['grid'][1:]))

    @jax.jit
    def forward(state, unit_mask, cell_mask):
        network = nnx.merge(graphdef, state['params'], state['rest'])
        inputs = step.read_inputs(batch)
        return network(**inputs, valid=batch['valid'], train=False, unit_mask=unit_mask, cell_mask=cell_mask)[0][0]

    units, all_cells = np.ones((1, 2, SEGMENTS), bool), np.ones((1, SEGMENTS, cells), bool)
    logits = forward(state, units, all_cells)
    np.testing.assert_allclose(logits, explanation.logits, atol=1e-4)
    kept = units.copy()
    kept[0, 0, 1] = False
    answers = forward(state, kept, all_cells)
    for c, label in enumerate('abc'):
        assert explanation.without_units(kept[0], label) == pytest.approx(float(answers[c]), abs=1e-4)
    gone = all_cells.copy()
    gone[0, 0, cells - 1] = False
    changes = forward(state, units, gone) - logits
    for k, label in enumerate(explanation.removed_classes):
        c = 'abc'.index(label)
        assert explanation.removed_cells[k].reshape(SEGMENTS, -1)[0, -1] == pytest.approx(float(changes[c]), abs=1e-4)
    explanation.save_html(tmp_path / 'page.html')
    assert (tmp_path / 'page.html').stat().st_size > 10_000


def arrays_of(model, side):
    """Returns the explained clip as the arrays of one row of a batch."""
    one = reading.of_arrays(*clip(side), RATE, model.spec).clip
    return pipeline.clip_arrays(one, side, model.trained.config.data.fit)
