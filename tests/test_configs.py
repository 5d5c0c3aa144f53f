"""Tests every config and variant against its golden file, and against the fields of common.

After an intended change, renew them by `python tests/test_configs.py`, and read the difference before committing it.
"""

import json
import pathlib
import subprocess
import sys

import ml_collections
import pytest

GOLDEN = pathlib.Path(__file__).parent / 'golden'
PUBLISHED = ('vggsound', 'ave', 'ave_features', 'llp', 'llp_features', 'kinetics_sounds')
SYNTHETIC = ('', 'lopsided', 'binding', 'events,gpu', 'lopsided,gpu', 'binding,gpu')
PRETRAINED = ('vggsound', 'ave', 'kinetics_sounds')
RUNS = {'common': (None,), 'own': ('', 'small', 'tiny'), 'synthetic': SYNTHETIC}
RUNS |= {name: ('', *(['pretrained'] if name in PRETRAINED else []), 'runlocal') for name in PUBLISHED}
VARIANTS = RUNS | {'study': ('', 'quick')}
CASES = [(name, variant) for name, variants in VARIANTS.items() for variant in variants]


def resolve(name, variant):
    module = __import__(f'configs.{name}', fromlist=['get_config'])
    return module.get_config() if variant is None else module.get_config(variant)


def golden(name, variant):
    return GOLDEN / f'config_{name}{"_" + variant if variant else ""}.json'


def to_text(config):
    return json.dumps(config.to_dict(), indent=1, sort_keys=True) + '\n'


def fields(tree, prefix=''):
    for name, value in tree.items():
        yield from (
            fields(value, f'{prefix}{name}.') if isinstance(value, ml_collections.ConfigDict) else [prefix + name]
        )


def test_every_config_is_known_here():
    files = {path.stem for path in (GOLDEN.parents[1] / 'configs').glob('*.py')} - {'__init__'}
    assert files == set(VARIANTS)


@pytest.mark.parametrize('name, variant', CASES)
def test_config_is_the_golden_one(name, variant):
    assert to_text(resolve(name, variant)) == golden(name, variant).read_text(), (
        'if meant: python tests/test_configs.py'
    )


@pytest.mark.parametrize('name, variant', [case for case in CASES if case[0] in RUNS])
def test_config_has_the_fields_of_common(name, variant):
    assert sorted(fields(resolve(name, variant))) == sorted(fields(resolve('common', None)))


@pytest.mark.parametrize('variant', VARIANTS['study'])
def test_runs_of_the_study_have_the_fields_of_common(variant):
    for what in resolve('study', variant).variants.values():
        assert sorted(fields(what.run)) == sorted(fields(resolve('common', None)))


@pytest.mark.parametrize('name', [name for name, variants in VARIANTS.items() if len(variants) > 1])
def test_unknown_variant_is_named_with_the_known_ones(name):
    with pytest.raises(ValueError, match=f'configs/{name}.py:huge: the variants are .*{VARIANTS[name][1]}'):
        resolve(name, 'huge')


@pytest.mark.parametrize('name', [name for name, variants in VARIANTS.items() if len(variants) > 1])
def test_config_states_its_command_and_its_hardware(name):
    document = __import__(f'configs.{name}', fromlist=['x']).__doc__
    assert f'--config=configs/{name}.py' in document and 'Hardware' in document


def test_configs_load_without_the_libraries_of_a_run():
    code = (
        f'import sys, configs.{", configs.".join(VARIANTS)}; '
        f'print(*sorted({{name.split(".")[0] for name in sys.modules}}))'
    )
    run = subprocess.run(
        [sys.executable, '-c', code], cwd=GOLDEN.parents[1], capture_output=True, text=True, check=True
    )
    assert not set(run.stdout.split()) & {'jax', 'numpy', 'stattn_jax', 'data_prep', 'tensorflow', 'torch'}


if __name__ == '__main__':
    sys.path.insert(0, str(GOLDEN.parents[1]))
    GOLDEN.mkdir(exist_ok=True)
    for case in CASES:
        golden(*case).write_text(to_text(resolve(*case)))
