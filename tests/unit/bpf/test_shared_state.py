# SPDX-License-Identifier: GPL-2.0-or-later
"""bpf/shared_state.py over maps that have room for so many entries."""

from __future__ import annotations

import errno
import os
from typing import Any, cast

import pytest

from bpftune.bpf import shared_state
from bpftune.bpf.shared_state import SharedState
from bpftune.ipc.declaration import Declaration, Scenario
from bpftune.ipc.errors import BpfError

ROOM = 2


class Kernel:
    """Stands for libbpf."""

    def __init__(self) -> None:
        self.maps: dict[str, dict[bytes, bytes]] = {}

    def possible_cpus(self) -> int:
        return 1

    def update(self, name: str, key: bytes, value: bytes) -> None:
        entries = self.maps.setdefault(name, {})
        if key not in entries and len(entries) == ROOM:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        entries[key] = value

    def delete(self, name: str, key: bytes) -> None:
        self.maps.get(name, {}).pop(key, None)


class Names(dict[str, str]):
    """Maps whose descriptors are their names."""

    def __missing__(self, name: str) -> str:
        return name


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(shared_state, "libbpf", kernel)
    return kernel


def declaration(name: str, scenarios: int) -> Declaration:
    made = [
        Scenario(id=f"s{number}", name="n", why="w", reason="r", event=["u32 x"])
        for number in range(scenarios)
    ]
    return Declaration(name=name, description="d", tunables=[], scenarios=made, probes=[])


def test_a_full_map_of_marks_is_said_once(kernel: Kernel) -> None:
    warnings: list[str] = []
    state = SharedState(cast("Any", Names()), warnings.append)
    for cookie in range(ROOM + 3):
        state.write_mark("shared_off", 1, cookie, present=True)
    assert len(warnings) == 1
    assert "shared_off is full" in warnings[0]
    state.write_mark("shared_off", 1, 0, present=False)
    state.write_mark("shared_off", 1, ROOM, present=True)
    assert len(kernel.maps["shared_off"]) == ROOM


def test_a_tuner_with_more_scenarios_than_there_are_counters_costs_itself_only(kernel: Kernel) -> None:
    state = SharedState(cast("Any", Names()), lambda text: None)
    state.add_counters(declaration("small", 1))
    with pytest.raises(BpfError, match="cannot count the events of 'large': there are too many scenarios"):
        state.add_counters(declaration("large", 3))
    assert len(kernel.maps["shared_counters"]) == 1
