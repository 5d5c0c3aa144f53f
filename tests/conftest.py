"""Eight simulated CPU devices for the whole suite, set before any backend is made; a tiny data set and a tiny run
of it.
"""

import os
import pathlib
import signal

import jax
import pytest
import runs

# A shell starts background jobs deaf to SIGINT, and every process below inherits that; some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
if jax.__version_info__ < (0, 11):
    # Compiles a train step in 4 s instead of 11 (jax 0.10.2; later versions may not know the flag, and XLA aborts on
    # those).
    os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_cpu_use_fusion_emitters=false'
jax.config.update('jax_num_cpu_devices', 8)


@pytest.fixture(autouse=True, scope='module')
def forget_compiled():
    """Gives back the memory of a file's compiled programs."""
    yield
    jax.clear_caches()


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory):
    """A data set of 16 training clips; never written to."""
    return runs.make_data(tmp_path_factory.mktemp('data') / 'events', train=16)


@pytest.fixture(scope='session')
def compiled(tmp_path_factory):
    """Where processes of the same run find each other's compiled programs."""
    return tmp_path_factory.mktemp('compiled')


@pytest.fixture(scope='session')
def stand_ins(tmp_path_factory):
    """See runs.stand_ins."""
    return runs.stand_ins(tmp_path_factory.mktemp('stand_ins'))


@pytest.fixture(scope='session')
def trained(tmp_path_factory, tiny_data, compiled, stand_ins):
    """The workdir of ten uninterrupted steps on one device, augmented; never written to."""
    workdir = tmp_path_factory.mktemp('runs') / 'trained'
    flags = runs.make_flags(workdir, tiny_data, compile_cache=compiled)
    runs.finish(runs.start('stattn_jax.main', *flags, path=stand_ins))
    return workdir


@pytest.fixture(scope='session')
def annotations():
    """The folder of the published annotation files: $STATTN_ANNOTATIONS, or shared/annotations beside the checkout."""
    folder = pathlib.Path(os.environ.get('STATTN_ANNOTATIONS', runs.ROOT.parent / 'shared' / 'annotations'))
    if not folder.is_dir():
        pytest.skip(f'no published annotation files in {folder}; set STATTN_ANNOTATIONS')
    return folder


@pytest.fixture
def quick_compile():
    """Compiles in a third of the time in this process; rounding may differ, the collectives do not."""
    jax.config.update('jax_disable_most_optimizations', True)
    yield
    jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture(scope='session')
def scene_video(tmp_path_factory):
    """A scene of the variant events of six seconds as mp4."""
    return runs.make_video(tmp_path_factory.mktemp('videos') / 'scene.mp4', 0)
