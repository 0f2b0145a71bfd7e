# SPDX-License-Identifier: GPL-2.0-or-later
"""The fork server: `python -m bpftune.workers.forkserver SOCKET SUPERVISOR_PID`.

It has imported what workers need, so that they share its pages, and forks one on each `Spawn` that
comes through SOCKET (the descriptor of a SOCK_SEQPACKET socketpair). It reports every end of a
child, and ends itself, and so all workers, when the supervisor does. It runs no tuner code and
never creates a ZeroMQ context: its threads would not survive a fork.

A page stays shared until somebody writes to it, and using a Python object writes its reference
count: each function that a worker calls for the first time costs it some 30 KB, each module that it
imports by itself half a megabyte.
"""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import select
import signal
import socket
import sys
from dataclasses import dataclass
from typing import NoReturn

import bpftune.tuners
from bpftune.ipc.spawning import (
    MAX_PACKET_BYTES,
    SPAWN_DESCRIPTORS,
    Exited,
    FromForkServer,
    NotSpawned,
    Spawn,
    Spawned,
    from_fork_server,
    to_fork_server,
)
from bpftune.workers import syscalls
from bpftune.workers.host import run_worker

PROCESS_NAME = "bpftune-workers"

_POLICIES_IMPORT = ("dataclasses", "ipaddress", "math", "mmap")
"""Of the standard library, beyond what the modules named above need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    id: int
    pid: int


class ForkServer:
    def __init__(self, commands: socket.socket) -> None:
        self._commands = commands
        self._children: dict[int, Child] = {}  # by pidfd
        self._poll = select.poll()
        self._poll.register(commands, select.POLLIN)

    def serve(self) -> None:
        """Until the supervisor closes its end."""
        while True:
            for fd, _events in self._poll.poll():
                if fd != self._commands.fileno():
                    self._reap(fd)
                elif not self._take_command():
                    return

    def _take_command(self) -> bool:
        data, fds, _flags, _address = socket.recv_fds(self._commands, MAX_PACKET_BYTES, SPAWN_DESCRIPTORS)
        if not data:
            return False
        try:
            self._spawn(to_fork_server.decode(data), *fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _spawn(self, spawn: Spawn, stdout: int, stderr: int) -> None:
        server_pid = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._report(NotSpawned(id=spawn.id, why=f"cannot fork: {error.strerror}"))
            return
        if pid == 0:
            self._become_worker(spawn, stdout, stderr, server_pid)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = Child(id=spawn.id, pid=pid)
        self._poll.register(pidfd, select.POLLIN)
        self._report(Spawned(id=spawn.id, pid=pid), pidfd)

    def _become_worker(self, spawn: Spawn, stdout: int, stderr: int, server_pid: int) -> NoReturn:
        exit_code = 1
        try:
            self._commands.detach()  # its number is soon another descriptor's
            exit_code = run_worker(spawn, stdout=stdout, stderr=stderr, parent_pid=server_pid)
        finally:
            os._exit(exit_code)

    def _reap(self, pidfd: int) -> None:
        child = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _pid, status = os.waitpid(child.pid, 0)
        self._report(Exited(id=child.id, status=status))

    def _report(self, report: FromForkServer, *fds: int) -> None:
        socket.send_fds(self._commands, [from_fork_server.encode(report)], list(fds))


def import_tuner_runtime() -> None:
    """Import the modules that policies are written against; a worker may be unable to read them."""
    for name in _POLICIES_IMPORT:
        importlib.import_module(name)
    for module in pkgutil.iter_modules(bpftune.tuners.__path__):
        if not module.ispkg:
            importlib.import_module(f"{bpftune.tuners.__name__}.{module.name}")


def main(arguments: list[str]) -> None:
    commands_fd, supervisor_pid = map(int, arguments)
    syscalls.die_with_parent(supervisor_pid)
    # systemd signals the whole service; workers end when the supervisor has heard their summary.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    syscalls.name_process(PROCESS_NAME)
    syscalls.unshare_network()
    import_tuner_runtime()
    gc.collect()
    gc.disable()  # from here on: a collection would write to the pages that workers share
    gc.freeze()
    ForkServer(socket.socket(fileno=commands_fd)).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
