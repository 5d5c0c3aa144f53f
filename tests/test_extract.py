"""Tests data_prep.extract: features equal the trunk's output with any runner and after any interruption."""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib

import commands
import fakes
import jax
import numpy as np
import pytest
import toy_trunks
from tiny import quick_compile  # noqa: F401  autouse

from data_prep import extract, prepare, verify
from stattn_jax.data import pipeline, source
from stattn_jax.data.extracted import ExtractedSpec
from stattn_jax.models.trunks.trunk import RGB_MEAN, RGB_STD
from stattn_jax.training import augment

SIZE, GRID = 32, 4


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Returns files of weights and their content, by modality."""
    folder = tmp_path_factory.mktemp('weights')
    return {
        modality: (
            folder / f'{modality}.safetensors',
            toy_trunks.write_weights(folder / f'{modality}.safetensors', modality),
        )
        for modality in ('visual', 'audio')
    }


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Prepares ten training clips, of which one could not be used, and two test clips."""
    jobs = [dataclasses.replace(job, payload='bad' if job.clip_id == 'train3' else None) for job in fakes.jobs(10, 2)]
    out = tmp_path_factory.mktemp('data') / 'd'
    prepare.prepare(
        out,
        'fake',
        jobs,
        _annotated,
        classes=fakes.CLASSES,
        spec=fakes.SPEC,
        multi_label=False,
        workers=0,
        shard_size=4,
    )
    return out


def _annotated(job, spec):
    """Returns a record with events, boxes and content of its own."""
    made = fakes.make_record(job, spec)
    seed = zlib.crc32(job.clip_id.encode()) % 12
    return dataclasses.replace(fakes.record(seed, job.clip_id, video=f'{job.clip_id}.mp4'), clip=made.clip)


@pytest.fixture
def toys(monkeypatch):
    toy_trunks.register(monkeypatch.setattr)
    # The command sets this variable, in this process too.
    monkeypatch.setenv('XLA_FLAGS', os.environ.get('XLA_FLAGS', ''))


def flags(data, out, weights, *modalities, **more):
    """Returns the command line of an extraction with toy trunks."""
    words = {'data': data, 'out': out, 'frame_size': SIZE, **more}
    for modality in modalities:
        words = {modality: 'toy', f'{modality}_weights': weights[modality][0], **words}
    return [f'--{name}={value}' for name, value in words.items()]


def extracted(capsys, data, out, weights, *modalities, **more):
    """Extracts in this process and returns every record by id."""
    code, _, errors = commands.run(extract, capsys, *flags(data, out, weights, *modalities, **more))
    assert (code, errors) == (0, [])
    return commands.records(out)


def cells(state, frames):
    """Computes the toy's convolution, normalisation and ReLU by NumPy, for frames [t H W 3] in 0..1."""
    x = (frames - RGB_MEAN) / np.array(RGB_STD)
    t, side = len(x), x.shape[1] // toy_trunks.STRIDE
    patches = x.reshape(t, side, toy_trunks.STRIDE, side, toy_trunks.STRIDE, 3).transpose(0, 1, 3, 2, 4, 5)
    y = np.einsum('tyxijc,ijco->tyxo', patches, state['conv']['kernel'])
    bn = state['bn']
    return np.maximum((y - bn['mean']) / np.sqrt(bn['var'] + 1e-5) * bn['scale'] + bn['bias'], 0)


def sounds(state, log_mel):
    return ((log_mel.astype(np.float32) + 3) / 2).mean(1) @ state['layer']['kernel'] + state['layer']['bias']


# ---------------------------------------------------------------------------------------------------------------------
# What is in the records
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('modalities', [('visual',), ('audio',), ('visual', 'audio')])
def test_features_are_the_output_of_the_trunks_and_the_rest_stays(toys, tmp_path, capsys, data, weights, modalities):
    made, before = extracted(capsys, data, tmp_path / 'f', weights, *modalities), commands.records(data)
    assert made.keys() == before.keys() and len(made) == 11
    for clip_id, record in made.items():
        clip, own = record.clip, before[clip_id].clip
        assert dataclasses.replace(record, clip=None) == dataclasses.replace(before[clip_id], clip=None)
        assert (clip.height, clip.width, clip.duration, clip.notes) == (own.height, own.width, own.duration, own.notes)
        np.testing.assert_array_equal(clip.valid, own.valid)
        if 'visual' in modalities:
            frames = pipeline.clip_arrays(own, SIZE, 'squash')['frames'] / 255
            assert clip.frames is None and clip.visual.shape == (1, 3, GRID, GRID, toy_trunks.CELLS)
            np.testing.assert_allclose(clip.visual[0], cells(weights['visual'][1], frames), rtol=1e-3, atol=1e-3)
        else:
            assert clip.frames == own.frames and clip.visual is None
        if 'audio' in modalities:
            assert clip.log_mel is None and clip.audio.shape == (1, 3, toy_trunks.SOUND)
            np.testing.assert_allclose(clip.audio[0], sounds(weights['audio'][1], own.log_mel), rtol=1e-3, atol=2e-3)
        else:
            np.testing.assert_array_equal(clip.log_mel, own.log_mel)


def test_the_data_set_records_how_it_was_made_and_the_number_of_missing_clips(toys, tmp_path, capsys, data, weights):
    extracted(capsys, data, tmp_path / 'f', weights, 'visual', views=2, colour=0.5, fit='crop')
    info, before = source.DatasetInfo.load(tmp_path / 'f'), source.DatasetInfo.load(data)
    visual, licence = info.spec.visual, 'not checked; published weights: CC0-1.0'
    assert (info.name, info.classes, info.splits, info.wanted) == ('fake', before.classes, before.splits, before.wanted)
    assert info.wanted['train'] == 10 and info.splits['train'] == 9
    assert info.spec == ExtractedSpec(before.spec, visual, None, before.fingerprint)
    assert (visual.trunk, visual.weights, visual.licence) == ('toy', str(weights['visual'][0]), licence)
    assert (visual.shape, visual.views, visual.frame_size, visual.fit) == ((GRID, GRID, 6), 2, SIZE, 'crop')
    assert (visual.crop, visual.flip, visual.colour, visual.seed) == (0.6, 0.5, 0.5, 0)
    assert commands.report(tmp_path / 'f')['splits']['train'] == commands.report(data)['splits']['train']
    capsys.readouterr()
    print(verify.table(info, verify.verify(tmp_path / 'f')))
    assert 'features: visual toy' in capsys.readouterr().out.splitlines()[0]


def test_views_are_the_plain_frames_and_augmented_ones(toys, tmp_path, capsys, data, weights):
    options = {'views': 3, 'crop': 0.5, 'flip': 0.7, 'colour': 0.4, 'seed': 7}
    made = extracted(capsys, data, tmp_path / 'f', weights, 'visual', **options)
    plain = extracted(capsys, data, tmp_path / 'plain', weights, 'visual')
    before = commands.records(data)
    augmentation = augment.Augment(crop=0.5, flip=0.7, colour=0.4)
    for clip_id in ('train0', 'test1'):
        np.testing.assert_array_equal(made[clip_id].clip.visual[0], plain[clip_id].clip.visual[0])
        frames = pipeline.clip_arrays(before[clip_id], SIZE, 'squash')['frames'] / np.float32(255)
        for view in (1, 2):
            # All segments of a clip have the same crop, flip and colour.
            key = jax.random.fold_in(jax.random.key(7), np.uint32(zlib.crc32(clip_id.encode())))
            x = augment.augment_frames(jax.random.fold_in(key, view), frames[None], SIZE, augmentation)[0]
            expected = cells(weights['visual'][1], np.asarray(x))
            np.testing.assert_allclose(made[clip_id].clip.visual[view], expected, rtol=2e-3, atol=2e-3)
    differing = [
        np.abs(made['train0'].clip.visual[i] - made['train0'].clip.visual[j]).max() for i, j in ((0, 1), (1, 2))
    ]
    assert min(differing) > 0.1


def test_a_removed_picture_has_the_features_of_a_black_picture(toys, tmp_path, capsys, data, weights):
    made = extracted(capsys, data, tmp_path / 'f', weights, 'visual', views=2)
    black = cells(weights['visual'][1], np.zeros((1, SIZE, SIZE, 3)))[0]
    without = made['train0'].clip.without_picture()
    assert without.visual.shape == made['train0'].clip.visual.shape and np.abs(black).max() > 0.1
    np.testing.assert_allclose(without.visual, np.broadcast_to(black, without.visual.shape), rtol=1e-3, atol=1e-3)


def test_features_that_are_no_float16_are_counted(toys, tmp_path, capsys, data, weights):
    state = {name: dict(layer) for name, layer in weights['visual'][1].items()}
    state['bn']['bias'] = state['bn']['bias'] + 1e6
    big = tmp_path / 'big.safetensors'
    toy_trunks.save(big, state)
    code, out, errors = commands.run(
        extract, capsys, *flags(data, tmp_path / 'f', weights, 'visual', visual_weights=big)
    )
    assert (
        code == 1
        and "split 'test' has no usable clip (2 bad_features; the first: test0: the visual features" in errors[0]
    )


# ---------------------------------------------------------------------------------------------------------------------
# The engine
# ---------------------------------------------------------------------------------------------------------------------


def program(words, **options):
    """Starts the command as a separate process that is slowed down."""
    paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    line = [sys.executable, '-c', 'import toy_trunks; toy_trunks.main()', *words]
    env = {**os.environ, 'PYTHONPATH': paths, 'JAX_PLATFORMS': 'cpu', 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'}
    return subprocess.Popen(line, env=env, text=True, **options)


def finish(process):
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


@pytest.mark.slow
def test_killed_with_two_workers_and_continued_by_beam_gives_the_bytes_of_one(tmp_path, data, weights):
    pytest.importorskip('apache_beam')
    words = {name: flags(data, tmp_path / name, weights, 'visual', 'audio', views=2) for name in ('whole', 'broken')}
    whole = program([*words['whole'], '--workers=0'], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    finish(whole)
    broken = program([*words['broken'], '--workers=2'], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / 'broken').glob('prepare/fake-*.json')):
        assert broken.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    broken.send_signal(signal.SIGKILL)
    broken.wait()
    assert not (tmp_path / 'broken' / source.INFO_FILE).exists()
    finish(program([*words['broken'], '--runner=beam'], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL))
    assert fakes.tree(tmp_path / 'broken') == fakes.tree(tmp_path / 'whole')


def test_other_weights_or_data_are_another_plan(toys, tmp_path, capsys, data, weights):
    extracted(capsys, data, tmp_path / 'f', weights, 'audio')
    other = tmp_path / 'other.safetensors'
    toy_trunks.write_weights(other, 'audio', seed=1)
    words = flags(data, tmp_path / 'f', weights, 'audio', audio_weights=other)
    code, _, errors = commands.run(extract, capsys, *words)
    assert code == 1 and 'was begun with another plan' in errors[0] and 'sha256' in errors[0]


def test_a_damaged_record_is_left_out_and_named(toys, tmp_path, capsys, data, weights):
    copy = shutil.copytree(data, tmp_path / 'd')
    shard = next(copy.glob('fake-train*-00000-of-*'))
    fakes.flip_byte(shard, shard.stat().st_size // 2)
    code, _, errors = commands.run(extract, capsys, *flags(copy, tmp_path / 'f', weights, 'visual'))
    assert (code, errors) == (0, [])
    made = commands.records(tmp_path / 'f')
    ((damaged, detail),) = commands.report(tmp_path / 'f')['splits']['train']['skipped']['damaged_record'].items()
    assert made.keys() == commands.records(data).keys() - {damaged} and shard.name in detail
    shutil.rmtree(copy / 'prepare')
    code, _, errors = commands.run(extract, capsys, *flags(copy, tmp_path / 'g', weights, 'visual'))
    assert code == 1 and 'no such file; run the data_prep command that made' in errors[0]


# ---------------------------------------------------------------------------------------------------------------------
# Refusals
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('words, message', [
    ({}, 'nothing to extract; give --visual and --visual_weights, or --audio'),
    ({'visual': 'toy'}, '--visual=toy needs --visual_weights: a file: toys'),
    ({'visual_weights': 'x'}, '--visual_weights=x without a trunk; give --visual too'),
    ({'visual': 'alexnet', 'visual_weights': 'x'}, '--visual=alexnet: there is no such trunk; expected one of .*toy'),
    ({'visual': 'tiny', 'visual_weights': 'x'}, '--visual=tiny: no weights are published for it.*expected one of'),
    ({'visual': 'toy', 'visual_weights': 'x.npz'}, 'x.npz is not there; expected a file of weights'),
    ({'audio': 'toy_panns', 'audio_weights': 'x'},
     'reads log-mel of the front end panns_32k, but .* holds vggish; prepare the data again with --mel=panns_32k'),
    ({'visual': 'toy', 'visual_weights': 'x', 'frame_size': 40}, '--frame_size=40: --visual=toy takes multiples of 16'),
    ({'audio': 'toy', 'audio_weights': 'FILE', 'views': 2}, '--views=2 are versions of the pictures; give --visual'),
])  # fmt: skip
def test_options_that_contradict_each_other_give_one_line(toys, tmp_path, capsys, data, weights, words, message):
    words = {name: str(weights['audio'][0]) if value == 'FILE' else value for name, value in words.items()}
    code, _, errors = commands.run(extract, capsys, *flags(data, tmp_path / 'f', weights, **words))
    assert code == 2 and len(errors) == 1
    assert re.search(message, errors[0]), errors[0]
    assert not (tmp_path / 'f').exists()


def test_features_are_not_extracted_again(toys, tmp_path, capsys, data, weights):
    extracted(capsys, data, tmp_path / 'f', weights, 'audio')
    code, _, errors = commands.run(extract, capsys, *flags(tmp_path / 'f', tmp_path / 'g', weights, 'visual'))
    assert code == 2 and 'holds features already; give the data set of pictures and sound' in errors[0]


def test_one_process_fills_an_accelerator(toys, tmp_path, capsys, data, weights, monkeypatch):
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    code, _, errors = commands.run(extract, capsys, *flags(data, tmp_path / 'f', weights, 'visual', workers=2))
    assert code == 2 and '--workers=2: one process fills the gpu; leave --workers out' in errors[0]
