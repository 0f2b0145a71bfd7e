# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from bpftune.ipc.control import HookStatus
from bpftune.supervisor.support import Support, format_hook_table, judge_support


def status(hook: str | None, **refused: str) -> HookStatus:
    return HookStatus(probe="p", scenarios=["s"], hook=hook, refused=refused)


@pytest.mark.parametrize(
    ("hooks", "expected"),
    [
        (["tp_btf:x", "sockops"], Support.FULL),
        (["tp_btf:x", "kprobe:x"], Support.LEGACY),
        (["tp_btf:x", "poll:/proc/net/x"], Support.LEGACY),
        (["tp_btf:x", None], Support.LEGACY),
        ([None, None], Support.NONE),
        ([], Support.NONE),
    ],
)
def test_support_follows_from_the_hooks_in_use(hooks: list[str | None], expected: Support) -> None:
    assert judge_support({"t": [status(hook) for hook in hooks]}) is expected


def test_the_table_says_why_a_better_rung_is_not_used() -> None:
    lines = format_hook_table({"tcp_buffer": [status("kprobe:f", **{"fentry:f": "not permitted"})]})
    assert lines[1].split() == ["tcp_buffer", "s", "kprobe:f"]
    assert lines[2].strip() == "not fentry:f: not permitted"


def test_a_tuner_of_no_use_takes_nothing_away_and_says_why() -> None:
    unused = HookStatus(probe="p", scenarios=["s"], hook=None, refused={}, unused="the limit does nothing")
    hooks = {"tcp_buffer": [status("tp_btf:x")], "route_table": [unused]}
    assert judge_support(hooks) is Support.FULL
    lines = [line.split(maxsplit=2) for line in format_hook_table(hooks)]
    assert ["route_table", "s", "none"] in lines
    assert ["inactive:", "the", "limit does nothing"] in lines


def test_a_probe_without_a_scenario_is_named_when_it_was_refused() -> None:
    helping = HookStatus(probe="gateway", scenarios=[], hook=None, refused={"sockops": "unknown func"})
    silent = HookStatus(probe="adopt", scenarios=[], hook="iter:tcp", refused={})
    _head, *lines = format_hook_table({"tcp_conn": [helping, silent]})
    assert [line.split(maxsplit=2) for line in lines] == [
        ["tcp_conn", "(gateway)", "none"],
        ["not", "sockops:", "unknown func"],
    ]
