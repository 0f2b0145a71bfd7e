# SPDX-License-Identifier: GPL-2.0-or-later
"""The supervisor's side of the fork server (workers/forkserver.py).

Starts it when the first worker is wanted, asks it for workers, hands their pids and ends to
whoever asked. If it dies its workers die with it, every listener hears so, and the next spawn
starts a new one.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import syslog
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Protocol

import bpftune
from bpftune.ipc.declaration import Declaration
from bpftune.ipc.errors import ProtocolError
from bpftune.ipc.spawning import (
    MAX_PACKET_BYTES,
    Exited,
    NotSpawned,
    Spawn,
    Spawned,
    from_fork_server,
    to_fork_server,
)
from bpftune.supervisor.account import CANDIDATES, Account, find_account
from bpftune.supervisor.child_output import ChildOutput
from bpftune.supervisor.loop import Loop, Timer

MODULE = "bpftune.workers.forkserver"
SPAWN_WITHIN_S = 30.0
"""Includes starting the fork server, on the slowest machine."""

Log = Callable[[str, int], None]


class ChildListener(Protocol):
    """Who asked for a worker; hears `started` at most once and `ended` exactly once."""

    def started(self, pid: int, pidfd: int) -> None:
        """The process exists; the listener owns `pidfd` now."""

    def ended(self, how: str) -> None:
        """The process is gone, or was never made."""


class ForkServer:
    def __init__(self, *, loop: Loop, log: Log, account: Account | None = None) -> None:
        """`account`: whom the workers run as; None: the service's own user, else `nobody`."""
        self.account = account or find_account()
        if account is None and self.account.name != CANDIDATES[0]:
            log(f"no user '{CANDIDATES[0]}': workers run as '{self.account.name}'", syslog.LOG_NOTICE)
        self._loop = loop
        self._log = log
        self._ids = count(1)
        self._server: _Server | None = None

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server else None

    def start(self) -> None:
        """Start it ahead of the first spawn, so that it imports while we do other things."""
        if self._server is None:
            self._server = _Server(self._loop, self._log, self._lost)

    def spawn(
        self,
        declaration: Declaration,
        folder: Path,
        endpoint: str,
        *,
        stdout: int,
        stderr: int,
        listener: ChildListener,
    ) -> None:
        """Ask for one worker. The descriptors stay the caller's."""
        self.start()
        assert self._server is not None
        request = Spawn(
            id=next(self._ids),
            declaration=declaration,
            folder=str(folder),
            endpoint=endpoint,
            uid=self.account.uid,
            gid=self.account.gid,
        )
        self._server.ask(request, [stdout, stderr], listener)

    def distrust(self, why: str) -> None:
        """Kill a fork server that does not do its work, and with it all workers."""
        if self._server is not None:
            self._server.fail(why)

    def close(self) -> None:
        """End it and what is left of its workers. Nobody hears of it: the supervisor itself is ending."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _lost(self, why: str, listeners: list[ChildListener]) -> None:
        self._server = None
        self._log(f"fork server ended ({why}); its {len(listeners)} workers start anew", syslog.LOG_ERR)
        for listener in listeners:
            listener.ended("the fork server ended")


class _Server:
    """One life of the fork server process."""

    def __init__(self, loop: Loop, log: Log, lost: Callable[[str, list[ChildListener]], None]) -> None:
        self._loop = loop
        self._lost = lost
        self._asked: dict[int, Timer] = {}
        self._listeners: dict[int, ChildListener] = {}
        with ExitStack() as opened:
            self._commands, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for end in (self._commands, theirs):
                opened.callback(end.close)
            output, stderr = os.pipe()
            for fd in (output, stderr):
                opened.callback(os.close, fd)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-m", MODULE, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                env=_environment(),
                pass_fds=[theirs.fileno()],
                # Ctrl-C and signals to our process group are the supervisor's to act on.
                start_new_session=True,
            )
            opened.pop_all()
        theirs.close()
        os.close(stderr)
        self._commands.setblocking(False)
        self._output = ChildOutput(loop, output, lambda line: log(f"fork server: {line}", syslog.LOG_WARNING))
        loop.watch(self._commands.fileno(), self._take_report)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: Spawn, fds: list[int], listener: ChildListener) -> None:
        self._listeners[request.id] = listener
        self._asked[request.id] = self._loop.call_later(
            SPAWN_WITHIN_S, lambda: self.fail(f"it made no worker within {SPAWN_WITHIN_S:g} s")
        )
        packet = to_fork_server.encode(request)
        # Whatever comes of it is said from the loop, never from within the caller's call.
        if len(packet) > MAX_PACKET_BYTES:
            self._refuse_soon(request.id, f"its declaration takes {len(packet)} bytes, too many for a packet")
            return
        try:
            socket.send_fds(self._commands, [packet], fds)
        except (BrokenPipeError, ConnectionResetError):
            return  # its end shows on the socket
        except OSError as error:
            self._refuse_soon(request.id, f"cannot ask the fork server for it: {error.strerror}")

    def _refuse_soon(self, request_id: int, why: str) -> None:
        def refuse() -> None:
            if request_id in self._asked:  # else all of them heard that the fork server ended
                self._not_spawned(request_id, why)

        self._loop.call_later(0, refuse)

    def _not_spawned(self, request_id: int, why: str) -> None:
        self._asked.pop(request_id).cancel()
        self._listeners.pop(request_id).ended(why)

    def fail(self, why: str = "") -> None:
        """Give up on it; without `why`, it ended by itself and its exit code tells."""
        listeners = self.close()
        self._lost(why or _describe(self._process.returncode), listeners)

    def close(self) -> list[ChildListener]:
        """Kill it; returns who has to hear of it."""
        for timer in self._asked.values():
            timer.cancel()
        self._asked.clear()
        self._loop.unwatch(self._commands.fileno())
        self._commands.close()
        self._process.kill()
        self._process.wait()
        self._output.close()
        return [*self._listeners.values()]

    def _take_report(self) -> None:
        try:
            data, fds, _flags, _address = socket.recv_fds(self._commands, MAX_PACKET_BYTES, 1)
            report = from_fork_server.decode(data) if data else None
        except BlockingIOError:
            return
        except ConnectionResetError:  # ended with one of our requests unread
            self.fail()
            return
        except ProtocolError as error:
            self.fail(str(error))
            return
        match report:
            case Spawned():
                self._asked.pop(report.id).cancel()
                self._listeners[report.id].started(report.pid, *fds)
            case NotSpawned():
                self._not_spawned(report.id, report.why)
            case Exited():
                self._listeners.pop(report.id).ended(describe_status(report.status))
            case None:
                self.fail()


def describe_status(status: int) -> str:
    """A wait status as people say it: "exit code 1", "killed by SIGKILL"."""
    return _describe(os.waitstatus_to_exitcode(status))


def _describe(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"killed by signal {-exit_code}"


def _environment() -> dict[str, str]:
    """Fixed, but for where our own package is: the supervisor's environment is nobody's business."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(bpftune.__file__).parent.parent),
        "MALLOC_ARENA_MAX": "1",  # each further arena reserves 64 MiB of a worker's address space
    }
