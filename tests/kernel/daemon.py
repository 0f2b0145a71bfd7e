# SPDX-License-Identifier: GPL-2.0-or-later
"""A real `bpftune -s` under test: started, watched line by line, asked, stopped.

Kernel tests, process tests and tools/bench.py call it. Every daemon has its own state and run
directory, and is gone with all its processes at the end of the block whatever happened in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.waiting import SCALE, wait_for

SCRIPTS = Path(sys.executable).parent
BPFTUNE = str(SCRIPTS / "bpftune")
BPFTUNE_CTL = str(SCRIPTS / "bpftune-ctl")
SETTLED = ("active", "inactive")
"""A tuner is inactive where the kernel has nothing for it to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a daemon ended. `summary` are its lines since it was told to stop."""

    exit_code: int
    lines: list[str]
    summary: list[str]


class Daemon:
    """One `bpftune -s` process, leader of its own process group."""

    def __init__(
        self, *arguments: str, directory: Path, notify: bool = True, wrapper: Sequence[str] = ()
    ) -> None:
        """`wrapper`: a command that ends by calling exec(2) on the one behind it."""
        self.state_dir = directory / "state"
        self.run_dir = directory / "run"
        self._ready_socket = _notify_socket(directory) if notify else None
        self._lines: list[str] = []
        self._arrived = threading.Condition()
        self._cursor = 0
        self._family: set[psutil.Process] = set()
        self.started_ns = time.monotonic_ns()
        self.process = subprocess.Popen(
            [*wrapper, BPFTUNE, "-s", "--state-dir", self.state_dir, "--run-dir", self.run_dir, *arguments],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env=self._environment(),
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def lines(self) -> list[str]:
        """Everything it has logged so far."""
        with self._arrived:
            return list(self._lines)

    def wait_ready(self, timeout_s: float = 20) -> int:
        """Wait for READY=1 of sd_notify(3); nanoseconds since the start."""
        assert self._ready_socket is not None, "started with notify=False"
        deadline = time.monotonic() + timeout_s * SCALE
        while True:
            self._ready_socket.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in self._ready_socket.recv(4096):
                    return time.monotonic_ns() - self.started_ns
            assert self.process.poll() is None, f"daemon ended before it was ready: {self._said()}"
            assert time.monotonic() < deadline, f"daemon not ready within {timeout_s} s: {self._said()}"

    def wait_line(self, pattern: str, timeout_s: float = 10) -> re.Match[str]:
        """The next line, after the one that the last call found, that matches `pattern`."""
        deadline = time.monotonic() + timeout_s * SCALE
        with self._arrived:
            while True:
                found = self._search(pattern)
                if found is not None:
                    return found
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"no line '{pattern}' within {timeout_s} s: {self._said()}"
                self._arrived.wait(left_s)

    def ctl(self, *arguments: str) -> Any:
        """The decoded answer of `bpftune-ctl --json`; AssertionError when it fails."""
        done = self.run_ctl(*arguments, "--json")
        assert done.returncode == 0, f"bpftune-ctl {' '.join(arguments)}: {done.stderr.strip()}"
        return json.loads(done.stdout)

    def run_ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run bpftune-ctl against this daemon, for its exit code and its text."""
        return subprocess.run(
            [BPFTUNE_CTL, "--run-dir", self.run_dir, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=30 * SCALE,
            stdin=subprocess.DEVNULL,
        )

    def tuners(self) -> dict[str, Any]:
        """By name, their entries in `bpftune-ctl status --json`."""
        return {tuner["name"]: tuner for tuner in self.ctl("status")["tuners"]}

    def tuner(self, name: str) -> Any:
        return self.tuners()[name]

    def wait_active(self) -> dict[str, Any]:
        """Wait until every tuner that can work here has a worker that is ready; these tuners."""

        def waiting() -> list[str]:
            return [name for name, tuner in self.tuners().items() if tuner["state"] not in SETTLED]

        wait_for(lambda: not waiting(), 5, "all tuners are active")
        return {name: tuner for name, tuner in self.tuners().items() if tuner["state"] == "active"}

    def family(self) -> set[psutil.Process]:
        """Supervisor, fork server, workers, compiler: all that was seen alive at any call of this."""
        if self.process.poll() is None:
            supervisor = psutil.Process(self.pid)
            self._family |= {supervisor, *supervisor.children(recursive=True)}
        return self._family

    def stop(self, signum: int = signal.SIGTERM, timeout_s: float = 15) -> Ended:
        """Signal the supervisor and wait for its end."""
        before = len(self.lines)
        self.family()
        self.process.send_signal(signum)
        exit_code = self.process.wait(timeout_s * SCALE)
        self._reader.join(5 * SCALE)
        lines = self.lines
        return Ended(exit_code=exit_code, lines=lines, summary=lines[before:])

    def kill_all(self) -> None:
        """SIGKILL to everything at once, as the OOM killer or an administrator in a hurry would."""
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(10 * SCALE)

    def survivors(self, timeout_s: float = 5) -> list[psutil.Process]:
        """What of the family is still there after its supervisor ended; it gets a moment to go."""
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not self._alive(), timeout_s, "all processes ended")
        return self._alive()

    def close(self) -> None:
        problem = self._stop_at_last()
        self.kill_all()
        self._reader.join(5 * SCALE)
        if self.process.stderr is not None and not self._reader.is_alive():
            self.process.stderr.close()
        if self._ready_socket is not None:
            self._ready_socket.close()
        assert not problem, f"{problem}: {self._said()}"

    def _stop_at_last(self) -> str:
        """What was wrong with its end. A supervisor that does not come to it tells where it hangs."""
        if self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGABRT)
                self.process.wait(5 * SCALE)
                return "daemon did not stop"
        left = self.survivors()
        return f"processes outlived their supervisor: {left}" if left else ""

    def _alive(self) -> list[psutil.Process]:
        return [process for process in self._family if _is_alive(process)]

    def _environment(self) -> dict[str, str]:
        environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
        environment.pop("NOTIFY_SOCKET", None)
        if self._ready_socket is not None:
            environment["NOTIFY_SOCKET"] = self._ready_socket.getsockname()
        return environment

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._arrived:
                self._lines.append(line.rstrip("\n"))
                self._arrived.notify_all()

    def _search(self, pattern: str) -> re.Match[str] | None:
        for position in range(self._cursor, len(self._lines)):
            found = re.search(pattern, self._lines[position])
            if found is not None:
                self._cursor = position + 1
                return found
        return None

    def _said(self) -> str:
        return "\n".join(self._lines[-30:]) or "it said nothing"


@contextlib.contextmanager
def running(
    *arguments: str, directory: Path, notify: bool = True, wrapper: Sequence[str] = ()
) -> Iterator[Daemon]:
    """A daemon that is ready (or, without `notify`, merely started) and ends with the block."""
    daemon = Daemon(*arguments, directory=directory, notify=notify, wrapper=wrapper)
    try:
        if notify:
            daemon.wait_ready()
        yield daemon
    finally:
        daemon.close()


def _notify_socket(directory: Path) -> socket.socket:
    directory.mkdir(parents=True, exist_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = directory / f"notify-{time.monotonic_ns()}"
    listening.bind(str(path))
    return listening


def _is_alive(process: psutil.Process) -> bool:
    """A zombie has ended: it only waits for somebody to take note."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
