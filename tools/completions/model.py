# SPDX-License-Identifier: GPL-2.0-or-later
"""What the two commands take, read from their argparse parsers, as records. Pure.

An option whose kind of value is not known here is an error, so that a new one cannot be forgotten.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from enum import Enum, auto

from bpftune.ctl.arguments import make_parser as make_control_parser
from bpftune.supervisor.options import make_parser as make_daemon_parser


class Value(Enum):
    """What can be offered for a value."""

    TUNER = auto()
    CHANGE = auto()
    TARGET = auto()
    """A change, a tuner, or all."""
    NETNS = auto()
    DIRECTORY = auto()
    RATE = auto()
    NUMBER = auto()
    """Nothing can be offered."""


RATES = ("0", "1", "2", "3", "4")
_VALUES = {
    "allow": Value.TUNER,
    "tuner": Value.TUNER,
    "change": Value.CHANGE,
    "target": Value.TARGET,
    "netns": Value.NETNS,
    "cgroup": Value.DIRECTORY,
    "libdirs": Value.DIRECTORY,
    "run_dir": Value.DIRECTORY,
    "state_dir": Value.DIRECTORY,
    "learning_rate": Value.RATE,
    "limit": Value.NUMBER,
    "timeout_s": Value.NUMBER,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    flags: tuple[str, ...]
    help: str
    value: Value | None
    metavar: str
    repeatable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    name: str
    help: str
    options: tuple[Option, ...]
    argument: Value | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    name: str
    options: tuple[Option, ...]
    verbs: tuple[Verb, ...] = ()

    @property
    def flags_with_value(self) -> list[str]:
        """Of the options before the verb."""
        return [flag for option in self.options if option.value is not None for flag in option.flags]

    @property
    def values(self) -> list[Value]:
        """The kinds that occur, each once."""
        options = [*self.options, *(option for verb in self.verbs for option in verb.options)]
        occurring = {option.value for option in options} | {verb.argument for verb in self.verbs}
        return [value for value in Value if value in occurring]


def read_commands() -> tuple[Command, Command]:
    return read_command(make_daemon_parser()), read_command(make_control_parser())


def read_command(parser: argparse.ArgumentParser) -> Command:
    return Command(name=parser.prog, options=_options(parser), verbs=tuple(_verbs(parser)))


def _options(parser: argparse.ArgumentParser) -> tuple[Option, ...]:
    return tuple(
        Option(
            flags=tuple(action.option_strings),
            help=(action.help or "") % vars(action),
            value=None if action.nargs == 0 else _VALUES[action.dest],
            metavar=str(action.metavar or ""),
            repeatable=type(action).__name__ == "_AppendAction",
        )
        for action in parser._actions  # argparse has no public way to ask a parser what it takes
        if action.option_strings
    )


def _verbs(parser: argparse.ArgumentParser) -> list[Verb]:
    verbs = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, verb_parser in action.choices.items():
                arguments = [_VALUES[one.dest] for one in verb_parser._actions if not one.option_strings]
                verbs.append(
                    Verb(
                        name=str(name),
                        help=helps[name],
                        options=_options(verb_parser),
                        argument=arguments[0] if arguments else None,
                    )
                )
    return verbs
