"""benchmarks.finer_map: the pointing game and the evidence inside boxes, against a map whose hits are known."""

import types

import numpy as np
import pytest

from benchmarks import finer_map
from data_prep import cli
from stattn_jax.data import media, records

CORNER = records.Box(time=0.5, label=1, x0=0.0, y0=0.0, x1=0.2, y1=0.2)
OTHER = records.Box(time=0.5, label=0, x0=0.6, y0=0.6, x1=1.0, y1=1.0)


def record_of(boxes):
    clip = media.Clip([], np.zeros((1, 2, 2)), np.ones(1, bool), height=80, width=80, duration=1.0)
    return records.ClipRecord('clip', clip, labels=(1,), boxes=boxes)


def model_of(visual, visual_finer):
    """Returns a model whose maps of every clip are these."""

    def record(clips, size, *, finer):
        assert finer and len(clips) <= size
        return {'visual': np.stack([visual] * size), 'visual_finer': np.stack([visual_finer] * size)}, {}

    config = types.SimpleNamespace(data=types.SimpleNamespace(fit='squash'))
    return types.SimpleNamespace(
        record=record,
        spec=types.SimpleNamespace(segment_seconds=1.0),
        trained=types.SimpleNamespace(config=config),
    )


@pytest.fixture
def model():
    """The evidence of class 1 lies in the first cell, and there in the first half cell; class 0 has its in the last."""
    cells = np.zeros((2, 1, 4))
    cells[1, 0, 0] = cells[0, 0, 3] = 1.0
    finer = np.zeros((2, 1, 4, 4))
    finer[1, 0, 0, 0] = finer[0, 0, 3, 3] = 1.0
    return model_of(cells, finer)


def test_maps_of_the_label_are_scored_on_its_boxes(model):
    clips = [record_of((CORNER, OTHER)) for _ in range(finer_map.BATCH + 1)] + [record_of((OTHER,))]
    found = finer_map.measure(model, clips)
    # The box holds the centre of the first half cell, at 1/8. That of the first cell, at 1/4, is 0.071 away from its
    # corner, beyond the tolerance. Of four equal half cells, one hits. The box is 0.64 of the half cell, and 0.16 of
    # the cell.
    expected = {'cells': (0, 0, 0.16), 'finer map': (1, 1, 0.64), 'divided cells': (0.25, 0.25, 0.16)}
    for name, values in expected.items():
        for measure, value in zip(finer_map.GAMES, values, strict=True):
            np.testing.assert_allclose(found[name][measure][:-1], value, rtol=1e-6, err_msg=f'{name}, {measure}')
            assert np.isnan(found[name][measure][-1])


def test_the_gain_is_that_of_the_finer_map_over_cells(model):
    found = finer_map.table([finer_map.measure(model, [record_of((CORNER,))] * 3 + [record_of((OTHER,))])] * 2)
    gains = [row[-1] for row in found.rows]
    np.testing.assert_allclose([gain.value for gain in gains], [1, 1, 0.48], rtol=1e-6)
    assert [(gain.n, gain.skipped, gain.seeds) for gain in gains] == [(3, 1, 2)] * 3


def test_flags_that_are_missing_are_named():
    finer_map.FLAGS(['finer_map'])
    with pytest.raises(cli.UsageError, match='--workdir'):
        finer_map.main([])
