# SPDX-License-Identifier: GPL-2.0-or-later
"""What people get to read about decisions and overrides: one line each, in the fixed words.

Knows formats and priorities, decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from bpftune.ipc.control import Change, Override
from bpftune.ipc.declaration import Declaration, Strategy, Tunable
from bpftune.ipc.messages import Netns, Note, Outcome, Status, Value
from bpftune.supervisor.logger import Logger, MessageId, Priority
from bpftune.supervisor.sysctl_writer import SysctlWriter
from bpftune.supervisor.tunables import format_value
from bpftune.supervisor.wording import (
    change_line,
    format_elsewhere,
    format_values,
    format_where,
    override_line,
    scenario_line,
    strategy_line,
)


class Announcer:
    def __init__(self, logger: Logger) -> None:
        self._logger = logger

    def changed(self, declaration: Declaration, change: Change, tunable: Tunable) -> str:
        """Log a change, or with outcome "observed" one that would have been made; returns its line."""
        scenario = declaration.scenarios_by_id[change.scenario]
        observe = change.outcome == Status.OBSERVED
        line = change_line(
            change.reason, tunable, change.old, change.new, netns=change.netns, observe=observe
        )
        self._logger.log(
            Priority.INFO,
            scenario_line(scenario, tunable.name, change.netns),
            tuner=change.tuner,
            tunable=tunable.name,
            scenario=scenario.id,
            netns=change.netns.name,
            change_id=change.id,
        )
        self._logger.log(
            Priority.NOTICE,
            line,
            tuner=change.tuner,
            tunable=tunable.name,
            scenario=scenario.id,
            netns=change.netns.name,
            old=format_value(tunable, change.old),
            new=format_value(tunable, change.new),
            change_id=change.id,
            message_id=MessageId.CHANGE,
            fold=f"{tunable.name} {scenario.id} {change.netns.name}" if observe else "",
        )
        return line

    def noted(self, declaration: Declaration, note: Note, netns: Netns) -> None:
        """A decision of a policy that changes nothing: growth stopped, a cap of its own reached."""
        self._logger.log(
            Priority.INFO,
            f"{note.tunable} {format_where(netns)}: {note.text}",
            tuner=declaration.name,
            tunable=note.tunable,
            scenario=note.scenario,
            netns=netns.name,
        )

    def acted(self, declaration: Declaration, note: Note, netns: Netns) -> str:
        """What a probe did by itself: the same two lines as for a change, the policy's text being the
        second, which is returned."""
        scenario = declaration.scenarios_by_id[note.scenario]
        line = f"{note.text}{format_elsewhere(netns)}"
        occurred = scenario_line(scenario, note.tunable, netns)
        for priority, text in ((Priority.INFO, occurred), (Priority.NOTICE, line)):
            self._logger.log(
                priority,
                text,
                tuner=declaration.name,
                tunable=note.tunable,
                scenario=scenario.id,
                netns=netns.name,
            )
        return line

    def cap_reached(self, tunable: Tunable, tuner: str, outcome: Outcome, netns: Netns, cap: Value) -> None:
        what = {
            Status.REFUSED: "was not raised above its cap",
            Status.OBSERVED: "would have reached its cap",
        }.get(outcome.status, "has reached its cap")
        self._logger.log(
            Priority.NOTICE,
            f"{tunable.name} {format_where(netns)} {what} ({format_value(tunable, cap)})",
            tuner=tuner,
            tunable=tunable.name,
            scenario=outcome.proposal.scenario,
            netns=netns.name,
        )

    def strategy_switched(
        self, tuner: str, old: Strategy, new: Strategy, values: Mapping[str, float]
    ) -> None:
        self._logger.notice(strategy_line(tuner, old, new, values), tuner=tuner)

    def strategy_kept(self, tuner: str, active: Strategy, values: Mapping[str, float] | None) -> None:
        why = "no worker could evaluate it" if values is None else format_values(values)
        self._logger.debug(f"tuner '{tuner}' keeps its strategy '{active.name}': {why}", tuner=tuner)

    def evaluation_refused(self, tuner: str, active: Strategy, fault: str) -> None:
        self._logger.warning(
            f"cannot compare the strategies of tuner '{tuner}': {fault}; '{active.name}' goes on", tuner=tuner
        )

    def turned_off(self, tuner: str, override: Override, writer: SysctlWriter | None) -> None:
        # Whoever may make namespaces, and that is anybody, can write their sysctls as often as he likes.
        fold = override.tunable is not None and not override.netns.initial
        self._logger.log(
            Priority.WARNING,
            _off_line(tuner, override, writer),
            tuner=tuner,
            tunable=override.tunable or "",
            netns=override.netns.name,
            old=override.old or "",
            new=override.new or "",
            message_id=MessageId.OVERRIDE,
            fold="override" if fold else "",
        )

    def turned_on(self, tuner: str, netns: Netns) -> None:
        where = format_where(netns)
        self._logger.log(Priority.NOTICE, f"enabling '{tuner}' {where}", tuner=tuner, netns=netns.name)


def _off_line(tuner: str, override: Override, writer: SysctlWriter | None) -> str:
    netns = override.netns
    if writer is not None and override.tunable is not None:
        return override_line(
            pid=writer.pid,
            argv0=writer.command,
            key=override.tunable,
            tuner=tuner,
            netns=netns,
            old=override.old,
            new=override.new,
            user=writer.user,
        )
    where = format_where(netns)
    if override.tunable is None:
        return f"disabling '{tuner}' {where}: {override.by}"
    return (
        f"{override.tunable} was changed from ({override.old}) -> ({override.new}) by {override.by};"
        f" disabling '{tuner}' {where}"
    )
