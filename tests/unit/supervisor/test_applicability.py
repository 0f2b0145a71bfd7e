# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from bpftune.ipc.control import HookStatus
from bpftune.ipc.declaration import Declaration, InactiveWhen, Scope, Tunable
from bpftune.ipc.messages import Value
from bpftune.supervisor.applicability import inactive_reason, unused_hooks

WHY = "the limit does nothing"


def declaration(at_least: int) -> Declaration:
    return Declaration(
        name="example",
        description="d",
        tunables=[Tunable(name="net.ipv6.route.max_size", scope=Scope.NETNS)],
        scenarios=[],
        probes=[],
        inactive_when=[InactiveWhen(tunable="net.ipv6.route.max_size", at_least=at_least, why=WHY)],
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [((4096,), None), ((2**31 - 1,), WHY), (None, None)],
    ids=["less", "reached", "absent"],
)
def test_the_value_decides(value: Value | None, reason: str | None) -> None:
    assert inactive_reason(declaration(2**31 - 1), read=lambda tunable: value) == reason


def test_no_table_no_reason() -> None:
    nothing = Declaration(name="example", description="d", tunables=[], scenarios=[], probes=[])
    assert inactive_reason(nothing) is None


def test_probes_of_no_use_have_no_hook() -> None:
    status = HookStatus(probe="p", scenarios=["s"], hook="tp_btf:x", refused={"fentry:x": "no"})
    (unused,) = unused_hooks([status], WHY)
    assert (unused.probe, unused.scenarios, unused.hook, unused.unused) == ("p", ["s"], None, WHY)
