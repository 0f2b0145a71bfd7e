# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections that hold as much memory as they get: nobody reads, and the sender goes on until it may not.

    stuck.py ADDRESS PORT COUNT

Opens one after another, prints "stuck" when all are full, and holds them until it is killed. Kernel tests
call `stuck()`.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.kernel.namespaces import Namespace

PYTHON = "/usr/bin/python3"
PORT = 7000
CHUNK = bytes(1 << 16)


@contextlib.contextmanager
def stuck(where: Namespace, connections: int) -> Iterator[None]:
    """Connections that hold all the memory that they get."""
    with where.running(PYTHON, __file__, "127.0.0.1", str(PORT), str(connections)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck\n"
        yield


def fill(connection: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            connection.send(CHUNK)


def main() -> None:
    address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    listener = socket.create_server((address, port), backlog=count)
    held = []
    for _ in range(count):
        client = socket.create_connection((address, port))
        client.setblocking(False)
        held.append((client, listener.accept()))
        for _ in range(20):
            fill(client)
            time.sleep(0.002)
    print("stuck", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main()
