# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftune.ipc.declaration import Format, Scope, Tunable
from bpftune.ipc.messages import Value
from bpftune.ipc.record import Event
from bpftune.supervisor.known_values import Known
from bpftune.supervisor.sysctl_write import (
    SysctlWrite,
    Verdict,
    decode_sysctl_write,
    judge_write,
    wanted_value,
)

RMEM = Tunable(name="net.ipv4.tcp_rmem", scope=Scope.NETNS, width=3)
MASK = Tunable(name="net.core.flow_limit_cpu_bitmap", scope=Scope.GLOBAL, format=Format.CPUMASK)
BEFORE = (1, 2, 3)
WRITE = SysctlWrite(
    time_ns=1000,
    netns_cookie=7,
    netns_inum=8,
    pid=12,
    uid=0,
    comm="bash",
    key="net/ipv4/tcp_rmem",
    new="1 2 4\n",
    current="1\t2\t3\n",
    file_pos=0,
)


def padded(text: bytes, size: int) -> tuple[int, ...]:
    return tuple(text.ljust(size, b"\0"))


def test_decoding() -> None:
    event = Event(
        "sysctl_write",
        1000,
        7,
        0,
        {"pid": 12, "uid": 0, "file_pos": 0, "new_length": 6, "current_length": 6},
        {
            "comm": padded(b"bash", 16),
            "key": padded(b"net/ipv4/tcp_rmem", 96),
            "new_value": padded(b"1 2 4\n", 160),
            "current_value": padded(b"1\t2\t3\n", 160),
        },
        8,
    )
    assert decode_sysctl_write(event) == WRITE
    event.numbers.update(new_length=-7, current_length=-22)
    cut_off = decode_sysctl_write(event)
    assert (cut_off.new, cut_off.current) == (None, None)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1 2 4", (1, 2, 4)),
        (" 1\t2\t 4 \n", (1, 2, 4)),
        ("5", (5, 2, 3)),
        ("5 6\n", (5, 6, 3)),
        ("1 2 4 9", (1, 2, 4)),
        ("0x10 010 -1", (16, 8, -1)),
        ("1 x 3", None),
        ("1 09 3", None),
        ("", None),
        ("\n", None),
    ],
)
def test_what_a_write_makes_of_the_value(text: str, wanted: Value | None) -> None:
    assert wanted_value(RMEM, replace(WRITE, new=text), BEFORE) == wanted


def test_what_cannot_be_told() -> None:
    assert wanted_value(RMEM, replace(WRITE, new=None), BEFORE) is None
    assert wanted_value(RMEM, replace(WRITE, file_pos=2), BEFORE) is None
    assert wanted_value(RMEM, replace(WRITE, new="5"), None) is None
    assert wanted_value(MASK, replace(WRITE, new="3,1\n"), (0,)) == ((3 << 32) + 1,)
    assert wanted_value(MASK, replace(WRITE, new="zz"), (0,)) is None


def verdict(
    write: SysctlWrite = WRITE,
    *,
    before: Value | None = BEFORE,
    now: Value = BEFORE,
    known: Known | None = None,
) -> Verdict:
    return judge_write(write, before=before, wanted=wanted_value(RMEM, write, before), now=now, known=known)


def test_a_value_that_shows_is_an_override() -> None:
    assert verdict(now=(1, 2, 4)) is Verdict.OVERRIDE
    assert verdict(replace(WRITE, comm="systemd-sysctl"), now=(1, 2, 4)) is Verdict.OVERRIDE


def test_a_partly_refused_vector_that_changed_something_is_one_too() -> None:
    assert verdict(replace(WRITE, new="5 x"), now=(5, 2, 3)) is Verdict.OVERRIDE


def test_a_value_that_does_not_show_may_come_or_have_failed() -> None:
    assert verdict() is Verdict.WAIT
    assert verdict(replace(WRITE, new="garbage")) is Verdict.WAIT
    assert verdict(replace(WRITE, file_pos=3)) is Verdict.WAIT


@pytest.mark.parametrize("text", ["1 2 3", "1\t2\t3\n", "1 2\n", "0x1"])
def test_the_same_value_counts_unless_it_is_applied_again_by_a_service(text: str) -> None:
    write = replace(WRITE, new=text)
    assert verdict(write) is Verdict.OVERRIDE
    for comm in ("systemd-sysctl", "(udev-worker)", "systemd-udevd"):
        assert verdict(replace(write, comm=comm)) is Verdict.IGNORE


def test_our_write_after_the_hook_may_have_gone_over_it() -> None:
    ours = Known((1, 2, 9), 2000)
    assert verdict(now=(1, 2, 9), known=ours) is Verdict.REDO
    assert verdict(replace(WRITE, new=None), now=(1, 2, 9), known=ours) is Verdict.OVERRIDE
    assert verdict(now=(1, 2, 4), known=ours) is Verdict.OVERRIDE


@pytest.mark.parametrize("text", ["garbage", "1 2 \N{REPLACEMENT CHARACTER}", ""])
def test_what_is_no_value_is_not_put_back(text: str) -> None:
    assert verdict(replace(WRITE, new=text), now=(1, 2, 9), known=Known((1, 2, 9), 2000)) is Verdict.IGNORE


def test_our_write_before_the_hook_is_just_the_current_value() -> None:
    assert verdict(known=Known(BEFORE, 500)) is Verdict.WAIT


def test_when_nothing_is_known_the_administrator_wins() -> None:
    assert verdict(replace(WRITE, current=None, new=None), before=None) is Verdict.OVERRIDE


@given(st.text(max_size=60))
def test_any_text_can_be_judged(text: str) -> None:
    for tunable in (RMEM, MASK):
        wanted = wanted_value(tunable, replace(WRITE, new=text), None)
        assert wanted is None or len(wanted) == tunable.width
