# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a folder's tuner.toml and checks that its parts fit together.

Called by the supervisor for every tuner folder and for its own watchers. A folder is accepted whole or
refused with one DeclarationError. Nothing in it is executed by reading it.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec

from bpftune.ipc.bounds import parse_bound, quantities_in
from bpftune.ipc.declaration import (
    DECLARATION_FILE,
    Counter,
    Declaration,
    Format,
    Poll,
    Probe,
    Scenario,
    Scope,
    Tunable,
)
from bpftune.ipc.errors import DeclarationError

_FIELDS = frozenset({"field0", "field1", "field2"})
MAX_BYTES = 64 << 10
"""As a message it must fit a packet to the fork server."""


def load_declaration(folder: Path) -> Declaration:
    """Read and check `folder`/tuner.toml. Raises DeclarationError."""
    try:
        with (folder / DECLARATION_FILE).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        declaration = msgspec.convert(tomllib.loads(data.decode()), Declaration)
        _check(declaration)
    except (OSError, ValueError, msgspec.ValidationError, re.error, RecursionError) as error:
        raise DeclarationError(folder, _one_line(error)) from error
    if declaration.name != folder.name:
        raise DeclarationError(folder, f"it declares the name '{declaration.name}'")
    return declaration


def _check(declaration: Declaration) -> None:
    _unique("tunable", [tunable.name for tunable in declaration.tunables])
    _unique("scenario", [scenario.id for scenario in declaration.scenarios])
    _unique("probe", [probe.name for probe in declaration.probes])
    _unique("table of map", [table.map for table in declaration.tables])
    _unique("counter", [counter.name for counter in declaration.counters])
    for tunable in declaration.tunables:
        _check_tunable(tunable)
    for counter in declaration.counters:
        _check_counter(counter)
    for scenario in declaration.scenarios:
        _check_scenario(declaration, scenario)
    for table in declaration.tables:
        fields = [*table.key_fields, *table.value_fields]
        _unique(f"field of map '{table.map}'", [field.name for field in fields])
    for probe in declaration.probes:
        _check_probe(declaration, probe)
    _check_strategies(declaration)
    for rule in declaration.inactive_when:
        known = declaration.tunables_by_name.get(rule.tunable)
        if known is None or not 0 <= rule.field < known.width:
            raise ValueError(f"inactive_when names unknown tunable or field '{rule.tunable}'")


def _check_tunable(tunable: Tunable) -> None:
    for side in ("floor", "cap"):
        formulas = tunable.bounds(side)
        if len(formulas) != tunable.width:
            raise ValueError(f"{tunable.name} has {tunable.width} fields but {len(formulas)} {side}s")
        for formula in formulas:
            parse_bound(formula)
            for field in sorted(_FIELDS & quantities_in(formula)):
                if int(field[-1]) >= tunable.width:
                    raise ValueError(f"{tunable.name} has no {field}, which its {side} names")
    if tunable.fields and len(tunable.fields) != tunable.width:
        raise ValueError(f"{tunable.name} has {tunable.width} fields but {len(tunable.fields)} field names")
    if any(not 0 <= index < tunable.width for index in tunable.moves or []):
        raise ValueError(f"{tunable.name} has no field {tunable.moves}")
    if tunable.mirror and (tunable.scope is Scope.NETNS or tunable.format is not Format.INTEGERS):
        raise ValueError(f"{tunable.name} cannot be mirrored: only integers of scope global can")


def _check_counter(counter: Counter) -> None:
    if bool(counter.match) == bool(counter.column):
        raise ValueError(f"counter '{counter.name}' needs either a match or a column")
    if counter.match and re.compile(counter.match).groups != 1:
        raise ValueError(f"counter '{counter.name}': its match needs one group")


def _check_scenario(declaration: Declaration, scenario: Scenario) -> None:
    if scenario.tunable and scenario.tunable not in declaration.tunables_by_name:
        raise ValueError(f"scenario '{scenario.id}' names unknown tunable '{scenario.tunable}'")
    _unique(f"field of scenario '{scenario.id}'", [field.name for field in scenario.fields])
    for name in scenario.counters:
        if name not in declaration.counters_by_name:
            raise ValueError(f"scenario '{scenario.id}' names unknown counter '{name}'")
    if not set(scenario.repeat_while_rising) <= set(scenario.counters):
        raise ValueError(f"scenario '{scenario.id}' repeats for a counter that is not one of its own")


def _check_probe(declaration: Declaration, probe: Probe) -> None:
    named = [*probe.scenarios, *([probe.poll.scenario] if probe.poll else [])]
    for scenario_id in named:
        scenario = declaration.scenarios_by_id.get(scenario_id)
        if scenario is None or scenario.event is None:
            raise ValueError(f"probe '{probe.name}' names '{scenario_id}', not a scenario with an event")
    constants = {name.removeprefix("?") for names in declaration.enums.values() for name in names}
    for name in probe.needs:
        if name not in constants:
            raise ValueError(f"probe '{probe.name}' needs '{name}', which [enums] does not name")
    polls = [hook for hook in probe.ladder if hook.kind == "poll"]
    if bool(polls) != (probe.poll is not None):
        raise ValueError(f"probe '{probe.name}': a poll rung and a [probes.poll] table go together")
    if probe.poll is not None:
        _check_poll(declaration, probe, probe.poll)


def _check_poll(declaration: Declaration, probe: Probe, poll: Poll) -> None:
    if re.compile(poll.match).groups != 1:
        raise ValueError(f"probe '{probe.name}': the match of its poll needs one group")
    if bool(poll.limit) == bool(poll.rise):
        raise ValueError(f"probe '{probe.name}': its poll needs either a limit or a rise")
    limit = declaration.tunables_by_name.get(poll.limit)
    if poll.limit and (limit is None or not 0 <= poll.limit_field < limit.width):
        raise ValueError(f"probe '{probe.name}': its poll names unknown tunable or field '{poll.limit}'")
    fields = {field.name for field in declaration.scenarios_by_id[poll.scenario].fields}
    named = {poll.value_event_field, poll.limit_event_field, poll.interval_event_field} - {""}
    if not named <= fields or not poll.value_event_field:
        raise ValueError(f"probe '{probe.name}': its poll names an unknown field")
    if poll.follows and poll.follows not in probe.scenarios:
        raise ValueError(f"probe '{probe.name}': its poll follows '{poll.follows}', not one of its scenarios")


def _check_strategies(declaration: Declaration) -> None:
    strategies = declaration.strategies
    if len(strategies) == 1:
        raise ValueError(f"strategy '{strategies[0].name}' has no alternative: declare several or none")
    _unique("strategy", [strategy.name for strategy in strategies])
    known = {probe.name for probe in declaration.probes}
    for strategy in strategies:
        _unique(f"probe of strategy '{strategy.name}'", strategy.probes)
        for name in strategy.probes:
            if name not in known:
                raise ValueError(f"strategy '{strategy.name}' names unknown probe '{name}'")


def _unique(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what} '{name}' is declared twice")


def _one_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else str(error)
    return " ".join(f"{DECLARATION_FILE}: {text}".split())
