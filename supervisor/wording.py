# SPDX-License-Identifier: GPL-2.0-or-later
"""The lines that users of bpftune read and grep. Pure: values in, text out.

The formats are an interface, also of the summary at exit and of `bpftune-ctl summary`. In the
initial namespace ("global ns") they are fixed to the letter; in another one, lines that would
otherwise read the same carry its name at the end.
"""

from __future__ import annotations

from collections.abc import Mapping

from bpftune.ipc.declaration import Scenario, Strategy, Tunable
from bpftune.ipc.messages import GLOBAL, Netns, Outcome, Value
from bpftune.supervisor.tunables import format_value


def scenario_line(scenario: Scenario, tunable: str, netns: Netns) -> str:
    """What happened and why it matters; comes before the change of `tunable` it led to, which need not be
    the scenario's own."""
    return (
        f"Scenario '{scenario.name}' occurred for tunable '{tunable}' {format_where(netns)}. {scenario.why}"
    )


def change_line(
    reason: str, tunable: Tunable, old: Value, new: Value, *, netns: Netns, observe: bool = False
) -> str:
    """One change made, or with `observe` one that would have been made."""
    verb = "would change" if observe else "change"
    values = f"from ({format_value(tunable, old)}) -> ({format_value(tunable, new)})"
    return f"Due to {reason} {verb} {format_tunable(tunable)} {values}{format_elsewhere(netns)}"


def not_done_line(outcome: Outcome) -> str:
    """What a worker proposed in vain, and why."""
    proposal = outcome.proposal
    new = " ".join(map(str, proposal.new))
    return f"{proposal.tunable} -> ({new}): {outcome.status}, {outcome.why}"


def override_line(
    *,
    pid: int,
    argv0: str,
    key: str,
    tuner: str,
    netns: Netns,
    old: str | None = None,
    new: str | None = None,
    user: str | None = None,
) -> str:
    """Someone else wrote a tuner's sysctl: who, which, what was done about it, old -> new if known."""
    writer = f"pid {pid}, cmd '{argv0}' modified sysctl '{key}' that tuner '{tuner}' uses"
    details = [f"user '{user}'"] if user is not None else []
    if old is not None and new is not None:
        details.append(f"from ({_one_space(old)}) -> ({_one_space(new)})")
    because = f": {', '.join(details)}" if details else ""
    return f"{writer}; disabling '{tuner}' {format_where(netns)}{because}"


def strategy_line(tuner: str, old: Strategy, new: Strategy, values: Mapping[str, float]) -> str:
    """A tuner goes on by other means: from which to which, what each was found to be worth."""
    return (
        f"Strategy of tuner '{tuner}' changes from '{old.name}' to '{new.name}' ({format_values(values)})."
        f" {new.description}"
    )


def format_values(values: Mapping[str, float]) -> str:
    """What each strategy is worth."""
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def scenario_summary_line(*, name: str, count: int, tunable: str, netns: Netns, why: str) -> str:
    times = f"{count} time" if count == 1 else f"{count} times"
    where = format_where(netns)
    return f"Summary: scenario '{name}' occurred {times} for tunable '{tunable}' {where}. {why}"


def changed_line(*, tunable: Tunable, netns: Netns, original: Value, current: Value) -> str:
    values = f"({format_value(tunable, original)}) -> ({format_value(tunable, current)})"
    return f"sysctl '{tunable.name}' changed from {values}{format_elsewhere(netns)}"


def repeated_line(message: str, *, count: int, seconds: int) -> str:
    """What stands for `count` more lines like `message`."""
    times = "1 time" if count == 1 else f"{count} times"
    return f"{message} (repeated {times} in {seconds} s)"


def format_where(netns: Netns) -> str:
    """ "in global ns", "in netns '<name>'", or the bare name of what is no namespace ("everywhere")."""
    if netns.cookie < 0:
        return netns.name
    if netns.initial or netns.cookie == GLOBAL:
        return "in global ns"
    return f"in netns '{netns.name or f'cookie {netns.cookie}'}'"


def format_elsewhere(netns: Netns) -> str:
    """What goes behind a line that says where only outside of the initial namespace."""
    where = format_where(netns)
    return "" if where == "in global ns" else f" {where}"


def format_tunable(tunable: Tunable) -> str:
    """The name, with the names of its fields if it declares them: `tcp_rmem(min default max)`."""
    return f"{tunable.name}({' '.join(tunable.fields)})" if tunable.fields else tunable.name


def _one_space(value: str) -> str:
    """A written value on one line: administrators use tabs, blanks and a final newline."""
    return " ".join(value.split())
