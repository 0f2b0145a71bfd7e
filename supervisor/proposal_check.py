# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a proposal may be carried out, as far as that follows from data alone. Pure.

Called by decision.py. A worker is not trusted: whatever it asks for, nothing that is not declared
and nothing outside floor and cap gets past here. Each check answers why not, or None.
"""

from __future__ import annotations

from bpftune.ipc.declaration import Declaration, Format, Scope, Tunable, Writer
from bpftune.ipc.messages import GLOBAL, Proposal, Value
from bpftune.supervisor.quantities import Bounds


def declaration_refusal(declaration: Declaration, proposal: Proposal) -> str | None:
    """Checks the proposal against the tuner's declaration alone."""
    tunable = declaration.tunables_by_name.get(proposal.tunable)
    if tunable is None:
        return f"tuner '{declaration.name}' does not declare {proposal.tunable}"
    if proposal.scenario not in declaration.scenarios_by_id:
        return f"tuner '{declaration.name}' does not declare scenario '{proposal.scenario}'"
    if tunable.writer is not Writer.SYSCTL:
        return f"{tunable.name} is not written by the supervisor"
    if len(proposal.new) != tunable.width:
        return f"{tunable.name} has {tunable.width} fields, not {len(proposal.new)}"
    if (tunable.scope is Scope.GLOBAL) != (proposal.netns_cookie == GLOBAL):
        return f"{tunable.name} has scope {tunable.scope}, namespace {proposal.netns_cookie} does not fit"
    return None


def value_refusal(tunable: Tunable, *, current: Value, new: Value, bounds: Bounds) -> str | None:
    """Checks the fields that would change; what stays is the administrator's, whatever it is."""
    if new == current:
        return "no change"
    for index in changed_fields(current, new):
        field = f"{tunable.name} field {index}" if tunable.width > 1 else tunable.name
        if tunable.moves is not None and index not in tunable.moves:
            return f"{field} may not move"
        # Bounds move with devices and memory: coming back towards a cap that shrank is right, and so is
        # rising towards a floor.
        if _sinks_below(tunable, current[index], new[index], bounds.floor[index]):
            return f"{field}: {new[index]} is below the floor {bounds.floor[index]}"
        if _rises_above(tunable, current[index], new[index], bounds.cap[index]):
            return f"{field}: {new[index]} is above the cap {bounds.cap[index]}"
    return None


def _sinks_below(tunable: Tunable, current: int, new: int, floor: int) -> bool:
    """Of masks, one that drops a bit of the floor: their bounds are sets."""
    if tunable.format is Format.CPUMASK:
        return bool(current & ~new & floor)
    return new < current and new < floor


def _rises_above(tunable: Tunable, current: int, new: int, cap: int) -> bool:
    """Of masks, one that takes a bit which is not in the cap."""
    if tunable.format is Format.CPUMASK:
        return bool(new & ~current & ~cap)
    return new > current and new > cap


def reaches_cap(*, current: Value, new: Value, bounds: Bounds) -> bool:
    """Whether a field would grow to its cap or beyond; for a switch, being on is no limit reached."""
    return any(
        new[index] > current[index] and new[index] >= bounds.cap[index] > 1
        for index in changed_fields(current, new)
    )


def changed_fields(current: Value, new: Value) -> list[int]:
    return [index for index, (old, wanted) in enumerate(zip(current, new, strict=True)) if old != wanted]
