# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a tuner is of any use on the running kernel, as its [[inactive_when]] tables tell.

Called when a tuner is loaded and for `bpftune -S`. Found out by reading, never from a version. A
tunable of the scope netns is read in a namespace that nobody has touched, so that it shows the
kernel's default and not what an administrator made of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from threading import Thread

from bpftune.ipc.control import HookStatus
from bpftune.ipc.declaration import Declaration, Scope, Tunable
from bpftune.ipc.errors import TunableError
from bpftune.ipc.messages import Value
from bpftune.supervisor import nsfs
from bpftune.supervisor.tunables import read_tunable

ReadDefault = Callable[[Tunable], Value | None]
"""None: this kernel has no such tunable, or it cannot be told."""


def read_default(tunable: Tunable) -> Value | None:
    return _read_fresh(tunable) if tunable.scope is Scope.NETNS else _read(tunable)


def inactive_reason(declaration: Declaration, *, read: ReadDefault = read_default) -> str | None:
    """Why the tuner would be of no use here; None: it is of use, or nothing speaks against it."""
    for rule in declaration.inactive_when:
        value = read(declaration.tunables_by_name[rule.tunable])
        if value is not None and value[rule.field] >= rule.at_least:
            return rule.why
    return None


def unused_hooks(hooks: list[HookStatus], reason: str) -> list[HookStatus]:
    """The probes of a tuner that is of no use, none attached."""
    return [
        HookStatus(probe=status.probe, scenarios=status.scenarios, hook=None, refused={}, unused=reason)
        for status in hooks
    ]


def _read(tunable: Tunable) -> Value | None:
    try:
        return read_tunable(tunable).value
    except TunableError:
        return None


def _read_fresh(tunable: Tunable) -> Value | None:
    """A thread makes the namespace and takes it along when it ends."""

    found: list[Value | None] = [None]

    def read() -> None:
        with contextlib.suppress(OSError):
            nsfs.unshare()
            found[0] = _read(tunable)

    thread = Thread(target=read)
    thread.start()
    thread.join()
    return found[0]
