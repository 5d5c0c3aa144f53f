"""Measures the network on an accelerator beside PyTorch: one command for all numbers that docs/benchmarks.md reports.

  python -m benchmarks.card --out=DIR [--minutes=9] [--warm=3] [--parts=...] [--batch=64]

Every part is a separate process with a time limit, so that a failure or a slow compilation costs one part. Their
outputs are printed and kept in DIR, one .txt and one .json for each. The parts that are left when the time is over are
named. Parts share a cache of compiled programs in DIR/cache, which --warm fills first. Exit codes: 0 all parts ran; 1
some did not.
"""

import argparse
import contextlib
import os
import pathlib
import subprocess
import sys
import threading
import time

CONFIG = '--config=configs/vggsound.py'
BF16 = ('--config.model.dtype=bfloat16',)
RESNET50 = ('--config.model.visual=resnet50',)
TIMES = ('--calls=5', '--warmup=2', '--together=5')


def parts(batch: int, out: pathlib.Path) -> dict[str, list[str]]:
    """Returns the commands of all parts, in the order of their importance."""
    half = batch // 2
    peer = ['benchmarks.peer', CONFIG, *BF16, '--nocheck', '--noeager', '--compile', '--calls=5', '--rounds=6']
    ours = ['stattn_jax.benchmark', CONFIG, *BF16, *TIMES]
    return {
        'versions': ['benchmarks.card', '--versions', f'--out={out}'],
        'peer_resnet18': [*peer, f'--batch={batch}'],
        'modes_resnet18': [*ours, f'--batches={batch}', '--modes=train,head,forward,explain'],
        'peer_resnet50': [*peer, *RESNET50, f'--batch={half}'],
        'profile_resnet18': [*ours, f'--batches={batch}', '--modes=train', f'--profile={out}/trace'],
        'operations': ['benchmarks.trace', f'{out}/trace/train-jit-bfloat16-{batch}'],
        'layers': ['benchmarks.layers', '--dtype=bfloat16', f'--frames={2 * batch}', '--rounds=5'],
        'modes_resnet50': [*ours, *RESNET50, f'--batches={half}', '--modes=train,forward'],
        'pmap_resnet18': [*ours, f'--batches={batch}', '--modes=train,forward', '--strategies=pmap'],
        'large_resnet18': [*ours, '--batches=' + ','.join(str(batch * n) for n in (4, 8, 16)), '--modes=train'],
        'plain_resnet18': [*ours, f'--batches={batch}', '--modes=train', '--config.model.layers=plain'],
        'same': ['benchmarks.peer', CONFIG, *BF16, '--segments=2', '--modes='],
    }


def warming(batch: int) -> list[list[list[str]]]:
    """Returns two chains of commands that fill the caches of compiled programs, one of JAX and one of PyTorch."""
    once, half = ('--calls=1', '--warmup=0'), batch // 2
    ours = ['stattn_jax.benchmark', CONFIG, *BF16, *once]
    peer = ['benchmarks.peer', CONFIG, *BF16, '--nocheck', '--noours', '--noeager', '--compile', '--rounds=1', *once]
    return [
        [
            [*ours, f'--batches={batch}', '--modes=train,forward,head,explain'],
            [*ours, *RESNET50, f'--batches={half}', '--modes=train,forward'],
        ],
        [[*peer, f'--batch={batch}'], [*peer, *RESNET50, f'--batch={half}']],
    ]


def main(argv: list[str] | None = None) -> int:
    """Parses the arguments, runs the parts, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=pathlib.Path, required=True)
    parser.add_argument('--minutes', type=float, default=9.0)
    parser.add_argument('--parts', default='', help='names separated by commas; all by default')
    parser.add_argument('--batch', type=int, default=64, help='clips a step with ResNet-18; half of it with ResNet-50')
    parser.add_argument('--warm', type=float, default=0.0, help='minutes for compiling both versions at the same time')
    parser.add_argument('--versions', action='store_true', help='print device and versions, and nothing else')
    values = parser.parse_args(argv)
    if values.versions:
        print(versions())
        return 0
    values.out.mkdir(parents=True, exist_ok=True)
    commands = parts(values.batch, values.out)
    wanted = values.parts.split(',') if values.parts else list(commands)
    if unknown := [name for name in wanted if name not in commands]:
        parser.error(f'--parts has {", ".join(unknown)}; expected some of {", ".join(commands)}')
    end = time.monotonic() + 60 * values.minutes
    if values.warm:
        _warm(warming(values.batch), values.out, 60 * values.warm)
    missing = [name for name in wanted if not _run(name, commands[name], values.out, end)]
    print(f'missing: {", ".join(missing) or "none"}')
    return 1 if missing else 0


def versions() -> str:
    """Returns the device and the versions of the frameworks, as one line."""
    import flax
    import jax
    import torch

    device = jax.devices()[0]
    kind = f'{device.device_kind} ({device.client.platform_version.splitlines()[-1]})'
    frameworks = f'jax {jax.__version__}, flax {flax.__version__}, torch {torch.__version__}'
    return f'{kind}; python {sys.version.split()[0]}, {frameworks}, cudnn {torch.backends.cudnn.version()}'


def _warm(chains: list[list[list[str]]], out: pathlib.Path, seconds: float) -> None:
    """Runs chains of commands beside each other, at most so long; only the compiled programs are used afterwards."""

    def run(number, chain):
        for place, command in enumerate(chain):
            left = end - time.monotonic()
            with open(out / f'warm_{number}_{place}.txt', 'w') as log, contextlib.suppress(subprocess.TimeoutExpired):
                if left > 0:
                    _process(command, out, log, left)
            print(f'--- warm {number}.{place} after {seconds - end + time.monotonic():.0f} s', flush=True)

    end = time.monotonic() + seconds
    threads = [threading.Thread(target=run, args=each) for each in enumerate(chains)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _process(command: list[str], out: pathlib.Path, log, seconds: float) -> int:
    """Runs a module as a process, its output in a file, and returns its exit code; raises TimeoutExpired."""
    environment = os.environ | {
        'JAX_COMPILATION_CACHE_DIR': str(out / 'cache'),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '1',
        'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
        'PYTHONUNBUFFERED': '1',
    }
    words = [sys.executable, '-m', *command]
    return subprocess.run(words, stdout=log, stderr=subprocess.STDOUT, env=environment, timeout=seconds).returncode


def _run(name: str, command: list[str], out: pathlib.Path, end: float) -> bool:
    """Runs a part, prints its output and keeps it; returns whether it ended well and in time."""
    left = end - time.monotonic()
    if left < 5:
        return False
    flags = [f'--out={out / name}.json'] if command[0] != 'benchmarks.card' else []
    start = time.monotonic()
    print(f'--- {name}: {" ".join(command[1:])}', flush=True)
    with open(out / f'{name}.txt', 'w+') as log:
        try:
            code = _process([*command, *flags], out, log, left)
        except subprocess.TimeoutExpired:
            code = 'out of time'
        log.seek(0)
        print('\n'.join(log.read().splitlines()[-30:]))
    print(f'--- {name}: {code or "done"} after {time.monotonic() - start:.0f} s', flush=True)
    return code == 0


if __name__ == '__main__':
    sys.exit(main())
