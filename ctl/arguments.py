# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of bpftune-ctl, as one record. Pure."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from bpftune import __version__
from bpftune.ipc.command_line import CommandLine, utf8
from bpftune.ipc.control import HIGHEST_CHANGE, HIGHEST_HISTORY, RUN_DIR
from bpftune.ipc.errors import UnknownName

DEFAULT_TIMEOUT_S = 10.0
LONGEST_TIMEOUT_S = 3600.0
HISTORY_LIMIT = 100
EVENTS_LIMIT = 10


class Verb(StrEnum):
    STATUS = "status"
    TUNERS = "tuners"
    TUNABLES = "tunables"
    SUMMARY = "summary"
    EVENTS = "events"
    HISTORY = "history"
    EXPLAIN = "explain"
    RESTART = "restart"
    ENABLE = "enable"
    DISABLE = "disable"
    ROLLBACK = "rollback"
    VERIFY = "verify"
    EXPORT = "export"
    SUPPORT = "support"


_HELP = {
    Verb.STATUS: "everything about the daemon and each tuner",
    Verb.TUNERS: "one line per tuner",
    Verb.TUNABLES: "the values bpftune looks after: original, current, state",
    Verb.SUMMARY: "what occurred and what was changed, as printed at exit",
    Verb.EVENTS: "the newest changes; with --follow the log as it is written",
    Verb.HISTORY: "changes in the ledger, newest last",
    Verb.EXPLAIN: "why one change was made and what came after",
    Verb.RESTART: "restart a tuner's worker; clears 'failed'",
    Verb.ENABLE: "let a tuner tune again after an override or disable",
    Verb.DISABLE: "stop a tuner everywhere or in one namespace",
    Verb.ROLLBACK: "put back the administrator's values",
    Verb.VERIFY: "compare every changed value with the ledger",
    Verb.EXPORT: "the values found, as sysctl settings",
    Verb.SUPPORT: "what this kernel supports and why not more",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    verb: Verb
    json: bool = False
    run_dir: Path = RUN_DIR
    timeout_s: float = DEFAULT_TIMEOUT_S
    tuner: str = ""
    netns: str | None = None
    by_netns: bool = False
    change: int = 0
    target: str = "all"
    dry_run: bool = False
    limit: int = HISTORY_LIMIT
    follow: bool = False
    sysctl_d: bool = False


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Raises UsageError. `-h` and `-V` print and end the process with 0."""
    return msgspec.convert(vars(make_parser().parse_args(argv)), Arguments)


class _ControlCommandLine(CommandLine):
    """Answers a wrong verb with the nearest right one instead of the list of all."""

    def error(self, message: str) -> NoReturn:
        wrong_verb = re.search(r"argument VERB: invalid choice: '(.*?)'", message)
        if wrong_verb is not None:
            raise UnknownName("verb", wrong_verb[1], [*Verb])
        super().error(message)


def make_parser() -> CommandLine:
    parser = _ControlCommandLine(
        prog="bpftune-ctl",
        description="Shows what bpftune does and why, and tells it what to do.",
        epilog="Exit: 0 done, 1 failed, 2 wrong use, 3 bpftune is not running, 4 not permitted.",
        formatter_class=_Formatter,
    )
    _add_global_options(parser, in_verb=False)
    parser.add_argument("-V", "--version", action="version", version=f"bpftune-ctl {__version__}")
    verbs = parser.add_subparsers(
        dest="verb", metavar="VERB", required=True, title="verbs", parser_class=CommandLine
    )
    for verb in Verb:
        one = verbs.add_parser(verb, help=_HELP[verb], description=f"{verb}: {_HELP[verb]}")
        _add_global_options(one, in_verb=True)
        _add_verb_arguments(one, verb)
    return parser


class _Formatter(argparse.HelpFormatter):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "max_help_position": 26})


def _add_global_options(parser: CommandLine, *, in_verb: bool) -> None:
    """The same options before and behind the verb; those behind it only count where given."""

    def default(value: object) -> object:
        return argparse.SUPPRESS if in_verb else value

    parser.add_argument(
        "--json", action="store_true", default=default(False), help="one JSON object of a stable shape"
    )
    parser.add_argument(
        "--run-dir", metavar="DIR", type=_directory, default=default(RUN_DIR),
        help=f"where the daemon's sockets are [{RUN_DIR}]",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", dest="timeout_s", metavar="S", type=_seconds, default=default(DEFAULT_TIMEOUT_S),
        help=f"seconds to wait for the answer [{DEFAULT_TIMEOUT_S:g}]",
    )  # fmt: skip


def _add_verb_arguments(parser: CommandLine, verb: Verb) -> None:
    match verb:
        case Verb.STATUS:
            parser.add_argument(
                "--netns", dest="by_netns", action="store_true", help="one line per network namespace"
            )
        case Verb.RESTART:
            parser.add_argument("tuner", metavar="TUNER", type=utf8)
        case Verb.ENABLE | Verb.DISABLE:
            parser.add_argument("tuner", metavar="TUNER", type=utf8)
            parser.add_argument(
                "--netns",
                metavar="N",
                type=utf8,
                help="name, cookie or inode number of one network namespace",
            )
        case Verb.ROLLBACK:
            parser.add_argument("target", metavar="CHANGE|TUNER|all", nargs="?", default="all", type=utf8)
            parser.add_argument("--dry-run", action="store_true", help="say what would be restored")
        case Verb.EXPLAIN:
            parser.add_argument("change", metavar="CHANGE", type=_change, help="number from history")
        case Verb.HISTORY:
            _add_limit(parser, HISTORY_LIMIT)
        case Verb.EVENTS:
            _add_limit(parser, EVENTS_LIMIT)
            parser.add_argument(
                "-f", "--follow", action="store_true", help="every line that is logged, as it is written"
            )
        case Verb.EXPORT:
            parser.add_argument("--sysctl-d", action="store_true", help="as a file for /etc/sysctl.d")
        case _:
            pass


def _add_limit(parser: CommandLine, default: int) -> None:
    parser.add_argument(
        "-n", "--limit", metavar="N", type=_limit, default=default,
        help=f"at most so many changes, the newest [{default}]",
    )  # fmt: skip


def _directory(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("a directory is needed, not an empty name")
    return Path(text).absolute()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST_TIMEOUT_S:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds up to {LONGEST_TIMEOUT_S:g}")
    return seconds


def _limit(text: str) -> int:
    if not 0 < (limit := _number(text)) <= HIGHEST_HISTORY:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 to {HIGHEST_HISTORY}")
    return limit


def _change(text: str) -> int:
    if not (change := _number(text.removeprefix("#"))):
        raise argparse.ArgumentTypeError(f"'{text}' is not a change number; 'history' lists them")
    return change


def _number(text: str) -> int:
    """0 where it is none, or one that the ledger cannot count to."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < len(str(HIGHEST_CHANGE)) else 0
