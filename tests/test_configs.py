"""Tests every config and variant: its fields are those of common, and its values are the recorded ones.

tests/golden/configs.json records the fields of common, and of every other config the fields that differ from common.
Published numbers depend on these values, so that a change must be seen. After an intended change, renew the file by
`PYTHONPATH=. python tests/test_configs.py`, and read the difference before committing it.
"""

import json
import pathlib
import subprocess
import sys

import ml_collections
import pytest

from stattn_jax import config_checks
from stattn_jax.config_files.fields import flatten

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = ROOT / 'tests' / 'golden' / 'configs.json'
PUBLISHED = ('vggsound', 'ave', 'ave_features', 'llp', 'llp_features', 'kinetics_sounds', 'avsbench')
SYNTHETIC = ('', 'lopsided', 'binding', 'events,gpu', 'lopsided,gpu', 'binding,gpu')
PRETRAINED = ('vggsound', 'ave', 'kinetics_sounds', 'avsbench')
RUNS = {'common': (None,), 'own': ('', 'small', 'tiny'), 'synthetic': SYNTHETIC}
RUNS |= {name: ('', *(['pretrained'] if name in PRETRAINED else []), 'runlocal') for name in PUBLISHED}
VARIANTS = RUNS | {'study': ('', 'quick', 'own')}
CASES = [(name, variant) for name, variants in VARIANTS.items() for variant in variants]


def resolve(name, variant):
    module = __import__(f'configs.{name}', fromlist=['get_config'])
    return module.get_config() if variant is None else module.get_config(variant)


def recorded(name, variant):
    """Returns the fields of common, or of another config those that differ from common, by dotted name."""
    values = flat(resolve(name, variant))
    common = {} if name == 'common' else flat(resolve('common', None))
    return {field: value for field, value in values.items() if field not in common or common[field] != value}


def key(name, variant):
    return f'{name}:{variant}' if variant else name


def flat(config):
    return flatten(json.loads(json.dumps(config.to_dict())))


def fields(tree, prefix=''):
    for name, value in tree.items():
        yield from (
            fields(value, f'{prefix}{name}.') if isinstance(value, ml_collections.ConfigDict) else [prefix + name]
        )


def test_every_config_is_known_here():
    files = {path.stem for path in (ROOT / 'configs').glob('*.py')} - {'__init__'}
    assert files == set(VARIANTS)


@pytest.mark.parametrize('name, variant', CASES)
def test_config_has_the_recorded_values(name, variant):
    expected = json.loads(GOLDEN.read_text())[key(name, variant)]
    assert recorded(name, variant) == expected, 'if meant: PYTHONPATH=. python tests/test_configs.py'


@pytest.mark.parametrize('name, variant', [case for case in CASES if case[0] in RUNS])
def test_config_can_be_run(name, variant):
    config_checks.check(resolve(name, variant))


@pytest.mark.parametrize('name, variant', [case for case in CASES if case[0] in RUNS])
def test_config_has_the_fields_of_common(name, variant):
    assert sorted(fields(resolve(name, variant))) == sorted(fields(resolve('common', None)))


@pytest.mark.parametrize('variant', VARIANTS['study'])
def test_runs_of_the_study_have_the_fields_of_common(variant):
    for study_variant in resolve('study', variant).variants.values():
        assert sorted(fields(study_variant.run)) == sorted(fields(resolve('common', None)))


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
    run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(run.stdout.split()) & {'jax', 'numpy', 'stattn_jax', 'data_prep', 'tensorflow', 'torch'}


if __name__ == '__main__':
    GOLDEN.write_text(json.dumps({key(*case): recorded(*case) for case in CASES}, indent=1, sort_keys=True) + '\n')
