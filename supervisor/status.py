# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts together what `bpftune-ctl status`, `tunables` and `summary` show. Reads, changes nothing."""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from dataclasses import dataclass

from bpftune import __version__
from bpftune.bpf.runtime import Bpf
from bpftune.ipc.control import (
    NetnsChanges,
    StatusReply,
    StrategyStatus,
    SupportReply,
    TunableStatus,
    TunerState,
    TunerStatus,
)
from bpftune.ipc.messages import GLOBAL, TunableView, View
from bpftune.supervisor.decision import Decisions
from bpftune.supervisor.forkserver import ForkServer
from bpftune.supervisor.ledger import Ledger
from bpftune.supervisor.netns import NetnsRegistry
from bpftune.supervisor.options import Options
from bpftune.supervisor.overrides import Overrides
from bpftune.supervisor.processes import Usage, read_usage
from bpftune.supervisor.roster import Roster, Tuner
from bpftune.supervisor.summary import ChangedTunable, ScenarioCount, summary_lines
from bpftune.supervisor.support import NETNS_LINE, Support, format_hook_table, judge_support


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that can be reported on."""

    options: Options
    started_ns: int
    bpf: Bpf
    roster: Roster
    registry: NetnsRegistry
    ledger: Ledger
    overrides: Overrides
    decisions: Decisions
    forkserver: ForkServer
    rivals: list[str]


def status_reply(parts: Parts) -> StatusReply:
    usages = {tuner.name: read_usage(_pid(tuner)) for tuner in parts.roster}
    ours = [read_usage(os.getpid()), read_usage(parts.forkserver.pid)]
    counted = [usage for usage in (*ours, *usages.values()) if usage is not None]
    return StatusReply(
        version=__version__,
        pid=os.getpid(),
        uptime_s=(time.monotonic_ns() - parts.started_ns) / 1e9,
        mode=parts.options.mode,
        learning_rate=parts.options.learning_rate,
        kernel=platform.release(),
        support=support_of(parts).value,
        pss_bytes=sum(usage.pss_bytes for usage in counted),
        cpu_s=sum(usage.cpu_s for usage in counted),
        ring_dropped=parts.bpf.ring_dropped(),
        tuners=[_tuner_status(parts, tuner, usages[tuner.name]) for tuner in parts.roster],
        namespaces=parts.registry.known(),
        refused_folders=parts.roster.refused,
        changed_in=_changed_in(parts.ledger),
        rivals=parts.rivals,
    )


def status_line(parts: Parts) -> str:
    """One line for systemd."""
    states = [tuner.state for tuner in parts.roster]
    counts = ", ".join(f"{states.count(state)} {state}" for state in TunerState if state in states)
    changes = sum(tuner.changes for tuner in parts.roster)
    return f"{parts.options.mode}: {len(states)} tuners ({counts}), {changes} changes"


def support_of(parts: Parts) -> Support:
    return judge_support({tuner.name: tuner.hooks for tuner in parts.roster})


def support_reply(parts: Parts) -> SupportReply:
    hooks = {tuner.name: tuner.hooks for tuner in parts.roster}
    support = support_of(parts)
    return SupportReply(
        supported=support is not Support.NONE,
        lines=[support.value, NETNS_LINE, "", *format_hook_table(hooks)],
        hooks=hooks,
    )


def tunable_statuses(parts: Parts) -> list[TunableStatus]:
    """Every tunable where it is or was of interest: the initial namespace, and where we changed it."""
    changed = {(cell.cookie, cell.tunable) for cell in parts.ledger.cells()}
    cookies = {cookie for cookie, _ in changed} - {GLOBAL}
    statuses = []
    for tuner in parts.roster:
        for cookie in (GLOBAL, parts.registry.initial.cookie, *sorted(cookies)):
            view = parts.decisions.view(tuner.declaration, cookie)
            if view is not None:
                statuses += _view_statuses(parts, tuner, cookie, view)
    return list({(one.tunable, one.netns.cookie): one for one in statuses}.values())


def summary_text(parts: Parts) -> list[str]:
    """The lines above the tuners' tables."""
    counts = [
        ScenarioCount(
            scenario=tuner.declaration.scenarios_by_id[scenario], tunable=tunable, netns=netns, count=count
        )
        for tuner in parts.roster
        for (scenario, tunable, netns), count in tuner.occurrences.items()
    ]
    return summary_lines(counts, _changed_tunables(parts))


def _changed_tunables(parts: Parts) -> list[ChangedTunable]:
    declared = {tunable.name: tunable for tuner in parts.roster for tunable in tuner.declaration.tunables}
    return [
        ChangedTunable(
            tunable=declared[cell.tunable],
            netns=parts.registry.learn(cell.cookie, cell.inum),
            original=cell.original,
            current=cell.last,
        )
        for cell in parts.ledger.cells()
        if cell.tunable in declared and cell.released is None
    ]


def _changed_in(ledger: Ledger) -> list[NetnsChanges]:
    changed: defaultdict[int, list[str]] = defaultdict(list)
    for cell in ledger.cells():
        if cell.released is None and cell.last != cell.original:
            changed[cell.cookie].append(cell.tunable)
    return [NetnsChanges(netns_cookie=cookie, tunables=sorted(names)) for cookie, names in changed.items()]


def _pid(tuner: Tuner) -> int | None:
    return tuner.worker.pid if tuner.worker is not None else None


def _tuner_status(parts: Parts, tuner: Tuner, usage: Usage | None) -> TunerStatus:
    worker = tuner.worker
    started_ns = worker.started_ns if worker is not None else 0
    state, why = _state(parts, tuner)
    return TunerStatus(
        name=tuner.name,
        description=tuner.declaration.description,
        state=state,
        why=why,
        folder=str(tuner.folder.path),
        pid=_pid(tuner),
        uptime_s=(time.monotonic_ns() - started_ns) / 1e9 if started_ns else 0.0,
        restarts=worker.restarts if worker is not None else 0,
        events_in=worker.events_in if worker is not None else 0,
        events_merged=worker.events_merged if worker is not None else 0,
        events_dropped=worker.events_dropped if worker is not None else 0,
        changes=tuner.changes,
        last_change=tuner.last_change,
        last_change_s=tuner.last_change_s,
        hooks=tuner.hooks,
        counters=parts.bpf.counters(tuner.name),
        overrides=parts.overrides.of(tuner.name),
        write_latency_us=list(tuner.write_latency_us),
        left_alone=parts.decisions.left_alone(tuner.declaration),
        pss_bytes=usage.pss_bytes if usage is not None else None,
        cpu_s=usage.cpu_s if usage is not None else None,
        strategies=_strategies(tuner),
    )


def _strategies(tuner: Tuner) -> list[StrategyStatus]:
    strategist = tuner.strategist
    if strategist is None:
        return []
    return [
        StrategyStatus(
            name=strategy.name,
            description=strategy.description,
            timeout_s=strategy.timeout_s,
            active=strategy is strategist.active,
            value=strategist.values.get(strategy.name),
        )
        for strategy in tuner.declaration.strategies
    ]


def _state(parts: Parts, tuner: Tuner) -> tuple[TunerState, str]:
    """A tuner that is off in the initial namespace is called disabled, though others keep it."""
    why = parts.overrides.off_reason(tuner.name, parts.registry.initial.cookie)
    if tuner.state is TunerState.ACTIVE and why is not None:
        return TunerState.DISABLED, f"{why}, in the initial namespace"
    return tuner.state, tuner.why


def _view_statuses(parts: Parts, tuner: Tuner, cookie: int, view: View) -> list[TunableStatus]:
    return [
        TunableStatus(
            tunable=name,
            tuner=tuner.name,
            netns=view.netns,
            original=shown.original,
            current=shown.current,
            floor=shown.floor,
            cap=shown.cap,
            format=tuner.declaration.tunables_by_name[name].format,
            state=_tunable_state(shown, off=parts.overrides.is_off(tuner.name, cookie)),
        )
        for name, shown in view.tunables.items()
    ]


def _tunable_state(shown: TunableView, *, off: bool) -> str:
    if off:
        return "overridden"
    if not shown.adopted:
        return "left alone"
    return "unchanged" if shown.current == shown.original else "changed"
