# SPDX-License-Identifier: GPL-2.0-or-later
"""What the floor and cap formulas of a tunable come to, here and now.

Called by decision.py, for checking proposals and for the views of workers. A quantity is looked up
only when a formula names it, because some cost a system call or more.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bpftune.ipc.bounds import QUANTITIES, Formula, parse_bound
from bpftune.ipc.declaration import Tunable
from bpftune.ipc.errors import BpftuneError
from bpftune.ipc.messages import GLOBAL, Value
from bpftune.supervisor.memory import Memory
from bpftune.supervisor.netns import NetnsRegistry
from bpftune.supervisor.prefixes import read_prefix_hosts

_parse_bound = lru_cache(maxsize=1024)(parse_bound)

POSSIBLE_CPUS = Path("/sys/devices/system/cpu/possible")

ANYWHERE_NS = 1_000_000_000
"""For so long it holds what the largest prefix is among all namespaces, of which there may be thousands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    floor: Value
    cap: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The network device that a bound depends on."""

    netns_cookie: int
    ifindex: int
    """0: whichever device has the most hosts; with cookie GLOBAL, in any known namespace."""


class Quantities:
    def __init__(
        self, *, registry: NetnsRegistry, memory: Memory, possible_cpus: Path = POSSIBLE_CPUS
    ) -> None:
        self._registry = registry
        self._memory = memory
        self._possible_cpus = possible_cpus
        self._anywhere: dict[socket.AddressFamily, tuple[int, int]] = {}
        """The most hosts on any device, and when that was looked up."""

    @property
    def memory_bytes(self) -> int:
        return self._memory.bytes

    def bounds(self, tunable: Tunable, *, original: Value, current: Value, device: Device) -> Bounds:
        """Floor and cap of every field. Values are of the tunable's width."""
        sides = {side: _formulas(tunable, side) for side in ("floor", "cap")}
        known = [
            _Known(self, tunable=tunable, original=field, current=current, device=device)
            for field in original
        ]
        return Bounds(
            floor=tuple(formula(field) for formula, field in zip(sides["floor"], known, strict=True)),
            cap=tuple(formula(field) for formula, field in zip(sides["cap"], known, strict=True)),
        )

    def memory_pages(self) -> int:
        return self._memory.pages

    def all_cpus(self) -> int:
        return read_cpus(self._possible_cpus)

    def prefix_hosts(self, tunable: Tunable, device: Device) -> int:
        """Hosts in the prefixes on the device; 0 when it, its namespace or its addresses are gone."""
        family = socket.AF_INET6 if tunable.name.startswith("net.ipv6.") else socket.AF_INET
        if device.netns_cookie != GLOBAL or device.ifindex:
            return self._hosts(family, device.netns_cookie, device.ifindex)
        return self._hosts_anywhere(family)

    def _hosts_anywhere(self, family: socket.AddressFamily) -> int:
        """One look at every namespace serves all tunables of a view."""
        hosts, looked_ns = self._anywhere.get(family, (0, -ANYWHERE_NS))
        if time.monotonic_ns() - looked_ns >= ANYWHERE_NS:
            hosts = max(self._hosts(family, netns.cookie, 0) for netns in self._registry.known())
            self._anywhere[family] = hosts, time.monotonic_ns()
        return hosts

    def _hosts(self, family: socket.AddressFamily, cookie: int, ifindex: int) -> int:
        try:
            with self._registry.enter(cookie):
                hosts = read_prefix_hosts(family)
        except (BpftuneError, OSError):
            return 0
        return hosts.get(ifindex, 0) if ifindex else max(hosts.values(), default=0)


class _Known(Mapping[str, int]):
    """The quantities for one field of one tunable, looked up as they are asked for."""

    def __init__(
        self, owner: Quantities, *, tunable: Tunable, original: int, current: Value, device: Device
    ) -> None:
        self._owner = owner
        self._tunable = tunable
        self._original = original
        self._current = current
        self._device = device

    def __getitem__(self, quantity: str) -> int:
        match quantity:
            case "original":
                return self._original
            case "memory_pages":
                return self._owner.memory_pages()
            case "memory_bytes":
                return self._owner.memory_bytes
            case "all_cpus":
                return self._owner.all_cpus()
            case "prefix_hosts":
                return self._owner.prefix_hosts(self._tunable, self._device)
            case "field0" | "field1" | "field2":
                return self._current[int(quantity[-1])]
        raise KeyError(quantity)

    def __iter__(self) -> Iterator[str]:
        return iter(QUANTITIES)

    def __len__(self) -> int:
        return len(QUANTITIES)


def read_cpus(path: Path) -> int:
    """The mask of a CPU list such as "0-3,8"; 0 when it cannot be read, which refuses every bit."""
    try:
        text = path.read_text()
    except OSError:
        return 0
    mask = 0
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        mask |= (1 << int(last or first) + 1) - (1 << int(first))
    return mask


def _formulas(tunable: Tunable, side: str) -> list[Formula]:
    return [_parse_bound(text) for text in tunable.bounds(side)]
