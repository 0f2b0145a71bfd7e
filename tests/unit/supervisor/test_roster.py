# SPDX-License-Identifier: GPL-2.0-or-later
"""What the roster attaches for a tuner with strategies, with a BPF layer and workers that remember."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from bpftune.ipc.control import HookStatus
from bpftune.ipc.declaration import Declaration, Poll, Probe, Scenario, Strategy
from bpftune.supervisor.folders import Scan, TunerFolder
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.polls import Poller
from bpftune.supervisor.roster import Roster, Tuner
from bpftune.supervisor.strategist import Strategist
from bpftune.supervisor.strategy_switch import StrategySwitch
from bpftune.supervisor.worker import Worker

SCENARIO = Scenario(id="seen", name="n", why="w", reason="r", event=["u64 value"])


def probe(name: str, hook: str = "tp_btf:x") -> Probe:
    poll = Poll(
        file="/proc/net/x", match=f"{name} ([0-9]+)", rise=1, value_event_field="value", scenario="seen"
    )
    return Probe(name=name, scenarios=["seen"], hooks=[hook, "poll"], poll=poll)


def strategy(name: str, *probes: str) -> Strategy:
    return Strategy(name=name, description=f"does {name}", timeout_s=10, probes=[*probes])


CHOOSY = Declaration(
    name="choosy",
    description="d",
    tunables=[],
    scenarios=[SCENARIO],
    probes=[probe("always"), probe("a"), probe("b", "iter:tcp"), probe("both")],
    strategies=[strategy("first", "a", "both"), strategy("second", "b", "both")],
)
PLAIN = Declaration(
    name="plain", description="d", tunables=[], scenarios=[SCENARIO], probes=[probe("one"), probe("two")]
)


@dataclass
class FakeBpf:
    """Every probe ends at its poll rung, but for those of `refused`, which end nowhere."""

    declarations: dict[str, Declaration] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    attached: dict[str, list[str]] = field(default_factory=dict)
    calls: list[tuple[str, list[str]]] = field(default_factory=list)

    def attach(self, tuner: str, probes: Collection[str]) -> list[HookStatus]:
        self.attached[tuner] = [*probes]
        self.calls.append((tuner, [*probes]))
        return self.hooks(tuner)

    def detach(self, tuner: str) -> None:
        self.attached[tuner] = []

    def unload(self, tuner: str) -> None:
        self.detach(tuner)

    def hooks(self, tuner: str) -> list[HookStatus]:
        return [
            HookStatus(
                probe=one.name,
                scenarios=one.scenarios,
                hook=None if one.name in self.refused else "poll",
                refused={},
                resting=one.name not in self.attached[tuner],
            )
            for one in self.declarations[tuner].probes
        ]

    def polls(self, tuner: str) -> list[Poll]:
        return [
            one.poll
            for one in self.declarations[tuner].probes
            if one.poll is not None and one.name in self.attached[tuner]
        ]


@dataclass
class FakeWorker:
    said: list[str] = field(default_factory=list)

    def use(self, strategy: str) -> None:
        self.said.append(f"use {strategy}")

    def start(self) -> None:
        self.said.append("start")

    def stop(self) -> None:
        self.said.append("stop")


@dataclass(eq=False)
class FakePoller:
    poll: Poll
    closed: bool = False

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeAnnouncer:
    switches: list[str] = field(default_factory=list)

    def strategy_switched(self, tuner: str, old: Strategy, new: Strategy, values: dict[str, float]) -> None:
        self.switches.append(f"{tuner}: {old.name} -> {new.name} {values}")


class Stage:
    """A roster of `choosy` and `plain` among fakes."""

    def __init__(self, *refused: str) -> None:
        self.bpf = FakeBpf(declarations={one.name: one for one in (CHOOSY, PLAIN)}, refused={*refused})
        self.loop = Loop()
        self.announcer = FakeAnnouncer()
        self.adopted: list[tuple[str, list[str]]] = []
        self.lines: list[str] = []
        self.roster = Roster(
            bpf=cast("Any", self.bpf),
            load=lambda sources: {},
            allow=(),
            notice=self.lines.append,
            warn=self.lines.append,
        )
        folders = {
            name: TunerFolder(path=Path("/x"), declaration=one, fingerprint=())
            for name, one in self.bpf.declarations.items()
        }
        self.roster.follow(Scan(accepted=folders, refused={}), self)

    def worker(self, folder: TunerFolder) -> Worker:
        return cast("Worker", FakeWorker())

    def poller(self, declaration: Declaration, poll: Poll) -> Poller:
        return cast("Poller", FakePoller(poll))

    def strategist(self, tuner: Tuner, hooks: list[HookStatus]) -> Strategist:
        owner = StrategySwitch(
            tuner,
            roster=self.roster,
            announcer=cast("Any", self.announcer),
            adopt=lambda name, probes: self.adopted.append((name, [*probes])),
        )
        return Strategist(declaration=tuner.declaration, hooks=hooks, loop=self.loop, owner=owner)

    @property
    def choosy(self) -> Tuner:
        return self.roster["choosy"]

    def said(self, tuner: Tuner) -> list[str]:
        return cast("FakeWorker", tuner.worker).said

    def evaluate(self, **values: float) -> None:
        strategist = self.choosy.strategist
        assert strategist is not None
        strategist._choose(values)

    def polled(self) -> dict[str, FakePoller]:
        return {poll.match.split()[0]: cast("FakePoller", one) for poll, one in self.choosy.pollers.items()}

    @property
    def timers(self) -> int:
        return sum(timer.pending for *_, timer in self.loop._timers)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_every_ladder_is_climbed_before_the_first_strategys_probes_are_attached(stage: Stage) -> None:
    assert [call for call in stage.bpf.calls if call[0] == "choosy"] == [
        ("choosy", []),
        ("choosy", ["always", "a", "both"]),
    ]
    assert [(one.probe, one.resting) for one in stage.choosy.hooks] == [
        ("always", False), ("a", False), ("b", True), ("both", False),
    ]  # fmt: skip


def test_a_tuner_without_strategies_has_all_its_probes_and_no_clock(stage: Stage) -> None:
    assert stage.bpf.calls[-1] == ("plain", ["one", "two"])
    assert stage.roster["plain"].strategist is None
    assert stage.said(stage.roster["plain"]) == ["start"]
    assert stage.timers == 1


def test_the_worker_knows_the_strategy_before_it_starts(stage: Stage) -> None:
    assert stage.said(stage.choosy) == ["use first", "start"]


def test_a_switch_replaces_the_probes_tells_the_policy_and_is_logged(stage: Stage) -> None:
    stage.evaluate(first=0, second=2.5)

    assert stage.bpf.attached == {"choosy": ["always", "b", "both"], "plain": ["one", "two"]}
    assert stage.said(stage.choosy)[-1] == "use second"
    assert stage.announcer.switches == ["choosy: first -> second {'first': 0, 'second': 2.5}"]
    assert [one.probe for one in stage.choosy.hooks if one.resting] == ["a"]


def test_iterators_of_the_new_strategy_see_every_namespace(stage: Stage) -> None:
    stage.evaluate(first=0, second=1)
    assert stage.adopted == [("choosy", ["b"])]

    stage.evaluate(first=1, second=0)
    assert stage.adopted == [("choosy", ["b"])]


def test_polls_follow_the_strategy_and_the_others_go_on_undisturbed(stage: Stage) -> None:
    before = stage.polled()
    assert set(before) == {"always", "a", "both"}

    stage.evaluate(first=0, second=1)
    after = stage.polled()

    assert set(after) == {"always", "b", "both"}
    assert (after["always"], after["both"]) == (before["always"], before["both"])
    assert [name for name, poller in before.items() if poller.closed] == ["a"]


def test_a_detached_tuner_has_no_clock_and_comes_back_with_its_strategy(stage: Stage) -> None:
    stage.evaluate(first=0, second=1)
    pollers = stage.polled()
    stage.roster.detach(stage.choosy, "off")

    assert stage.timers == 0
    assert stage.bpf.attached["choosy"] == []
    assert all(one.resting for one in stage.choosy.hooks)
    assert all(poller.closed for poller in pollers.values())
    assert not stage.choosy.pollers

    stage.roster.attach(stage.choosy)
    assert stage.timers == 1
    assert stage.bpf.attached["choosy"] == ["always", "b", "both"]


def test_a_removed_tuner_has_no_clock(stage: Stage) -> None:
    stage.roster.remove("choosy")

    assert stage.timers == 0


def test_the_first_strategy_that_this_kernel_can_serve_is_active_at_the_start() -> None:
    stage = Stage("a", "both")

    assert stage.said(stage.choosy) == ["use second", "start"]
    assert stage.bpf.attached["choosy"] == ["always", "b", "both"]
    assert stage.timers == 0
