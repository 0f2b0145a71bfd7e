# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds out whether somebody else wrote a tuner's tunable, and turns the tuner off there.

Gets every sysctl write of other processes from the BPF program in watch_sysctl/, and from
decision.py what it found changed. A write that does not show yet is looked at again after
20 and 60 ms, during which the tuner may change nothing in that namespace.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from bpftune.ipc.control import Override
from bpftune.ipc.declaration import Declaration, Scope, Tunable, Writer
from bpftune.ipc.errors import BpftuneError, LedgerError, TunableError
from bpftune.ipc.messages import GLOBAL, Value
from bpftune.ipc.record import Event
from bpftune.supervisor.known_values import KnownValues
from bpftune.supervisor.ledger import Ledger
from bpftune.supervisor.loop import Loop, Timer
from bpftune.supervisor.netns import NetnsRegistry
from bpftune.supervisor.overrides import Overrides
from bpftune.supervisor.sysctl_d import AdministratorSettings, read_all_sysctl_d
from bpftune.supervisor.sysctl_write import (
    SYSCTL_COMM,
    SysctlWrite,
    Verdict,
    decode_sysctl_write,
    judge_write,
    wanted_value,
)
from bpftune.supervisor.sysctl_writer import SysctlWriter, describe_writer
from bpftune.supervisor.tunables import format_value, parse_value, read_tunable, write_text

LOOK_AGAIN_S = (0.020, 0.040)
"""Waits before the second and the third look."""
UNEXPLAINED_S = 0.100
"""How long a stale value may wait for the sysctl event that explains it."""
UNSEEN_WRITER = "unknown (not through sysctl)"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """Somebody may have written `tunable` in one namespace."""

    cookie: int
    tunable: Tunable
    tuners: list[str]
    before: Value | None
    writer: SysctlWriter | None = None
    """None: no sysctl event says who."""

    @property
    def cell(self) -> tuple[int, str]:
        return self.cookie, self.tunable.name


@dataclass(slots=True, kw_only=True)
class _Pending:
    """A write that does not show yet."""

    case: _Case
    timer: Timer
    looks: int = 1


class SysctlJudge:
    def __init__(
        self,
        *,
        loop: Loop,
        registry: NetnsRegistry,
        overrides: Overrides,
        known: KnownValues,
        ledger: Ledger,
        declarations: Callable[[], Iterable[Declaration]],
        warn: Callable[[str], None],
        proc_root: Path = Path("/proc"),
        read_settings: Callable[[], AdministratorSettings] = read_all_sysctl_d,
    ) -> None:
        """`declarations` gives those of the tuners that are loaded now."""
        self._read_settings = read_settings
        self._loop = loop
        self._registry = registry
        self._overrides = overrides
        self._known = known
        self._ledger = ledger
        self._declarations = declarations
        self._warn = warn
        self._proc_root = proc_root
        self._pending: dict[tuple[int, str], _Pending] = {}
        self._unexplained: dict[tuple[str, int, str], Timer] = {}

    def handle(self, event: Event) -> None:
        """Take a record of watch_sysctl."""
        self.judge(decode_sysctl_write(event))

    def judge(self, write: SysctlWrite) -> None:
        """Decide about one write; keys that no tuner uses are ignored."""
        users = [(name, tunable) for name, tunable in self._users() if _key(tunable) == write.key]
        if not users:
            return
        tunable = users[0][1]
        cookie = GLOBAL if tunable.scope is Scope.GLOBAL else write.netns_cookie
        self._registry.learn(cookie, write.netns_inum, write.pid)
        pending = self._pending.get((cookie, tunable.name))
        self._judge(
            write,
            _Case(
                cookie=cookie,
                tunable=tunable,
                tuners=[name for name, _ in users],
                # An earlier write that did not show yet may be what this one found as the current value.
                before=pending.case.before if pending else _before(tunable, write),
                writer=describe_writer(
                    pid=write.pid, uid=write.uid, comm=write.comm, proc_root=self._proc_root
                ),
            ),
        )

    def stale_seen(self, tuner: str, tunable: Tunable, cookie: int, now: Value) -> None:
        """A proposal, or whoever read it last, expected another value. Unless that was our doing, somebody
        wrote it: if no sysctl event says who within UNEXPLAINED_S, the tuner is turned off all the same."""
        known = self._known.get(cookie, tunable.name)
        key = (tuner, cookie, tunable.name)
        if known is None or known.value == now or key in self._unexplained:
            return
        tuners = [name for name, used in self._users() if used.name == tunable.name]
        case = _Case(cookie=cookie, tunable=tunable, tuners=tuners, before=known.value)
        self._overrides.hold(tuner, cookie)
        self._unexplained[key] = self._loop.call_later(UNEXPLAINED_S, lambda: self._explain(tuner, case))

    def forget(self, cookie: int) -> None:
        """The namespace is gone."""
        for cell in [cell for cell in self._pending if cell[0] == cookie]:
            self._drop(cell)

    def _judge(self, write: SysctlWrite, case: _Case) -> None:
        now = self._read(case)
        if now is None:
            return
        wanted = wanted_value(case.tunable, write, case.before)
        known = self._known.get(*case.cell)
        configured = self._configured(write, case) if wanted == case.before else None
        match judge_write(
            write, before=case.before, wanted=wanted, now=now, known=known, configured=configured
        ):
            case Verdict.OVERRIDE:
                self._override(case, now)
            case Verdict.REDO:
                self._redo(write, case)
            case Verdict.WAIT:
                self._wait(case)

    def _configured(self, write: SysctlWrite, case: _Case) -> Value | None:
        """What the files of sysctl.d make of the tunable, if that is what the writer may be applying. They
        are read anew: applying what was just written there is what `sysctl --system` is for."""
        if write.comm != SYSCTL_COMM:
            return None
        setting = self._read_settings().find(case.tunable.name)
        return wanted_value(case.tunable, replace(write, new=setting.value), case.before) if setting else None

    def _wait(self, case: _Case) -> None:
        self._drop(case.cell)
        timer = self._loop.call_later(LOOK_AGAIN_S[0], lambda: self._look_again(case.cell))
        self._pending[case.cell] = _Pending(case=case, timer=timer)
        for tuner in case.tuners:
            self._overrides.hold(tuner, case.cookie)

    def _look_again(self, cell: tuple[int, str]) -> None:
        pending = self._pending[cell]
        now = self._read(pending.case)
        if now is not None and now != pending.case.before:
            self._override(pending.case, now)
        elif now is not None and pending.looks < len(LOOK_AGAIN_S):
            pending.timer = self._loop.call_later(LOOK_AGAIN_S[pending.looks], lambda: self._look_again(cell))
            pending.looks += 1
        else:
            self._drop(cell)

    def _redo(self, write: SysctlWrite, case: _Case) -> None:
        """Put back what our write went over, by the same write: the kernel refuses it if it did then."""
        try:
            with self._registry.enter(case.cookie):
                write_text(case.tunable.name, write.new or "", proc_root=self._proc_root)
        except BpftuneError:
            return
        now = self._read(case)
        if now is not None:
            self._override(case, now)

    def _override(self, case: _Case, now: Value) -> None:
        self._drop(case.cell)
        self._known.saw(*case.cell, now)
        by = str(case.writer) if case.writer else UNSEEN_WRITER
        try:
            self._ledger.release(*case.cell, by)
        except LedgerError as error:
            self._warn(str(error))
        # A global tunable exists in the initial namespace only, wherever the writer was.
        initial = case.cookie == GLOBAL
        override = Override(
            netns=self._registry.initial if initial else self._registry.netns(case.cookie),
            by=by,
            tunable=case.tunable.name,
            old=None if case.before is None else format_value(case.tunable, case.before),
            new=format_value(case.tunable, now),
            since_s=time.time(),
        )
        for tuner in case.tuners:
            self._overrides.turn_off(tuner, override, case.writer)

    def _explain(self, tuner: str, case: _Case) -> None:
        del self._unexplained[tuner, case.cookie, case.tunable.name]
        self._overrides.unhold(tuner, case.cookie)
        now = self._read(case)
        known = self._known.get(*case.cell)
        explained = known is not None and known.value == now
        if now is not None and not explained and not self._overrides.is_off(tuner, case.cookie):
            self._override(case, now)

    def _drop(self, cell: tuple[int, str]) -> None:
        pending = self._pending.pop(cell, None)
        if pending is None:
            return
        pending.timer.cancel()
        for tuner in pending.case.tuners:
            self._overrides.unhold(tuner, pending.case.cookie)

    def _users(self) -> Iterable[tuple[str, Tunable]]:
        for declaration in self._declarations():
            for tunable in declaration.tunables:
                if tunable.writer is Writer.SYSCTL:
                    yield declaration.name, tunable

    def _read(self, case: _Case) -> Value | None:
        try:
            with self._registry.enter(case.cookie):
                return read_tunable(case.tunable, proc_root=self._proc_root).value
        except BpftuneError:
            return None


def _before(tunable: Tunable, write: SysctlWrite) -> Value | None:
    try:
        return parse_value(tunable, write.current) if write.current is not None else None
    except TunableError:
        return None


def _key(tunable: Tunable) -> str:
    return tunable.name.replace(".", "/")
