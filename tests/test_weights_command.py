"""Tests `python -m stattn_jax.weights`: what it prints, what it writes, and its exit codes."""

import dataclasses
import json
import os
import struct
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
import runs

from stattn_jax.models.trunks import registry
from stattn_jax.models.trunks.trunk import Package, Published
from stattn_jax.weights import __main__ as weights
from stattn_jax.weights import formats, match
from stattn_jax.weights.find import sha256_of

OWN = Published(lambda path: path.replace('/', '.'), (r'head\..+',), 'the shelf of this test', 'CC0')


@pytest.fixture
def run(capsys):
    """Returns a function that runs the command in this process and gives (exit code, printed lines).

    An error must be one line.
    """

    def run(*arguments):
        code = weights.main(['weights', *map(str, arguments)])
        printed = capsys.readouterr()
        if code:
            assert printed.out == '' and printed.err.startswith('error: ') and printed.err.count('\n') == 1
        return code, printed.out.splitlines() or [printed.err.strip()]

    return run


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A file that fits the visual trunk tiny, with a tensor of a classifier; the audio trunk has no weights."""
    package = Package('weights-of-a-test', 'weights_of_a_test', 'tiny.pth', '0' * 64, 'MIT')
    published = dataclasses.replace(OWN, packages={'shelf': package})
    trunks = {
        'visual': {'tiny': dataclasses.replace(registry.find('visual', 'tiny'), published=published)},
        'audio': {'tiny': registry.find('audio', 'tiny')},
    }
    monkeypatch.setattr(registry, 'trunks', trunks.__getitem__)
    state = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), match.abstract_state(trunks['visual']['tiny']))
    tensors = match.export(state, OWN)
    path = tmp_path / 'tiny.safetensors'
    formats.write_safetensors(path, tensors | {'head.weight': np.zeros((3, 64), np.float32)})
    return path, tensors, trunks


def test_list_has_a_line_for_each_trunk(run, tiny):
    code, lines = run('list')
    assert code == 0 and len(lines) == 3
    assert [word.strip() for word in lines[0].split('  ') if word] == [
        'modality', 'name', 'width', 'stride or mel', 'licence', 'weights',
    ]  # fmt: skip
    assert lines[1].split()[:5] == ['visual', 'tiny', '64', '8', 'CC0']
    assert lines[1].endswith('shelf (pip install weights-of-a-test); or the shelf of this test')
    assert lines[2].split()[:5] == ['audio', 'tiny', '192', 'any', '-'] and lines[2].endswith('trained from scratch')


def test_inspect_prints_names_types_and_shapes(run, tmp_path):
    path = tmp_path / 'x.npz'
    np.savez(path, **{'conv.weight': np.zeros((4, 3), np.float16), 'b\x1b[31m': np.zeros((), np.int64)})
    code, lines = run('inspect', path)
    assert code == 0
    assert [line.split() for line in lines[:2]] == [['conv.weight', 'float16', '[4,', '3]'], ['b?[31m', 'int64', '[]']]
    assert lines[2:] == ['2 tensors, 13 numbers, 0.0 MB']


def test_verify_counts_used_and_dropped_tensors(run, tiny):
    path, tensors, _ = tiny
    for trunk in ('tiny', 'visual/tiny'):
        line = f'{path} fits the visual trunk tiny: {len(tensors)} tensors used; 1 dropped by rule: head.weight'
        assert run('verify', path, f'--trunk={trunk}') == (0, [line])


def test_verify_refuses_weights_that_do_not_fit(run, tiny):
    path, tensors, trunks = tiny
    formats.write_safetensors(path, {'x': np.zeros(2)} | dict(list(tensors.items())[1:]))
    code, (line,) = run('verify', path, '--trunk=tiny')
    assert code == 2 and f'1 missing: {next(iter(tensors))}; 1 unexpected: x' in line
    code, (line,) = run('verify', path, '--trunk=audio/tiny')
    assert code == 2 and 'no weights were published for the audio trunk tiny; expected one of none' in line
    code, (line,) = run('verify', path, '--trunk=alexnet')
    assert code == 2 and '--trunk=alexnet; expected one of tiny' in line
    trunks['audio']['tiny'] = dataclasses.replace(trunks['audio']['tiny'], published=OWN)
    code, (line,) = run('verify', path, '--trunk=tiny')
    assert code == 2 and 'both modalities; expected visual/tiny or audio/tiny' in line


def test_convert_writes_the_same_tensors_and_their_source(run, tmp_path):
    source, out = tmp_path / 'x.safetensors', tmp_path / 'y.safetensors'
    tensors = {'a': np.arange(6, dtype=np.float32).reshape(2, 3), 'half': np.array([1, -3], ml_dtypes.bfloat16)}
    formats.write_safetensors(source, tensors)
    assert run('convert', source, f'--out={out}') == (0, [f'{out}: 2 tensors, sha256 {sha256_of(out)}'])
    found = formats.read(out)
    np.testing.assert_array_equal(found['a'], tensors['a'])
    assert found['half'].dtype == np.float32 and found['half'].tolist() == [1, -3]
    content = out.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack('<Q', content[:8])[0]])
    assert header['__metadata__'] == {'format': 'pt', 'source': 'x.safetensors', 'source_sha256': sha256_of(source)}
    assert header['half']['dtype'] == 'F32'


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ([], "the command is ''; expected one of list, inspect, verify, convert"),
        (['show'], "the command is 'show'; expected one of list"),
        (['inspect'], 'inspect got 0 files (); expected 1'),
        (['list', 'x.pth'], 'list got 1 files (x.pth); expected 0'),
        (['verify', 'x.pth'], 'verify needs --trunk; add it'),
        (['inspect', 'x.pth', '--out=y'], 'inspect does not take --out; leave it out'),
        (['inspect', 'x.pth', '--depth=3'], "Unknown command line flag 'depth'; --help lists the flags"),
        (['inspect', 'absent.pth'], 'absent.pth is not there'),
        (['inspect', 'absent.h5'], "absent.h5 ends in '.h5'"),
        (['convert', 'x.pth', '--out=y.pth'], '--out=y.pth; expected a name that ends in .safetensors'),
    ],
)
def test_wrong_use_is_one_line_and_two(arguments, words, run):
    code, (line,) = run(*arguments)
    assert code == 2 and words in line


def test_help_lists_commands_and_flags(run):
    code, lines = run('--help')
    text = '\n'.join(lines)
    assert code == 0 and 'verify FILE --trunk=NAME' in text and '--out' in text and 'Exit codes' in text


@pytest.mark.parametrize('arguments', [['inspect'], ['--help']])
def test_a_reader_that_has_enough_ends_it_quietly(arguments, tmp_path, monkeypatch):
    path = tmp_path / 'x.npz'
    np.savez(path, **{f'layer{i}.weight': np.zeros(3) for i in range(500)})
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, 'w') as out:
        monkeypatch.setattr(sys, 'stdout', out)
        assert weights.main(['weights', *arguments, str(path)]) == 0
        print('what is printed now goes nowhere', flush=True)


def test_the_command_by_itself(tmp_path):
    command = [sys.executable, '-m', 'stattn_jax.weights', 'inspect', str(tmp_path / 'absent.pth')]
    failed = subprocess.run(command, cwd=runs.ROOT, capture_output=True, text=True)
    assert failed.returncode == 2 and failed.stdout == ''
    assert failed.stderr.startswith('error: ') and failed.stderr.count('\n') == 1
