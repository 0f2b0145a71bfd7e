# SPDX-License-Identifier: GPL-2.0-or-later
"""One worker process, from the fork to its end.

The fork server calls `run_worker` in the child and exits with what it returns. Nothing is handled
here: an exception ends the worker with its traceback on stderr, and the supervisor starts another.
"""

from __future__ import annotations

import gc
import sys
import time
import traceback

import zmq

from bpftune.ipc.codec import MAX_MESSAGE_BYTES, to_supervisor, to_worker
from bpftune.ipc.errors import DeclarationError
from bpftune.ipc.messages import Stop, Unusable
from bpftune.ipc.spawning import Spawn
from bpftune.workers import confinement, syscalls
from bpftune.workers.compiling import compile_apart
from bpftune.workers.policy import load_policy, read_source
from bpftune.workers.runner import PolicyRunner

_LINGER_MS = 1000


def run_worker(spawn: Spawn, *, stdout: int, stderr: int, parent_pid: int) -> int:
    """Host the tuner until told to stop; returns the exit code."""
    try:
        syscalls.die_with_parent(parent_pid)
        confinement.adopt_descriptors(stdout, stderr)
        gc.enable()
        # A policy that imports must not litter the tuner folders with __pycache__.
        sys.dont_write_bytecode = True
        _host(spawn, parent_pid)
    except BaseException:
        traceback.print_exc()
        sys.stdout.flush()
        return 1
    sys.stdout.flush()
    return 0


def _host(spawn: Spawn, parent_pid: int) -> None:
    syscalls.name_process(spawn.declaration.name)
    source = read_source(spawn.folder)
    confinement.drop_privileges(spawn.uid, spawn.gid, parent_pid)
    confinement.limit_resources()
    compiled = compile_apart(source)
    socket = _connect(spawn.endpoint)
    confinement.forbid_processes()
    try:
        policy = load_policy(source, compiled, evaluates=bool(spawn.declaration.strategies))
    except DeclarationError as error:
        socket.send(to_supervisor.encode(Unusable(why=str(error))))
        _await_end(socket)
    else:
        _serve(socket, PolicyRunner(spawn.declaration, policy, log=_log))
    socket.close(linger=_LINGER_MS)


def _connect(endpoint: str) -> zmq.Socket[bytes]:
    # A context of its own: the fork server has none, as its threads would not survive the fork.
    socket = zmq.Context(io_threads=1).socket(zmq.PAIR)
    socket.set(zmq.RECONNECT_IVL, -1)
    socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    socket.connect(endpoint)
    return socket


def _serve(socket: zmq.Socket[bytes], runner: PolicyRunner) -> None:
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    while True:
        answers = []
        if poller.poll(runner.timeout_ms(time.monotonic_ns())):
            message = to_worker.decode(socket.recv())
            if isinstance(message, Stop):
                return
            answers = runner.handle(message, time.monotonic_ns())
        answers += runner.wake(time.monotonic_ns())
        for answer in answers:
            socket.send(to_supervisor.encode(answer))


def _await_end(socket: zmq.Socket[bytes]) -> None:
    """The supervisor kills us once it has heard: news of our end could reach it before our last word."""
    while not isinstance(to_worker.decode(socket.recv()), Stop):
        continue


def _log(text: str) -> None:
    print(text, file=sys.stderr)
