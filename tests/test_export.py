"""Tests exported networks: the numbers of the trained one, in a process that has JAX and NumPy alone, for any batch."""

import dataclasses
import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shared
from flax import nnx
from jax import export
from test_explain_trunks import TRUNKS

import stattn_jax
from configs import common
from stattn_jax import run
from stattn_jax.data.spec import ClipSpec
from stattn_jax.export import __main__ as command
from stattn_jax.export import network
from stattn_jax.models import layers
from stattn_jax.models.trunks import registry
from stattn_jax.training import step

pytestmark = pytest.mark.usefixtures('quick_compile')
needs_flatbuffers = pytest.mark.skipif('not __import__("importlib").util.find_spec("flatbuffers")')
RUN = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import load
network = load.load(sys.argv[1] + '/network.jax_export')
for clips in (1, 5):
    inputs = np.load(f'{sys.argv[2]}/{clips}.npz')
    np.savez(f'{sys.argv[2]}/{clips}.out.npz', **network(*(inputs[name] for name in ('frames', 'log_mel', 'valid'))))
print({name.partition('.')[0] for name in sys.modules} & {'stattn_jax', 'flax', 'optax', 'ml_collections'})
"""


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return stattn_jax.load(shared.make_folder(tmp_path_factory.mktemp('model')))


def make_batch(model, clips):
    rng = np.random.default_rng(clips)
    frames, log_mel, valid = (x.shape for x in network.input_types(model.trained, clips))
    padded = np.ones(valid, bool)
    padded[0, -1] = False
    return {
        'frames': rng.integers(0, 256, frames, np.uint8),
        'log_mel': rng.normal(-2, 1, log_mel).astype(np.float16),
        'valid': padded,
    }


def export_to(out, *flags):
    return command.main(['export', f'--out={out}', *flags])


@needs_flatbuffers
def test_artefact_gives_the_numbers_of_the_model_with_jax_alone(model, tmp_path, capsys):
    out = tmp_path / 'out'
    assert export_to(out, f'--workdir={model.source}', '--format=stablehlo') == 0
    assert 'for any number of clips; the largest relative difference' in capsys.readouterr().out
    for clips in (1, 5):
        np.savez(tmp_path / f'{clips}.npz', **make_batch(model, clips))
    done = subprocess.run(
        [sys.executable, '-c', RUN, out, tmp_path],
        env=os.environ | {'JAX_PLATFORMS': 'cpu'},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout == 'set()\n', done.stderr
    for clips in (1, 5):
        arrays = model._forward(model.trained.state, make_batch(model, clips))[0]
        found = np.load(tmp_path / f'{clips}.out.npz')
        assert set(found) == set(network._AXES)
        for name in found:
            expected = np.asarray(arrays[name]).reshape(found[name].shape)
            np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)
        whole = found['reference'] + found['visual'].sum(axis=(2, 3, 4)) + found['audio'].sum(axis=2)
        np.testing.assert_allclose(whole, found['logits'], atol=1e-5)


@needs_flatbuffers
def test_artefact_is_for_three_platforms_and_its_record_names_the_shapes(model, tmp_path):
    network.write_stablehlo(tmp_path, model.trained)
    exported = export.deserialize(bytearray((tmp_path / 'network.jax_export').read_bytes()))
    assert exported.platforms == ('cpu', 'cuda', 'tpu')
    record = json.loads((tmp_path / 'network.json').read_text())
    shapes = {name: tuple(entry['shape']) for name, entry in record['inputs'].items()}
    assert shapes == {'frames': ('b', 2, 16, 16, 3), 'log_mel': ('b', 2, 96, 64), 'valid': ('b', 2)}
    ranks = {name: len(axes.split()) for name, axes in record['outputs'].items()}
    assert ranks == {name: len(shape.shape) for name, shape in exported_outputs(exported).items()}
    assert record['classes'] == ['dog', 'violin'] and record['parameter_hash'] == model.identity['parameter_hash']


def exported_outputs(exported):
    return jax.tree.unflatten(exported.out_tree, exported.out_avals)


def test_network_computes_the_plain_layers_for_every_form(model):
    trained, types = model.trained, network.input_types(model.trained, 2)
    batch = dict(zip(('frames', 'log_mel', 'valid'), types))
    exported, forward = set(), set()
    for form in layers.FORMS:
        net = nnx.merge(trained.graphdef, trained.state['params'], trained.state['rest'])
        layers.set_form(net, form)
        changed = dataclasses.replace(trained, graphdef=nnx.graphdef(net))
        exported.add(jax.jit(network.make_network(changed)).lower(*types).as_text())
        run_forward = functools.partial(step.forward, changed.graphdef, frame_size=16)
        forward.add(jax.jit(run_forward).lower(trained.state, batch).as_text())
    assert len(exported) == 1 and len(forward) > 1


def needs_a_number(graphdef, state, batch, *, frame_size):
    return jnp.zeros(int(batch['frames'].shape[0])), {}


def test_operation_that_needs_a_fixed_batch_is_an_honest_line(model, monkeypatch, tmp_path):
    monkeypatch.setattr(network.step, 'forward', needs_a_number)
    with pytest.raises(run.RunError, match=r'cannot be exported \(.*give --batch=N for a fixed number') as caught:
        network.write_stablehlo(tmp_path, model.trained)
    assert '\n' not in str(caught.value) and not list(tmp_path.iterdir())


@needs_flatbuffers
def test_fixed_batch_takes_this_number_alone(model, tmp_path):
    assert network.write_stablehlo(tmp_path, model.trained, batch=2) <= network.TOLERANCE
    exported = export.deserialize(bytearray((tmp_path / 'network.jax_export').read_bytes()))
    assert exported.in_avals[0].shape[0] == 2
    with pytest.raises(ValueError):
        exported.call(*(np.zeros((3, *x.shape[1:]), x.dtype) for x in exported.in_avals))


def test_difference_is_measured(model):
    exact = network.make_network(model.trained)

    def wrong(*inputs):
        return {name: x + 0.25 * (name == 'beta') for name, x in exact(*inputs).items()}

    types = network.input_types(model.trained, 2)
    assert network._difference(exact, jax.jit(exact), types, 2) <= 1e-6
    assert network._difference(exact, wrong, types, 2) == pytest.approx(0.25, abs=1e-5)


def test_missing_packages_are_one_line(model, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, 'flatbuffers', None)
    monkeypatch.delitem(sys.modules, 'jax._src.export.serialization', raising=False)
    monkeypatch.setitem(sys.modules, 'jax2onnx', None)
    for kind, words in (('stablehlo', 'pip install "stattn-jax[export]"'), ('onnx', 'docs/sharing.md')):
        assert export_to(tmp_path, f'--workdir={model.source}', f'--format={kind}') == 2
        errors = capsys.readouterr().err
        assert errors.count('\n') == 1 and errors.startswith('error: ') and words in errors


def test_onnx_gives_the_same_numbers(model, tmp_path):
    pytest.importorskip('jax2onnx')
    assert network.write_onnx(tmp_path, model.trained) <= network.TOLERANCE
    assert (tmp_path / 'network.onnx').stat().st_size > 100_000


def test_command_saves_a_run_with_its_licence(trained, tmp_path, capsys):
    assert export_to(tmp_path, f'--workdir={trained}', '--licence=cc0-1.0') == 0
    assert 'open it with stattn_jax.from_pretrained' in capsys.readouterr().out
    assert 'license: "cc0-1.0"' in (tmp_path / 'README.md').read_text()
    assert stattn_jax.from_pretrained(tmp_path).identity == stattn_jax.load(trained).identity


@pytest.mark.parametrize(
    ('flags', 'words'),
    [
        (['--out=x'], '--workdir is missing'),
        (['--workdir=x'], '--out is missing'),
        (['--workdir=x', '--out=x', '--format=pickle'], 'expected some of safetensors,stablehlo,onnx'),
        (['--workdir=x', '--out=x', '--batch=2'], '--batch needs --format=stablehlo'),
        (['--workdir=x', '--out=x', '--format=onnx', '--dtype=float16'], '--dtype needs --format=safetensors'),
        (['--workdir=x', '--out=x', '--format=onnx', '--batch=0'], 'batch'),
        (['--workdir=x', '--out=x', 'more'], 'is not a flag'),
        (['--workdir=/none', '--out=x'], 'holds no checkpoints/'),
    ],
)
def test_wrong_use_is_one_line_with_code_2(flags, words, capsys):
    assert command.main(['export', *flags]) == 2
    errors = capsys.readouterr().err
    assert errors.count('\n') == 1 and errors.startswith('error: ') and words in errors


def test_help_names_every_format(capsys):
    assert command.main(['export', '--help']) == 0
    assert all(f'--format={kind}' in capsys.readouterr().out for kind in command.FORMATS[:1])


@pytest.mark.slow
@pytest.mark.parametrize('modality, name', TRUNKS)
def test_every_trunk_is_exported_for_any_number_of_clips(modality, name):
    trunk = registry.find(modality, name)
    side = 4 * trunk.stride if modality == 'visual' else 16
    config = common.tiny(common.get_config())
    config.model.update({'width': 16, 'hidden': 8, 'frame_size': side, 'layers': 'plain', modality: name})
    config.data.frame_size = side
    clips = ClipSpec(segments=2, short_side=side, mel=trunk.mel or 'vggish')
    facts = run.DataFacts(tuple('abc'), False, clips, '')
    graphdef, state, *_ = run.make_state(config, facts, None, abstract=True)
    trained = run.Trained(config, facts, graphdef, state, 0, None)

    # The weights are arguments here, because making them takes most of the time.
    def forward(state, frames, log_mel, valid):
        batch = {'frames': frames, 'log_mel': log_mel, 'valid': valid}
        return step.forward(graphdef, state, batch, frame_size=side)[0]

    types = network.input_types(trained, export.symbolic_shape('b')[0])
    exported = export.export(jax.jit(forward), platforms=network.PLATFORMS)(state, *types)
    assert str(exported.out_avals[0].shape) == '(b, 3)'
