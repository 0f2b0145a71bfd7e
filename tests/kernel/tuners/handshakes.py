# SPDX-License-Identifier: GPL-2.0-or-later
"""Handshakes in all ways, as a program that goes on until it is killed.

handshakes.py listen ADDRESS PORT BACKLOG       accepts and closes
handshakes.py connect ADDRESS PORT COUNT        so many at once, again and again, and finishes them
handshakes.py syns ADDRESS PORT PER_SECOND      from addresses in 10.99/16 that never answer
handshakes.py acks ADDRESS PORT PER_SECOND      from there too, for connections that there never were

Kernel tests call `running()` and `listening()`.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.kernel.namespaces import Namespace, Pair

PYTHON = "/usr/bin/python3"
PORT = 7100
ROOMY = 4096
"""A listen(2) limit that nothing here reaches."""
SYN, ACK = 0x02, 0x10
CONNECTED_WITHIN_S = 8
FORGED = (10 << 24) + (99 << 16)


def running(
    where: Namespace, mode: str, address: str, number: int
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return where.running(PYTHON, __file__, mode, address, str(PORT), str(number))


@contextlib.contextmanager
def listening(where: Pair, backlog: int) -> Iterator[None]:
    """In b; what has a forged source is answered to a, which has no use for it."""
    where.b.run("ip", "route", "add", "10.99.0.0/16", "via", where.a_ipv4)
    with running(where.b, "listen", where.b_ipv4, backlog) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        yield


def listen(address: str, port: int, backlog: int) -> None:
    listener = socket.create_server((address, port), backlog=backlog)
    print("listening", flush=True)
    while True:
        listener.accept()[0].close()


def connect(address: str, port: int, count: int) -> None:
    while True:
        with selectors.DefaultSelector() as selector:
            for _ in range(count):
                connection = socket.socket()
                connection.setblocking(False)
                connection.connect_ex((address, port))
                selector.register(connection, selectors.EVENT_WRITE)
            end = time.monotonic() + CONNECTED_WITHIN_S
            while selector.get_map() and time.monotonic() < end:
                for key, _ in selector.select(0.1):
                    selector.unregister(key.fileobj)
                    assert isinstance(key.fileobj, socket.socket)
                    key.fileobj.close()


def forge(address: str, port: int, per_second: int, flags: int) -> None:
    sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    to = socket.inet_aton(address)
    chance = random.Random(1)
    while True:
        for _ in range(max(1, per_second // 100)):
            source = struct.pack("!I", FORGED + chance.randrange(1, 1 << 16))
            sender.sendto(packet(source, to, port, flags, chance), (address, 0))
        time.sleep(0.01)


def packet(source: bytes, to: bytes, port: int, flags: int, chance: random.Random) -> bytes:
    """IPv4 and TCP headers; the kernel fills in the checksum of the former."""
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, socket.IPPROTO_TCP, 0, source, to)
    fields = (
        chance.randrange(1024, 65536),
        port,
        chance.getrandbits(32),
        chance.getrandbits(32),
        0x50,
        flags,
    )
    tcp = struct.pack("!HHIIBBHHH", *fields, 65535, 0, 0)
    pseudo = struct.pack("!4s4sBBH", source, to, 0, socket.IPPROTO_TCP, len(tcp))
    return ip + tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]


def checksum(data: bytes) -> int:
    words: tuple[int, ...] = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


MODES: dict[str, Callable[[str, int, int], None]] = {
    "listen": listen,
    "connect": connect,
    "syns": lambda address, port, rate: forge(address, port, rate, SYN),
    "acks": lambda address, port, rate: forge(address, port, rate, ACK),
}

if __name__ == "__main__":
    MODES[sys.argv[1]](sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
