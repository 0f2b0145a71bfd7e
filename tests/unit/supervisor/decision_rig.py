# SPDX-License-Identifier: GPL-2.0-or-later
"""The decision path over a fake /proc/sys: real ledger, registry, overrides and judge.

Tests of those parts build it. The only namespace is the test's own, so no privilege is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bpftune.ipc.control import Change, Override
from bpftune.ipc.declaration import Declaration, Format, Scenario, Scope, Tunable
from bpftune.ipc.messages import GLOBAL, Netns, Outcome, Proposal, Value
from bpftune.supervisor.decision import Decisions
from bpftune.supervisor.known_values import KnownValues
from bpftune.supervisor.ledger import Ledger
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.memory import Memory
from bpftune.supervisor.netns import NetnsRegistry
from bpftune.supervisor.overrides import Overrides
from bpftune.supervisor.quantities import Quantities
from bpftune.supervisor.rollback import Rollback
from bpftune.supervisor.sysctl_d import AdministratorSettings, Line
from bpftune.supervisor.sysctl_judge import SysctlJudge
from bpftune.supervisor.sysctl_writer import SysctlWriter

RMEM = "net.ipv4.tcp_rmem"
MODERATE = "net.ipv4.tcp_moderate_rcvbuf"
BACKLOG = "net.core.netdev_max_backlog"
MASK = "net.core.flow_limit_cpu_bitmap"
RMEM_TEXT = "4096\t131072\t6291456\n"
CAP = 8 << 20

DECLARATION = Declaration(
    name="example",
    description="d",
    tunables=[
        Tunable(name=RMEM, scope=Scope.NETNS, width=3, floor=["0", "0", "field1"], cap=CAP, moves=[2]),
        Tunable(name=MODERATE, scope=Scope.NETNS, cap=1),
        Tunable(name=BACKLOG, scope=Scope.GLOBAL, floor=100, cap="max(original, 4000)"),
        Tunable(name=MASK, scope=Scope.GLOBAL, cap=(1 << 64) - 1, format=Format.CPUMASK),
    ],
    scenarios=[Scenario(id="full", name="n", tunable=RMEM, why="w", reason="r")],
    probes=[],
)


@dataclass
class Listener:
    """Records what the daemon would log."""

    changes: list[Change] = field(default_factory=list)
    capped: list[tuple[str, Value]] = field(default_factory=list)
    off: list[tuple[str, Override, SysctlWriter | None]] = field(default_factory=list)
    on: list[tuple[str, Netns]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def changed(self, change: Change, tunable: Tunable) -> None:
        self.changes.append(change)

    def cap_reached(self, tuner: str, outcome: Outcome, netns: Netns, cap: Value) -> None:
        self.capped.append((outcome.proposal.tunable, cap))

    def turned_off(self, tuner: str, override: Override, writer: SysctlWriter | None) -> None:
        self.off.append((tuner, override, writer))

    def turned_on(self, tuner: str, netns: Netns) -> None:
        self.on.append((tuner, netns))


class DecisionRig:
    def __init__(self, root: Path, *, dry_run: bool = False, sysctl_d: list[Line] | None = None) -> None:
        self.root = root
        self.proc = root / "proc"
        self._make_proc()
        self.listener = Listener()
        self.loop = Loop()
        self.registry = NetnsRegistry(run_netns=root / "netns", proc_root=self.proc)
        self.cookie = self.registry.initial.cookie
        self.known = KnownValues()
        self.ledger = Ledger(root / "state", proc_root=self.proc)
        self.overrides = Overrides(
            ledger=self.ledger,
            registry=self.registry,
            listener=self.listener,
            warn=self.listener.warnings.append,
        )
        settings = AdministratorSettings({"/etc/sysctl.d/a.conf": sysctl_d or []})
        self.judge = SysctlJudge(
            loop=self.loop,
            registry=self.registry,
            overrides=self.overrides,
            known=self.known,
            ledger=self.ledger,
            declarations=lambda: [DECLARATION],
            warn=self.listener.warnings.append,
            proc_root=self.proc,
            read_settings=lambda: settings,
        )
        self.decisions = Decisions(
            registry=self.registry,
            ledger=self.ledger,
            overrides=self.overrides,
            quantities=Quantities(registry=self.registry, memory=Memory(proc_root=self.proc)),
            settings=settings,
            known=self.known,
            listener=self.listener,
            stale_seen=self.judge.stale_seen,
            dry_run=dry_run,
            proc_root=self.proc,
        )
        self.rollback = Rollback(
            ledger=self.ledger, registry=self.registry, known=self.known, proc_root=self.proc
        )

    def close(self) -> None:
        self.ledger.close()
        self.registry.close()

    def path(self, name: str) -> Path:
        return self.proc / "sys" / name.replace(".", "/")

    def read(self, name: str = RMEM) -> str:
        return " ".join(self.path(name).read_text().split())

    def grow(self, maximum: int, *, expected: int | None = None) -> Outcome:
        """Propose another maximum of tcp_rmem."""
        current = tuple(map(int, self.read().split()))
        old = (*current[:2], expected if expected is not None else current[2])
        return self.propose(RMEM, old, (*current[:2], maximum), cookie=self.cookie)

    def propose(
        self, tunable: str, expected: Value, new: Value, *, cookie: int = GLOBAL, scenario: str = "full"
    ) -> Outcome:
        proposal = Proposal(
            tunable=tunable,
            netns_cookie=cookie,
            expected=expected,
            new=new,
            scenario=scenario,
            reason="r",
            evidence={"rtt_us": 5},
        )
        return self.decisions.apply(DECLARATION, proposal)

    def _make_proc(self) -> None:
        files = {
            RMEM: RMEM_TEXT,
            MODERATE: "1\n",
            BACKLOG: "1000\n",
            MASK: "00000000,00000000\n",
            "kernel.random.boot_id": "11111111-0000-0000-0000-000000000000\n",
        }
        for name, text in files.items():
            if not self.path(name).exists():
                self.path(name).parent.mkdir(parents=True, exist_ok=True)
                self.path(name).write_text(text)
        (self.root / "netns").mkdir(exist_ok=True)
