# SPDX-License-Identifier: GPL-2.0-or-later
"""The script for bash; it needs nothing but bash itself."""

from __future__ import annotations

from collections.abc import Iterable

from tools.completions.model import Command, Option
from tools.completions.words import listing

_SCRIPT = """\
# Completion of {name} for bash, made from the options that {name} takes.
# shellcheck shell=bash

{function}_value() {{
	case $1 in
{values}
	*) return 1 ;;
	esac
}}

{function}() {{
	local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} verb='' kind='' at
	COMPREPLY=()
	# bash takes the = of --option=value for a word of its own.
	[ "$current" != = ] || current=
	[ "$previous" != = ] || previous=${{COMP_WORDS[COMP_CWORD - 2]}}
	for ((at = 1; at < COMP_CWORD; at++)); do
		case ${{COMP_WORDS[at]}} in
		{flags_with_value}) ((at++)) ;;
		-*) ;;
		*) verb=${{COMP_WORDS[at]}} && break ;;
		esac
	done
	case $verb:$previous in
{kinds}
	esac
	if [ "$kind" = DIRECTORY ]; then
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -d -- "$current")
	elif [ -n "$kind" ]; then
		mapfile -t COMPREPLY < <(compgen -W "$({function}_value "$kind")" -- "$current")
	elif [[ $current == -* || -z $verb ]]; then
		local words
		case $verb in
{words}
		esac
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
	else
		case $verb in
{arguments}
		esac
		[ -z "$kind" ] || mapfile -t COMPREPLY < <(compgen -W "$({function}_value "$kind")" -- "$current")
	fi
}}

complete -F {function} {name}
"""


def script(command: Command, prefix: str) -> str:
    verbs = [verb.name for verb in command.verbs]
    words = [("", " ".join([*verbs, *_flags(command.options)]))]
    words += [(verb.name, " ".join(_flags(verb.options))) for verb in command.verbs]
    return _SCRIPT.format(
        name=command.name,
        function="_" + command.name.replace("-", "_"),
        values="\n".join(_values(command, prefix)),
        flags_with_value=" | ".join(command.flags_with_value),
        kinds="\n".join(_kinds(command)),
        words="\n".join(f"\t\t{verb or chr(39) * 2}) words='{text}' ;;" for verb, text in words),
        arguments="\n".join(
            f"\t\t{verb.name}) kind={verb.argument.name} ;;"
            for verb in command.verbs
            if verb.argument is not None
        )
        or "\t\t*) ;;",
    )


def _values(command: Command, prefix: str) -> Iterable[str]:
    for value in command.values:
        listed = listing(value, prefix)
        if listed is not None:
            yield f"\t{value.name})\n\t\t{listed}\n\t\t;;"


def _flags(options: Iterable[Option]) -> list[str]:
    return [flag for option in options for flag in option.flags]


def _kinds(command: Command) -> Iterable[str]:
    """VERB:FLAG patterns; a flag that means the same everywhere is told once."""
    takers = [("", command.options), *((verb.name, verb.options) for verb in command.verbs)]
    kinds = {
        (verb, flag): option.value for verb, options in takers for option in options for flag in option.flags
    }
    for flag in dict.fromkeys(flag for _, flag in kinds):
        by_verb = {verb: kind for (verb, name), kind in kinds.items() if name == flag}
        if len(set(by_verb.values())) == 1:
            by_verb = {"*": next(iter(by_verb.values()))}
        for verb, kind in by_verb.items():
            if kind is not None:
                yield f"\t{verb}:{flag}) kind={kind.name} ;;"
