"""Fixtures of the whole suite: a tiny data set, a run on it, and eight simulated CPU devices.

The devices are configured here, before any backend is created.
"""

import errno
import functools
import os
import pathlib
import signal

import browser
import jax
import pytest
import runs

from stattn_jax import files

# Shells start background jobs with SIGINT ignored, and every process below inherits that; some tests send SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
if jax.__version_info__ < (0, 11):
    # Compiles a train step in 4 s instead of 11 (jax 0.10.2; later versions may not know the flag, and XLA aborts on
    # unknown flags).
    os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_cpu_use_fusion_emitters=false'
jax.config.update('jax_num_cpu_devices', 8)


@pytest.fixture(autouse=True, scope='module')
def forget_compiled():
    """Frees the memory of the compiled programs after each test file."""
    yield
    jax.clear_caches()


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory):
    """A data set of 16 training clips, which no test may write to."""
    return runs.make_data(tmp_path_factory.mktemp('data') / 'events', train=16)


@pytest.fixture(scope='session')
def compiled(tmp_path_factory):
    """The compilation cache that processes of the same test run share."""
    return tmp_path_factory.mktemp('compiled')


@pytest.fixture(scope='session')
def stand_ins(tmp_path_factory):
    """The folder that runs.stand_ins makes."""
    return runs.stand_ins(tmp_path_factory.mktemp('stand_ins'))


@pytest.fixture(scope='session')
def trained(tmp_path_factory, tiny_data, compiled, stand_ins):
    """The workdir of ten uninterrupted steps on one device with augmentation, which no test may write to."""
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
def full_disk(monkeypatch):
    """A function after whose call `full_disk(is_full)` no byte can be written to files for whose path is_full is true.

    It replaces the system's call at the end of each whole file (files.py).
    """

    def fsync(is_full, descriptor):
        if is_full(os.readlink(f'/proc/self/fd/{descriptor}')):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda is_full: monkeypatch.setattr(files.os, 'fsync', functools.partial(fsync, is_full))


@pytest.fixture
def quick_compile():
    """Compiles in a third of the time in this process; rounding may differ, the collectives do not.

    With $STATTN_OPTIMISED it changes nothing: one leg of CI tests the programs as users compile them.
    """
    jax.config.update('jax_disable_most_optimizations', 'STATTN_OPTIMISED' not in os.environ)
    yield
    jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture(scope='session')
def scene_video(tmp_path_factory):
    """An mp4 of six seconds that shows a scene of the variant events."""
    return runs.make_video(tmp_path_factory.mktemp('videos') / 'scene.mp4', 0)


@pytest.fixture(scope='module')
def chromium(tmp_path_factory):
    """A headless browser; tests that need it are skipped where there is none."""
    driver = browser.Browser(tmp_path_factory.mktemp('profile'))
    yield driver
    driver.close()
