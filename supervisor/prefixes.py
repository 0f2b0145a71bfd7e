# SPDX-License-Identifier: GPL-2.0-or-later
"""How many hosts the addresses of network devices can have as neighbours.

Called by quantities.py inside the namespace of the devices. One RTM_GETADDR dump over rtnetlink:
/proc/net/route would be the whole routing table, and knows devices by name only.
"""

from __future__ import annotations

import socket
import struct
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

MAX_HOSTS = 1 << 20
"""What larger prefixes count as, every IPv6 /64 among them."""

# include/uapi/linux/rtnetlink.h, netlink.h and if_addr.h
_RTM_NEWADDR = 20
_RTM_GETADDR = 22
_NLM_F_DUMP_REQUEST = 0x301
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_IFA_ADDRESS = 1
_RT_SCOPE_HOST = 254
_HEADER = struct.Struct("=IHHII")
_IFADDR = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_BYTES = 1 << 16
_TIMEOUT_S = 1


class Address(NamedTuple):
    family: int
    device: int
    """ifindex"""
    prefix_length: int
    address: bytes


def read_prefix_hosts(family: socket.AddressFamily) -> dict[int, int]:
    """Hosts by ifindex in the calling thread's namespace; OSError when the kernel does not answer."""
    return prefix_hosts(read_addresses(family))


def prefix_hosts(addresses: list[Address]) -> dict[int, int]:
    """Sum over the distinct prefixes of each device, at most MAX_HOSTS."""
    prefixes: dict[int, set[tuple[int, int]]] = defaultdict(set)
    for one in addresses:
        host_bits = len(one.address) * 8 - one.prefix_length
        prefixes[one.device].add((host_bits, int.from_bytes(one.address, "big") >> host_bits))
    return {
        device: min(MAX_HOSTS, sum(1 << host_bits for host_bits, _ in found))
        for device, found in prefixes.items()
    }


def read_addresses(family: socket.AddressFamily) -> list[Address]:
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    ) as netlink:
        netlink.settimeout(_TIMEOUT_S)
        length = _HEADER.size + _IFADDR.size
        request = _HEADER.pack(length, _RTM_GETADDR, _NLM_F_DUMP_REQUEST, 1, 0)
        netlink.send(request + _IFADDR.pack(family, 0, 0, 0, 0))
        found: list[Address] = []
        done = False
        while not done:
            more, done = parse_addresses(netlink.recv(_RECEIVE_BYTES))
            found += more
        return found


def parse_addresses(data: bytes) -> tuple[list[Address], bool]:
    """The addresses in one datagram of a dump, and whether it was the last; OSError on an error in it.

    Loopback addresses (scope host) have no neighbours and are left out.
    """
    found: list[Address] = []
    position = 0
    while position + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, position)
        body = data[position + _HEADER.size : position + length]
        if kind == _NLMSG_ERROR:
            number = -struct.unpack_from("=i", body)[0]
            raise OSError(number, "rtnetlink refused the address dump")
        if kind == _NLMSG_DONE:
            return found, True
        if kind == _RTM_NEWADDR:
            found += _address(body)
        position += max(_HEADER.size, _aligned(length))
    return found, False


def _address(body: bytes) -> list[Address]:
    family, prefix_length, _, scope, device = _IFADDR.unpack_from(body)
    if scope == _RT_SCOPE_HOST:
        return []
    return [
        Address(family, device, prefix_length, value)
        for kind, value in _attributes(body[_IFADDR.size :])
        if kind == _IFA_ADDRESS
    ]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        yield kind, data[position + _ATTRIBUTE.size : position + length]
        position += max(_ATTRIBUTE.size, _aligned(length))


def _aligned(length: int) -> int:
    return (length + 3) & ~3
