# SPDX-License-Identifier: GPL-2.0-or-later
"""The script for zsh, in terms of its own `_arguments`."""

from __future__ import annotations

from collections.abc import Iterable

from tools.completions.model import Command, Option, Value
from tools.completions.words import listing

_HEAD = "#compdef {name}\n# Completion of {name} for zsh, made from the options that {name} takes.\n"


def script(command: Command, prefix: str) -> str:
    function = "_" + command.name.replace("-", "_")
    parts = [_HEAD.format(name=command.name), *_listings(command, function, prefix)]
    if command.verbs:
        parts += [_verb_list(command, function), _dispatch(command, function)]
    else:
        parts.append(_arguments(_specs(command.options, function), flags="-s"))
    return "\n".join(parts)


def _listings(command: Command, function: str, prefix: str) -> Iterable[str]:
    for value in command.values:
        listed = listing(value, prefix)
        if listed is not None:
            yield (
                f"{function}_{value.name.lower()}() {{\n"
                f'\tlocal -a words=(${{(f)"$({listed})"}})\n\tcompadd -a words\n}}\n'
            )


def _verb_list(command: Command, function: str) -> str:
    lines = [f"\t\t{_quote(f'{verb.name}:{verb.help}')}" for verb in command.verbs]
    return "\n".join(
        [
            f"{function}_verb() {{",
            "\tlocal -a verbs=(",
            *lines,
            "\t)",
            "\t_describe -t verbs verb verbs",
            "}",
            "",
        ]
    )


def _dispatch(command: Command, function: str) -> str:
    lines = ["local curcontext=$curcontext state line"]
    lines.append(
        _arguments([*_specs(command.options, function), f"'1: :{function}_verb'", "'*:: :->verb'"], "-C")
    )
    lines += ["[[ $state == verb ]] || return", "case $words[1] in"]
    for verb in command.verbs:
        specs = _specs(verb.options, function)
        if verb.argument is not None:
            specs.append(_quote(f"1:{verb.argument.name.lower()}:{function}_{verb.argument.name.lower()}"))
        lines += [f"{verb.name})", _arguments(specs, "-s"), ";;"]
    return "\n".join([*lines, "esac", ""])


def _arguments(specs: Iterable[str], flags: str) -> str:
    return f"_arguments {flags} \\\n\t" + " \\\n\t".join(specs) + "\n"


def _specs(options: Iterable[Option], function: str) -> list[str]:
    return [_spec(option, flag, function) for option in options for flag in option.flags]


def _spec(option: Option, flag: str, function: str) -> str:
    """One spec per spelling; the spellings of an option exclude each other unless it may be repeated."""
    before = "*" if option.repeatable else f"({' '.join(option.flags)})"
    text = option.help.replace("[", "\\[").replace("]", "\\]")
    if option.value is None:
        return _quote(f"{before}{flag}[{text}]")
    accepts = "=" if flag.startswith("--") else "+"
    action = {Value.DIRECTORY: "_files -/", Value.NUMBER: ""}.get(
        option.value, f"{function}_{option.value.name.lower()}"
    )
    return _quote(f"{before}{flag}{accepts}[{text}]:{option.metavar}:{action}")


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
