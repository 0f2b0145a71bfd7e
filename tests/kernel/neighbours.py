# SPDX-License-Identifier: GPL-2.0-or-later
"""Neighbour entries by the thousand: added over rtnetlink or by traffic, counted, flushed.

Kernel tests call it. The tables are global, so counts include what others put there.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.namespaces import Namespace, namespace, read_sysctl
from tests.waiting import wait_for

# include/uapi/linux/rtnetlink.h, netlink.h and neighbour.h
RTM_NEWNEIGH = 28
REQUEST_ACK_CREATE_REPLACE = 0x1 | 0x4 | 0x400 | 0x100
NUD_REACHABLE = 2
NDA_DST, NDA_LLADDR = 1, 2
NLMSG_ERROR = 2
HEADER = struct.Struct("=IHHII")

DEVICE = "neigh0"
FEW = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    number: socket.AddressFamily
    option: str
    statistics: str
    sysctls: str
    interface: str
    """Address and prefix length of the test's device."""

    def thresholds(self) -> list[int]:
        """gc_thresh1, 2, 3."""
        return [int(read_sysctl(f"{self.sysctls}{number}")) for number in (1, 2, 3)]

    def counts(self) -> tuple[int, int]:
        """Entries in the table, and how many the kernel has refused so far."""
        rows = [line.split() for line in Path("/proc/net/stat", self.statistics).read_text().splitlines()]
        fulls = rows[0].index("table_fulls")
        return int(rows[1][0], 16), sum(int(row[fulls], 16) for row in rows[1:])

    def address(self, number: int) -> str:
        """One of the interface's neighbours."""
        return str(ipaddress.ip_interface(self.interface).ip + 1 + number)


ARP = Family(
    number=socket.AF_INET,
    option="-4",
    statistics="arp_cache",
    sysctls="net.ipv4.neigh.default.gc_thresh",
    interface="10.77.0.1/16",
)
ND = Family(
    number=socket.AF_INET6,
    option="-6",
    statistics="ndisc_cache",
    sysctls="net.ipv6.neigh.default.gc_thresh",
    interface="fd77::1/64",
)


@contextlib.contextmanager
def crowd(*interfaces: str) -> Iterator[Namespace]:
    """A namespace with a device that has those addresses and, at the far end, nobody.

    At the end of the block its neighbours are gone, which a deleted namespace takes a while for.
    """
    with namespace("crowd") as made:
        made.run("ip", "link", "add", DEVICE, "type", "veth", "peer", "name", "far0")
        for interface in interfaces:
            nodad = ["nodad"] if ":" in interface else []
            made.run("ip", "address", "add", interface, "dev", DEVICE, *nodad)
        made.run("ip", "link", "set", DEVICE, "up")
        made.run("ip", "link", "set", "far0", "up")
        yield made
    wait_for(lambda: max(family.counts()[0] for family in (ARP, ND)) < FEW, 10, "tables nearly empty")


SLEEPABLE_NS = 100_000
"""Twice the slack that the kernel allows itself with timers."""


def add(where: Namespace, family: Family, count: int, *, pace_us: float = 0) -> int:
    """Add reachable entries one by one, at least `pace_us` apart; how many the kernel refused."""
    with where.entered():
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        index = socket.if_nametoindex(DEVICE)
    messages = [_new_neighbour(family, index, number) for number in range(count)]
    refused = 0
    with netlink:
        start_ns = time.perf_counter_ns()
        for number, message in enumerate(messages):
            _wait_until(start_ns + round(number * pace_us * 1000))
            netlink.send(message)
            refused += _read_error(netlink.recv(4096)) == errno.ENOBUFS
    return refused


def _wait_until(at_ns: int) -> None:
    """Asleep where that is exact enough: on an emulated machine who turns in circles keeps others waiting."""
    while (left_ns := at_ns - time.perf_counter_ns()) > 0:
        if left_ns > SLEEPABLE_NS:
            time.sleep(left_ns / 1e9)


def flush(where: Namespace, family: Family) -> None:
    where.run("ip", family.option, "neighbour", "flush", "dev", DEVICE)


def _new_neighbour(family: Family, index: int, number: int) -> bytes:
    attributes = _attribute(NDA_DST, socket.inet_pton(family.number, family.address(number)))
    attributes += _attribute(NDA_LLADDR, b"\x02\0" + number.to_bytes(4, "big"))
    body = struct.pack("=BxxxiHBB", family.number, index, NUD_REACHABLE, 0, 0) + attributes
    length = HEADER.size + len(body)
    return HEADER.pack(length, RTM_NEWNEIGH, REQUEST_ACK_CREATE_REPLACE, number + 1, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _read_error(answer: bytes) -> int:
    """The errno in an acknowledgement, 0 for success; anything but a refusal fails the test."""
    _, kind, _, _, _ = HEADER.unpack_from(answer)
    assert kind == NLMSG_ERROR
    number = -int(struct.unpack_from("=i", answer, HEADER.size)[0])
    assert number in (0, errno.ENOBUFS), errno.errorcode[number]
    return number
