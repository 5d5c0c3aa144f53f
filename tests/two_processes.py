"""Starts a test's own file twice, as the two processes of one run, for several test modules."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def run_pair(script: str, *arguments: str) -> list[str]:
    """Runs `python script PROCESS PORT *arguments` for both processes and returns their outputs; fails if one fails."""
    with socket.socket() as probe:
        probe.bind(('localhost', 0))
        port = probe.getsockname()[1]
    workers = [
        subprocess.Popen(
            [sys.executable, script, str(process), str(port), *arguments],
            env=dict(os.environ, PYTHONPATH=str(Path(__file__).parents[1])),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    try:
        outputs = [worker.communicate(timeout=300) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    return [output for output, _ in outputs]
