# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine of two network namespaces with one tuner on it, for tests that hold for every tuner.

The worker's runner and the supervisor's decision path are real: ledger, overrides, judge of sysctl
writes, bounds. What is made up is the kernel, as files, and the clock. Nothing here knows any tuner
but by its declaration.
"""

from __future__ import annotations

import marshal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

import msgspec

from bpftune.ipc.codec import Codec, to_supervisor, to_worker
from bpftune.ipc.control import Change, Override
from bpftune.ipc.declaration import Declaration, Scenario, Scope, Tunable, Writer
from bpftune.ipc.declaration_file import load_declaration
from bpftune.ipc.messages import (
    GLOBAL,
    PROTOCOL_VERSION,
    Answer,
    Deliver,
    Netns,
    Note,
    Outcome,
    Outcomes,
    Proposal,
    SavedState,
    Start,
    Summarize,
    ToSupervisor,
    ToWorker,
    Value,
    View,
)
from bpftune.ipc.record import HEADER, payload_struct
from bpftune.supervisor.decision import Decisions
from bpftune.supervisor.known_values import KnownValues
from bpftune.supervisor.ledger import Ledger
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.memory import Memory
from bpftune.supervisor.overrides import Overrides
from bpftune.supervisor.quantities import Bounds, Device
from bpftune.supervisor.sysctl_d import AdministratorSettings
from bpftune.supervisor.sysctl_judge import SysctlJudge
from bpftune.supervisor.sysctl_write import SysctlWrite
from bpftune.supervisor.sysctl_writer import SysctlWriter
from bpftune.supervisor.tunables import format_value, parse_value
from bpftune.workers.policy import PolicySource, compile_policy, load_policy, read_source
from bpftune.workers.runner import PolicyRunner
from tests.unit.tuners.places import OTHER, Amounts, Places

POSSIBLE_CPUS = "0-95\n"
SECOND_NS = 1_000_000_000
REACTION_NS = 500_000
"""From an event to the value written."""
MOST_ROUNDS = 100
"""Of proposals that follow from outcomes of proposals: more of them would never end."""

T = TypeVar("T")
Cell = tuple[int, str]
"""Namespace cookie, GLOBAL for global tunables, and tunable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change as it was written."""

    time_ns: int
    change: Change
    bounds: Bounds


@cache
def compiled(folder: Path) -> tuple[PolicySource, bytes]:
    source = read_source(str(folder))
    return source, marshal.dumps(compile_policy(source))


def as_received(message: msgspec.Struct, codec: Codec[T]) -> T:
    """What the process at the other end of the socket gets."""
    return codec.decode(codec.encode(message))


@dataclass
class Machine:
    """`values` are the administrator's, by cell; those of the decision path are kept up to date."""

    folder: Path
    root: Path
    memory_pages: int
    shift: int
    draw_value: Callable[[Tunable], Value]
    now_ns: int = 1_000 * SECOND_NS
    steps: list[Step] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    off: set[int] = field(default_factory=set)
    """Cookies of namespaces where an administrator has the tuner's word."""

    def __post_init__(self) -> None:
        self.declaration: Declaration = load_declaration(self.folder)
        proc = self.root / "proc"
        self._write_proc(proc)
        self.registry = Places(self.root, proc)
        self.initial = self.registry.initial.cookie
        self.administrator: dict[Cell, Value] = {}
        self.values: dict[Cell, Value] = {}
        self._write_sysctls()
        self._wire(proc)
        self._saved: dict[int, SavedState] = {}
        self.restart_worker(remember=False)

    def close(self) -> None:
        self._ledger.close()
        self.registry.close()

    @property
    def tunables(self) -> list[Tunable]:
        return [tunable for tunable in self.declaration.tunables if tunable.writer is Writer.SYSCTL]

    @property
    def observable(self) -> list[Scenario]:
        """The scenarios that arrive as records."""
        return [scenario for scenario in self.declaration.scenarios if scenario.event is not None]

    def cookie_of(self, tunable: Tunable, place: int) -> int:
        return GLOBAL if tunable.scope is Scope.GLOBAL else place

    def place_of(self, cookie: int) -> int:
        return cookie or self.initial

    # what happens to it

    def deliver(
        self, scenario: Scenario, place: int, payload: list[int], counters: Mapping[str, int], *, fresh: bool
    ) -> None:
        """An event as BPF writes it; without `fresh` the worker goes by what it was told before."""
        index = self.declaration.scenarios.index(scenario)
        header = HEADER.pack(self.now_ns, place, 1, self.declaration.id, index, 0, 0)
        record = header + payload_struct(scenario.fields).pack(*payload)
        self.now_ns += REACTION_NS
        self._tell(
            Deliver(
                seq=1,
                record=record,
                netns=self.registry.netns(place),
                view=self._view(place) if fresh else None,
                global_view=self._view(GLOBAL) if fresh else None,
                counters={name: counters[name] for name in scenario.counters},
            )
        )

    def override(self, tunable: Tunable, place: int, value: Value) -> None:
        """An administrator writes it."""
        cookie = self.cookie_of(tunable, place)
        place = self.place_of(cookie)
        if value == self.values[cookie, tunable.name]:
            return
        path = self._path(place, tunable)
        write = SysctlWrite(
            time_ns=time.monotonic_ns(),
            netns_cookie=place,
            netns_inum=1,
            pid=0,
            uid=0,
            comm="sysctl",
            key=tunable.name.replace(".", "/"),
            new=format_value(tunable, value),
            current=path.read_text(),
            file_pos=0,
        )
        self._put(cookie, tunable, value)
        self.administrator[cookie, tunable.name] = value
        self._judge.judge(write)
        self.off.add(place)

    def enable(self, place: int) -> None:
        self._overrides.enable(self.declaration.name, self.registry.netns(place))
        self.off.discard(place)

    def restart_worker(self, *, remember: bool) -> None:
        """Another worker takes over, with the states that were saved or, after a crash of all, without."""
        policy = load_policy(*compiled(self.folder))
        self.runner = PolicyRunner(self.declaration, policy, log=self._refuse_line)
        views = [view for cookie in (GLOBAL, self.initial, OTHER) if (view := self._view(cookie))]
        saved = list(self._saved.values()) if remember else []
        self._tell(
            Start(
                version=PROTOCOL_VERSION,
                tuner=self.declaration.name,
                shift=self.shift,
                saved=saved,
                views=views,
            )
        )

    def let_pass(self, duration_ns: int) -> None:
        until_ns = self.now_ns + duration_ns
        while (wait_ns := self._next_wake_ns()) is not None and self.now_ns + wait_ns <= until_ns:
            self._wake(wait_ns)
        self.now_ns = until_ns

    def let_rest(self, most_wakes: int) -> int:
        """Nothing happens any more: grant every wake-up; how many there were until there was no other."""
        for count in range(most_wakes):
            wait_ns = self._next_wake_ns()
            if wait_ns is None:
                return count
            self._wake(wait_ns)
        return most_wakes

    def summarize(self) -> None:
        self._tell(Summarize(seq=1))

    def files(self) -> dict[tuple[int, str], Value]:
        """What every file holds, by namespace and tunable."""
        return {
            (place, tunable.name): parse_value(tunable, self._path(place, tunable).read_text())
            for place in self.registry.trees
            for tunable in self.tunables
        }

    # the listener of decisions and overrides

    def changed(self, change: Change, tunable: Tunable) -> None:
        cell = change.netns.cookie, tunable.name
        bounds = self._quantities.bounds(
            tunable,
            original=self.administrator[cell],
            current=change.old,
            device=Device(netns_cookie=GLOBAL, ifindex=0),
        )
        self.steps.append(Step(time_ns=self.now_ns, change=change, bounds=bounds))
        self.values[cell] = change.new

    def cap_reached(self, tuner: str, outcome: Outcome, netns: Netns, cap: Value) -> None:
        pass

    def turned_off(self, tuner: str, override: Override, writer: SysctlWriter | None) -> None:
        pass

    def turned_on(self, tuner: str, netns: Netns) -> None:
        pass

    # how it works

    def _tell(self, message: ToWorker) -> None:
        self._carry_out(self.runner.handle(as_received(message, to_worker), self.now_ns))

    def _carry_out(self, answers: list[ToSupervisor]) -> None:
        for _ in range(MOST_ROUNDS):
            proposals: list[Proposal] = []
            for sent in answers:
                answer = as_received(sent, to_supervisor)
                if isinstance(answer, Answer):
                    proposals += answer.proposals
                    self.notes += answer.notes
                    self._saved |= {saved.netns_cookie: saved for saved in answer.saved}
            if not proposals:
                return
            outcomes = [self._decisions.apply(self.declaration, proposal) for proposal in proposals]
            self.outcomes += outcomes
            self.now_ns += REACTION_NS
            told = as_received(Outcomes(outcomes=outcomes), to_worker)
            answers = self.runner.handle(told, self.now_ns)
        raise AssertionError(f"proposals without end: {proposals}")

    def _next_wake_ns(self) -> int | None:
        timeout_ms = self.runner.timeout_ms(self.now_ns)
        return None if timeout_ms is None else timeout_ms * 1_000_000

    def _wake(self, wait_ns: int) -> None:
        self.now_ns += wait_ns
        self._carry_out(self.runner.wake(self.now_ns))

    def _view(self, cookie: int) -> View | None:
        return self._decisions.view(self.declaration, cookie)

    def _refuse_line(self, text: str) -> None:
        raise AssertionError(text)

    def _path(self, place: int, tunable: Tunable) -> Path:
        return self.registry.trees[place] / tunable.name.replace(".", "/")

    def _put(self, cookie: int, tunable: Tunable, value: Value) -> None:
        self._path(self.place_of(cookie), tunable).write_text(format_value(tunable, value) + "\n")
        self.values[cookie, tunable.name] = value

    def _write_proc(self, proc: Path) -> None:
        (self.root / "netns").mkdir()
        proc.mkdir()
        zone = f"Node 0, zone   Normal\n  high 0\n  managed {self.memory_pages}\n"
        (proc / "zoneinfo").write_text(zone)
        (self.root / "possible").write_text(POSSIBLE_CPUS)

    def _write_sysctls(self) -> None:
        """Global ones show in every namespace, but only the initial one's are the tuner's to write."""
        for place, tree in self.registry.trees.items():
            for tunable in self.tunables:
                path = tree / tunable.name.replace(".", "/")
                path.parent.mkdir(parents=True, exist_ok=True)
                cookie = self.cookie_of(tunable, place)
                value = self.administrator.setdefault((cookie, tunable.name), self.draw_value(tunable))
                path.write_text(format_value(tunable, value) + "\n")
        self.values = dict(self.administrator)
        boot_id = self.registry.trees[self.initial] / "kernel/random/boot_id"
        boot_id.parent.mkdir(parents=True)
        boot_id.write_text("11111111-0000-0000-0000-000000000000\n")

    def _wire(self, proc: Path) -> None:
        known = KnownValues()
        self._ledger = Ledger(self.root / "state", proc_root=proc)
        self._overrides = Overrides(
            ledger=self._ledger, registry=self.registry, listener=self, warn=self._refuse_line
        )
        self._judge = SysctlJudge(
            loop=Loop(),
            registry=self.registry,
            overrides=self._overrides,
            known=known,
            ledger=self._ledger,
            declarations=lambda: [self.declaration],
            warn=self._refuse_line,
            proc_root=proc,
        )
        self._quantities = Amounts(
            registry=self.registry, memory=Memory(proc_root=proc), possible_cpus=self.root / "possible"
        )
        self._decisions = Decisions(
            registry=self.registry,
            ledger=self._ledger,
            overrides=self._overrides,
            quantities=self._quantities,
            settings=AdministratorSettings({}),
            known=known,
            listener=self,
            stale_seen=self._judge.stale_seen,
            dry_run=False,
            proc_root=proc,
        )
