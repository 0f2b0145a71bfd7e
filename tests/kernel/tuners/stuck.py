# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections that hold as much memory as they get: nobody reads, and the sender goes on until it may not.

    stuck.py ADDRESS PORT COUNT

Opens one after another, prints "stuck" when all are full, and holds them until it is killed.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time

CHUNK = bytes(1 << 16)


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
