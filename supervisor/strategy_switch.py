# SPDX-License-Identifier: GPL-2.0-or-later
"""What a strategist's decisions do to its tuner: probes, policy and log follow the active strategy.

The owner of a Strategist (strategist.py), made by the supervisor together with it. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bpftune.ipc.declaration import Strategy
from bpftune.supervisor.announcer import Announcer
from bpftune.supervisor.roster import Roster, Tuner
from bpftune.supervisor.strategist import Evaluated, Values

Adopt = Callable[[str, Sequence[str]], None]
"""Runs these iterators of a tuner over the namespaces that `Roster.hook` did not reach."""


class StrategySwitch:
    def __init__(self, tuner: Tuner, *, roster: Roster, announcer: Announcer, adopt: Adopt) -> None:
        self._tuner = tuner
        self._roster = roster
        self._announcer = announcer
        self._adopt = adopt

    def evaluate(self, done: Callable[[Evaluated | None], None]) -> None:
        if self._tuner.worker is None:
            done(None)
        else:
            self._tuner.worker.evaluate(done)

    def switched(self, old: Strategy, new: Strategy, values: Values) -> None:
        self._roster.hook(self._tuner)
        if self._tuner.worker is not None:
            self._tuner.worker.use(new.name)
        iterators = [
            probe.name
            for probe in self._tuner.declaration.probes
            if probe.iterates and probe.name in new.probes and probe.name not in old.probes
        ]
        if iterators:
            self._adopt(self._tuner.name, iterators)
        self._announcer.strategy_switched(self._tuner.name, old, new, values)

    def kept(self, active: Strategy, values: Values | None) -> None:
        self._announcer.strategy_kept(self._tuner.name, active, values)

    def refused(self, active: Strategy, fault: str) -> None:
        self._announcer.evaluation_refused(self._tuner.name, active, fault)
