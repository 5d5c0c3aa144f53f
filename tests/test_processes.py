"""Tests that the processes of a run end together, with real processes; run as a script, this file is one of them."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from stattn_jax.runtime import parallel, processes

HOST = socket.gethostname()
NEXT = '; run the same command again to continue from the last checkpoint, with any number of processes'


def start(count: int, work: str, slurm: bool = False) -> list[subprocess.Popen]:
    """Starts `count` processes of this file and waits until each has made a step with all others."""
    with socket.socket() as probe:
        probe.bind(('localhost', 0))
        port = probe.getsockname()[1]
    environment = {'PYTHONPATH': str(Path(__file__).parents[1]), 'JAX_PLATFORMS': 'cpu'}
    environment['JAX_COORDINATOR_PORT'] = str(port)
    group = [
        subprocess.Popen(
            [sys.executable, __file__, str(index), str(count), 'slurm' if slurm else str(port), work],
            env=os.environ | environment | {'SLURM_PROCID': str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]
    for process in group:
        # Gloo prints lines of its own.
        while (line := process.stdout.readline()) != 'ready\n':
            assert line, process.stderr.read()
    return group


def finish(group: list[subprocess.Popen], timeout: float) -> list[tuple[int, str, str]]:
    """Returns (exit code, stdout, stderr) of each process."""
    end = time.monotonic() + timeout
    try:
        outputs = [process.communicate(timeout=max(1, end - time.monotonic())) for process in group]
    finally:
        for process in group:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(group, outputs)]


@pytest.mark.parametrize('lost', [2, pytest.param(0, marks=pytest.mark.slow)])
def test_a_killed_process_ends_the_others_with_one_line_that_names_it(lost):
    group = start(3, 'step')
    group[lost].kill()
    results = finish(group, 60)
    assert results.pop(lost)[0] == -signal.SIGKILL
    for code, _, errors in results:
        assert code == 1
        # Process 0 takes the coordination service of JAX along, of whose end JAX writes lines of its own.
        assert errors.count('error: ') == 1 and (lost == 0 or errors.count('\n') == 1)
        assert f'error: process {lost} of 3 on {HOST} is lost: its connection was closed{NEXT}' in errors


@pytest.mark.slow
@pytest.mark.parametrize('lost', [1, 0])
def test_a_process_that_stands_still_is_lost_within_a_minute(lost):
    group = start(3, 'step')
    group[lost].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    others = [process for index, process in enumerate(group) if index != lost]
    results = finish(others, 60)
    group[lost].kill()
    group[lost].communicate()
    assert processes.LOST_AFTER - 5 < time.monotonic() - began < 60
    for code, _, errors in results:
        assert code == 1
        assert f'error: process {lost} of 3 on {HOST} is lost: no sign of life for 20 s{NEXT}' in errors


@pytest.mark.parametrize('failing', [1, pytest.param(0, marks=pytest.mark.slow)])
def test_an_error_of_one_process_ends_the_others_at_once(failing):
    results = finish(start(3, f'fail{failing}'), 60)
    code, _, errors = results.pop(failing)
    assert code == 1 and 'ZeroDivisionError' in errors and errors.count('Traceback') == 1
    for code, _, errors in results:
        assert code == 1
        reason = f'process {failing} of 3 on {HOST} ended with exit code 1, its own output says why'
        assert errors.startswith(f'error: {reason}{NEXT}')


def test_the_same_error_in_all_processes_is_printed_by_each():
    results = finish(start(2, 'refuse'), 60)
    assert [(code, errors) for code, _, errors in results] == [(2, 'error: wrong use\n')] * 2


@pytest.mark.slow
def test_processes_that_finish_at_different_times_end_without_a_word():
    results = finish(start(3, 'finish'), 60)
    assert [(code, errors) for code, _, errors in results] == [(0, '')] * 3


@pytest.mark.slow
def test_the_cluster_knows_the_processes(monkeypatch):
    for name, value in {'JOB_ID': '7', 'STEP_NODELIST': 'localhost', 'NTASKS': '2', 'LOCALID': '0'}.items():
        monkeypatch.setenv(f'SLURM_{name}', value)
    results = finish(start(2, 'finish', slurm=True), 60)
    assert [(code, errors) for code, _, errors in results] == [(0, '')] * 2


def test_strangers_on_the_port_change_nothing():
    group = start(2, 'finish')
    port = int(group[0].stdout.readline())
    for content in (b'GET / HTTP/1.1\r\n\r\n', b'\x00\x00\x00\x02[]', b'\x00\x00\x00\x04done', b''):
        with socket.create_connection(('localhost', port)) as stranger:
            stranger.sendall(content)
    assert [(code, errors) for code, _, errors in finish(group, 60)] == [(0, '')] * 2


def test_a_port_that_cannot_be_reached_is_reported(capsys, monkeypatch):
    class Store:
        def blocking_key_value_get(self, key, milliseconds):
            return '[1, "token", "first"]'

    monkeypatch.setattr(processes.threading, 'Thread', lambda **options: type('', (), {'start': lambda self: None})())
    processes._Watch(Store(), 'localhost:9', 1, 2)
    assert 'process 1 cannot connect to port 1 of localhost' in capsys.readouterr().err


def worker(index: int, count: int, port: str, work: str) -> int:
    """Runs one of `count` processes: steps with a reduction over all, and what `work` says."""
    place = (None, None, None) if port == 'slurm' else (f'localhost:{port}', count, index)
    processes.join(*place)
    strategy = parallel.make_strategy('jit')
    total = strategy.compile(lambda state, batch: (state, {'sum': jax.lax.psum(batch.sum(), 'data')}), donate=False)
    state, batch = strategy.place_state(np.zeros(1)), strategy.place_batch(np.ones((1, 1), np.float32))
    assert jax.device_get(total(state, batch)[1])['sum'] == count
    print('ready', flush=True)
    if work == 'refuse':
        time.sleep(0.3 * index)
        print('error: wrong use', file=sys.stderr)
        return 2
    if work == 'finish':
        if index == 0:
            print(processes._watch._server.getsockname()[1], flush=True)
        time.sleep(1 + index)
        return 0
    while True:
        total(state, batch)
        time.sleep(0.05)
        assert work != f'fail{index}' or 1 / 0


def main() -> int:
    code = 1
    try:
        code = worker(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
        return code
    finally:
        processes.leave(code)


if __name__ == '__main__':
    sys.exit(main())
