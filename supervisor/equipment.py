# SPDX-License-Identifier: GPL-2.0-or-later
"""What a tuner gets besides its BPF programs: a worker, polls for probes without a hook, a strategist.

The roster asks for them. Made last, for it knows all the parts that these talk to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import zmq

from bpftune.ipc.control import HookStatus
from bpftune.ipc.declaration import Declaration, Poll
from bpftune.ipc.messages import GLOBAL, Value
from bpftune.supervisor.announcer import Announcer
from bpftune.supervisor.decision import Decisions
from bpftune.supervisor.folders import TunerFolder
from bpftune.supervisor.forkserver import ForkServer
from bpftune.supervisor.ledger import Ledger
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.netns import NetnsRegistry
from bpftune.supervisor.options import Options
from bpftune.supervisor.polls import Poller
from bpftune.supervisor.reactions import Reactions
from bpftune.supervisor.roster import Roster, Tuner
from bpftune.supervisor.strategist import Strategist
from bpftune.supervisor.strategy_switch import StrategySwitch
from bpftune.supervisor.worker import Worker, WorkerOwner


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """The Equipper of a running daemon."""

    options: Options
    loop: Loop
    context: zmq.Context[zmq.Socket[bytes]]
    forkserver: ForkServer
    owner: WorkerOwner
    ledger: Ledger
    registry: NetnsRegistry
    decisions: Decisions
    roster: Roster
    reactions: Reactions
    announcer: Announcer
    route: Callable[[bytes], None]
    """Takes the records that polls make."""
    warn: Callable[[str], None]

    def worker(self, folder: TunerFolder) -> Worker:
        return Worker(
            declaration=folder.declaration,
            folder=folder.path,
            shift=self.options.shift,
            loop=self.loop,
            forkserver=self.forkserver,
            context=self.context,
            run_dir=self.options.run_dir,
            owner=self.owner,
            changed=self.ledger.namespaces_of(folder.declaration),
        )

    def strategist(self, tuner: Tuner, hooks: list[HookStatus]) -> Strategist:
        owner = StrategySwitch(
            tuner, roster=self.roster, announcer=self.announcer, adopt=self.reactions.adopt
        )
        return Strategist(declaration=tuner.declaration, hooks=hooks, loop=self.loop, owner=owner)

    def poller(self, declaration: Declaration, poll: Poll) -> Poller:
        return Poller(
            loop=self.loop,
            declaration=declaration,
            poll=poll,
            shift=self.options.shift,
            netns_cookie=self.registry.initial.cookie,
            read_limit=lambda tunable: self._read_limit(declaration, tunable),
            emit=self.route,
            failed=self.warn,
        )

    def _read_limit(self, declaration: Declaration, tunable: str) -> Value | None:
        for cookie in (GLOBAL, self.registry.initial.cookie):
            view = self.decisions.view(declaration, cookie)
            if view is not None and tunable in view.tunables:
                return view.tunables[tunable].current
        return None
