# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a tuner has a worker process: starts one, restarts it after a crash, gives up in a crash loop.

Owned by worker.py, which is told of everything that concerns events and state.
"""

from __future__ import annotations

import os
import syslog
import time
from pathlib import Path
from typing import Protocol

import zmq

from bpftune.ipc.control import TunerState
from bpftune.ipc.declaration import Declaration
from bpftune.ipc.messages import ToSupervisor, ToWorker
from bpftune.supervisor.backoff import CRASHES_ALLOWED, WINDOW_S, Backoff
from bpftune.supervisor.forkserver import ForkServer
from bpftune.supervisor.loop import Loop, Timer
from bpftune.supervisor.worker_process import WorkerProcess
from bpftune.supervisor.worker_socket import prepare_folder


class LifecycleListener(Protocol):
    def connected(self) -> None:
        """A new process waits for its Start."""

    def said(self, message: ToSupervisor) -> None: ...

    def gone(self, *, crashed: bool) -> None:
        """The process is gone; what was under way with it is lost."""

    def log(self, text: str, priority: int) -> None: ...

    def state_changed(self) -> None: ...


class WorkerLifecycle:
    def __init__(
        self,
        *,
        declaration: Declaration,
        folder: Path,
        loop: Loop,
        forkserver: ForkServer,
        context: zmq.Context[zmq.Socket[bytes]],
        run_dir: Path,
        listener: LifecycleListener,
        answer_within_s: float,
        kill_after_s: float,
    ) -> None:
        self.state = TunerState.INACTIVE
        self.why = "not started"
        self.restarts = 0
        self._declaration = declaration
        self._folder = folder
        self._loop = loop
        self._forkserver = forkserver
        self._context = context
        self._sockets = prepare_folder(run_dir, declaration.name)
        self._listener = listener
        self._answer_within_s = answer_within_s
        self._kill_after_s = kill_after_s
        self._process: WorkerProcess | None = None
        self._wanted = False
        self._on_request = False
        self._unusable = ""
        self._backoff = Backoff()
        self._start_timer: Timer | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def started_ns(self) -> int:
        return self._process.started_ns if self._process else 0

    def start(self) -> None:
        if not self._wanted:
            self._wanted = True
            self._launch(TunerState.STARTING, "")

    def restart(self) -> None:
        self._wanted = True
        self._backoff.clear()
        if self._process is None:
            self._restart("restarted on request")
        else:
            self._on_request = True
            self._process.stop()

    def stop(self) -> None:
        self._wanted = False
        if self._process is None:
            self._stopped()
        else:
            self._process.stop()

    def ready(self) -> None:
        """The process answered its Start."""
        self._change(TunerState.ACTIVE, "")

    def send(self, message: ToWorker, *, owing: str = "") -> None:
        if self._process is not None:
            self._process.send(message, owing=owing)

    def paid(self, owing: str) -> bool:
        return self._process is not None and self._process.paid(owing)

    def give_up(self, why: str) -> None:
        """No process of it can work: the tuner has failed."""
        self._unusable = why
        self.kill(why)

    def kill(self, why: str) -> None:
        if self._process is not None:
            self._process.kill(why)

    # From the process.

    def process_connected(self) -> None:
        self._listener.connected()

    def process_said(self, message: ToSupervisor) -> None:
        self._listener.said(message)

    def process_log(self, text: str, priority: int) -> None:
        self._listener.log(text, priority)

    def process_ended(self, how: str) -> None:
        pid, self._process = self.pid, None
        on_request, self._on_request = self._on_request, False
        unusable, self._unusable = self._unusable, ""
        self._listener.gone(crashed=self._wanted and not on_request and not unusable)
        if not self._wanted:
            self._stopped()
        elif on_request:
            self._restart("restarted on request")
        elif unusable:
            self._change(TunerState.FAILED, unusable)
        else:
            self._crashed(f"worker (pid {pid}) ended: {how}" if pid else f"no worker: {how}")

    def _launch(self, state: TunerState, why: str) -> None:
        self._cancel_start()
        self._change(state, why)
        process = WorkerProcess(
            loop=self._loop,
            forkserver=self._forkserver,
            listener=self,
            answer_within_s=self._answer_within_s,
            kill_after_s=self._kill_after_s,
        )
        self._process = process
        # Other workers are the same user: one that guessed the name could come first and be in the way.
        path = self._sockets / f"{self._declaration.name}.{os.urandom(4).hex()}.sock"
        try:
            process.start(self._declaration, self._folder, path, self._context)
        except OSError as error:
            self.process_ended(str(error))

    def _restart(self, why: str) -> None:
        self.restarts += 1
        self._launch(TunerState.RESTARTING, why)

    def _crashed(self, how: str) -> None:
        delay_s = self._backoff.crashed(time.monotonic_ns())
        if delay_s is None:
            why = f"more than {CRASHES_ALLOWED} crashes in {WINDOW_S} s, the last one: {how}"
            self._change(TunerState.FAILED, why)
            return
        self._listener.log(f"{how}; starting it again in {delay_s:g} s", syslog.LOG_WARNING)
        self._start_timer = self._loop.call_later(delay_s, lambda: self._restart(how))
        self._change(TunerState.RESTARTING, how)

    def _stopped(self) -> None:
        self._cancel_start()
        self._change(TunerState.INACTIVE, "stopped")

    def _cancel_start(self) -> None:
        if self._start_timer is not None:
            self._start_timer.cancel()

    def _change(self, state: TunerState, why: str) -> None:
        self.state, self.why = state, why
        self._listener.state_changed()
