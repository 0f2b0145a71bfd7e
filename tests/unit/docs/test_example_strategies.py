# SPDX-License-Identifier: GPL-2.0-or-later
"""The worked example of docs/strategies.md: what it declares, decides and finds its strategies worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bpftune.ipc.declaration import load_declaration
from bpftune.ipc.messages import Netns, TunableView
from bpftune.ipc.record import Event
from bpftune.tuners.base import Situation
from bpftune.workers.policy import load_policy, read_source

FOLDER = Path(__file__).resolve().parents[3] / "docs/example_strategies/tw_buckets"
TUNABLE = "net.ipv4.tcp_max_tw_buckets"
MINUTE_NS = 60_000_000_000


def situation(
    *, current: int, strategy: str = "every", original: int = 1000, cap: int = 100_000, now_ns: int = 1
) -> Situation:
    view = TunableView(original=(original,), current=(current,), floor=(original,), cap=(cap,))
    return Situation(
        declaration=load_declaration(FOLDER),
        netns=Netns(cookie=7),
        now_ns=now_ns,
        shift=2,
        memory_bytes=1 << 30,
        tunables={TUNABLE: view},
        strategy=strategy,
    )


def near_limit(time_ns: int = 1) -> Event:
    return Event("tw_near_limit", time_ns, 7, 0, {"time_wait": 900, "limit": 1000}, {})


@pytest.fixture
def policy() -> Any:
    return load_policy(read_source(str(FOLDER)), evaluates=True)


def test_each_strategy_has_a_probe_of_its_own() -> None:
    declaration = load_declaration(FOLDER)
    attached = {one.name: declaration.probes_with(one) for one in declaration.strategies}

    assert attached == {"sampled": ["sampled_closing"], "every": ["every_closing"]}


@pytest.mark.parametrize(("strategy", "new"), [("every", 1250), ("sampled", 1562)])
def test_a_sample_makes_larger_steps(policy: Any, strategy: str, new: int) -> None:
    decision = policy.on_event(near_limit(), situation(current=1000, strategy=strategy), policy.State())

    assert [proposal.new for proposal in decision.proposals] == [(new,)]
    assert decision.wake_at_ns == 1 + MINUTE_NS


def test_cap_is_not_proposed_again(policy: Any) -> None:
    decision = policy.on_event(near_limit(), situation(current=1200, cap=1200), policy.State())

    assert not decision.proposals


def test_a_sample_will_do_until_the_limit_is_neared(policy: Any) -> None:
    states = {7: policy.State(), 8: policy.State()}
    assert policy.evaluate("every", states, MINUTE_NS) < policy.evaluate("sampled", states, MINUTE_NS)

    policy.on_event(near_limit(MINUTE_NS), situation(current=1000), states[8])
    assert policy.evaluate("every", states, MINUTE_NS + 1) > policy.evaluate("sampled", states, MINUTE_NS + 1)


def test_a_quiet_minute_later_a_sample_will_do_again(policy: Any) -> None:
    states = {7: policy.State()}
    policy.on_event(near_limit(1), situation(current=1000), states[7])
    policy.on_timer(situation(current=1250, now_ns=1 + MINUTE_NS), states[7])

    now_ns = 1 + MINUTE_NS
    assert policy.evaluate("every", states, now_ns) < policy.evaluate("sampled", states, now_ns)


def test_idle_room_is_given_back_step_by_step(policy: Any) -> None:
    state = policy.State()
    policy.on_event(near_limit(), situation(current=1250), state)

    early = policy.on_timer(situation(current=1562, now_ns=MINUTE_NS // 2), state)
    first = policy.on_timer(situation(current=1562, now_ns=1 + MINUTE_NS), state)
    last = policy.on_timer(situation(current=1100, now_ns=1 + 2 * MINUTE_NS), state)
    at_rest = policy.on_timer(situation(current=1000, now_ns=1 + 3 * MINUTE_NS), state)

    assert (early.proposals, early.wake_at_ns) == ([], 1 + MINUTE_NS)
    assert [one.proposals[0].new for one in (first, last)] == [(1172,), (1000,)]
    assert first.wake_at_ns == 1 + 2 * MINUTE_NS
    assert (at_rest.proposals, at_rest.wake_at_ns) == ([], None)
