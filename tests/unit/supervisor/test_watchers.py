# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of the watchers are attached, and what is said where the kernel refuses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest

from bpftune.bpf.runtime import Bpf, ProbeSource
from bpftune.ipc.control import HookStatus
from bpftune.ipc.errors import BpfError, CompileError, NotSupported
from bpftune.supervisor.watchers import NETNS, NETNS_CALLS, SYSCTL, Watchers

REFUSED = {"fexit:x": "refused by the kernel: EPERM"}


@dataclass(kw_only=True)
class FakeBpf:
    """Accepts every hook but those of the watchers in `refuses`; compiles all but `broken`."""

    refuses: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    attached: list[str] = field(default_factory=list)

    def load(self, sources: Sequence[ProbeSource]) -> dict[str, BpfError]:
        names = [source.declaration.name for source in sources]
        return {name: CompileError(f"cannot compile {name}") for name in names if name in self.broken}

    def attach(self, name: str) -> list[HookStatus]:
        self.attached.append(name)
        refused = name in self.refuses
        return [
            HookStatus(
                probe="probe",
                scenarios=[],
                hook=None if refused else "fexit:x",
                refused=REFUSED if refused else {},
            )
        ]


def watch(bpf: FakeBpf, *, legacy: bool = False) -> list[str]:
    """What is warned of."""
    warnings: list[str] = []
    assert Watchers(cast("Bpf", bpf), warnings.append, legacy=legacy).load_with([]) == {}
    return warnings


def test_the_kernels_own_function_is_enough() -> None:
    bpf = FakeBpf()
    assert watch(bpf) == []
    assert bpf.attached == [SYSCTL, NETNS]


@pytest.mark.parametrize("bpf", [FakeBpf(refuses={NETNS}), FakeBpf(broken={NETNS})])
def test_where_it_is_not_to_be_had_the_calls_are_watched(bpf: FakeBpf) -> None:
    assert watch(bpf) == []
    assert bpf.attached[-1] == NETNS_CALLS


def test_with_legacy_hooks_only_the_calls_are_watched() -> None:
    bpf = FakeBpf()
    assert watch(bpf, legacy=True) == []
    assert bpf.attached == [SYSCTL, NETNS_CALLS]
    assert watch(FakeBpf(refuses={NETNS_CALLS}), legacy=True) == [
        "new network namespaces are noticed late: fexit:x: refused by the kernel: EPERM"
    ]


def test_where_neither_is_to_be_had_it_is_said_once() -> None:
    assert watch(FakeBpf(refuses={NETNS, NETNS_CALLS})) == [
        "new network namespaces are noticed late: fexit:x: refused by the kernel: EPERM"
    ]
    assert watch(FakeBpf(broken={NETNS, NETNS_CALLS})) == [
        "new network namespaces are noticed late: cannot compile watch_netns_calls"
    ]


@pytest.mark.parametrize("bpf", [FakeBpf(refuses={SYSCTL}), FakeBpf(broken={SYSCTL})])
def test_without_the_watcher_of_sysctls_nothing_runs(bpf: FakeBpf) -> None:
    with pytest.raises(NotSupported, match="cannot watch sysctl writes: "):
        watch(bpf)


def test_they_are_attached_once() -> None:
    bpf = FakeBpf()
    watchers = Watchers(cast("Bpf", bpf), pytest.fail, legacy=False)
    watchers.load_with([])
    watchers.load_with([])
    assert bpf.attached == [SYSCTL, NETNS]
