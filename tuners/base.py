# SPDX-License-Identifier: GPL-2.0-or-later
"""What a tuner's policy.py is written against.

A policy is pure: an event and the situation go in, a decision comes out. No I/O, no clock, no
globals. What it must remember sits in its state record, one per network namespace (and one under
cookie 0 for scenarios of global scope); the runtime saves that record after every call and hands
it back after a restart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

import msgspec

from bpftune.ipc.declaration import Declaration, Scope
from bpftune.ipc.messages import (
    GLOBAL,
    Netns,
    Note,
    Number,
    Outcome,
    Proposal,
    Table,
    TunableView,
    Value,
)
from bpftune.ipc.record import Event, Row

StateT = TypeVar("StateT", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What holds in one namespace right now."""

    declaration: Declaration
    netns: Netns
    now_ns: int
    """CLOCK_MONOTONIC, as in event records."""
    shift: int
    memory_bytes: int
    tunables: Mapping[str, TunableView]
    """Those of the namespace and the global ones; what this kernel lacks is absent."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """With an event: the counters that its scenario names, as the namespace counts them."""
    strategy: str = ""
    """The active one, for a tuner that declares strategies. An event may still be one that the strategy
    before it had seen."""

    def adopted(self, tunable: str) -> TunableView | None:
        """None where this kernel lacks the tunable, or it is the administrator's."""
        view = self.tunables.get(tunable)
        return view if view is not None and view.adopted else None

    def propose(
        self,
        tunable: str,
        new: Value,
        scenario: str,
        evidence: Mapping[str, Number],
        *,
        device: int = 0,
    ) -> Proposal:
        """A proposal that expects the current value and carries the scenario's declared reason."""
        return Proposal(
            tunable=tunable,
            netns_cookie=self._cookie(tunable),
            expected=self.tunables[tunable].current,
            new=new,
            scenario=scenario,
            reason=self.declaration.scenarios_by_id[scenario].reason,
            evidence=dict(evidence),
            device=device,
            device_netns_cookie=self.netns.cookie if device else GLOBAL,
        )

    def note(self, tunable: str, scenario: str, text: str, *, acts: int = 0) -> Note:
        cookie = self._cookie(tunable)
        return Note(tunable=tunable, netns_cookie=cookie, scenario=scenario, text=text, acts=acts)

    def _cookie(self, tunable: str) -> int:
        declared = self.declaration.tunables_by_name[tunable]
        return GLOBAL if declared.scope is Scope.GLOBAL else self.netns.cookie


@dataclass(slots=True, kw_only=True)
class Decision:
    """What a policy wants. `wake_at_ns` asks for one on_timer call, not before that time (and at
    least 1 s from now); it replaces an earlier wish for the same namespace, None withdraws it."""

    proposals: list[Proposal] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    wake_at_ns: int | None = None


class Policy(Generic[StateT]):
    """Base of every tuner's policy. policy.py must define exactly one subclass."""

    State: ClassVar[type[msgspec.Struct]]
    """The state record: a msgspec.Struct whose fields all have defaults."""

    def on_event(self, event: Event, situation: Situation, state: StateT) -> Decision:
        """A probe saw something. `state` may be changed in place."""
        raise NotImplementedError

    def on_outcome(self, outcome: Outcome, situation: Situation, state: StateT) -> Decision | None:
        """A proposal was applied or not; `situation` already has the value that holds now.

        Returning None keeps the wake-up that was asked for before.
        """
        return None

    def on_timer(self, situation: Situation, state: StateT) -> Decision:
        """A wish for a wake-up came due; also called once per known namespace when the worker starts."""
        return Decision()

    def evaluate(self, strategy: str, states: Mapping[int, StateT], now_ns: int) -> float:
        """What a strategy is worth, judged from the states of all namespaces by cookie.

        Called for each one when the active one has had its time; the highest value goes on, and between
        equals the active one. A policy whose tuner declares strategies must define it.
        """
        raise NotImplementedError

    def tables(self, states: Mapping[int, StateT]) -> list[Table]:
        """The tuner's own tables for the summary, from the states of all namespaces by cookie."""
        return []

    def map_tables(self, maps: Mapping[str, Sequence[Row]], namespaces: Mapping[int, Netns]) -> list[Table]:
        """More of them, from the maps that tuner.toml declares under [[tables]]; namespaces by cookie."""
        return []
