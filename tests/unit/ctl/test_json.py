# SPDX-License-Identifier: GPL-2.0-or-later
"""The exact keys of --json: scripts rely on them. Keys may be added here, never taken away."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from bpftune.ctl.main import format_json
from bpftune.ipc.control import Failure, LogEvent, Reply
from tests.unit.ctl import recorded

NETNS = {"cookie", "inum", "name", "initial"}
HOOK = {"probe", "scenarios", "hook", "refused", "unused", "resting"}
CHANGE = {
    "id", "time_s", "tuner", "tunable", "netns", "old", "new", "scenario", "reason", "evidence", "outcome",
    "format",
}  # fmt: skip
SHAPES: list[tuple[Reply, dict[str, set[str]]]] = [
    (
        recorded.STATUS,
        {
            "": {
                "type", "version", "pid", "uptime_s", "mode", "learning_rate", "kernel", "support",
                "pss_bytes", "cpu_s", "ring_dropped", "tuners", "namespaces", "refused_folders",
                "changed_in", "rivals",
            },
            "tuners.0": {
                "name", "description", "state", "why", "folder", "pid", "uptime_s", "restarts", "events_in",
                "events_merged", "events_dropped", "changes", "last_change", "last_change_s", "hooks",
                "counters", "overrides", "write_latency_us", "left_alone", "pss_bytes", "cpu_s",
                "strategies",
            },
            "tuners.0.strategies.0": {"name", "description", "timeout_s", "active", "value"},
            "tuners.0.hooks.0": HOOK,
            "tuners.0.counters.0": {"scenario", "sent", "suppressed", "dropped"},
            "tuners.0.overrides.0": {"netns", "by", "tunable", "old", "new", "since_s"},
            "namespaces.0": NETNS,
            "changed_in.0": {"netns_cookie", "tunables"},
        },
    ),
    (
        recorded.TUNABLES,
        {
            "": {"type", "tunables"},
            "tunables.0": {
                "tunable", "tuner", "netns", "original", "current", "floor", "cap", "state", "format",
            },
            "tunables.0.netns": NETNS,
        },
    ),
    (
        recorded.SUMMARY,
        {"": {"type", "lines", "tables"}, "tables.0": {"title", "columns", "rows"}},
    ),
    (recorded.HISTORY, {"": {"type", "changes"}, "changes.0": CHANGE, "changes.0.netns": NETNS}),
    (
        recorded.EXPLAIN,
        {
            "": {"type", "change", "why", "text", "followed_by"},
            "change": CHANGE,
            "followed_by.0": CHANGE,
        },
    ),
    (recorded.DONE, {"": {"type", "lines"}}),
    (
        recorded.ROLLBACK,
        {
            "": {"type", "restored", "unknown"},
            "restored.0": {"tunable", "netns", "current", "original", "outcome", "format"},
        },
    ),
    (recorded.VERIFY, {"": {"type", "checked", "differences"}}),
    (recorded.EXPORT, {"": {"type", "settings"}}),
    (
        recorded.SUPPORT,
        {"": {"type", "supported", "lines", "hooks"}, "hooks.tcp_buffer.0": HOOK},
    ),
    (
        Failure(kind="UnknownName", message="no tuner 'x'", value="x", exit_code=2),
        {"": {"type", "kind", "message", "value", "exit_code"}},
    ),
]  # fmt: skip


def descend(document: Any, path: str) -> Any:
    for step in path.split(".") if path else []:
        document = document[int(step) if step.isdigit() else step]
    return document


@pytest.mark.parametrize(("reply", "shape"), SHAPES, ids=[type(reply).__name__ for reply, _ in SHAPES])
def test_keys_are_stable(reply: Reply, shape: dict[str, set[str]]) -> None:
    document = json.loads(format_json(reply))

    assert {path: set(descend(document, path)) for path in shape} == shape


def test_numbers_are_exact() -> None:
    document = json.loads(format_json(recorded.STATUS))

    assert document["tuners"][0]["pss_bytes"] == 4_823_449
    assert document["tuners"][0]["hooks"][1]["hook"] is None


def test_an_event_is_one_line() -> None:
    encoded = msgspec.json.encode(LogEvent(time_s=1, priority=5, message="a\nb"))

    assert b"\n" not in encoded
    assert set(json.loads(encoded)) == {
        "time_s", "priority", "message", "tuner", "tunable", "scenario", "netns", "old", "new", "change_id",
    }  # fmt: skip
