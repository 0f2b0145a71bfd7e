# SPDX-License-Identifier: GPL-2.0-or-later
"""Many TCP connections between two namespaces, each of which tells its congestion control.

    connections.py serve ADDRESS PORT
    connections.py make ADDRESS PORT COUNT CONCURRENT BYTES ALGORITHM SECONDS

`make` opens COUNT connections, at most CONCURRENT at a time, sends BYTES over each (again and again
until SECONDS have passed), closes it once everything has arrived, and prints the congestion control
after the connect and at the end, and whether its timeouts are linear then. With ALGORITHM not "-" it
asks for that one itself before it connects. `serve` prints "listening". Kernel tests call `serving()`
and `connect()`.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.kernel.namespaces import Namespace

PYTHON = "/usr/bin/python3"
PORT = 5301
CHUNK_BYTES = 1 << 16
BACKLOG = 4096
TCP_CA_NAME_MAX = 16
TCP_THIN_LINEAR_TIMEOUTS = 16


@dataclass(frozen=True, slots=True)
class Told:
    """A connection's congestion control when it was new and before it ended, and TCP_THIN_LINEAR_TIMEOUTS."""

    first: str
    last: str
    linear_timeouts: bool


@contextlib.contextmanager
def serving(where: Namespace, address: str, *, port: int = PORT) -> Iterator[None]:
    """Somebody in `where` drains every connection to `address`, all of them at once."""
    argv = where.command(PYTHON, __file__, "serve", address, str(port))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n", f"server in {where.name} did not start"
            yield
        finally:
            process.send_signal(signal.SIGKILL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Connections that are being made; `finish` waits for all of them."""

    process: subprocess.Popen[str]

    def finish(self) -> list[Told]:
        printed, _ = self.process.communicate()
        assert self.process.returncode == 0, f"client: exit {self.process.returncode}"
        words = [line.split() for line in printed.splitlines()]
        return [Told(first, last, linear == "1") for first, last, linear in words]


@contextlib.contextmanager
def connecting(
    where: Namespace,
    address: str,
    *,
    count: int = 1,
    payload_bytes: int = 1000,
    concurrent: int = 1,
    algorithm: str = "-",
    seconds: float = 0,
    port: int = PORT,
) -> Iterator[Client]:
    """Connections from `where`, under way during the block."""
    numbers = (port, count, concurrent, payload_bytes)
    argv = where.command(PYTHON, __file__, "make", address, *map(str, numbers), algorithm, str(seconds))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            yield Client(process=process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


def connect(where: Namespace, address: str, **options: int | float | str) -> list[Told]:
    """Make connections (see `connecting`) and wait for their end."""
    with connecting(where, address, **options) as client:  # type: ignore[arg-type]
        return client.finish()


def serve(address: str, port: str) -> None:
    selector = selectors.DefaultSelector()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, int(port)))
        listener.listen(BACKLOG)
        selector.register(listener, selectors.EVENT_READ)
        print("listening", flush=True)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    selector.register(listener.accept()[0], selectors.EVENT_READ)
                elif isinstance(key.fileobj, socket.socket) and not drain(key.fileobj):
                    selector.unregister(key.fileobj)
                    key.fileobj.close()


def drain(connection: socket.socket) -> int:
    try:
        return len(connection.recv(CHUNK_BYTES))
    except ConnectionResetError:
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What each connection of `make` does."""

    to: tuple[str, int]
    payload_bytes: int
    algorithm: str
    seconds: float

    def carry_out(self) -> str:
        family = socket.AF_INET6 if ":" in self.to[0] else socket.AF_INET
        end = time.monotonic() + self.seconds
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            if self.algorithm != "-":
                name = self.algorithm.encode()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)
            connection.connect(self.to)
            first = congestion_control(connection)
            payload = bytes(self.payload_bytes)
            connection.sendall(payload)
            while time.monotonic() < end:
                connection.sendall(payload)
            connection.shutdown(socket.SHUT_WR)
            # The server closes when it has everything.
            connection.recv(1)
            linear = connection.getsockopt(socket.IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS)
            return f"{first} {congestion_control(connection)} {linear}"


def make(plan: Plan, count: int, concurrent: int) -> None:
    with ThreadPoolExecutor(concurrent) as pool:
        for told in pool.map(lambda _: plan.carry_out(), range(count)):
            print(told)


def congestion_control(connection: socket.socket) -> str:
    name = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, TCP_CA_NAME_MAX)
    return name.partition(b"\0")[0].decode()


def main(verb: str, address: str, port: str, *rest: str) -> None:
    if verb == "serve":
        serve(address, port)
        return
    count, concurrent, payload_bytes, algorithm, seconds = rest
    plan = Plan(
        to=(address, int(port)),
        payload_bytes=int(payload_bytes),
        algorithm=algorithm,
        seconds=float(seconds),
    )
    make(plan, int(count), int(concurrent))


if __name__ == "__main__":
    main(*sys.argv[1:])
