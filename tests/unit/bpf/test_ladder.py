# SPDX-License-Identifier: GPL-2.0-or-later
"""bpf/ladder.py with an attacher that accepts what it is told to."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from bpftune.bpf import ladder
from bpftune.bpf.ladder import Footing, climb, survey
from bpftune.ipc.control import HookStatus
from bpftune.ipc.declaration import Hook, Poll, Probe
from bpftune.ipc.errors import CompileError, HookRefused
from tests.unit.bpf.made import probe

LINK_FD = 77


@dataclass
class Picky:
    accepts: str
    tried: list[str] = field(default_factory=list)

    def attach(self, probe: Probe, rung: int, hook: Hook) -> int:
        self.tried.append(str(hook))
        if hook.kind == "raw_tp":
            raise CompileError("cannot compile the probes of 'small': a.c:1: error: oops")
        if hook.kind != self.accepts:
            raise HookRefused(str(hook), "refused by the kernel: EPERM (lockdown?)")
        return LINK_FD


@pytest.fixture(autouse=True)
def every_kind_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "unavailable", lambda hook: None)


def test_the_first_accepted_rung_wins_and_ends_the_climb() -> None:
    picky = Picky(accepts="fentry")
    footing = climb(probe("create", "tp_btf:a", "fentry:a", "kprobe:a"), picky, legacy=False)

    assert picky.tried == ["tp_btf:a", "fentry:a"]
    assert footing.link_fd == LINK_FD
    assert footing.status == HookStatus(
        probe="create",
        scenarios=["full"],
        hook="fentry:a",
        refused={"tp_btf:a": "refused by the kernel: EPERM (lockdown?)"},
    )


def test_a_survey_tries_the_rungs_below_too_and_lets_go_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    monkeypatch.setattr("bpftune.bpf.ladder.os.close", closed.append)
    picky = Picky(accepts="fentry")
    ladder_of_four = probe("create", "tp_btf:a", "fentry:a", "fentry:b", "kprobe:a")
    footing = survey(climb(ladder_of_four, picky, legacy=False), picky)

    assert picky.tried == ["tp_btf:a", "fentry:a", "fentry:b", "kprobe:a"]
    assert list(footing.refused) == ["tp_btf:a", "kprobe:a"]
    assert str(footing.hook) == "fentry:a"
    assert footing.link_fd == LINK_FD
    assert closed == [LINK_FD]


def test_without_any_rung_every_reason_is_kept() -> None:
    footing = climb(probe("create", "tp_btf:a", "raw_tp:a"), Picky(accepts="nothing"), legacy=False)

    assert footing.hook is None
    assert list(footing.refused) == ["tp_btf:a", "raw_tp:a"]
    assert "oops" in footing.refused["raw_tp:a"]


def test_a_poll_rung_needs_no_program() -> None:
    picky = Picky(accepts="nothing")
    footing = climb(probe("create", "tp_btf:a", "poll:sockstat"), picky, legacy=False)

    assert (str(footing.hook), footing.link_fd) == ("poll:sockstat", None)
    assert picky.tried == ["tp_btf:a"]


@pytest.mark.parametrize(
    ("hooks", "tried"),
    [
        (("tp_btf:a", "fentry:a", "kprobe:a"), ["kprobe:a"]),
        (("tp_btf:a", "poll:sockstat"), []),
        (("tp_btf:a", "fentry:a"), ["tp_btf:a", "fentry:a"]),
        (("sockops",), ["sockops"]),
    ],
)
def test_legacy_starts_at_the_older_rungs_where_there_are_any(
    hooks: tuple[str, ...], tried: list[str]
) -> None:
    picky = Picky(accepts="nothing")
    footing = climb(probe("create", *hooks), picky, legacy=True)

    assert picky.tried == tried
    passed_over = [hook for hook in hooks if hook not in tried and not hook.startswith("poll")]
    assert [hook for hook, why in footing.refused.items() if why == "legacy mode"] == passed_over


def test_what_the_kernel_cannot_have_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "unavailable", lambda hook: "no kprobes in this kernel")
    picky = Picky(accepts="kprobe")

    footing: Footing = climb(probe("create", "kprobe:a"), picky, legacy=False)

    assert picky.tried == []
    assert footing.refused == {"kprobe:a": "no kprobes in this kernel"}


def test_a_poll_follows_a_hook_only_where_it_says_so() -> None:
    def footing(poll: Poll, *, accepts: str) -> Footing:
        wanted = replace(probe("create", "tp_btf:a", "poll"), poll=poll)
        return climb(wanted, Picky(accepts=accepts), legacy=False)

    last_rung = Poll(file="/proc/x", match="(x)", rise=1, value_event_field="entries", scenario="full")
    following = replace(last_rung, follows="full")

    assert footing(last_rung, accepts="tp_btf").poll is None
    assert footing(following, accepts="tp_btf").poll == following
    assert footing(following, accepts="nothing").poll == last_rung
