# SPDX-License-Identifier: GPL-2.0-or-later
"""Every reply as text: it fits the screen, and what a reader looks for is in it."""

from __future__ import annotations

import re

import msgspec
import pytest

from bpftune.ctl.arguments import Arguments, Verb
from bpftune.ctl.render_changes import render_event
from bpftune.ctl.rendering import exit_code, render
from bpftune.ctl.screen import Screen
from bpftune.ipc.control import (
    Failure,
    HistoryReply,
    LogEvent,
    Override,
    Reply,
    RollbackReply,
    TunablesReply,
    TunerState,
    VerifyReply,
)
from bpftune.ipc.declaration import Format
from bpftune.ipc.messages import Netns
from tests.unit.ctl import recorded

REPLIES: list[tuple[Verb, Reply]] = [
    (Verb.STATUS, recorded.STATUS),
    (Verb.TUNERS, recorded.STATUS),
    (Verb.TUNABLES, recorded.TUNABLES),
    (Verb.SUMMARY, recorded.SUMMARY),
    (Verb.EVENTS, recorded.HISTORY),
    (Verb.HISTORY, recorded.HISTORY),
    (Verb.EXPLAIN, recorded.EXPLAIN),
    (Verb.ENABLE, recorded.DONE),
    (Verb.ROLLBACK, recorded.ROLLBACK),
    (Verb.VERIFY, recorded.VERIFY),
    (Verb.EXPORT, recorded.EXPORT),
    (Verb.SUPPORT, recorded.SUPPORT),
]
LINE = LogEvent(time_s=recorded.NOW_S, priority=4, message=recorded.SUMMARY.lines[0])


def screen(width: int | None = None, *, colour: bool = False) -> Screen:
    return Screen(width=width, colour=colour, now_s=recorded.NOW_S)


def text(verb: Verb, reply: Reply, width: int | None = None) -> str:
    return "\n".join(render(reply, Arguments(verb=verb), screen(width)))


def words(shown: str) -> str:
    """Without the line breaks that a width made."""
    return " ".join(shown.split())


def test_each_namespace_says_what_is_changed_and_off_there() -> None:
    arguments = Arguments(verb=Verb.STATUS, by_netns=True)
    shown = render(recorded.STATUS, arguments, screen(120))
    row = next(line for line in shown if line.startswith(recorded.BLUE.name))
    assert row.split()[1:4] == [str(recorded.BLUE.cookie), str(recorded.BLUE.inum), "net.ipv4.tcp_rmem"]


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize(("verb", "reply"), REPLIES, ids=[verb.value for verb, _ in REPLIES])
def test_no_line_is_longer_than_the_screen(verb: Verb, reply: Reply, width: int) -> None:
    lines = text(verb, reply, width).splitlines()

    assert lines
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_an_event_fits_the_screen(width: int) -> None:
    assert max(map(len, render_event(LINE, screen(width)))) <= width


def test_an_event_in_a_pipe_is_one_line() -> None:
    (line,) = render_event(LINE, screen())

    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d Summary: .*", line)


@pytest.mark.parametrize("width", [80, None])
@pytest.mark.parametrize(
    "shown",
    [
        "bpftune 0.1.0: auto mode, pid 812, up 3 h 12 min",
        "6.1.0-28-amd64: bpftune works fully",
        "38.1 MiB PSS",
        "3 events, ring buffer full",
        "tcp_buffer: active",
        "pid 830, up 3 h 12 min, 1 restart, 4.6 MiB PSS, 120 ms CPU",
        "1,234,567 in, 12 merged, 0 dropped",
        "9, last 4 min ago: Due to full receive buffers change net.ipv4.tcp_rmem(min default max)",
        "half written within 410 us of the event, all within 2.9 ms",
        "rcv_space: tp_btf:tcp_rcv_space_adjust",
        "rcv_sampled: raw_tp:tcp_rcv_space_adjust (not attached)",
        "snd_full: none",
        "sampled: rests. Looks at some.",
        "every: active, evaluated as 2.5. Looks at all.",
        "rcvbuf_full: 1,234,567 sent, 99 held back, 1 lost",
        "in netns 'a-container-with-a-rather-long-name-0123456789' since",
        "pid 12, cmd 'sysctl', user 'root', net.ipv4.tcp_rmem",
        "(4096 131072 6291456) -> (4096 131072 1310720)",
        "net.ipv4.tcp_no_ssthresh_metrics_save (set in sysctl.d)",
        "neigh_table: failed (6 crashes in 60 s",
        "none, 5 restarts",
        "2: global, a-container-with-a-rather-long-name-0123456789",
        "/usr/local/lib/bpftune/tuners/mine: it is writable by group or others",
    ],
)
def test_status_tells_all_it_knows(shown: str, width: int | None) -> None:
    assert shown in words(text(Verb.STATUS, recorded.STATUS, width))


def test_observe_mode_is_said_first() -> None:
    status = msgspec.structs.replace(recorded.STATUS, mode="observe")

    assert "observe mode (nothing is written)" in text(Verb.STATUS, status).splitlines()[0]


def test_off_everywhere_is_said_so() -> None:
    everywhere = Override(netns=Netns(cookie=-1, name="everywhere"), by="bpftune-ctl disable (uid 0, pid 1)")
    tuner = msgspec.structs.replace(recorded.TCP_BUFFER, overrides=[everywhere])
    status = msgspec.structs.replace(recorded.STATUS, tuners=[tuner])

    assert "off         everywhere: bpftune-ctl disable (uid 0, pid 1)" in text(Verb.STATUS, status)
    assert text(Verb.TUNERS, status).endswith("off everywhere")


def test_tuners_is_one_line_each_in_a_pipe() -> None:
    header, first, second = text(Verb.TUNERS, recorded.STATUS).splitlines()

    assert header.split() == ["TUNER", "STATE", "PID", "RESTARTS", "EVENTS", "CHANGES", "WHY"]
    assert first.split()[:6] == ["tcp_buffer", "active", "830", "1", "1234567", "9"]
    assert first.endswith("off in netns 'a-container-with-a-rather-long-name-0123456789'")
    assert second.split()[:6] == ["neigh_table", "failed", "-", "5", "6", "0"]


def test_tuners_without_a_reason_have_no_column_for_it() -> None:
    quiet = msgspec.structs.replace(recorded.TCP_BUFFER, overrides=[])
    status = msgspec.structs.replace(recorded.STATUS, tuners=[quiet])

    assert "WHY" not in text(Verb.TUNERS, status)


@pytest.mark.parametrize("state", [*TunerState])
def test_colour_marks_the_state_only_on_a_terminal(state: TunerState) -> None:
    tuner = msgspec.structs.replace(recorded.TCP_BUFFER, state=state)
    status = msgspec.structs.replace(recorded.STATUS, tuners=[tuner])
    coloured = "\n".join(render(status, Arguments(verb=Verb.STATUS), screen(80, colour=True)))

    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == text(Verb.STATUS, status, 80)
    assert "\x1b" not in text(Verb.STATUS, status, 80)


def test_escape_sequences_in_names_are_shown_not_obeyed() -> None:
    evil = msgspec.structs.replace(recorded.TCP_BUFFER, why="cmd '\x1b]0;owned\x07\nfake: active'")
    status = msgspec.structs.replace(recorded.STATUS, tuners=[evil])
    for verb in (Verb.STATUS, Verb.TUNERS):
        shown = text(verb, status)
        assert "\x1b" not in shown
        assert r"cmd '\x1b]0;owned\x07\nfake: active'" in shown


def test_a_narrow_screen_gets_lines_instead_of_a_table() -> None:
    first, *_ = text(Verb.TUNABLES, recorded.TUNABLES, 80).splitlines()

    assert first == "net.ipv4.tcp_rmem: changed, (4096 131072 6291456) -> (4096 131072 7864320)"
    assert "in netns 'a-container" in words(text(Verb.TUNABLES, recorded.TUNABLES, 80))


def test_values_are_exact() -> None:
    assert "4096 131072 6291456  4096 131072 7864320" in text(Verb.TUNABLES, recorded.TUNABLES)


def test_a_cpu_mask_is_shown_as_the_kernel_writes_it() -> None:
    assert "00000000 00000008,00000000 changed" in words(text(Verb.TUNABLES, recorded.TUNABLES))
    change = msgspec.structs.replace(recorded.CHANGE, old=(0,), new=(1 << 35,), format=Format.CPUMASK)
    shown = text(Verb.HISTORY, HistoryReply(changes=[change]))
    assert "(00000000) -> (00000008,00000000)" in shown


def test_history_shows_the_newest_last() -> None:
    _, first, second = text(Verb.HISTORY, recorded.HISTORY).splitlines()

    assert first.split()[0] == "1042"
    assert second.split()[0] == "1043"
    assert "(4096 131072 6291456) -> (4096 131072 7864320)" in first


@pytest.mark.parametrize(
    "shown",
    [
        "change 1042: applied",
        "4 min ago",
        "net.ipv4.tcp_rmem in global ns",
        "need to increase max buffer size to maximize throughput",
        "Receivers cannot take more",
        "rcvbuf 6.0 MiB, rtt 50.1 ms, goodput_per_rtt 5.0 MiB, segments 12,000",
        "twice the measured need would be 9 MiB",
        "later changes of the same tunable: 1043",
        "rolled back",
    ],
)
def test_explain_answers_why(shown: str) -> None:
    assert shown in words(text(Verb.EXPLAIN, recorded.EXPLAIN, 80))


def test_summary_is_the_text_of_the_daemon() -> None:
    shown = text(Verb.SUMMARY, recorded.SUMMARY)

    assert shown.splitlines()[:2] == recorded.SUMMARY.lines
    assert "Gateways:" in shown
    assert "Empty" not in shown


def test_export_is_input_for_sysctl() -> None:
    arguments = Arguments(verb=Verb.EXPORT, sysctl_d=True)
    lines = render(recorded.EXPORT, arguments, screen(40))
    settings = [line for line in lines if not line.startswith("#")]

    assert settings == ["net.core.rmem_max = 425984", "net.ipv4.tcp_rmem = 4096 131072 7864320"]
    assert text(Verb.EXPORT, recorded.EXPORT).splitlines() == settings


def test_empty_replies_say_so() -> None:
    assert text(Verb.HISTORY, HistoryReply(changes=[])) == "nothing was changed yet"
    assert text(Verb.TUNABLES, TunablesReply(tunables=[])) == "no tunable was read yet"
    assert text(Verb.ROLLBACK, RollbackReply(restored=[])) == "nothing to put back"
    assert text(Verb.VERIFY, VerifyReply(checked=1, differences=[])) == (
        "1 value checked: all are as the ledger says"
    )
    assert text(Verb.TUNERS, msgspec.structs.replace(recorded.STATUS, tuners=[])) == "no tuner is loaded"


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (recorded.STATUS, 0),
        (recorded.VERIFY, 1),
        (VerifyReply(checked=1, differences=[]), 0),
        (recorded.SUPPORT, 0),
        (msgspec.structs.replace(recorded.SUPPORT, supported=False), 1),
        (recorded.ROLLBACK, 0),
        (
            RollbackReply(
                restored=[msgspec.structs.replace(recorded.ROLLBACK.restored[0], outcome="failed: read-only")]
            ),
            1,
        ),
        (Failure(kind="UnknownName", message="m", exit_code=2), 2),
        (Failure(kind="X", message="m", exit_code=0), 1),
        (Failure(kind="X", message="m", exit_code=4096), 1),
    ],
)
def test_exit_code_tells_good_from_bad(reply: Reply, code: int) -> None:
    assert exit_code(reply) == code
