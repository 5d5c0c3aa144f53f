"""Tests shared models: they explain as their runs do, old folders open, and bad folders are one line."""

import hashlib
import json
import pickle
import shutil

import jax
import numpy as np
import pytest
import runs
import shared

import stattn_jax
from stattn_jax import run
from stattn_jax.explain import __main__ as explain_command
from stattn_jax.explain.model import Model
from stattn_jax.pretrained import shared_folder
from stattn_jax.weights import safetensors

pytestmark = pytest.mark.usefixtures('quick_compile')


@pytest.fixture(scope='module')
def saved(trained, tmp_path_factory):
    """Returns the folder of the trained run, saved as a shared model."""
    path = tmp_path_factory.mktemp('shared') / 'events'
    stattn_jax.load(trained).save_pretrained(path, licence='cc0-1.0', limits='Only drawn | scenes.')
    return path


@pytest.fixture
def copy(tmp_path):
    return shared.make_folder(tmp_path / 'copy')


def test_shared_model_explains_as_its_run_to_the_bit(trained, saved, scene_video):
    ours, theirs = (stattn_jax.load(path).explain(scene_video) for path in (trained, saved))
    assert theirs.model == ours.model and theirs.classes == ours.classes and theirs.trust == ours.trust
    for name in ('logits', 'probabilities', 'reference', 'visual', 'audio', 'alpha', 'beta', 'removed_cells'):
        np.testing.assert_array_equal(getattr(theirs, name), getattr(ours, name), err_msg=name)


def test_explain_takes_the_folder_as_workdir(saved, scene_video, tmp_path):
    flags = [f'--workdir={saved}', f'--video={scene_video}', f'--out={tmp_path}', '--files=json']
    assert explain_command.main(['explain', *flags]) == 0
    assert explain_command.main(['explain', f'--check={tmp_path / "explanation.json"}']) == 0


def test_config_states_hashes_classes_and_numbers_but_no_path(trained, saved, tiny_data):
    text = (saved / 'config.json').read_text()
    record, numbers = json.loads(text), json.loads((trained / 'eval_test.json').read_text())
    assert record['weights']['sha256'] == hashlib.sha256((saved / 'model.safetensors').read_bytes()).hexdigest()
    stattn = json.loads((tiny_data / 'stattn.json').read_text())
    assert record['data'] == {
        'name': stattn['name'],
        'clips': stattn['splits'],
        'wanted': stattn['wanted'],
        'fingerprint': stattn['fingerprint'],
    }
    assert record['classes'] == stattn['classes'] and record['evaluation']['test'] == numbers
    assert str(tiny_data.parent) not in text and record['training']['config']['data']['dir'] == tiny_data.name


def test_folder_saved_again_is_the_same(saved, tmp_path):
    stattn_jax.from_pretrained(saved).save_pretrained(tmp_path / 'events')
    for name in shared_folder.FILES:
        assert (tmp_path / 'events' / name).read_bytes() == (saved / name).read_bytes(), name


def test_half_precision_is_rounded_once_and_loads_as_float32(trained, scene_video, tmp_path):
    model = stattn_jax.load(trained)
    model.save_pretrained(tmp_path / 'half', dtype='float16', data_licence='Drawn by us, CC0 1.0.')
    half = stattn_jax.load(tmp_path / 'half')
    exact, stored = (
        shared_folder.named_tensors(x.trained.state['params'], x.trained.state['rest']) for x in (model, half)
    )
    file = safetensors.read_safetensors(tmp_path / 'half' / 'model.safetensors')
    for name, array in exact.items():
        narrow = array.astype(np.float16) if array.dtype == np.float32 else array
        assert file[name].dtype == narrow.dtype and stored[name].dtype == array.dtype, name
        np.testing.assert_array_equal(stored[name], narrow.astype(array.dtype), err_msg=name)
    ours, theirs = (model.explain(scene_video) for model in (model, half))
    np.testing.assert_allclose(theirs.probabilities, ours.probabilities, atol=2e-3)
    assert theirs.residual()[1] <= 1e-5 and theirs.model['parameter_hash'] != ours.model['parameter_hash']
    assert set(theirs.trust['training_distance']) == set(ours.trust['training_distance'])
    text = (tmp_path / 'half' / 'README.md').read_text()
    assert 'before the weights were rounded to float16' in text and 'statistics (float16)' in text
    assert 'Licences of the recordings: Drawn by us, CC0 1.0.' in text
    half.save_pretrained(tmp_path / 'again' / 'half')
    for name in shared_folder.FILES:
        assert (tmp_path / 'again' / 'half' / name).read_bytes() == (tmp_path / 'half' / name).read_bytes(), name


@pytest.mark.parametrize(
    ('dtype', 'words'),
    [('float16', 'bias holds 100000, and float16 ends at 65504'), ('int8', "dtype='int8'; expected one of float32")],
)
def test_weights_that_do_not_fit_a_type_are_one_line_and_nothing_is_written(dtype, words, trained, tmp_path):
    model = stattn_jax.load(trained)
    model.trained.state['params']['bias'] = model.trained.state['params']['bias'].at[1].set(1e5)
    with pytest.raises(run.RunError, match=words) as caught:
        model.save_pretrained(tmp_path / 'out', dtype=dtype)
    assert '\n' not in str(caught.value) and not (tmp_path / 'out').exists()


def test_numbers_of_another_checkpoint_are_left_out_with_a_note(trained, tmp_path):
    copied = shutil.copytree(trained, tmp_path / 'run')
    path = copied / 'eval_test.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'checkpoint/step': 3}))
    stattn_jax.load(copied).save_pretrained(tmp_path / 'out')
    assert set(json.loads((tmp_path / 'out' / 'config.json').read_text())['evaluation']) == {'val'}
    assert 'eval_test.json is of step 3, and the weights are of step' in (tmp_path / 'out' / 'README.md').read_text()


def test_folder_that_version_0_1_wrote_opens_with_its_numbers(copy):
    model = stattn_jax.from_pretrained(copy)
    expected = json.loads((copy / 'expected.json').read_text())
    rng = np.random.default_rng(1)
    batch = {
        'frames': rng.integers(0, 256, (1, 2, 16, 16, 3), np.uint8),
        'log_mel': rng.normal(-2, 1, (1, *model.spec.mel_shape)).astype(np.float16),
        'valid': np.ones((1, 2), bool),
    }
    arrays = jax.device_get(model._forward(model.trained.state, batch)[0])
    for name, value in expected.items():
        np.testing.assert_allclose(arrays[name][0], value, atol=1e-5, err_msg=name)
    assert model.identity['step'] == 7 and model.trained.facts.classes == ('dog', 'violin')


def test_saving_into_a_run_is_refused_and_changes_nothing(trained, tmp_path):
    copied = shutil.copytree(trained, tmp_path / 'run')
    before = (copied / 'config.json').read_bytes()
    with pytest.raises(run.RunError, match='not of a shared model, such as that of a run'):
        stattn_jax.load(trained).save_pretrained(copied)
    assert (copied / 'config.json').read_bytes() == before and not (copied / 'model.safetensors').exists()


def test_model_that_was_not_loaded_cannot_be_saved(trained, tmp_path):
    with pytest.raises(run.RunError, match='was not loaded from a run'):
        Model(stattn_jax.load(trained).trained).save_pretrained(tmp_path)


def truncate(name, size):
    def damage(path):
        (path / name).write_bytes((path / name).read_bytes()[:size])

    return damage


def write(name, content):
    return lambda path: (path / name).write_bytes(content)


def alter(**fields):
    def damage(path):
        for name, value in fields.items():
            shared.change(path, name.replace('__', '.'), value)

    return damage


def reweigh(damage_tensors):
    """Returns a function that changes the tensors and names the new file's hash in config.json."""

    def damage(path):
        tensors = dict(safetensors.read_safetensors(path / 'model.safetensors'))
        damage_tensors(tensors)
        safetensors.write_safetensors(path / 'model.safetensors', tensors)
        shared.change(path, 'weights.sha256', hashlib.sha256((path / 'model.safetensors').read_bytes()).hexdigest())

    return damage


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ('a pickle was executed',))


@pytest.mark.parametrize(
    ('damage', 'words'),
    [
        (truncate('model.safetensors', 1000), 'has the sha256'),
        (truncate('config.json', 700), 'is damaged or cut off: no JSON'),
        (write('config.json', b'\xff\xfe'), 'no JSON'),
        (write('config.json', b'[' * 10**5), 'no JSON'),
        (write('config.json', b'[1]'), "its format is None; expected 'stattn_jax.pretrained/1'"),
        (write('config.json', b'{"architectures": ["Bert"], "model_type": "bert"}'), 'its format is None'),
        (write('model.safetensors', pickle.dumps(Harmful())), 'has the sha256'),
        (alter(format='stattn_jax.pretrained/2'), 'a folder of a later version needs that version'),
        (alter(format='\x1b[31m'), 'its format is'),
        (lambda path: (path / 'model.safetensors').unlink(), 'cannot be read: No such file'),
        (lambda path: (path / 'config.json').unlink(), 'cannot be read: No such file'),
        (alter(classes=['dog']), 'training_means has the shape'),
        (alter(classes=['dog', 'dog']), 'expected different names'),
        (alter(training_means=[[0, float('nan')], [0, 0]]), 'expected finite numbers'),
        (alter(architecture__kind='concat'), "expected 'stan'"),
        (alter(architecture__visual='../../etc'), 'describes no network'),
        (alter(architecture={}), 'describes no network'),
        (alter(architecture__width=10**9), 'does not fit config.json: audio_head is float32'),
        (alter(architecture__width='8'), 'describes no network'),
        (alter(input__segments=10**9), 'give a whole number from 1 to 3600'),
        (alter(input__frame_size=10**9), 'frame_size=1000000000'),
        (alter(front_end__hop=1), "expected that of 'vggish'"),
        (alter(weights=None), 'describes no network'),
        (alter(weights__dtype='int8'), "dtype='int8'; expected one of float32, float16"),
        (alter(weights__dtype='float16'), r'is float32\[24\] there; expected float16\[24\]'),
        (reweigh(lambda tensors: tensors.pop('bias')), 'bias is no such array there; expected float32'),
        (reweigh(lambda tensors: tensors.update(more=np.zeros(2))), r'more is float64\[2\] there; expected no such'),
        (reweigh(lambda tensors: tensors.update(bias=np.zeros(3, np.float32))), r'bias is float32\[3\] there'),
        (reweigh(lambda tensors: tensors.update(bias=np.zeros(2, np.int32))), r'bias is int32\[2\] there'),
        (reweigh(lambda tensors: tensors.update(bias=np.full(2, np.nan, np.float32))), 'not finite'),
    ],
)
def test_bad_folder_is_one_line(damage, words, copy):
    damage(copy)
    with pytest.raises(run.RunError, match=words) as caught:
        stattn_jax.load(copy)
    assert '\n' not in str(caught.value) and '\x1b' not in str(caught.value) and len(str(caught.value)) < 600


def test_weights_that_are_cut_off_are_found_even_with_their_hash(copy):
    path = copy / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-4])
    shared.change(copy, 'weights.sha256', hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(run.RunError, match='is damaged or cut off'):
        stattn_jax.load(copy)


def test_a_run_is_no_shared_model(trained, saved, tmp_path):
    assert (
        shared_folder.is_folder(saved)
        and not shared_folder.is_folder(trained)
        and not shared_folder.is_folder(tmp_path)
    )
    with pytest.raises(run.RunError, match='holds no checkpoints/'):
        stattn_jax.load(runs.ROOT / 'docs')
