"""The processes of one run: they join, and where one is lost the others end with one line that names it.

Every process has a TCP connection to process 0, on which both send a heartbeat. The system closes the connections of a
process that ends, however it ends, so that its loss is known at once; that of a host that is cut off is known when its
heartbeats stay out. JAX has heartbeats, too, but it aborts with a stack trace and names no host, and a callback in
Python in place of that ends the process with std::bad_cast (jax 0.10.2, 2026-11-27).
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
import traceback
from multiprocessing import connection
from typing import Any

import jax

# JAX has no public way to the key-value store of its coordination service; Orbax uses the same one.
from jax._src import distributed

# In seconds. A process that stands still for longer, as while its machine is moved, counts as lost.
LOST_AFTER = 20
_BEAT = 2
# JAX sends its heartbeats at half of this interval, and must not be first (fewer than 30 s had passed with 45).
_JAX_LOST_AFTER = 55
# So long do the other processes wait, to print an error of their own where all have the same, and so long does process
# 0 wait for them, because JAX aborts them when it has gone.
_GRACE, _GRACE_OF_FIRST = 1, 4
_GRACE_OF_ERROR = 5
_DONE = 'done'
# In bytes. Who connects by mistake, such as a scanner of ports, may send anything.
_LONGEST = 4096
_ADDRESS = 'stattn/watch'

_watch: '_Watch | None' = None


def join(coordinator: str | None, count: int | None, index: int | None) -> None:
    """Connects this process to the others of the run, and ends it with one line where one of them is lost.

    Call it before JAX uses a device, and `leave` at the end. `coordinator` is host:port of process 0; where all three
    are None, JAX takes them from the cluster (Cloud TPU, GKE, Slurm, Open MPI). Raises ValueError where it finds
    none, and where the processes cannot connect.
    """
    global _watch
    try:
        jax.distributed.initialize(coordinator, count, index, heartbeat_timeout_seconds=_JAX_LOST_AFTER)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f'{error} (is that port free on the host of process 0?)') from error
    state = distributed.global_state
    if state.num_processes > 1:
        _watch = _Watch(state.client, state.coordinator_address, state.process_id, state.num_processes)


def leave(code: int) -> None:
    """Ends this process's part in the run with an exit code; does nothing in a run of one process.

    With 0, the others need no more signs of life. With another code it tells them and ends the process, after printing
    the exception that is being handled, if any; JAX would wait for the others at the end of the process.
    """
    if _watch is None:
        return
    if code == 0:
        _watch.finish()
        return
    if error := sys.exception():
        # It may be the consequence of a lost process, for which the thread of the watch ends this one.
        time.sleep(_GRACE_OF_ERROR)
        traceback.print_exception(error)
    _watch.fail(code)


class _Peer:
    """Another process: its connection, its number and host as soon as they are known, and when it was last heard."""

    def __init__(self, sock: socket.socket):
        sock.settimeout(None)
        self.connection = connection.Connection(sock.detach())
        self.index: int | None = None
        self.host = ''
        self.heard = time.monotonic()
        self.done = False


class _Watch:
    """A thread that ends this process, with one line, where another one is lost or has ended with an error.

    Process 0 has the connections of all others, and passes their messages on.
    """

    def __init__(self, client: Any, coordinator: str, index: int, count: int):
        self._index, self._count, self._host = index, count, socket.gethostname()
        self._peers: list[_Peer] = []
        self._server: socket.socket | None = None
        self._leaving = False
        # The main thread sends, too.
        self._lock = threading.Lock()
        if index == 0:
            self._listen(client)
        else:
            self._connect(client, coordinator.rpartition(':')[0].strip('[]'))
        threading.Thread(target=self._run, name='watch', daemon=True).start()

    def finish(self) -> None:
        """Tells the others that this process has done its part."""
        self._send(_DONE)

    def fail(self, code: int) -> None:
        """Tells the others that this process ends with an exit code, and ends it."""
        self._leaving = True
        name = f'process {self._index} of {self._count} on {self._host}'
        self._send(f'{name} ended with exit code {code}, its own output says why')
        self._exit(code)

    def _listen(self, client: Any):
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        self._server = socket.create_server(('', 0), family=family, dualstack_ipv6=dual, backlog=self._count)
        self._token = secrets.token_hex()
        client.key_value_set(_ADDRESS, json.dumps([self._server.getsockname()[1], self._token, self._host]))

    def _connect(self, client: Any, host: str):
        port, token, name = json.loads(client.blocking_key_value_get(_ADDRESS, 1000 * _JAX_LOST_AFTER))
        try:
            peer = _Peer(socket.create_connection((host, port), LOST_AFTER))
        except OSError as error:
            print(
                f'process {self._index} cannot connect to port {port} of {host} ({error.strerror or error}): without '
                'this connection, no line will name a process that is lost',
                file=sys.stderr,
            )
            return
        peer.index, peer.host = 0, name
        self._peers = [peer]
        self._send(json.dumps([token, self._index, self._host]))

    def _run(self):
        reason = ''
        while not reason:
            ready = connection.wait([*(peer.connection for peer in self._peers), *filter(None, [self._server])], _BEAT)
            if self._server in ready:
                self._peers.append(_Peer(self._server.accept()[0]))
            reasons = [self._read(peer) for peer in list(self._peers) if peer.connection in ready]
            self._send('')
            late = [peer for peer in self._peers if time.monotonic() - peer.heard > LOST_AFTER]
            reasons += [self._lost(peer, f'no sign of life for {LOST_AFTER} s') for peer in late]
            reason = next(filter(None, reasons), '')
        if self._index == 0:
            self._send(reason)
        elif 'is lost' not in reason:
            time.sleep(_GRACE)
        if self._leaving:
            return
        print(
            f'error: {reason}; run the same command again to continue from the last checkpoint, with any number of '
            'processes whose devices the batch splits over',
            file=sys.stderr,
        )
        self._exit(1)

    def _read(self, peer: _Peer) -> str:
        """Reads a message and returns the reason to end, '' if there is none."""
        try:
            message = peer.connection.recv_bytes(_LONGEST).decode()
        except (OSError, EOFError, UnicodeDecodeError):
            return self._lost(peer, 'its connection was closed')
        peer.heard = time.monotonic()
        if peer.index is None:
            self._greet(peer, message)
            return ''
        peer.done |= message == _DONE
        return '' if peer.done else message

    def _greet(self, peer: _Peer, message: str):
        try:
            token, peer.index, peer.host = json.loads(message)
        except ValueError:
            token = ''
        if token != self._token:
            self._peers.remove(peer)
            peer.connection.close()

    def _lost(self, peer: _Peer, reason: str) -> str:
        self._peers.remove(peer)
        if peer.done or peer.index is None:
            return ''
        return f'process {peer.index} of {self._count} on {peer.host} is lost: {reason}'

    def _send(self, message: str):
        with self._lock:
            for peer in list(self._peers):
                # Its loss is noticed where it is read.
                with contextlib.suppress(OSError):
                    peer.connection.send_bytes(message.encode())

    def _exit(self, code: int):
        sys.stdout.flush()
        sys.stderr.flush()
        if self._index == 0:
            time.sleep(_GRACE_OF_FIRST)
        os._exit(code)
