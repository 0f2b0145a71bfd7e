# SPDX-License-Identifier: GPL-2.0-or-later
"""Which tuner is off in which network namespace, who turned it off, and why.

sysctl_judge.py turns tuners off, the control server turns them off and on, decision.py and the
event router ask. Kept in the ledger, so that a restart within a boot changes nothing. An override
in the initial namespace covers the tuner's global tunables as well.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from bpftune.ipc.control import Override
from bpftune.ipc.errors import LedgerError, UsageError
from bpftune.ipc.messages import GLOBAL, Netns
from bpftune.supervisor.ledger import Ledger
from bpftune.supervisor.netns import NetnsRegistry
from bpftune.supervisor.sysctl_writer import SysctlWriter

EVERYWHERE = Netns(cookie=-1, name="everywhere")
"""Stands in an Override for all namespaces, those included that are not there yet."""


class OverrideListener(Protocol):
    def turned_off(self, tuner: str, override: Override, writer: SysctlWriter | None) -> None:
        """`writer` is None when it was not a sysctl write that was seen."""

    def turned_on(self, tuner: str, netns: Netns) -> None:
        """May be EVERYWHERE."""


class Overrides:
    def __init__(
        self,
        *,
        ledger: Ledger,
        registry: NetnsRegistry,
        listener: OverrideListener,
        warn: Callable[[str], None],
    ) -> None:
        self._ledger = ledger
        self._registry = registry
        self._listener = listener
        self._warn = warn
        self._off = {(tuner, cookie): override for tuner, cookie, override in ledger.overrides()}
        self._held: Counter[tuple[str, int]] = Counter()

    def off_reason(self, tuner: str, cookie: int) -> str | None:
        """Why the tuner may not change anything in a namespace, or None; GLOBAL asks for global tunables."""
        key = self._key(cookie)
        override = self._off.get((tuner, key)) or self._off.get((tuner, EVERYWHERE.cookie))
        if override is not None:
            return f"off because of {override.by}"
        return "held while a sysctl write is looked into" if self._held[tuner, key] else None

    def is_off(self, tuner: str, cookie: int) -> bool:
        """Whether it was turned off; a short hold does not count."""
        key = self._key(cookie)
        return (tuner, key) in self._off or (tuner, EVERYWHERE.cookie) in self._off

    def of(self, tuner: str) -> list[Override]:
        return [override for (name, _), override in self._off.items() if name == tuner]

    def turn_off(self, tuner: str, override: Override, writer: SysctlWriter | None = None) -> None:
        """The first override of a namespace stays on record until it is lifted."""
        key = self._key(override.netns.cookie)
        if (tuner, key) in self._off:
            return
        self._off[tuner, key] = override
        self._persist(lambda: self._ledger.save_override(tuner, key, override))
        self._listener.turned_off(tuner, override, writer)

    def disable(self, tuner: str, netns: Netns | None, *, by: str) -> Override:
        """Turn the tuner off on request; without a namespace, everywhere."""
        override = Override(netns=netns or EVERYWHERE, by=by, since_s=time.time())
        self.turn_off(tuner, override)
        return override

    def enable(self, tuner: str, netns: Netns | None) -> list[Override]:
        """Lift what keeps the tuner off, everywhere or in one namespace; what was lifted.

        Raises UsageError for one namespace of a tuner that is off everywhere.
        """
        if netns is not None and (tuner, EVERYWHERE.cookie) in self._off:
            raise UsageError(
                f"cannot enable '{tuner}' in '{netns.name}' alone: it is off everywhere; enable it everywhere"
            )
        wanted = None if netns is None else self._key(netns.cookie)
        keys = [key for key in self._off if key[0] == tuner and wanted in (None, key[1])]
        lifted = [self._off.pop(key) for key in keys]
        for key in keys:
            self._forget_on_disk(*key)
        if lifted:
            self._listener.turned_on(tuner, netns or EVERYWHERE)
        return lifted

    def hold(self, tuner: str, cookie: int) -> None:
        """Let nothing be changed until as many `unhold` calls, while it is not clear who wrote."""
        self._held[tuner, self._key(cookie)] += 1

    def unhold(self, tuner: str, cookie: int) -> None:
        key = (tuner, self._key(cookie))
        self._held[key] -= 1
        if self._held[key] <= 0:
            del self._held[key]

    def forget(self, cookie: int) -> None:
        """The namespace is gone. The ledger forgets it by itself."""
        self._off = {key: override for key, override in self._off.items() if key[1] != cookie}

    def _key(self, cookie: int) -> int:
        return self._registry.initial.cookie if cookie == GLOBAL else cookie

    def _forget_on_disk(self, tuner: str, key: int) -> None:
        self._persist(lambda: self._ledger.delete_override(tuner, key))

    def _persist(self, write: Callable[[], None]) -> None:
        """An administrator's word holds also when it cannot be written down."""
        try:
            write()
        except LedgerError as error:
            self._warn(str(error))
