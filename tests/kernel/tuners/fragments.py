# SPDX-License-Identifier: GPL-2.0-or-later
"""Fragments out of a raw socket, as a program for any Python; needs root.

    fragments.py ADDRESS PER_SECOND [--finished COUNT]

Sends PER_SECOND datagrams a second of which only the first fragment ever comes, and for each of them
COUNT datagrams in two fragments, until it is killed.
"""

from __future__ import annotations

import argparse
import itertools
import socket
import struct
import time
from collections.abc import Callable, Iterator

PAYLOAD = bytes(1000)
MORE_FRAGMENTS = 0x2000
UDP_HEADER = struct.pack(">HHHH", 9, 9, 2 * len(PAYLOAD), 0)
IPPROTO_FRAGMENT = 44

Fragment = Callable[[int, int, bool], bytes]


def ipv4_fragment(destination: str) -> Fragment:
    address = socket.inet_aton(destination)

    def make(identification: int, offset: int, more: bool) -> bytes:
        flags = (MORE_FRAGMENTS if more else 0) | offset // 8
        length = 20 + len(PAYLOAD)
        head = struct.pack(
            ">BBHHHBBH4s4s", 0x45, 0, length, identification & 0xFFFF, flags, 64, 17, 0, bytes(4), address
        )
        return head + payload(offset)

    return make


def ipv6_fragment(identification: int, offset: int, more: bool) -> bytes:
    return struct.pack(">BBHI", 17, 0, offset | more, identification) + payload(offset)


def payload(offset: int) -> bytes:
    return PAYLOAD if offset else UDP_HEADER + PAYLOAD[len(UDP_HEADER) :]


def ticks(per_second: int) -> Iterator[None]:
    """One per datagram."""
    start = time.monotonic()
    for count in itertools.count(1):
        yield
        time.sleep(max(0.0, count / per_second - (time.monotonic() - start)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("per_second", type=int)
    parser.add_argument("--finished", type=int, default=0)
    given = parser.parse_args()
    ipv6 = ":" in given.address
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    protocol = IPPROTO_FRAGMENT if ipv6 else socket.IPPROTO_RAW
    make: Fragment = ipv6_fragment if ipv6 else ipv4_fragment(given.address)
    identification = itertools.count(1)
    with socket.socket(family, socket.SOCK_RAW, protocol) as sender:
        for _ in ticks(given.per_second):
            sender.sendto(make(next(identification), 0, True), (given.address, 0))
            for _ in range(given.finished):
                number = next(identification)
                sender.sendto(make(number, 0, True), (given.address, 0))
                sender.sendto(make(number, len(PAYLOAD), False), (given.address, 0))


if __name__ == "__main__":
    main()
