# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of a tuner's strategies is active, and when that is judged again.

The roster has one for every tuner with strategies and starts its clock when it attaches the tuner.
It keeps the time and compares values; asking the policy and switching are its owner's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

from bpftune.ipc.control import HookStatus
from bpftune.ipc.declaration import Declaration, Strategy
from bpftune.supervisor.loop import Loop, Timer

Values = Mapping[str, float]
"""What each strategy is worth, by name."""
Evaluated = Mapping[str, float | None]
"""The same as a worker says it."""


class StrategyOwner(Protocol):
    def evaluate(self, done: Callable[[Evaluated | None], None]) -> None:
        """Ask the policy; call `done` once, with None when no worker could tell."""

    def switched(self, old: Strategy, new: Strategy, values: Values) -> None:
        """`new` is the active one from here on."""

    def kept(self, active: Strategy, values: Values | None) -> None:
        """It is worth most, or without values nobody could tell."""

    def refused(self, active: Strategy, fault: str) -> None:
        """The values cannot be compared: the active one goes on."""


class Strategist:
    def __init__(
        self, *, declaration: Declaration, hooks: list[HookStatus], loop: Loop, owner: StrategyOwner
    ) -> None:
        """`hooks` tell where each probe would stand: a strategy that would be blind is never active."""
        self.values: Values = {}
        """Those of the last evaluation."""
        self._strategies = declaration.strategies
        self._eligible = _seeing(declaration, hooks) or declaration.strategies[:1]
        self.active = self._eligible[0]
        self._loop = loop
        self._owner = owner
        self._timer: Timer | None = None
        self._asking = False

    def start(self) -> None:
        """The active strategy's time begins."""
        self.stop()
        if len(self._eligible) > 1:
            self._timer = self._loop.call_later(self.active.timeout_s, self._time_out)

    def stop(self) -> None:
        """The tuner is detached; an evaluation that is under way counts no more."""
        self._asking = False
        if self._timer is not None:
            self._timer.cancel()

    def _time_out(self) -> None:
        self._asking = True
        self._owner.evaluate(self._take)

    def _take(self, evaluated: Evaluated | None) -> None:
        if not self._asking:
            return
        if evaluated is None:
            self._owner.kept(self.active, None)
        else:
            self._compare(evaluated)
        self.start()

    def _compare(self, evaluated: Evaluated) -> None:
        values = {}
        for strategy in self._strategies:
            value = evaluated.get(strategy.name)
            if value is None or not math.isfinite(value):
                self._owner.refused(self.active, f"'{strategy.name}' has no finite value")
                return
            values[strategy.name] = value
        self._choose(values)

    def _choose(self, values: Values) -> None:
        self.values = values
        old = self.active
        best = max(self._eligible, key=lambda strategy: (values[strategy.name], strategy is old))
        if best is old:
            self._owner.kept(old, self.values)
            return
        self.active = best
        self._owner.switched(old, best, self.values)


def _seeing(declaration: Declaration, hooks: list[HookStatus]) -> list[Strategy]:
    """The strategies whose probes have a hook, one of them at least; one without probes of its own
    relies on those that are always attached."""
    hooked = {status.probe for status in hooks if status.hook is not None}
    return [
        strategy
        for strategy in declaration.strategies
        if hooked.intersection(strategy.probes or declaration.probes_with(strategy))
    ]
