# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from bpftune.ipc.declaration import parse_hook


@pytest.mark.parametrize("text", ["tp_btf", "sockops", "cgroup:sysctl", "iter:tcp", "tracepoint:syscalls/x"])
def test_hooks_print_as_they_are_written(text: str) -> None:
    assert str(parse_hook(text)) == text


def test_a_rung_may_name_its_body() -> None:
    hook = parse_hook("kprobe:inet_frag_find(1)@find")

    assert (hook.target, hook.arguments, hook.body) == ("inet_frag_find", (1,), "find")
    assert str(hook) == "kprobe:inet_frag_find"
