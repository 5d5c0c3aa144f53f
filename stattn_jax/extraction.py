"""Runs frozen trunks over a run's data once before training, with the command data_prep.extract (cfg.data.extract).

The command runs in a separate process for two reasons: on a CPU it computes with one thread per process, which must be
set before JAX starts, and on an accelerator it needs the device to itself.
"""

import copy
import pathlib
import signal
import subprocess
import sys

import jax
import ml_collections

from stattn_jax import command, config_checks, files, run, trunk_setup
from stattn_jax.data import extracted, source, spec, tfrecord

FEATURES = 'features'


def prepared(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """Returns the config with cfg.data.dir set to WORKDIR/features, and extracts the features if they are missing.

    Extraction that was interrupted is completed, and complete features are used as they are. Where the data already
    hold features, or the config has no frozen trunk, the config is returned unchanged. Raises RunError where the
    command fails.
    """
    info = source.DatasetInfo.load(config.data.dir)
    frozen = [name for name in trunk_setup.MODALITIES if config.model[f'{name}_frozen']]
    if not frozen or not isinstance(info.spec, spec.ClipSpec):
        return config
    # jax.process_count() alone would start the backend and take the accelerator that the command needs.
    if jax.distributed.is_initialized() and jax.process_count() > 1:
        raise run.RunError(
            f'config.data.extract is True, which one process must do for all {jax.process_count()}; run '
            'data_prep.extract first, and give its --out as config.data.dir'
        )
    config_checks.check(config)
    run.check_workdir(workdir, config, lengthen=True)
    trunk_setup.check(config, info.spec)
    if 'visual' in frozen and config.data.frame_size != config.model.frame_size:
        raise run.RunError(
            f'config.data.frame_size is {config.data.frame_size}, but config.model.frame_size '
            f'{config.model.frame_size}; expected the same, since frames are extracted at one size; give both'
        )
    out = workdir / FEATURES
    if not _is_made_of(out, info):
        files.make_folder(workdir)
        print(f'extracting the features of frozen trunks into {out}, once for this run', flush=True)
        code = _run([sys.executable, '-m', 'data_prep.extract', *arguments(config, frozen, out)])
        command.check_exit(code, 'extracting features')
    config = copy.deepcopy(config)
    with config.unlocked():
        config.data.dir = str(out)
    return config


def arguments(config: ml_collections.ConfigDict, frozen: list[str], out: pathlib.Path) -> list[str]:
    """Returns the flags of data_prep.extract for a config."""
    given = {'data': config.data.dir, 'out': out}
    for name in frozen:
        given |= {name: config.model[name], f'{name}_weights': config.model[f'{name}_weights']}
    if 'visual' in frozen:
        given |= {'frame_size': config.model.frame_size, 'fit': config.data.fit, 'views': config.data.views}
        given |= {'crop': config.augment.crop, 'flip': config.augment.flip, 'colour': config.augment.colour}
    return [f'--{name}={value}' for name, value in given.items()]


def _is_made_of(out: pathlib.Path, info: source.DatasetInfo) -> bool:
    """Returns whether `out` holds all features of these data.

    Trunk, weights and frame size are checked later, by the training run.
    """
    try:
        made = source.DatasetInfo.load(out)
    except tfrecord.NoDataError:
        return False
    return isinstance(made.spec, extracted.ExtractedSpec) and made.spec.source == info.fingerprint


def _run(words: list[str]) -> int:
    """Runs a command and returns its exit code; a SIGTERM to this process also terminates the command."""
    process = subprocess.Popen(words)
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if code == -signal.SIGTERM:
        raise run.RunError('stopped while extracting; run the same command again to continue', 0)
    return code
