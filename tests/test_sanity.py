"""Tests of sanity checks on explanations, with fake networks of known answers and tiny networks end to end."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax import models
from stattn_jax.attribution import ClipArrays, Map, sanity
from stattn_jax.metrics import maps
from stattn_jax.models import parameter_groups

CLIPS, T, SIDE = 7, 5, 6
CELLS = SIDE * SIDE // 4
MEL = (2, CELLS)


# Parameters of a fake network, one in each group, by which the maps below are multiplied.
STATE = {'params': {name: np.ones(()) for name in ('head', 'time', 'value', 'visual')}}
GROUPS = {'heads': ('head',), 'time': ('time',), 'projections': ('value',), 'trunks': ('visual',)}


def cells(clip):
    """[t s]: the brightness of blocks of 2 x 2 pixels."""
    return clip.frames.mean(-1).reshape(T, SIDE // 2, 2, SIDE // 2, 2).mean((2, 4)).reshape(T, -1)


def plain(variables, clip, class_):
    return Map(cells(clip) - 0.5, clip.log_mel.mean((1, 2)))


def split(model):
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    return graphdef, {'params': nnx.as_pure(params), 'rest': nnx.as_pure(rest)}


def make_clips(n=CLIPS):
    rng = np.random.default_rng(0)
    valid = np.ones((n, T), bool)
    valid[::3, -2:] = False
    frames, log_mel = rng.random((n, T, SIDE, SIDE, 3)), rng.normal(size=(n, T, *MEL))
    return ClipArrays(frames.astype(np.float32), log_mel.astype(np.float32), valid)


CLASSES = np.array([0, 0, 1, 1, 2, 0, 0])


def negated(seed):
    return jax.tree.map(lambda x: -x, STATE)


def scaled_by(name):
    """Returns an explainer whose maps depend on one parameter alone."""

    def explain(variables, clip, class_):
        return jax.tree.map(lambda x: x * variables['params'][name], plain(variables, clip, class_))

    return explain


@pytest.mark.parametrize('name', STATE['params'])
def test_the_cascade_redraws_from_the_heads_down_group_by_group(name):
    found = sanity.randomisation(
        scaled_by(name), STATE, make_clips(), CLASSES, fresh=negated, groups=GROUPS, grid=(3, 3), seeds=1, batch=4
    )
    assert list(found) == list(GROUPS)
    reached = False
    for group, numbers in found.items():
        reached |= name in GROUPS[group]
        for part in ('visual', 'audio'):
            np.testing.assert_allclose(numbers[part], np.full(CLIPS, -1.0 if reached else 1.0), atol=1e-12)
            assert (numbers[f'{part}_magnitude'] == 1).all()
        assert (numbers['visual_ssim'] < 0).all() if reached else (numbers['visual_ssim'] == 1).all()


def test_similarity_is_the_mean_of_the_redrawn_networks_without_the_trained_one():
    seeds = []

    def fresh(seed):
        seeds.append(seed)
        return jax.tree.map(lambda x: 100 * x * (-1) ** len(seeds), STATE)

    found = sanity.randomisation(
        scaled_by('head'), STATE, make_clips(), CLASSES, fresh=fresh, groups=GROUPS, grid=(3, 3), seeds=5
    )
    # Three of five are negated; the scale does not matter.
    np.testing.assert_allclose(found['heads']['visual'], -0.2, atol=1e-12)
    clips = make_clips()
    shown = np.stack([cells(ClipArrays(*one)) - 0.5 for one in zip(*clips)])
    ssim = []
    for x, there in zip(shown, clips.valid):
        x = x[there].reshape(-1, 3, 3) / np.abs(x[there]).max()
        ssim.append((3 * np.mean(maps.ssim(0.5 + x / 2, 0.5 - x / 2)) + 2) / 5)
    np.testing.assert_allclose(found['heads']['visual_ssim'], ssim, rtol=1e-5)
    assert len(set(seeds)) == 5 and min(seeds) >= sanity.FIRST_SEED


def test_a_constant_map_is_not_compared_and_other_seeds_are():
    def fresh(seed):
        return jax.tree.map(lambda x: x * (seed % 2), STATE)

    run = functools.partial(sanity.randomisation, scaled_by('head'), STATE, make_clips(), CLASSES, groups=GROUPS)
    assert np.isnan(run(fresh=fresh, grid=(3, 3), seeds=1)['heads']['visual']).all()
    assert (run(fresh=fresh, grid=(3, 3), seeds=2)['heads']['visual'] == 1).all()


def test_redrawing_changes_the_named_parameters_and_statistics_and_no_other():
    _, state = split(tiny.make_model())
    new = jax.tree.map(lambda x: x + 1, state)
    found = sanity.redrawn(state, new, ('visual', 'bias'))
    assert set(found) == {'params', 'rest'}
    for part in found:
        for name in found[part]:
            for got, old in zip(jax.tree.leaves(found[part][name]), jax.tree.leaves(state[part][name]), strict=True):
                np.testing.assert_array_equal(got, old + (name in ('visual', 'bias')))


def test_every_kind_has_its_order_from_the_logits_to_the_pixels():
    for kind in models.KINDS:
        graphdef_and_state = nnx.eval_shape(
            lambda kind=kind: models.build(
                3, kind=kind, frame=(16, 16), width=16, hidden=8, axis_name=None, rngs=nnx.Rngs(0)
            )
        )
        names = nnx.split(graphdef_and_state, nnx.Param, ...)[1]
        found = parameter_groups.groups(names)
        assert sorted(name for level in found.values() for name in level) == sorted(names), kind
        assert list(found)[-2:] == ['projections', 'trunks'], kind
        if kind == 'stan':
            assert list(found) == ['heads', 'time', 'space', 'projections', 'trunks']
            assert set(found['heads']) == {'visual_head', 'audio_head', 'bias'}
        if kind == 'avel_paper':
            assert list(found)[:5] == ['heads', 'joint', 'lstms', 'score', 'of_seen+of_heard']
    with pytest.raises(ValueError, match='parameters neck: at no known depth'):
        parameter_groups.groups(['head', 'neck'])
    found = parameter_groups.groups(['audio', 'visual_layer', 'value', 'head'])
    assert list(found.items()) == [
        ('heads', ('head',)),
        ('projections', ('value',)),
        ('after_frozen', ('visual_layer',)),
        ('trunks', ('audio',)),
    ]


def test_a_map_that_ignores_the_sound_stays_and_one_of_the_sound_follows_it():
    clips = make_clips()
    found = sanity.other_sounds(plain, STATE, clips, CLASSES, batch=3)
    for name in ('other', 'silent', 'moved'):
        assert (found[name] == 1).all()

    def follows(model, clip, class_):
        return Map(clip.log_mel[:, 0], clip.log_mel.mean((1, 2)))

    found = sanity.other_sounds(follows, STATE, clips, CLASSES, batch=3)
    partner = [2, 2, 4, 4, 5, 2, 2]
    for i, valid in enumerate(clips.valid):
        mine = clips.log_mel[i, valid, 0]
        assert found['other'][i] == maps.rank_correlation(mine, clips.log_mel[partner[i], valid, 0])
        assert found['moved'][i] == maps.rank_correlation(mine, np.roll(mine, valid.sum() // 2, axis=0))
    assert np.isnan(found['silent']).all()
    with pytest.raises(ValueError, match='all 7 clips are explained for one class'):
        sanity.other_sounds(plain, STATE, clips, np.ones(CLIPS, int))


def test_another_class_is_never_the_label():
    def explain(model, clip, class_):
        signs = jnp.array([[1.0, 1, 1], [1, -1, 1], [1, 1, -1]])[class_]
        return Map(cells(clip) * jnp.tile(signs, 3), clip.log_mel.mean((1, 2)) * jnp.where(class_ == 1, -1.0, 1.0))

    clips = make_clips(40)
    classes = np.arange(40) % 3
    ask = functools.partial(sanity.other_class, explain, STATE, clips, classes, classes=3)
    found = ask(seed=0, batch=16)
    assert (found['visual'] < 0.99).all()
    # The audio maps of class 1 have the opposite sign. Labels 0 and 2 are compared with class 1 half of the time.
    np.testing.assert_allclose(np.abs(found['audio']), 1, atol=1e-12)
    assert (found['audio'][classes == 1] < 0).all() and 0 < (found['audio'][classes == 0] > 0).sum() < 14
    np.testing.assert_array_equal(ask(seed=0, batch=40)['visual'], found['visual'])
    assert not np.array_equal(ask(seed=1)['visual'], found['visual'])


def test_maps_that_follow_the_clip_are_equivariant_and_those_of_a_place_or_a_second_are_not():
    clips = make_clips()
    found = sanity.equivariance(plain, STATE, clips, CLASSES, grid=(3, 3), by=2, batch=4)
    assert set(found) == {'mirror_visual', 'mirror_audio', 'roll_visual', 'roll_audio'}
    assert all((x == 1).all() for x in found.values())

    def prefers_right(model, clip, class_):
        return Map(cells(clip) + jnp.tile(jnp.arange(3.0), 3), clip.log_mel.mean((1, 2)))

    def prefers_late(model, clip, class_):
        late = jnp.arange(1.0 * T)
        return Map(cells(clip) + late[:, None], clip.log_mel.mean((1, 2)) + 9 * late)

    of_place = sanity.equivariance(prefers_right, STATE, clips, CLASSES, grid=(3, 3), by=2)
    assert (of_place['mirror_visual'] < -0.5).all() and (of_place['roll_visual'] == 1).all()
    of_time = sanity.equivariance(prefers_late, STATE, clips, CLASSES, grid=(3, 3), by=2)
    assert (of_time['mirror_visual'] == 1).all() and (of_time['roll_visual'] < 0.9).all()
    # Ranks 0 1 2 3 4 against those rolled by two, 3 4 0 1 2, give 1 - 6 * 30 / 120; of three segments, 0 1 2 against
    # 1 2 0 give 1 - 6 * 6 / 24.
    np.testing.assert_allclose(of_time['roll_audio'], -0.5, atol=1e-12)


def test_the_batch_changes_nothing_and_the_inputs_stay():
    clips, explain = make_clips(), scaled_by('visual')
    before = jax.tree.map(np.copy, (STATE, clips))

    def everything(batch):
        ask = {'explain': explain, 'variables': STATE, 'clips': clips, 'classes_n': CLASSES, 'batch': batch}
        found = sanity.randomisation(**ask, fresh=negated, groups=GROUPS, grid=(3, 3), seeds=2)
        found |= {'sounds': sanity.other_sounds(**ask)}
        return found | {'equivariance': sanity.equivariance(**ask, grid=(3, 3))}

    found = everything(1)
    for batch in (3, CLIPS, 100):
        jax.tree.map(np.testing.assert_array_equal, found, everything(batch))
    jax.tree.map(np.testing.assert_array_equal, (STATE, clips), before)


# ---------------------------------------------------------------------------------------------------------------------
# The tiny networks
# ---------------------------------------------------------------------------------------------------------------------


def own_maps(model, clip, class_):
    logits, out = model(*(x[None] for x in clip), train=False)
    return Map(*(x[0] for x in model.maps(out, class_[None])))


def gradient(model, clip, class_):
    def logit(frames, log_mel):
        return model(frames[None], log_mel[None], clip.valid[None], train=False)[0][0, class_]

    frames, log_mel = jax.grad(logit, argnums=(0, 1))(clip.frames, clip.log_mel)
    visual = (frames * clip.frames).sum(-1).reshape(tiny.SEGMENTS, 2, 8, 2, 8).sum((2, 4))
    return Map(visual.reshape(tiny.SEGMENTS, 4), (log_mel * clip.log_mel).sum((1, 2)))


def tiny_clips():
    batch = tiny.make_batch(0, 3)
    return ClipArrays(batch['frames'].astype(np.float32) / 255, batch['log_mel'].astype(np.float32), batch['valid'])


def of_module(explain, graphdef):
    """Returns an explanation function of variables from one of a module."""

    def explain_variables(variables, clip, class_):
        return explain(nnx.merge(graphdef, variables['params'], variables['rest']), clip, class_)

    return explain_variables


def shuffled(state):
    """Returns a function that permutes the values of every array, in place of an initialiser.

    The distribution stays the same, and nothing is compiled.
    """
    return lambda seed: jax.tree.map(
        lambda x: np.random.default_rng(seed).permutation(np.ravel(x)).reshape(x.shape), state
    )


@pytest.mark.parametrize('kind, explain', [('stan', own_maps), ('avel_paper', own_maps), ('late_sum', gradient)])
def test_every_question_of_a_tiny_network_has_a_finite_answer(kind, explain):
    graphdef, state = split(tiny.make_model(kind=kind, frame=(tiny.SIZE, tiny.SIZE)))
    clips, classes = tiny_clips(), np.array([0, 1, 2])
    before = jax.tree.map(np.copy, (state, clips))

    ask = {'variables': state, 'clips': clips, 'classes_n': classes, 'batch': 2}
    ask['explain'] = of_module(explain, graphdef)
    groups = parameter_groups.groups(state['params'])
    found = sanity.randomisation(**ask, fresh=shuffled(state), groups=groups, grid=(2, 2), seeds=1)
    found |= {'sounds': sanity.other_sounds(**ask)}
    found |= {'other_class': sanity.other_class(**ask, classes=tiny.CLASSES)}
    found |= {'equivariance': sanity.equivariance(**ask, grid=(2, 2), by=1)}
    for name, numbers in found.items():
        for part, x in numbers.items():
            assert x.shape == (3,) and np.isfinite(x).all() and (np.abs(x) <= 1 + 1e-9).all(), (name, part)
    jax.tree.map(np.testing.assert_array_equal, (state, clips), before)
    heads, trunks = found['heads']['visual'], found['trunks']['visual']
    assert (np.abs(trunks) < 1).any() and not np.array_equal(heads, trunks)


def test_a_function_is_compiled_once_for_all_parameters_and_batches():
    graphdef, state = split(tiny.make_model(kind='late_sum'))
    traced = []

    def explain(model, clip, class_):
        traced.append(1)
        return Map(
            clip.frames.mean(-1).reshape(tiny.SEGMENTS, -1) * model.visual_head.kernel[...].mean(),
            clip.frames.mean((1, 2, 3)),
        )

    groups, fresh = parameter_groups.groups(state['params']), shuffled(state)
    options = {'fresh': fresh, 'groups': groups, 'grid': (16, 16), 'seeds': 2, 'batch': 2}
    sanity.randomisation(of_module(explain, graphdef), state, tiny_clips(), np.zeros(3, int), **options)
    assert len(traced) == 1
