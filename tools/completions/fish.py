# SPDX-License-Identifier: GPL-2.0-or-later
"""The script for fish: one `complete` line per option, verb and argument."""

from __future__ import annotations

from collections.abc import Iterable

from tools.completions.model import Command, Option, Value
from tools.completions.words import listing

_HEAD = "# Completion of {name} for fish, made from the options that {name} takes."


def script(command: Command, prefix: str) -> str:
    function = "__" + command.name.replace("-", "_")
    lines = [
        _HEAD.format(name=command.name),
        *_listings(command, function, prefix),
        f"complete -c {command.name} -f",
    ]
    verbs = " ".join(verb.name for verb in command.verbs)
    no_verb = f"not __fish_seen_subcommand_from {verbs}" if verbs else ""
    lines += _options(command.name, command.options, no_verb, function)
    for verb in command.verbs:
        seen = f"__fish_seen_subcommand_from {verb.name}"
        lines.append(_complete(command.name, no_verb, f"-a {verb.name} -d {_quote(verb.help)}"))
        lines += _options(command.name, verb.options, seen, function)
        if verb.argument is not None:
            lines.append(_complete(command.name, seen, f"-a {_offer(verb.argument, function)}"))
    return "\n".join([*lines, ""])


def _listings(command: Command, function: str, prefix: str) -> Iterable[str]:
    for value in command.values:
        listed = listing(value, prefix)
        if listed is not None:
            yield f"function {function}_{value.name.lower()}\n    sh -c {_quote(listed)}\nend"


def _options(name: str, options: Iterable[Option], condition: str, function: str) -> Iterable[str]:
    for option in options:
        names = " ".join(
            f"-l {flag.removeprefix('--')}" if flag.startswith("--") else f"-s {flag.removeprefix('-')}"
            for flag in option.flags
        )
        offer = "" if option.value is None else f" -x -a {_offer(option.value, function)}"
        yield _complete(name, condition, f"{names}{offer} -d {_quote(option.help)}")


def _complete(name: str, condition: str, rest: str) -> str:
    return f"complete -c {name}{f' -n {_quote(condition)}' if condition else ''} {rest}"


def _offer(value: Value, function: str) -> str:
    match value:
        case Value.DIRECTORY:
            return "'(__fish_complete_directories)'"
        case Value.NUMBER:
            return "''"
        case _:
            return f"'({function}_{value.name.lower()})'"


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
