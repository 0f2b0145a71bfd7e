# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of the daemon. Parsing touches nothing; `check_paths` looks at what was named."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bpftune import __version__
from bpftune.ipc.command_line import CommandLine, utf8
from bpftune.ipc.control import RUN_DIR, STATE_DIR
from bpftune.ipc.errors import UsageError

DEFAULT_LEARNING_RATE = 4
HIGHEST_LEARNING_RATE = 4
_SHIFT_AT_RATE_0 = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    allow: tuple[str, ...] = ()
    """Only these tuners; empty: all."""
    cgroup: Path | None = None
    """Root of the cgroup2 tree; None: find it in /proc/self/mountinfo."""
    debug: bool = False
    daemon: bool = False
    libdirs: tuple[Path, ...] = ()
    """Directories that hold further tuner folders."""
    legacy: bool = False
    learning_rate: int = DEFAULT_LEARNING_RATE
    rollback: bool = False
    stderr: bool = False
    support: bool = False
    dry_run: bool = False
    state_dir: Path = STATE_DIR
    run_dir: Path = RUN_DIR
    adopt_sysctl_d: bool = False

    @property
    def shift(self) -> int:
        """Each step moves a value by value >> shift: 6 (careful) to 2."""
        return _SHIFT_AT_RATE_0 - self.learning_rate

    @property
    def mode(self) -> str:
        """As status and log name it."""
        return "observe" if self.dry_run else "auto"


def parse_options(argv: Sequence[str]) -> Options:
    """Raises UsageError. `-h` and `-V` print and end the process with 0."""
    options = msgspec.convert(vars(make_parser().parse_args(argv)), Options)
    if options.daemon and options.stderr:
        raise UsageError("-D/--daemon and -s/--stderr exclude each other: a daemon has no stderr")
    if options.daemon and options.support:
        raise UsageError("-D/--daemon and -S/--support exclude each other: the answer needs a terminal")
    return options


def check_paths(options: Options) -> None:
    """Raises UsageError when a directory that was named is not there."""
    for flag, path in (("-c/--cgroup", options.cgroup), *(("-l/--libdir", path) for path in options.libdirs)):
        if path is not None and not path.is_dir():
            raise UsageError(f"cannot use {flag} {path}: not a directory")
    if options.cgroup is not None and not (options.cgroup / "cgroup.controllers").exists():
        raise UsageError(f"cannot use -c/--cgroup {options.cgroup}: not a directory of the cgroup2 tree")


def make_parser() -> CommandLine:
    parser = CommandLine(
        prog="bpftune",
        description="Tunes the kernel's network settings by itself, guided by BPF.",
        epilog="bpftune-ctl shows what it does, and why. bpftune(8) explains each option.",
    )
    _add_what_to_tune(parser)
    _add_how_to_run(parser)
    _add_places(parser)
    return parser


def _add_what_to_tune(parser: CommandLine) -> None:
    parser.add_argument(
        "-a", "--allow", action="append", default=[], metavar="TUNER", type=_tuner,
        help="run this tuner and no other; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "-r", "--learning-rate", metavar="0..4", type=_learning_rate, default=DEFAULT_LEARNING_RATE,
        help="how large each step is: 0 about 1.5 %%, 4 (the default) 25 %%",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="decide and log everything, write nothing (observe mode)"
    )
    parser.add_argument(
        "-R", "--rollback", action="store_true", help="on exit put back every value that is still ours"
    )
    parser.add_argument(
        "--adopt-sysctl-d", action="store_true", help="tune also what sysctl.d and sysctl.conf set"
    )


def _add_how_to_run(parser: CommandLine) -> None:
    parser.add_argument("-s", "--stderr", action="store_true", help="log to stderr instead of the journal")
    parser.add_argument("-d", "--debug", action="store_true", help="log debugging lines too")
    parser.add_argument("-D", "--daemon", action="store_true", help="go to the background once started")
    parser.add_argument(
        "-L", "--legacy", action="store_true", help="use only hooks that older kernels have too"
    )
    parser.add_argument(
        "-S", "--support", action="store_true", help="say what this kernel supports and why, then end"
    )
    parser.add_argument("-V", "--version", action="version", version=f"bpftune {__version__}")


def _add_places(parser: CommandLine) -> None:
    parser.add_argument(
        "-l", "--libdir", dest="libdirs", action="append", default=[], metavar="DIR", type=_path,
        help="directory with further tuner folders; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "-c", "--cgroup", metavar="DIR", type=_path, help="root of the cgroup2 tree, if not the mounted one"
    )
    parser.add_argument(
        "--state-dir", metavar="DIR", type=_path, default=STATE_DIR, help=f"ledger and caches [{STATE_DIR}]"
    )
    parser.add_argument(
        "--run-dir", metavar="DIR", type=_path, default=RUN_DIR, help=f"sockets and pid file [{RUN_DIR}]"
    )


def _learning_rate(text: str) -> int:
    if text not in map(str, range(HIGHEST_LEARNING_RATE + 1)):
        raise argparse.ArgumentTypeError(f"'{text}' is not one of 0, 1, 2, 3, 4")
    return int(text)


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("a directory is needed, not an empty name")
    return Path(utf8(text)).absolute()


def _tuner(text: str) -> str:
    if not text or "/" in text:
        raise argparse.ArgumentTypeError(f"'{text}' is not the name of a tuner")
    return text
