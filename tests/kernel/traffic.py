# SPDX-License-Identifier: GPL-2.0-or-later
"""Real TCP traffic between two namespaces: a receiver that stays, senders that end.

Kernel tests and tools/bench.py call it; bulk.py is the program that moves the bytes.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.namespaces import Namespace
from tests.waiting import SCALE

PYTHON = "/usr/bin/python3"
PROGRAM = str(Path(__file__).with_name("bulk.py"))
PORT = 5201


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """A listening process that drains every connection made to it."""

    address: str
    port: int
    process: subprocess.Popen[str]


@contextlib.contextmanager
def receiver(
    where: Namespace, address: str, *, port: int = PORT, rcvbuf_bytes: int = 0, pause_ms: int = 0
) -> Iterator[Receiver]:
    """A receiver that listens; `rcvbuf_bytes` locks its buffer, `pause_ms` makes it read slowly."""
    options = ["--rcvbuf", str(rcvbuf_bytes), "--pause-ms", str(pause_ms)]
    with _process(where, "receive", address, str(port), *options) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "listening\n", f"receiver in {where.name} did not start"
        yield Receiver(address=address, port=port, process=process)


@contextlib.contextmanager
def sending(
    where: Namespace, to: Receiver, *, seconds: float, sndbuf_bytes: int = 0
) -> Iterator[subprocess.Popen[str]]:
    """A bulk sender that runs during the block, `seconds` at most."""
    options = ["--sndbuf", str(sndbuf_bytes)]
    with _process(where, "send", to.address, str(to.port), str(seconds), *options) as process:
        yield process


def send(where: Namespace, to: Receiver, *, seconds: float, sndbuf_bytes: int = 0) -> int:
    """Send for `seconds` and return how many bytes the kernel took."""
    with sending(where, to, seconds=seconds, sndbuf_bytes=sndbuf_bytes) as process:
        printed, _ = process.communicate(timeout=(seconds + 10) * SCALE)
        assert process.returncode == 0, f"sender in {where.name}: exit {process.returncode}"
        return int(printed)


@contextlib.contextmanager
def _process(where: Namespace, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        where.command(PYTHON, PROGRAM, *arguments),
        stdout=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
