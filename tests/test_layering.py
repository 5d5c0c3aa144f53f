"""Tests which module may import which, read from the sources, and which modules a run and an explanation load."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest
import runs

PROGRAMS = ('stattn_jax', 'data_prep', 'configs')
SOURCES = {
    '.'.join(path.relative_to(runs.ROOT).with_suffix('').parts).removesuffix('.__init__'): path
    for program in PROGRAMS
    for path in sorted((runs.ROOT / program).rglob('*.py'))
}
PACKAGES = ('training', 'data', 'models', 'metrics', 'runtime')
# Every module may import these, which import nothing of the project.
BASE = ('colours', 'command_error', 'files', 'names', 'progress', 'renamed', 'version')
# Each of these packages and modules may import those after it, and all of them may import those of PACKAGES, which may
# not import each other.
LAYERS = (
    'study',
    'app',
    'export',
    'predict',
    'explain',
    'pretrained',
    'main',
    'benchmark',
    'train',
    'evaluate',
    'mask_scores',
    'score',
    'extraction',
    'run',
    'config_checks',
    'strip',
    'trunk_setup',
    'assemble',
    'weights',
    'command',
    'config_files',
    'attribution',
)
# This module runs trunks over prepared records and needs the networks and JAX; all other preparation works without
# them.
RUNS_TRUNKS = 'data_prep.extract'
JAX = {'jax', 'jaxlib', 'flax', 'optax', 'orbax'}


def imports(path: pathlib.Path) -> set[str]:
    """Returns every module that a file imports, anywhere in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path} line {node.lineno}: a relative import'
            names = {f'{node.module}.{name.name}' for name in node.names}
            found |= {name if name in SOURCES else node.module for name in names}
    return found


IMPORTS = {module: imports(path) for module, path in SOURCES.items()}


def place(module: str) -> str:
    """Returns the subpackage or top-level module of stattn_jax that a module belongs to."""
    return module.split('.')[1] if '.' in module else ''


def inside(module: str) -> set[str]:
    return {name for name in IMPORTS[module] if name.split('.')[0] == 'stattn_jax'}


def circle(graph: dict[str, set[str]]) -> str:
    """Returns one import circle as 'a imports b imports a', or '' if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        # The error lists the circle from imported to importing modules.
        return ' imports '.join(reversed(error.args[1]))
    return ''


def test_a_circle_would_be_reported_with_its_modules():
    graph = {'figure': {'record', 'colours'}, 'record': {'page'}, 'page': {'figure'}, 'colours': set()}
    assert circle(graph) in (
        'figure imports record imports page imports figure',
        'record imports page imports figure imports record',
        'page imports figure imports record imports page',
    )
    assert circle(graph | {'page': {'colours'}}) == ''


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: IMPORTS[module] & SOURCES.keys() for module in SOURCES if module.startswith('stattn_jax')}
    assert circle(graph) == ''


def test_stattn_jax_does_not_import_the_preparation_of_data():
    modules = [module for module in SOURCES if module.startswith('stattn_jax')]
    assert not {name for module in modules for name in IMPORTS[module] if name.split('.')[0] == 'data_prep'}


def test_every_module_belongs_to_a_package_or_a_layer():
    assert {place(module) for module in SOURCES if module.startswith('stattn_jax')} <= {
        '',
        *PACKAGES,
        *LAYERS,
        *BASE,
    }


@pytest.mark.parametrize('package', PACKAGES)
def test_packages_do_not_import_each_other(package):
    modules = [module for module in SOURCES if module.startswith(f'stattn_jax.{package}')]
    assert modules
    foreign = {(module, name) for module in modules for name in inside(module) if place(name) not in (package, *BASE)}
    assert not foreign


def test_layers_import_downwards():
    upwards = {
        (module, name)
        for module in SOURCES
        if place(module) in LAYERS
        for name in inside(module)
        if place(name) in LAYERS and LAYERS.index(place(name)) < LAYERS.index(place(module))
    }
    assert not upwards


def test_the_base_imports_nothing_of_the_project():
    assert {name for module in SOURCES if place(module) in BASE for name in inside(module)} == set()


def test_package_itself_only_passes_on_to_explain():
    assert {place(name) for name in inside('stattn_jax')} == {'explain', 'version'}


def test_data_and_its_preparation_never_import_jax_except_to_run_trunks():
    assert JAX & {name.split('.')[0] for name in IMPORTS[RUNS_TRUNKS]}
    for module in SOURCES:
        if module.startswith(('stattn_jax.data', 'data_prep')) and module != RUNS_TRUNKS:
            assert not {name.split('.')[0] for name in IMPORTS[module]} & JAX, module


def test_preparation_imports_only_data_and_the_frame_of_commands_except_to_run_trunks():
    for module in SOURCES:
        if module.startswith('data_prep'):
            known = {'data', 'models', 'weights', 'training', 'runtime'} if module == RUNS_TRUNKS else {'data'}
            assert {place(name) for name in inside(module)} <= {*known, 'command', *BASE}, module
            assert RUNS_TRUNKS not in IMPORTS[module] or module == RUNS_TRUNKS


def test_weights_import_only_the_list_of_trunks():
    modules = [module for module in SOURCES if module.startswith('stattn_jax.weights')]
    assert modules
    known = {'stattn_jax.models.trunks.registry', 'stattn_jax.models.trunks.trunk', 'stattn_jax.command'}
    foreign = {name for module in modules for name in inside(module) if place(name) not in ('weights', *BASE)}
    assert foreign <= known


def test_attribution_depends_on_no_training_code():
    modules = [module for module in SOURCES if module.startswith('stattn_jax.attribution')]
    assert modules
    assert {place(name) for module in modules for name in inside(module)} <= {
        'attribution',
        'data',
        'metrics',
        'models',
    }


def test_configs_import_nothing_but_ml_collections():
    for module in SOURCES:
        if module.startswith('configs'):
            assert {name.split('.')[0] for name in IMPORTS[module]} <= {'ml_collections', 'configs'}, module


def test_heavy_libraries_are_imported_nowhere():
    for module, names in IMPORTS.items():
        assert not {name.split('.')[0] for name in names} & set(runs.HEAVY), module


def test_files_can_be_read_in_one_go():
    lines = {module: len(path.read_text().splitlines()) for module, path in SOURCES.items()}
    assert {module: count for module, count in lines.items() if count > 400} == {}


def test_import_of_the_package_is_cheap():
    code = 'import stattn_jax, sys; print(*sorted({name.split(".")[0] for name in sys.modules}))'
    run = subprocess.run([sys.executable, '-c', code], cwd=runs.ROOT, capture_output=True, text=True, check=True)
    assert not set(run.stdout.split()) & (JAX | {*runs.HEAVY, 'numpy'})


def test_training_and_explaining_never_ask_for_heavy_libraries(trained, scene_video, stand_ins, tmp_path):
    flags = (f'--workdir={trained}', f'--video={scene_video}', f'--out={tmp_path}')
    runs.finish(runs.start('stattn_jax.explain', *flags, path=stand_ins))
    assert (tmp_path / 'explanation.png').stat().st_size > 0
    # The training run of the fixture had the same stand-ins on its path.
    assert [path.name for path in stand_ins.glob('*.imported')] == []
    tried = subprocess.run(
        [sys.executable, '-c', 'import torch'], env={'PYTHONPATH': str(stand_ins)}, capture_output=True
    )
    assert tried.returncode == 1 and (stand_ins / 'torch.py.imported').exists()
    (stand_ins / 'torch.py.imported').unlink()
