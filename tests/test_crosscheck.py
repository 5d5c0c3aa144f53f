"""Tests the metrics against Quantus, captum and torch-cam where they compute the same quantity.

pip install stattn-jax[crosscheck]

Where another package has conventions of its own (it adds a tiny number to each value or omits a step of the curve), the
test applies them to our metrics too, with a comment. The tests are skipped without these packages, which nothing else
in the project needs.
"""

import contextlib
import warnings

import numpy as np
import pytest

from stattn_jax.metrics import energy, localization, maps, perturbation


def skip_or_import(name):
    # These packages warn about their own dependencies on import, and the test suite turns warnings into errors.
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return pytest.importorskip(name)


torch = skip_or_import('torch')
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def quantus():
    return skip_or_import('quantus')


@pytest.fixture(scope='module')
def captum():
    return skip_or_import('captum.metrics')


@pytest.fixture(scope='module')
def torchcam():
    return skip_or_import('torchcam.metrics')


class Network(torch.nn.Module):
    """A nonlinear network that maps any input to the logits of three classes."""

    def __init__(self, size):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer('first', torch.randn(size, 12, generator=generator, dtype=torch.float64) / size**0.5)
        self.register_buffer('second', torch.randn(12, 3, generator=generator, dtype=torch.float64))
        self.eval()

    def forward(self, x):
        return torch.tanh(x.flatten(1).double() @ self.first) @ self.second


def score_of(model, x, target, baseline=0.0):
    """Returns a callable for `perturbation.curves`: the class's logit with removed values set to the baseline."""

    def score(removed):
        with torch.no_grad():
            return model(torch.as_tensor(np.where(removed, baseline, x[None])))[:, target].numpy()

    return score


def test_sparseness_and_complexity(quantus):
    rng = np.random.default_rng(0)
    batch = rng.random((5, 1, 8, 8))
    options = {'model': None, 'x_batch': batch.copy(), 'y_batch': np.zeros(5, int), 'batch_size': 5}
    quiet = {'abs': True, 'normalise': False, 'disable_warnings': True}
    theirs = quantus.Sparseness(**quiet)(**options, a_batch=batch.copy())
    # Quantus adds 1e-7 to every value.
    assert theirs == pytest.approx([maps.gini(map_ + 1e-7) for map_ in batch], abs=1e-9)
    assert theirs == pytest.approx([maps.gini(map_) for map_ in batch], abs=1e-6)
    theirs = quantus.Complexity(**quiet)(**options, a_batch=batch.copy())
    assert theirs == pytest.approx([maps.entropy(map_) * np.log(64) for map_ in batch], abs=1e-9)


def test_energy_and_pointing(quantus):
    rng = np.random.default_rng(1)
    batch, inside = rng.random((20, 1, 6, 6)), np.zeros((20, 1, 6, 6), bool)
    for mask in inside:
        (y, x), (height, width) = rng.integers(0, 4, 2), rng.integers(2, 4, 2)
        mask[0, y : y + height, x : x + width] = True
    options = {'model': None, 'x_batch': batch.copy(), 'y_batch': np.zeros(20, int), 's_batch': inside}
    quiet = {'abs': False, 'normalise': False, 'disable_warnings': True}
    theirs = quantus.RelevanceMassAccuracy(**quiet)(**options, a_batch=batch.copy())
    assert theirs == pytest.approx([energy.energy_inside(*pair) for pair in zip(batch, inside)], abs=1e-9)
    # The maps have no ties; Quantus counts a hit if any tied cell lies inside.
    theirs = quantus.PointingGame(**quiet)(**options, a_batch=batch.copy())
    ours = [localization.expected_hit(*pair) for pair in zip(batch, inside)]
    assert np.array(theirs, float).tolist() == ours and 0 < sum(ours) < 20


def test_pixel_flipping(quantus):
    rng = np.random.default_rng(2)
    batch, attributions = (rng.normal(size=(3, 1, 6, 6)).astype(np.float32) for _ in range(2))
    model = Network(36)
    theirs = quantus.PixelFlipping(
        features_in_step=4, perturb_baseline='black', normalise=False, disable_warnings=True
    )(model=model, x_batch=batch, y_batch=np.array([0, 1, 2]), a_batch=attributions, softmax=False, batch_size=3)
    for i, (x, map_, curve) in enumerate(zip(batch, attributions, theirs)):
        # "Black" is the smallest value of the input, and Quantus's curve omits the whole input.
        found = perturbation.curves(map_, score_of(model, x, i, x.min()), np.arange(10) / 9)
        assert curve == pytest.approx(found.deletion[1:], abs=1e-6)


class Extractor:
    """The interface that torch-cam expects of an evaluated method: the map and the network."""

    def __init__(self, model, map_):
        self.model, self.map = model, map_

    def __call__(self, *_, **__):
        return [torch.as_tensor(self.map)[None]]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return contextlib.nullcontext()


@pytest.mark.parametrize('shape, steps', [((3, 4, 5), 20), ((2, 3, 4), 7)])
def test_deletion_and_insertion_of_a_video(torchcam, shape, steps):
    """Verifies a map over time, rows and columns that all channels share.

    In one case the last step is shorter than the others.
    """
    rng = np.random.default_rng(3)
    video, map_ = rng.normal(size=(3, *shape)), rng.normal(size=shape)
    model, units = Network(video.size), map_.size
    metric = torchcam.DeletionInsertionMetric(Extractor(model, map_), steps=steps)
    metric.update(torch.as_tensor(video)[None], class_idx=1)
    step = -(-units // steps)
    fractions = np.array([*range(0, units, step), units]) / units
    score = score_of(model, video, 1)
    found = perturbation.curves(map_, lambda removed: score(removed[:, None]), fractions).summary()
    theirs = metric.summary()
    assert theirs['deletion_auc'] == pytest.approx(found['deletion'], abs=1e-6)
    assert theirs['insertion_auc'] == pytest.approx(found['insertion'], abs=1e-6)


@pytest.mark.parametrize('scaled', [False, True])
def test_infidelity(captum, scaled):
    rng = np.random.default_rng(4)
    x, map_, noise = rng.normal(size=10), rng.normal(size=10), rng.normal(size=(40, 10)) * 0.3
    model = Network(10)

    def disturb(inputs):
        return torch.as_tensor(noise), inputs - torch.as_tensor(noise)

    theirs = captum.infidelity(
        model, disturb, torch.as_tensor(x)[None], torch.as_tensor(map_)[None], target=2, n_perturb_samples=40,
        normalize=scaled,
    )  # fmt: skip
    with torch.no_grad():
        whole = model(torch.as_tensor(x)[None])[0, 2].item()
        drop = whole - model(torch.as_tensor(x - noise))[:, 2].numpy()
    assert maps.infidelity(map_, noise, drop, scaled=scaled) == pytest.approx(theirs.item(), abs=1e-9)


def test_max_sensitivity(captum, quantus):
    rng = np.random.default_rng(5)
    x, noise = rng.normal(size=(1, 1, 4, 4)), rng.normal(size=(30, 1, 4, 4)) * 0.1

    def explain(inputs):
        return inputs**2 - inputs

    ours = maps.max_sensitivity(explain(x[0]), explain(x + noise))
    theirs = captum.sensitivity_max(
        lambda inputs: (explain(inputs[0]),), (torch.as_tensor(x),),
        lambda inputs: (inputs[0] + torch.as_tensor(noise),),
        n_perturb_samples=30,
    )  # fmt: skip
    assert theirs.item() == pytest.approx(ours, abs=1e-9)
    draws = iter(noise)
    metric = quantus.MaxSensitivity(
        nr_samples=30, perturb_func=lambda arr, **_: arr + next(draws).reshape(1, -1), disable_warnings=True
    )
    (theirs,) = metric(
        model=Network(16), x_batch=x, y_batch=np.zeros(1, int), a_batch=explain(x), batch_size=1,
        explain_func=lambda model, inputs, targets, **_: explain(np.asarray(inputs)),
    )  # fmt: skip
    assert theirs == pytest.approx(ours, abs=1e-9)
