# SPDX-License-Identifier: GPL-2.0-or-later
"""One process of a worker, from asking the fork server for it until it is gone.

Owns its socket, its output pipes, its pidfd and the deadline by which it owes an answer. It knows
nothing of restarts or of what the messages mean; worker.py does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import syslog
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import zmq

from bpftune.ipc.declaration import Declaration
from bpftune.ipc.messages import Stop, ToSupervisor, ToWorker
from bpftune.supervisor.child_output import ChildOutput
from bpftune.supervisor.forkserver import ForkServer
from bpftune.supervisor.loop import Loop, Timer
from bpftune.supervisor.worker_socket import WorkerSocket

_CONNECT = "connect"

_REPORTED_WITHIN_S = 2.0
"""After SIGKILL: a fork server that has not reported the end by then does not work."""


_HELD_UP_NS = 1_000_000_000
"""If we notice a missed deadline so late, we stood still ourselves (a frozen cgroup, a paused virtual
machine), and the worker most likely with us: its time begins anew."""


class ProcessListener(Protocol):
    def process_connected(self) -> None: ...

    def process_said(self, message: ToSupervisor) -> None: ...

    def process_ended(self, how: str) -> None:
        """It is gone; called exactly once, unless `start` raised."""

    def process_log(self, text: str, priority: int) -> None: ...


class WorkerProcess:
    def __init__(
        self,
        *,
        loop: Loop,
        forkserver: ForkServer,
        listener: ProcessListener,
        answer_within_s: float,
        kill_after_s: float,
    ) -> None:
        self.pid: int | None = None
        self.started_ns = 0
        self._loop = loop
        self._forkserver = forkserver
        self._listener = listener
        self._answer_within_s = answer_within_s
        self._kill_after_s = kill_after_s
        self._socket: WorkerSocket | None = None
        self._outputs: list[ChildOutput] = []
        self._pidfd: int | None = None
        self._connected = False
        self._owed: dict[str, int] = {}
        """What it has to do -> since when."""
        self._deadline: Timer | None = None
        self._kill_timer: Timer | None = None
        self._verdict = ""
        """Why it has to go; from then on nothing it says counts."""

    def start(
        self, declaration: Declaration, folder: Path, path: Path, context: zmq.Context[zmq.Socket[bytes]]
    ) -> None:
        """Raises OSError when its socket, its pipes or the fork server cannot be made."""
        ends: list[int] = []
        try:
            for priority in (syslog.LOG_INFO, syslog.LOG_WARNING):
                ends.append(self._open_output(priority))
            stdout, stderr = ends
            self._socket = WorkerSocket(
                path, loop=self._loop, context=context, account=self._forkserver.account
            )
            self._forkserver.spawn(
                declaration, folder, self._socket.endpoint, stdout=stdout, stderr=stderr, listener=self
            )
        except OSError:
            self._release()
            raise
        finally:
            for end in ends:
                os.close(end)

    def send(self, message: ToWorker, *, owing: str = "") -> None:
        """`owing` says what it has to do about it, in time, until `paid`."""
        if self._verdict or not self._connected or self._socket is None:
            return
        if owing:
            self._owe(owing)
        self._socket.send(message)

    def paid(self, owing: str) -> bool:
        """It did that; False if it had not been asked to."""
        return self._owed.pop(owing, None) is not None

    def stop(self) -> None:
        """Ask it to end, and kill it if it does not within the time a hung worker gets."""
        if self._verdict:
            return
        if not self._connected:
            self.kill("stopped")
            return
        self.send(Stop())
        self._condemn("stopped")

    def kill(self, why: str) -> None:
        """At once: nothing it says can be trusted."""
        if not self._verdict:
            self._condemn(why)
            self._kill()

    # From the socket.

    def connected(self) -> None:
        self._connected = True
        self.paid(_CONNECT)
        if not self._verdict:
            self._listener.process_connected()

    def received(self, message: ToSupervisor) -> None:
        if not self._verdict:
            self._listener.process_said(message)

    def broken(self, why: str) -> None:
        self.kill(why)

    def disconnected(self) -> None:
        # Mostly because it just ended, which the fork server is about to say better.
        self._connected = False
        if not self._verdict:
            self._kill_in(lambda: self.kill("its connection broke"))

    # From the fork server.

    def started(self, pid: int, pidfd: int) -> None:
        self.pid, self._pidfd = pid, pidfd
        self.started_ns = time.monotonic_ns()
        if self._socket is not None:
            self._socket.listen(self, pid)
        if self._verdict:
            self._kill()
        elif not self._connected:
            self._owe(_CONNECT)

    def ended(self, how: str) -> None:
        self._signal(signal.SIGKILL)  # it may outlive its fork server by a moment
        self._release()
        self._listener.process_ended(f"{self._verdict}; {how}" if self._verdict else how)

    def _owe(self, owing: str) -> None:
        self._owed[owing] = time.monotonic_ns()
        if self._deadline is None:
            self._deadline = self._loop.call_later(self._answer_within_s, self._check_deadline)

    def _check_deadline(self) -> None:
        self._deadline = None
        if not self._owed:
            return
        owing, since_ns = min(self._owed.items(), key=lambda item: item[1])
        at_ns = since_ns + int(self._answer_within_s * 1e9)
        late_ns = time.monotonic_ns() - at_ns
        if late_ns < 0:
            self._deadline = self._loop.call_at(at_ns, self._check_deadline)
        elif late_ns > _HELD_UP_NS:
            self._owed = dict.fromkeys(self._owed, time.monotonic_ns())
            self._deadline = self._loop.call_later(self._answer_within_s, self._check_deadline)
        elif not self._verdict:
            self._abort(f"it did not {owing} within {self._answer_within_s:g} s")

    def _abort(self, why: str) -> None:
        """End it so that it tells where it hangs: faulthandler writes its stack on SIGABRT."""
        self._listener.process_log(f"worker (pid {self.pid}): {why}; aborting it", syslog.LOG_WARNING)
        self._condemn(why)
        self._signal(signal.SIGABRT)
        self._signal(signal.SIGCONT)  # a stopped process would keep SIGABRT pending

    def _condemn(self, why: str) -> None:
        """Nothing it says counts from here on, and it has a moment to end."""
        self._verdict = why
        self._kill_in(self._kill)

    def _kill_in(self, kill: Callable[[], None]) -> None:
        self._cancel_kill()
        self._kill_timer = self._loop.call_later(self._kill_after_s, kill)

    def _cancel_kill(self) -> None:
        if self._kill_timer is not None:
            self._kill_timer.cancel()

    def _kill(self) -> None:
        self._cancel_kill()
        if self._pidfd is None:
            return  # not made yet: `started` kills it, or the fork server's own deadline passes
        self._signal(signal.SIGKILL)
        self._kill_timer = self._loop.call_later(
            _REPORTED_WITHIN_S,
            lambda: self._forkserver.distrust(f"it did not report the end of pid {self.pid}"),
        )

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _open_output(self, priority: int) -> int:
        """A pipe whose lines we log; returns the end for the worker."""
        reading, writing = os.pipe()
        self._outputs.append(
            ChildOutput(
                self._loop,
                reading,
                lambda line: self._listener.process_log(f"worker (pid {self.pid}): {line}", priority),
            )
        )
        return writing

    def _release(self) -> None:
        self._cancel_kill()
        if self._deadline is not None:
            self._deadline.cancel()
        for output in self._outputs:
            output.close()
        if self._socket is not None:
            self._socket.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
