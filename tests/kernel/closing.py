# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP connections that close, so that TIME-WAIT fills: what docs/example_tuner/time_wait looks at.

The quickest real traffic there is: each connection takes a moment, and an event may leave the
kernel every 25 ms. As a program, `closing.py [COUNT]` opens and closes COUNT connections, or goes
on until it is killed.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

if __name__ != "__main__":
    from tests.kernel.namespaces import Namespace

PYTHON = "/usr/bin/python3"
MAX_TW_BUCKETS = "net.ipv4.tcp_max_tw_buckets"
SMALL_LIMIT = 40
PAUSE_S = 0.001
"""Between two connections: ports must not run out before they may be used again, a second later."""


@contextlib.contextmanager
def closing(where: Namespace) -> Iterator[None]:
    """Connections close one after another inside the block."""
    argv = where.command(PYTHON, __file__)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "closing\n", f"closing.py in {where.name} did not start"
            yield
        finally:
            process.kill()


def close_connections(where: Namespace, count: int) -> None:
    where.run(PYTHON, __file__, str(count))


def limit_time_wait(where: Namespace, limit: int = SMALL_LIMIT) -> None:
    """Make it easy to near the limit; before bpftune looks, or it would be an administrator's doing."""
    where.write_sysctl(MAX_TW_BUCKETS, str(limit))


def main(count: str = "") -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print("closing", flush=True)
        for _ in range(int(count)) if count else itertools.count():
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
            client.close()
            server.close()
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
