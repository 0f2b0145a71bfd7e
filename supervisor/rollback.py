# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts tunables back to what they were before bpftune changed them.

Called by the control server and at exit with --rollback; `read_cell` also settles what a killed
supervisor left. Only a tunable that still holds our value is touched. Byte for byte: the text that
the kernel showed before the first change is what gets written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from bpftune.ipc.control import HIGHEST_CHANGE, Change, RestoredTunable
from bpftune.ipc.errors import BpftuneError, NetnsGone, UnknownName, UsageError
from bpftune.ipc.messages import Netns, Value
from bpftune.supervisor.known_values import KnownValues
from bpftune.supervisor.ledger import Ledger
from bpftune.supervisor.ledger_rows import Cell
from bpftune.supervisor.netns import NetnsRegistry
from bpftune.supervisor.tunables import format_value, read_tunable, write_text

ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One tunable to put back."""

    cell: Cell
    value: Value
    text: str
    since_id: int
    """The first change that this undoes; 0: all of them."""


class Rollback:
    def __init__(
        self,
        *,
        ledger: Ledger,
        registry: NetnsRegistry,
        known: KnownValues,
        proc_root: Path = Path("/proc"),
    ) -> None:
        self._ledger = ledger
        self._registry = registry
        self._known = known
        self._proc_root = proc_root

    @property
    def unknown(self) -> str | None:
        """What cannot be put back because it is not known, else None."""
        return self._ledger.unknown

    def run(self, target: str, tuners: Callable[[], list[str]], *, dry_run: bool) -> list[RestoredTunable]:
        """Put back everything ("all"), what one tuner changed, or what one change (a number) and those
        after it did to its tunable. Nothing that cannot be put back stops the rest.

        `tuners` gives the known names. Raises UnknownName, or UsageError for a change that is over, or that
        somebody else's write followed.
        """
        steps = sorted(self._plan(target, tuners), key=lambda step: (step.cell.cookie, step.cell.tunable))
        return [self._restore(step, dry_run=dry_run) for step in steps]

    def read_cell(self, cell: Cell) -> Value | None:
        """What a cell holds now; None when its namespace or the tunable is gone."""
        try:
            self._registry.learn(cell.cookie, cell.inum)
            with self._registry.enter(cell.cookie):
                return read_tunable(cell.declared, proc_root=self._proc_root).value
        except BpftuneError:
            return None

    def _plan(self, target: str, tuners: Callable[[], list[str]]) -> list[_Step]:
        if target.isascii() and target.isdigit() and len(target) < len(str(HIGHEST_CHANGE)):
            return [self._step_of_change(self._ledger.change(int(target)))]
        cells = [cell for cell in self._ledger.cells() if target in (ALL, cell.tuner)]
        names = tuners()
        if not cells and target != ALL and target not in names:
            raise UnknownName("tuner", target, names)
        steps = [_Step(cell=cell, value=cell.original, text=cell.text, since_id=0) for cell in cells]
        return [step for step in steps if step.cell.released or step.cell.last != step.value]

    def _step_of_change(self, change: Change) -> _Step:
        cell = self._ledger.cell(change.netns.cookie, change.tunable)
        if not self._ledger.of_this_boot(change) or cell is None:
            raise UsageError(f"cannot roll back change {change.id}: its boot or its namespace is over")
        if change.outcome != "applied":
            raise UsageError(f"cannot roll back change {change.id}: it is not in force, but {change.outcome}")
        later = [one for one in self._ledger.followed_by(change) if one.outcome == "applied"]
        for one, following in pairwise([change, *later]):
            if following.old != one.new:
                raise UsageError(
                    f"cannot roll back change {change.id}: somebody else wrote {change.tunable} between"
                    f" changes {one.id} and {following.id}"
                )
        text = cell.text if change.old == cell.original else format_value(cell.declared, change.old)
        return _Step(cell=cell, value=change.old, text=text, since_id=change.id)

    def _restore(self, step: _Step, *, dry_run: bool) -> RestoredTunable:
        cell = step.cell
        try:
            netns = self._registry.learn(cell.cookie, cell.inum)
            with self._registry.enter(cell.cookie):
                current, outcome = self._restore_inside(step, dry_run=dry_run)
        except NetnsGone:
            netns, current, outcome = _netns_of(cell), cell.last, "left: its namespace is gone"
        except BpftuneError as error:
            netns, current, outcome = _netns_of(cell), cell.last, f"failed: {error}"
        return RestoredTunable(
            tunable=cell.tunable,
            netns=netns,
            current=current,
            original=step.value,
            outcome=outcome,
            format=cell.format,
        )

    def _restore_inside(self, step: _Step, *, dry_run: bool) -> tuple[Value, str]:
        cell = step.cell
        current = self._read(cell)
        if current == step.value and not cell.released:
            self._settle(step, dry_run=dry_run)
            return current, "restored"
        if cell.released or current != cell.last:
            return current, f"left: changed by {cell.released or 'someone else'} since"
        if dry_run:
            return current, "would restore"
        write_text(cell.tunable, step.text, proc_root=self._proc_root)
        after = self._read(cell)
        self._known.wrote(cell.cookie, cell.tunable, after)
        if after != step.value:
            found = format_value(cell.declared, after)
            return after, f"failed: it reads '{found}' after '{step.text}' was written"
        self._settle(step, dry_run=False)
        return current, "restored"

    def _settle(self, step: _Step, *, dry_run: bool) -> None:
        if not dry_run:
            self._ledger.rolled_back(step.cell, step.value, since_id=step.since_id)

    def _read(self, cell: Cell) -> Value:
        return read_tunable(cell.declared, proc_root=self._proc_root).value


def _netns_of(cell: Cell) -> Netns:
    return Netns(cookie=cell.cookie, inum=cell.inum, name=cell.netns)
