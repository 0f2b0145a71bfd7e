# SPDX-License-Identifier: GPL-2.0-or-later
"""The worked example of HACKING.md: its declaration is accepted and its policy decides as it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bpftune.ipc.declaration_file import load_declaration
from bpftune.ipc.messages import Netns, TunableView
from bpftune.ipc.record import Event
from bpftune.tuners.base import Situation
from bpftune.workers.policy import load_policy, read_source

FOLDER = Path(__file__).resolve().parents[3] / "docs/example_tuner/time_wait"
TUNABLE = "net.ipv4.tcp_max_tw_buckets"
MINUTE_NS = 60_000_000_000


def situation(*, current: int, original: int = 1000, cap: int = 100_000, now_ns: int = 1) -> Situation:
    view = TunableView(original=(original,), current=(current,), floor=(original,), cap=(cap,))
    return Situation(
        declaration=load_declaration(FOLDER),
        netns=Netns(cookie=7),
        now_ns=now_ns,
        shift=2,
        memory_bytes=1 << 30,
        tunables={TUNABLE: view},
    )


def near_limit(time_ns: int = 1) -> Event:
    return Event("time_wait_near_limit", time_ns, 7, 0, {"time_wait": 900, "limit": 1000}, {})


@pytest.fixture
def policy() -> Any:
    return load_policy(read_source(str(FOLDER)))


def test_event_grows_the_limit_one_step(policy: Any) -> None:
    decision = policy.on_event(near_limit(), situation(current=1000), policy.State())

    assert [(proposal.expected, proposal.new) for proposal in decision.proposals] == [((1000,), (1250,))]
    assert decision.proposals[0].netns_cookie == 7
    assert decision.wake_at_ns == 1 + MINUTE_NS


def test_cap_is_not_proposed_again(policy: Any) -> None:
    decision = policy.on_event(near_limit(), situation(current=1200, cap=1200), policy.State())

    assert not decision.proposals


def test_idle_minute_gives_a_step_back(policy: Any) -> None:
    state = policy.State()
    policy.on_event(near_limit(), situation(current=1250), state)

    decision = policy.on_timer(situation(current=1562, now_ns=1 + MINUTE_NS), state)

    assert [proposal.new for proposal in decision.proposals] == [(1172,)]
    assert decision.wake_at_ns == 1 + 2 * MINUTE_NS


def test_shrinking_ends_at_the_original(policy: Any) -> None:
    state = policy.State()

    decision = policy.on_timer(situation(current=1100, now_ns=2 * MINUTE_NS), state)
    at_rest = policy.on_timer(situation(current=1000, now_ns=4 * MINUTE_NS), state)

    assert [proposal.new for proposal in decision.proposals] == [(1000,)]
    assert not at_rest.proposals
    assert at_rest.wake_at_ns is None


def test_timer_within_the_minute_waits(policy: Any) -> None:
    state = policy.State()
    policy.on_event(near_limit(), situation(current=1000), state)

    decision = policy.on_timer(situation(current=1250, now_ns=MINUTE_NS // 2), state)

    assert not decision.proposals
    assert decision.wake_at_ns == 1 + MINUTE_NS
