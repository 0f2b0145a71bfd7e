# SPDX-License-Identifier: GPL-2.0-or-later
"""Every error that a caller of this project acts on.

BpftuneError
├── UsageError              wrong command line or request           (exit 2)
│   └── UnknownName         no such tuner, change, namespace, ...
├── NotRunning              no daemon behind the control socket     (exit 3)
├── NotPermitted            the caller may not do this              (exit 4)
├── NotSupported            this kernel or machine cannot do it     (exit 69)
├── DeclarationError        a tuner folder that cannot be accepted
├── ProtocolError           a message that cannot be understood
├── BpfError                a BPF object the kernel did not accept
│   ├── CompileError        the C of a probe did not compile
│   └── HookRefused         one rung of a ladder; the next one is tried
├── NetnsGone               the namespace vanished meanwhile
├── TunableError            a tunable that cannot be read or written
│   └── TunableMissing      this kernel or namespace does not have it
└── LedgerError             the ledger cannot be used

Text is "cannot <verb> <object>: <cause>"; data that a caller needs sits in fields.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bpftune.ipc.printable import show_path


class BpftuneError(Exception):
    """Base of the tree. `exit_code` is what a command ends with when nobody handles it."""

    exit_code = 1

    @property
    def kind(self) -> str:
        """The stable name that control replies and --json carry."""
        return type(self).__name__

    @property
    def value(self) -> Any:
        """The offending value, if one was given."""
        return None


class UsageError(BpftuneError):
    exit_code = 2


class UnknownName(UsageError):
    def __init__(self, what: str, name: str, known: Iterable[str] = ()) -> None:
        self.name = name
        import difflib  # noqa: PLC0415 - memory that is needed only when somebody mistypes a name

        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        super().__init__(f"no {what} '{name}'{hint}")

    @property
    def value(self) -> Any:
        return self.name


class NotRunning(BpftuneError):
    exit_code = 3


class NotPermitted(BpftuneError):
    exit_code = 4


class NotSupported(BpftuneError):
    exit_code = 69


class DeclarationError(BpftuneError):
    def __init__(self, folder: Path, cause: str) -> None:
        super().__init__(show_path(f"cannot accept tuner folder {folder}: {cause}"))


class ProtocolError(BpftuneError):
    pass


class BpfError(BpftuneError):
    def __init__(self, what: str, *, errno: int = 0, log: str = "") -> None:
        self.errno = errno
        self.log = log
        super().__init__(what)


class CompileError(BpfError):
    pass


class HookRefused(BpfError):
    def __init__(self, hook: str, cause: str, *, errno: int = 0, log: str = "") -> None:
        self.cause = cause
        super().__init__(f"cannot attach {hook}: {cause}", errno=errno, log=log)


class NetnsGone(BpftuneError):
    def __init__(self, cookie: int) -> None:
        super().__init__(f"network namespace {cookie} is gone")


class TunableError(BpftuneError):
    def __init__(self, verb: str, tunable: str, cause: str, *, errno: int = 0) -> None:
        self.errno = errno
        super().__init__(f"cannot {verb} {tunable}: {cause}")


class TunableMissing(TunableError):
    pass


class LedgerError(BpftuneError):
    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(f"cannot use ledger {path}: {cause}")
