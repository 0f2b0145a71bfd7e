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
        if _is_below(tunable, new[index], bounds.floor[index]):
            return f"{field}: {new[index]} is below the floor {bounds.floor[index]}"
        if _is_below(tunable, bounds.cap[index], new[index]):
            return f"{field}: {new[index]} is above the cap {bounds.cap[index]}"
    return None


def _is_below(tunable: Tunable, lower: int, upper: int) -> bool:
    """Of masks, the lower one lacks a bit that the upper one has: bounds are sets there."""
    return bool(upper & ~lower) if tunable.format is Format.CPUMASK else lower < upper


def reaches_cap(*, current: Value, new: Value, bounds: Bounds) -> bool:
    """Whether a field would grow to its cap or beyond."""
    return any(
        new[index] > current[index] and new[index] >= bounds.cap[index]
        for index in changed_fields(current, new)
    )


def changed_fields(current: Value, new: Value) -> list[int]:
    return [index for index, (old, wanted) in enumerate(zip(current, new, strict=True)) if old != wanted]
