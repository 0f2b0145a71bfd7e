# SPDX-License-Identifier: GPL-2.0-or-later
"""The only place where a worker's wish becomes a sysctl.

Called by the daemon for every proposal of every worker, on the path from event to value written, so
nothing here waits for anything but the kernel and the ledger's commit. Whatever happens ends in an
Outcome; no error of a tunable, a namespace or the ledger gets out. Logging is the listener's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from bpftune.ipc.control import Change
from bpftune.ipc.declaration import Declaration, Scope, Tunable, Writer
from bpftune.ipc.errors import BpftuneError, LedgerError, NetnsGone, TunableError
from bpftune.ipc.messages import GLOBAL, Netns, Note, Outcome, Proposal, Status, TunableView, Value, View
from bpftune.supervisor.known_values import KnownValues
from bpftune.supervisor.ledger import Ledger
from bpftune.supervisor.ledger_rows import Intent, change_of
from bpftune.supervisor.netns import NetnsRegistry
from bpftune.supervisor.overrides import Overrides
from bpftune.supervisor.proposal_check import declaration_refusal, reaches_cap, value_refusal
from bpftune.supervisor.quantities import Bounds, Device, Quantities
from bpftune.supervisor.sysctl_d import AdministratorSettings
from bpftune.supervisor.tunables import Reading, format_value, read_tunable, write_tunable

StaleSeen = Callable[[str, Tunable, int, Value], None]
"""(tuner, tunable, netns cookie, what it holds now)"""


class DecisionListener(Protocol):
    def changed(self, change: Change, tunable: Tunable) -> None:
        """A change was written and read back; with outcome "observed", it would have been."""

    def cap_reached(self, tuner: str, outcome: Outcome, netns: Netns, cap: Value) -> None:
        """The first time that a tunable came to its cap in a namespace, or was refused to go beyond."""


class Decisions:
    def __init__(
        self,
        *,
        registry: NetnsRegistry,
        ledger: Ledger,
        overrides: Overrides,
        quantities: Quantities,
        settings: AdministratorSettings,
        known: KnownValues,
        listener: DecisionListener,
        stale_seen: StaleSeen,
        dry_run: bool,
        proc_root: Path = Path("/proc"),
    ) -> None:
        """`settings` is empty when what sysctl.d sets is to be tuned all the same."""
        self._registry = registry
        self._ledger = ledger
        self._overrides = overrides
        self._quantities = quantities
        self._settings = settings
        self._known = known
        self._listener = listener
        self._stale_seen = stale_seen
        self._dry_run = dry_run
        self._proc_root = proc_root
        self._capped: set[tuple[int, str]] = set()

    def apply(self, declaration: Declaration, proposal: Proposal) -> Outcome:
        """Check a proposal of the tuner `declaration` and carry it out. Never raises a BpftuneError.

        `current` of the outcome is what the tunable holds, or what was expected where it was not read.
        """
        why = declaration_refusal(declaration, proposal) or self._standing_refusal(declaration, proposal)
        if why is not None:
            return _outcome(proposal, Status.REFUSED, proposal.expected, why)
        try:
            with self._registry.enter(proposal.netns_cookie):
                return self._decide(declaration, proposal)
        except NetnsGone as error:
            return _outcome(proposal, Status.STALE, proposal.expected, str(error))
        except BpftuneError as error:
            return _outcome(proposal, Status.FAILED, proposal.expected, str(error))

    def view(self, declaration: Declaration, cookie: int) -> View | None:
        """The tuner's tunables in one namespace, or with GLOBAL the global ones; None: it is gone.

        Tunables that cannot be read there are absent.
        """
        scope = Scope.GLOBAL if cookie == GLOBAL else Scope.NETNS
        wanted = [one for one in declaration.tunables if one.scope is scope and one.writer is Writer.SYSCTL]
        try:
            with self._registry.enter(cookie):
                views = {one.name: self._tunable_view(declaration, one, cookie) for one in wanted}
                netns = self._registry.netns(cookie)
        except BpftuneError:
            return None
        return View(
            netns=netns,
            tunables={name: view for name, view in views.items() if view is not None},
            memory_bytes=self._quantities.memory_bytes,
        )

    def remark(self, note: Note) -> None:
        """Keep a policy's decision that changes nothing with the change that it is about."""
        with suppress(LedgerError):
            self._ledger.remark(note.netns_cookie, note.tunable, note.text)

    def written_ns(self, proposal: Proposal) -> int:
        """When we last wrote what the proposal is about, CLOCK_MONOTONIC; 0: never."""
        known = self._known.get(proposal.netns_cookie, proposal.tunable)
        return known.written_ns if known is not None else 0

    def left_alone(self, declaration: Declaration) -> list[str]:
        """The tuner's tunables that sysctl.d sets."""
        return [one.name for one in declaration.tunables if self._settings.find(one.name)]

    def forget(self, cookie: int) -> None:
        self._capped = {key for key in self._capped if key[0] != cookie}

    def _standing_refusal(self, declaration: Declaration, proposal: Proposal) -> str | None:
        why = self._overrides.off_reason(declaration.name, proposal.netns_cookie)
        if why is not None:
            return why
        setting = self._settings.find(proposal.tunable)
        return f"set in {setting.file}" if setting else None

    def _decide(self, declaration: Declaration, proposal: Proposal) -> Outcome:
        """Inside the namespace: everything that depends on the current value."""
        tunable = declaration.tunables_by_name[proposal.tunable]
        before = self._read(tunable)
        if before.value != proposal.expected:
            return self._stale(declaration, tunable, proposal, before.value)
        netns = self._registry.netns(proposal.netns_cookie)
        bounds = self._bounds(tunable, proposal, before.value)
        why = value_refusal(tunable, current=before.value, new=proposal.new, bounds=bounds)
        if why is not None:
            outcome = _outcome(proposal, Status.REFUSED, before.value, why)
        else:
            intent = Intent(
                tuner=declaration.name, tunable=tunable, netns=netns, proposal=proposal, before=before
            )
            outcome = self._carry_out(declaration, intent)
        self._note_cap(declaration, outcome, netns, bounds)
        return outcome

    def _carry_out(self, declaration: Declaration, intent: Intent) -> Outcome:
        if not self._dry_run:
            return self._write(declaration, intent)
        self._listener.changed(change_of(intent, 0, Status.OBSERVED.value), intent.tunable)
        return _outcome(intent.proposal, Status.OBSERVED, intent.before.value)

    def _write(self, declaration: Declaration, intent: Intent) -> Outcome:
        proposal, tunable = intent.proposal, intent.tunable
        change = self._ledger.begin(intent)
        try:
            # The commit above took longest of all; ask again, so that a value that somebody wrote in
            # the meantime is not written over.
            now = self._read(tunable).value
            if now != proposal.expected:
                self._ledger.finish(change, "undone", seen=intent.before.value, why="stale")
                return self._stale(declaration, tunable, proposal, now)
            write_tunable(tunable, proposal.new, proc_root=self._proc_root)
            why = ""
        except TunableError as error:
            why = str(error)
        return self._finish(change, intent, why)

    def _finish(self, change: Change, intent: Intent, why: str) -> Outcome:
        proposal, tunable = intent.proposal, intent.tunable
        seen = self._read_back(tunable, intent.before.value)
        self._known.wrote(proposal.netns_cookie, tunable.name, seen)
        if not why and seen != proposal.new:
            read, wanted = format_value(tunable, seen), format_value(tunable, proposal.new)
            why = f"{tunable.name} reads ({read}) after ({wanted}) was written"
        try:
            change = self._ledger.finish(change, "failed" if why else "applied", seen=seen, why=why)
        except BpftuneError as error:
            # The next start settles the intent by what it finds.
            return _outcome(proposal, Status.FAILED, seen, str(error), change.id)
        if why:
            return _outcome(proposal, Status.FAILED, seen, why, change.id)
        self._listener.changed(change, tunable)
        return _outcome(proposal, Status.APPLIED, seen, "", change.id)

    def _stale(self, declaration: Declaration, tunable: Tunable, proposal: Proposal, now: Value) -> Outcome:
        self._stale_seen(declaration.name, tunable, proposal.netns_cookie, now)
        return _outcome(proposal, Status.STALE, now, "the value changed meanwhile")

    def _note_cap(self, declaration: Declaration, outcome: Outcome, netns: Netns, bounds: Bounds) -> None:
        proposal = outcome.proposal
        key = (proposal.netns_cookie, proposal.tunable)
        if key in self._capped or outcome.status in (Status.STALE, Status.FAILED):
            return
        if reaches_cap(current=proposal.expected, new=proposal.new, bounds=bounds):
            self._capped.add(key)
            self._listener.cap_reached(declaration.name, outcome, netns, bounds.cap)

    def _bounds(self, tunable: Tunable, proposal: Proposal, current: Value) -> Bounds:
        # A namespace's tunable depends on its own devices, a global one on the event's.
        cookie = proposal.netns_cookie or proposal.device_netns_cookie
        return self._quantities.bounds(
            tunable,
            original=self._ledger.original(proposal.netns_cookie, tunable.name, current),
            current=current,
            device=Device(netns_cookie=cookie, ifindex=proposal.device),
        )

    def _tunable_view(self, declaration: Declaration, tunable: Tunable, cookie: int) -> TunableView | None:
        try:
            current = self._read(tunable).value
        except TunableError:
            return None
        self._saw(declaration, tunable, cookie, current)
        original = self._ledger.original(cookie, tunable.name, current)
        device = Device(netns_cookie=cookie, ifindex=0)
        bounds = self._quantities.bounds(tunable, original=original, current=current, device=device)
        return TunableView(
            original=original,
            current=current,
            floor=bounds.floor,
            cap=bounds.cap,
            adopted=self._settings.find(tunable.name) is None
            and not self._overrides.is_off(declaration.name, cookie),
        )

    def _saw(self, declaration: Declaration, tunable: Tunable, cookie: int, current: Value) -> None:
        """What was not there when we looked last is somebody else's, and not to be taken for known."""
        known = self._known.get(cookie, tunable.name)
        if known is None or known.value == current or self._overrides.is_off(declaration.name, cookie):
            self._known.saw(cookie, tunable.name, current)
        else:
            self._stale_seen(declaration.name, tunable, cookie, current)

    def _read(self, tunable: Tunable) -> Reading:
        return read_tunable(tunable, proc_root=self._proc_root)

    def _read_back(self, tunable: Tunable, before: Value) -> Value:
        try:
            return self._read(tunable).value
        except TunableError:
            return before


def _outcome(
    proposal: Proposal, status: Status, current: Value, why: str = "", change_id: int = 0
) -> Outcome:
    return Outcome(proposal=proposal, status=status, current=current, why=why, change_id=change_id)
