"""Tests post-hoc explanations by closed forms on a linear model, loops over the whole network, and for each kind."""

import functools
import itertools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax import attribution, models
from stattn_jax.attribution import Classifier, ClipArrays, Map, explainers
from stattn_jax.models.encoders import Encoders

CLASS = 1
KEY = jax.random.key(3)


class Linear(Encoders):
    """Logits are linear in pixels and log-mel: a cell, or a segment's audio, is its share of every logit."""

    stride = 4

    def __init__(self, shape, mel, classes):
        rng = np.random.default_rng(5)
        t, height, width, k = shape
        self.picture = nnx.Variable(jnp.asarray(rng.normal(size=(t, height, width, k, classes)), jnp.float32))
        self.hearing = nnx.Variable(jnp.asarray(rng.normal(size=(t, *mel, classes)), jnp.float32))

    def cells(self, frames, *, train):
        terms = jnp.einsum('bthwk,hwkc->bthwc', frames, self.picture[0])
        b, t, height, width, c = terms.shape
        parts = terms.reshape(b, t, height // 4, 4, width // 4, 4, c).sum(axis=(3, 5))
        return parts.reshape(b, t, -1, c)

    def sound(self, log_mel, *, train):
        return jnp.einsum('btfk,fkc->btc', log_mel, self.hearing[0])

    def forward_heads(self, seen, heard, valid, *, cell_mask=None, unit_mask=None):
        # Segments have different weights, so that confusing two of them changes the result.
        weights = jnp.where(valid, jnp.arange(1.0, valid.shape[1] + 1), 0)
        return jnp.einsum('bt,btc->bc', weights, seen.sum(axis=2) + heard), {}


def draw(seed, shape, mel, valid):
    rng = np.random.default_rng(seed)
    frames = rng.random((*shape, 3), np.float32)
    return ClipArrays(
        *map(jnp.asarray, (frames, rng.normal(-2, 1, (shape[0], *mel)).astype(np.float32), np.array(valid)))
    )


def pair(shape=(3, 16, 16), mel=(16, 8), valid=(True, True, False)):
    """A clip and the clip that stands for absent content, both random."""
    return draw(0, shape, mel, valid), draw(1, shape, mel, valid)


@functools.cache
def model_of(kind='stan', **options):
    options |= {'stop_gradient_evidence': False}
    return tiny.make_model(kind=kind, frame=(tiny.SIZE, tiny.SIZE), **options)


def explain(name, model, clip, absent, class_=CLASS, key=KEY) -> Map:
    """Runs the method under jit and returns NumPy arrays."""
    call = compiled_method(name, nnx.graphdef(model), explainers.STEPS, explainers.MASKS)
    return jax.tree.map(np.asarray, call(nnx.as_pure(nnx.state(model)), clip, absent, np.array(class_), key))


def network_of(graphdef, state, clip) -> Classifier:
    return attribution.of_model(nnx.merge(graphdef, state), *clip.frames.shape[-3:-1])


@functools.cache
def compiled_method(name, graphdef, *sizes):
    del sizes  # constants of the compiled program
    return jax.jit(
        lambda state, *arguments: explainers.EXPLAINERS[name](network_of(graphdef, state, arguments[0]), *arguments)
    )


def logit(model, clip, class_=CLASS):
    return compiled_logit(nnx.graphdef(model))(nnx.as_pure(nnx.state(model)), clip)[class_]


@functools.cache
def compiled_logit(graphdef):
    return jax.jit(
        lambda state, clip: nnx.merge(graphdef, state)(*(x[None] for x in clip), train=False)[0][0].astype(jnp.float32)
    )


@pytest.fixture(scope='module')
def linear():
    """The model, a clip, its absent version, and the terms of their difference in float64: [t H W] and [t]."""
    clip, absent = pair((3, 16, 12), (5, 4))
    model = Linear(clip.frames.shape, (5, 4), tiny.CLASSES)
    weights = np.array([1, 2, 0], float)
    frames, log_mel = (np.asarray(a, float) - np.asarray(b, float) for a, b in zip(clip[:2], absent[:2]))
    pixels = np.einsum('thwk,hwk,t->thw', frames, np.asarray(model.picture[0], float)[..., CLASS], weights)
    audio = np.einsum('tfk,fk,t->t', log_mel, np.asarray(model.hearing[0], float)[..., CLASS], weights)
    return model, clip, absent, pixels, audio


def by_cell(pixels):
    """Sums [t H W] to [t h w] by a loop."""
    visual = np.zeros((3, 4, 3))
    for t, y, x in np.ndindex(pixels.shape):
        visual[t, y // 4, x // 4] += pixels[t, y, x]
    return visual


@pytest.mark.parametrize('name', ['gradient_input', 'integrated_gradients'])
def test_gradients_of_a_linear_model_are_its_terms(linear, name):
    model, clip, absent, pixels, audio = linear
    visual = by_cell(pixels)
    found = explain(name, model, clip, absent)
    np.testing.assert_allclose(found.visual, visual.reshape(3, -1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.audio, audio, rtol=1e-4, atol=1e-4)
    assert np.abs(visual[:2]).min() > 1e-3 and np.abs(audio[:2]).min() > 1e-3


def test_occlusion_of_a_linear_model_is_the_sum_of_the_terms_in_the_window(linear):
    model, clip, absent, pixels, audio = linear
    visual = by_cell(pixels)
    expected = np.zeros_like(visual)
    for t, y, x in np.ndindex(*visual.shape):
        expected[t, y, x] = visual[t, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].sum()
    found = explain('occlusion', model, clip, absent)
    np.testing.assert_allclose(found.visual, expected.reshape(3, -1), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.audio, audio, rtol=1e-4, atol=1e-3)


def shared(pixels, cells):
    """Overlap [pixels cells] of the sampled mask values in a pixel and in a cell's mean, along one axis.

    The overlap is the sum of the products of their weights, averaged over the shifts of the mask.
    """
    step = -(-pixels // 4)
    enlarged = np.asarray(jax.image.resize(np.eye(4, dtype=np.float32), (4, 5 * step), 'bilinear'), float)
    masks = [enlarged[:, start : start + pixels] for start in range(step)]
    return np.mean([mask.T @ mask.reshape(4, cells, -1).mean(-1) for mask in masks], axis=0)


def rise_often(model, clip, absent, keys):
    """RISE of one clip with several keys."""
    graphdef, state = nnx.split(model)

    @jax.jit
    def call(state, clip, absent, keys):
        network = network_of(graphdef, state, clip)
        return jax.vmap(lambda key: explainers.rise(network, clip, absent, jnp.asarray(CLASS), key))(keys)

    return jax.tree.map(np.asarray, call(nnx.as_pure(state), clip, absent, keys))


def test_rise_of_a_linear_model_comes_to_its_terms_blurred_by_the_masks(linear):
    model, clip, absent, pixels, audio = linear
    keys = jax.random.split(KEY, 60)
    found = rise_often(model, clip, absent, keys)
    # The covariance of a pixel's mask and a cell's (each sampled value has a variance of 1/4), divided by p = 1/2.
    visual = np.einsum('thw,hy,wx->tyx', pixels, shared(16, 4), shared(12, 3)).reshape(3, -1) / 2
    for values, expected in ((found.visual, visual), (found.audio, audio / 2)):
        mean = values.mean(0) * explainers.MASKS / (explainers.MASKS - 1)
        error = values.std(0, ddof=1) / np.sqrt(len(keys))
        assert (np.abs(mean - expected) <= 4.5 * error).all()
        assert np.corrcoef(mean.ravel(), expected.ravel())[0, 1] > 0.97


def test_integrated_gradients_sum_to_the_difference_of_logits_the_closer_the_more_steps(monkeypatch):
    model, (clip, absent) = model_of(), pair()
    difference = logit(model, clip) - logit(model, absent)
    errors = []
    for steps in (2, 64):
        monkeypatch.setattr(explainers, 'STEPS', steps)
        found = explain('integrated_gradients', model, clip, absent)
        errors.append(abs(found.visual.sum() + found.audio.sum() - difference))
    size = np.abs(found.visual).sum() + np.abs(found.audio).sum()
    assert errors[0] > 4 * errors[1] and errors[1] < 0.01 * size


def test_grad_cam_of_a_linear_model_is_the_positive_part_of_each_term(linear):
    model, clip, absent, *_ = linear
    (cells, sound), weights = model.encode(clip.frames[None], clip.log_mel[None], train=False), np.array([1, 2, 0])
    visual, audio = np.asarray(cells[0]) * weights[:, None, None], np.asarray(sound[0]) * weights[:, None]
    for class_ in range(tiny.CLASSES):
        found = explain('grad_cam', model, clip, absent, class_)
        np.testing.assert_allclose(found.visual, np.maximum(visual[..., class_], 0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.audio, np.maximum(audio[:, class_], 0), rtol=1e-5, atol=1e-5)
    assert visual.min() < 0 < visual.max() and audio.min() < 0 < audio.max()


def test_grad_cam_weighs_channels_by_the_mean_gradient_over_the_frame():
    model, (clip, absent) = model_of(), pair()
    cells, sound = model.encode(clip.frames[None], clip.log_mel[None], train=False)
    step = 0.05

    @jax.jit
    def fall(t, d):
        up, down = (
            model.forward_heads(cells.at[0, t, :, d].add(e), sound, clip.valid[None])[0][0] for e in (step, -step)
        )
        return (up - down) / (2 * step)

    t, d = np.indices((2, cells.shape[-1]))
    weights = np.asarray(jax.vmap(jax.vmap(fall))(t, d), float) / cells.shape[2]
    expected = np.maximum(np.einsum('tsd,tdc->tsc', cells[0, :2], weights), 0)
    for class_ in range(tiny.CLASSES):
        found = explain('grad_cam', model, clip, absent, class_)
        np.testing.assert_allclose(found.visual[:2], expected[..., class_], rtol=0.02, atol=0.02 * expected.max())
    assert expected.any()


@pytest.mark.parametrize('kind', ['stan', 'gmu'])
def test_occlusion_matches_a_loop_over_changed_clips(kind):
    model, (clip, absent) = model_of(kind), pair((3, 24, 24), (16, 8))
    whole = logit(model, clip)
    visual, audio = np.zeros((3, 3, 3)), np.zeros(3)
    for t, y, x in itertools.product(range(2), range(3), range(3)):
        frames = np.array(clip.frames)
        window = t, slice(max(8 * (y - 1), 0), 8 * (y + 2)), slice(max(8 * (x - 1), 0), 8 * (x + 2))
        frames[window] = absent.frames[window]
        visual[t, y, x] = whole - logit(model, clip._replace(frames=frames))
    for t in range(2):
        log_mel = np.array(clip.log_mel)
        log_mel[t] = absent.log_mel[t]
        audio[t] = whole - logit(model, clip._replace(log_mel=log_mel))
    found = explain('occlusion', model, clip, absent)
    np.testing.assert_allclose(found.visual, visual.reshape(3, -1), rtol=1e-3, atol=2e-6)
    np.testing.assert_allclose(found.audio, audio, rtol=1e-3, atol=2e-6)
    assert np.abs(visual[:2]).max() > 1e-3 and np.abs(audio[:2]).min() > 1e-4


VALID = np.array([[True, False, True], [True, True, False]])


def features(seed):
    """Two clips of features; networks on features are small, and the kinds differ only behind their trunks."""
    rng = np.random.default_rng(seed)
    return ClipArrays(*(rng.normal(size=(2, 3, *shape)).astype(np.float32) for shape in ((2, 2, 6), (1, 7))), VALID)


CLIPS, ABSENT = features(0), features(1)
CLASSES, KEYS = np.array([2, 0]), jax.random.split(KEY, 2)


@functools.cache
def of_features(kind, stop_gradient_evidence=False):
    options = {'visual': 'precomputed', 'audio': 'precomputed', 'channels': (6, 7), 'frame': (2, 2)}
    return tiny.make_model(kind=kind, stop_gradient_evidence=stop_gradient_evidence, **options)


def of_each(kind, batched=True):
    """One function with all methods on a network of a kind, for the batch or for one clip."""
    graphdef, state = nnx.split(of_features(kind))

    def call(state, *arguments):
        network = network_of(graphdef, state, arguments[0])
        each = {name: functools.partial(method, network) for name, method in explainers.EXPLAINERS.items()}
        return {name: (jax.vmap(method) if batched else method)(*arguments) for name, method in each.items()}

    return functools.partial(call, nnx.as_pure(state))


@functools.cache
def found_by_stan():
    return jax.tree.map(np.asarray, jax.jit(of_each('stan'))(CLIPS, ABSENT, CLASSES, KEYS))


# These take half a minute to compile together; test_compared.py checks that their gradients are finite.
SLOW = ('mbt', 'han', 'avel_paper', 'avel_code')


@pytest.mark.parametrize('kind', models.KINDS)
def test_every_method_explains_every_kind_by_valid_segments_of_the_modalities_it_uses(kind):
    model, arguments = of_features(kind), (CLIPS, ABSENT, CLASSES, KEYS)
    found = jax.eval_shape(of_each(kind), *arguments) if kind in SLOW else jax.jit(of_each(kind))(*arguments)
    for name, maps in found.items():
        assert [(x.shape, x.dtype) for x in maps] == [((2, 3, 4), np.float32), ((2, 3), np.float32)]
        for x, looked_at in zip(
            map(np.asarray, maps) if kind not in SLOW else (), (model.uses_video, model.uses_audio)
        ):
            assert np.isfinite(x).all() and not x[~VALID].any(), name
            # All that Grad-CAM finds may be negative, which leaves nothing.
            assert x.any() == looked_at or name == 'grad_cam' and not x.any(), name


def test_a_batch_by_vmap_is_each_clip_by_itself_and_nothing_given_changes():
    alone = jax.jit(of_each('stan', batched=False))
    given = CLIPS, ABSENT, CLASSES, nnx.as_pure(nnx.state(of_features('stan')))
    before = jax.tree.map(np.array, given)
    found = found_by_stan()
    for i in range(2):
        trees = ((CLIPS, ABSENT, CLASSES, KEYS), found)
        own, expected = (jax.tree.map(operator.itemgetter(i), tree) for tree in trees)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), alone(*own), expected)
    jax.tree.map(np.testing.assert_array_equal, given, before)


@pytest.mark.parametrize('name', explainers.EXPLAINERS)
def test_frames_that_do_not_divide_into_cells_are_refused(name):
    clip, absent = pair((3, 20, 16))
    with pytest.raises(ValueError, match='frames of 20 x 16 do not divide evenly into the 3 x 2 cells of the model'):
        explainers.EXPLAINERS[name](attribution.of_model(model_of(), 20, 16), clip, absent, jnp.asarray(CLASS), KEY)


def test_detached_evidence_hides_the_pictures_own_part_from_gradients():
    attached, detached = of_features('stan'), of_features('stan', stop_gradient_evidence=True)
    clip, absent = (jax.tree.map(lambda x: x[1], clips) for clips in (CLIPS, ABSENT))
    np.testing.assert_array_equal(logit(detached, clip), logit(attached, clip))
    (own, _), (hidden, _) = (explain('gradient_input', model, clip, absent) for model in (attached, detached))
    assert np.abs(own - hidden).max() > 0.1 * np.abs(own).max()
