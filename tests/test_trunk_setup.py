"""Tests the trunks of a run: which data they read and where their weights come from.

A run on features reads videos too.
"""

import contextlib
import functools
import json
import os
import shutil

import jax
import numpy as np
import pytest
import runs
import toy_trunks
from tiny import quick_compile  # noqa: F401  autouse

import stattn_jax
from configs import common
from data_prep import cli, extract, prepare, published
from stattn_jax import assemble, config_checks, run, trunk_setup
from stattn_jax.data import media, pipeline, source
from stattn_jax.data.extracted import ExtractedSpec, Extraction
from stattn_jax.data.features import FeatureSpec
from stattn_jax.training import step

SIDE, SPEC = 64, media.ClipSpec(segments=6, short_side=64)
PICTURE = Extraction('toy', '/w.npz', 'ab' * 32, 'CC0-1.0', (8, 8, 6), frame_size=SIDE, fit='squash')
SOUND = Extraction('toy', '/a.npz', 'cd' * 32, 'CC0-1.0', (5,))
FROZEN = {'model.visual': 'toy', 'model.visual_frozen': True, 'data.frame_size': SIDE, 'model.frame_size': SIDE}


@pytest.fixture(autouse=True, scope='module')
def toys():
    with pytest.MonkeyPatch.context() as patch:
        toy_trunks.register(patch.setattr)
        patch.setenv('XLA_FLAGS', os.environ.get('XLA_FLAGS', ''))
        for modality in trunk_setup.MODALITIES:
            field = f'model.{modality}'
            patch.setitem(config_checks.CHOICES, field, (*config_checks.CHOICES[field], 'toy'))
        yield


def make_config(**fields):
    """A tiny config with some fields changed, as model__visual='toy'."""
    config = common.tiny(common.get_config())
    config.data.dir = 'DATA'
    config.update_from_flattened_dict({name.replace('__', '.'): value for name, value in fields.items()})
    return config


def drawn(config, spec, classes=('a', 'b')):
    """Returns run.make_state's result, with random values of NumPy, as compiling the initialisers takes seconds."""
    facts = run.DataFacts(classes, False, spec, '')
    graphdef, state, *_ = run.make_state(config, facts, None, abstract=True)
    rng = np.random.default_rng(0)

    def draw(path, x):
        if path[-1].key in ('scale', 'var'):
            return np.ones(x.shape, x.dtype)
        return np.asarray(rng.normal(size=x.shape) / np.sqrt(np.prod(x.shape[:-1])), x.dtype)

    parts = {name: jax.tree_util.tree_map_with_path(draw, state[name]) for name in ('params', 'rest')}
    return facts, graphdef, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state) | parts


# ---------------------------------------------------------------------------------------------------------------------
# Trunks and data that do not fit together
# ---------------------------------------------------------------------------------------------------------------------

FEATURES, VIDEOS = FeatureSpec(3, 1.0, (1, 1, 8), 4, 'x'), media.ClipSpec()
SEEN, HEARD = ExtractedSpec(VIDEOS, PICTURE, None, 'f'), ExtractedSpec(VIDEOS, None, SOUND, 'f')
AS_SEEN = {'model__visual': 'toy', 'model__visual_frozen': True}


@pytest.mark.parametrize('spec, fields, named', [
    (FEATURES, {'model__audio': 'precomputed'}, "visual is 'tiny', but DATA holds features .x.; expected precomputed"),
    (FEATURES, {'model__visual': 'precomputed'}, "model.audio is 'tiny'.*expected precomputed"),
    (VIDEOS, {'model__visual': 'precomputed'}, "model.visual is 'precomputed'.*holds pictures and sound"),
    (SEEN, {'model__visual': 'precomputed'}, "model.visual is 'precomputed'.*holds features of the trunk toy"),
    (FEATURES, {'model__visual': 'precomputed', 'model__audio': 'precomputed', 'model__visual_frozen': True},
     "'precomputed', which learns from the start; expected config.model.visual_frozen=False"),
    (VIDEOS, {'model__visual_frozen': True}, 'visual_frozen is True, but there are no weights to keep; give'),
    (VIDEOS, {'model__audio_frozen': True}, 'model.audio_frozen is True, but there are no weights to keep'),
    (VIDEOS, {'model__audio': 'toy_panns'},
     "reads log-mel of the front end 'panns_32k', but DATA holds 'vggish'; "
     'prepare the data again with --mel=panns_32k'),
    (VIDEOS, {'model__visual': 'toy', 'model__frame_size': 40}, 'model.frame_size is 40; expected a multiple of 16'),
    (SEEN, {}, "'tiny', but DATA holds features that the frozen trunk toy made with 'toy'; give --config.model.v"),
    (SEEN, AS_SEEN | {'model__visual_frozen': False}, 'frozen is False.* give --config.model.visual_frozen=True'),
    (SEEN, AS_SEEN | {'model__frame_size': 96}, 'model.frame_size is 96.*; give --config.model.frame_size=64'),
    (SEEN, AS_SEEN | {'data__frame_size': 96}, 'data.frame_size is 96.*; give --config.data.frame_size=64'),
    (SEEN, AS_SEEN | {'data__fit': 'crop'}, "data.fit is 'crop'.* made with 'squash'"),
    (HEARD, {}, "model.audio is 'tiny', but DATA holds features that the frozen trunk toy"),
])  # fmt: skip
def test_trunks_that_do_not_fit_the_data_are_refused(spec, fields, named):
    with pytest.raises(run.RunError, match=named) as error:
        trunk_setup.check(make_config(**fields), spec)
    assert '\n' not in str(error.value) and error.value.code == 2


def test_trunks_that_read_the_data_are_welcome():
    trunk_setup.check(make_config(), VIDEOS)
    trunk_setup.check(make_config(**AS_SEEN), SEEN)
    trunk_setup.check(make_config(model__audio='toy', model__audio_frozen=True), HEARD)
    trunk_setup.check(make_config(model__visual='toy', model__visual_frozen=True, model__visual_weights='w'), VIDEOS)
    trunk_setup.check(make_config(model__visual='precomputed', model__audio='precomputed'), FEATURES)
    # For a trained run, the weights are there already.
    trunk_setup.check(make_config(**AS_SEEN), VIDEOS, [{'modality': 'visual', 'sha256': PICTURE.sha256}])
    trunk_setup.check(make_config(**AS_SEEN), SEEN, [{'modality': 'visual', 'sha256': PICTURE.sha256}])


@pytest.mark.parametrize(
    'known, digests', [([], 'none'), ([{'modality': 'visual', 'sha256': 'ef' * 32}], 'others .efefefefefef')]
)
def test_features_of_other_weights_are_refused(known, digests):
    with pytest.raises(run.RunError, match=f'SHA-256 abababababab.*the run has {digests}.*extract the features again'):
        trunk_setup.check(make_config(**AS_SEEN), SEEN, known)


# ---------------------------------------------------------------------------------------------------------------------
# Weights at the start
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp('weights')
    files = {modality: folder / f'{modality}.safetensors' for modality in trunk_setup.MODALITIES}
    return files, {modality: toy_trunks.write_weights(path, modality) for modality, path in files.items()}


@pytest.mark.parametrize('frozen', [False, True])
def test_trunks_begin_with_their_weights_and_the_rest_as_drawn(weights, frozen):
    files, states = weights
    config = make_config(model__visual='toy', model__visual_frozen=frozen, model__visual_weights=str(files['visual']))
    _, _, before = drawn(config, SPEC)
    state, (origin,) = trunk_setup.load(config, SPEC, before)
    groups = {'kernel': 'rest' if frozen else 'params', 'mean': 'rest'}
    for layer, leaf in (('conv', 'kernel'), ('bn', 'mean')):
        found = state[groups[leaf]]['visual'][layer][leaf]
        np.testing.assert_array_equal(found, states['visual'][layer][leaf])
    assert ('visual' in state['params']) != frozen
    assert jax.tree.structure(state) == jax.tree.structure(before)
    without = [
        jax.tree.leaves({**x, **{g: {**x[g], 'visual': 0} for g in ('params', 'rest')}}) for x in (state, before)
    ]
    assert all(np.array_equal(one, other) for one, other in zip(*without))
    assert (origin['modality'], origin['trunk'], origin['weights']) == ('visual', 'toy', 'visual.safetensors')
    json.dumps(origin)


def test_a_network_that_does_not_see_needs_no_weights_to_see(weights):
    files, _ = weights
    config = make_config(model__kind='audio_only', model__visual='toy', model__visual_weights=str(files['visual']))
    _, _, state = drawn(config, SPEC)
    assert trunk_setup.load(config, SPEC, state) == (state, [])


def test_weights_that_are_not_there_or_others_are_named(weights, tmp_path):
    files, _ = weights
    config = make_config(**AS_SEEN)
    _, _, state = drawn(config, SEEN)
    with pytest.raises(
        run.RunError, match='/w.npz is not there.*DATA was made with them: give .*config.model.visual_weights'
    ):
        trunk_setup.load(config, SEEN, state)
    config.model.visual_weights = str(files['visual'])
    with pytest.raises(
        run.RunError, match=r'the features in DATA were made with abababababab \(/w.npz\); give those as'
    ):
        trunk_setup.load(config, SEEN, state)


# ---------------------------------------------------------------------------------------------------------------------
# From videos to features to a run, and back to videos
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def world(tmp_path_factory, weights):
    """Videos, the data made of them, their features, and a run of four steps on the features.

    The file of weights is deleted afterwards.
    """
    root = tmp_path_factory.mktemp('world')
    (root / 'videos').mkdir()
    gone = shutil.copy(weights[0]['visual'], root / 'gone.safetensors')
    jobs = [prepare.Job(f'c{i}', 'train' if i < 6 else 'test', (i % 3,), video=f'{i}.mp4') for i in range(10)]
    for i in range(10):
        runs.make_video(root / 'videos' / f'{i}.mp4', i)
    options = {'classes': ('a', 'b', 'c'), 'spec': SPEC, 'multi_label': False, 'workers': 1}
    prepare.prepare(
        root / 'data', 'own', jobs, functools.partial(published.make_record, str(root / 'videos')), **options
    )
    extracted(root / 'features', root / 'data', ({'visual': gone}, None), 'visual', views=2)
    assert runs.run_main(*flags(root / 'run', root / 'features')) == 0
    gone.unlink()
    return root


def extracted(out, data, weights, *modalities, **more):
    words = {'data': data, 'out': out, 'frame_size': SIDE, 'workers': 0} | more
    for modality in modalities:
        words |= {modality: 'toy', f'{modality}_weights': weights[0][modality]}
    extract.FLAGS.unparse_flags()
    words = [f'--{name}={value}' for name, value in words.items()]
    assert cli.exit_code(['extract', *words], extract.main, extract.FLAGS, '') == 0


def flags(workdir, data, **fields):
    return runs.make_flags(workdir, data, **{'train__steps': 4} | FROZEN | fields)


def logits_of(workdir, data, trained=None):
    """Logits of a run on the test records of a data set."""
    trained = trained or run.load(str(workdir), parallel_kind='jit', devices=jax.devices()[:1])
    trained = run.with_spec(trained, source.DatasetInfo.load(data).spec)
    return np.asarray(step.forward(trained.graphdef, trained.state, batch_of(data), frame_size=SIDE)[0])


def batch_of(data):
    batches = pipeline.eval_batches(source.RecordSource(data, 'test'), global_batch=4, frame_size=SIDE, fit='squash')
    with contextlib.closing(batches):
        return next(batches)


def test_a_run_on_features_explains_the_videos_alike(world):
    logits = logits_of(world / 'run', world / 'features')
    model = stattn_jax.load(world / 'run')
    for i in range(4):
        explanation = model.explain(world / 'videos' / f'{6 + i}.mp4')
        np.testing.assert_allclose(explanation.logits, logits[i], atol=1e-3)
    assert np.abs(logits[0] - logits[1]).max() > 1e-2
    assert explanation.visual.shape == (3, 6, 8, 8) and explanation.frames[0][:2] == b'\xff\xd8'
    (origin,) = explanation.model['trunks']
    assert origin == {
        'modality': 'visual',
        'trunk': 'toy',
        'weights': 'gone.safetensors',
        'sha256': source.DatasetInfo.load(world / 'features').spec.visual.sha256,
        'licence': 'not checked; published weights: CC0-1.0',
    }
    timeline = model.explain_long(world / 'videos' / '6.mp4', hop=3, top_windows=1)
    np.testing.assert_allclose(timeline.explanations[0].logits, logits[0], atol=1e-3)


def test_where_the_weights_come_from_is_in_the_record_of_the_run(world, weights):
    record = json.loads((world / 'run' / run.RUN_FILE).read_text())
    assert [one['trunk'] for one in record['trunks']] == ['toy']
    trained = run.load(str(world / 'run'), parallel_kind='jit', devices=jax.devices()[:1])
    assert list(trained.trunks) == record['trunks']
    # The trunk is frozen: after four steps its weights are still the published ones.
    np.testing.assert_array_equal(
        trained.state['rest']['visual']['conv']['kernel'], weights[1]['visual']['conv']['kernel']
    )


def test_a_run_on_features_evaluates_pictures_alike(world):
    numbers = []
    for data in ('features', 'data'):
        assert runs.run_main('--mode=eval', *flags(world / 'run', world / data)) == 0
        numbers.append(json.loads((world / 'run' / 'eval_test.json').read_text()))
    assert numbers[0].keys() == numbers[1].keys() and 'shortcut/audio_only' in numbers[0]
    for name, value in numbers[0].items():
        assert numbers[1][name] == pytest.approx(value, abs=1e-3), name


def test_a_run_goes_on_without_the_file_of_weights_but_does_not_begin(world, tmp_path, capsys):
    assert runs.run_main(*flags(tmp_path / 'other', world / 'features')) == 2
    assert 'gone.safetensors is not there' in capsys.readouterr().err
    assert not (tmp_path / 'other' / run.CONFIG_FILE).exists()
    assert runs.run_main(*flags(world / 'run', world / 'features')) == 0
    assert 'resuming at step 4' in capsys.readouterr().out
    assert json.loads((world / 'run' / run.RUN_FILE).read_text())['trunks'][0]['trunk'] == 'toy'


@pytest.mark.parametrize('modalities', [('audio',), ('visual', 'audio')])
def test_features_of_either_or_both_give_the_logits_of_the_clips(world, weights, tmp_path, modalities):
    extracted(tmp_path / 'f', world / 'data', weights, *modalities)
    fields = {f'model__{modality}': 'toy' for modality in modalities}
    fields |= {f'model__{modality}_frozen': True for modality in modalities}
    config = make_config(**fields)
    spec = source.DatasetInfo.load(tmp_path / 'f').spec
    trunk_setup.check(config, spec)
    facts, graphdef, state = drawn(config, spec, ('a', 'b', 'c'))
    state, origins = trunk_setup.load(config, spec, state)
    strategy = run.make_strategy(config)
    trained = run.Trained(config, facts, graphdef, state, 0, strategy, tuple(origins))
    own, other = (logits_of(None, data, trained) for data in (tmp_path / 'f', world / 'data'))
    np.testing.assert_allclose(own, other, atol=1e-3)
    assert np.abs(own[0] - own[1]).max() > 1e-3
    # In training, pictures and log-mel of a batch are augmented, and everything else is left alone.
    optimiser, _ = assemble.make_optimiser(config)
    train = assemble.make_step(config, graphdef, optimiser, binary=False, axis=None)
    after, _ = jax.eval_shape(train, state, batch_of(tmp_path / 'f'))
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_a_model_that_does_not_look_at_frames_needs_no_trunk_for_them():
    config = make_config(**AS_SEEN, model__kind='audio_only', data__frame_size=SIDE, model__frame_size=SIDE)
    trunk_setup.check(config, SEEN, [])
