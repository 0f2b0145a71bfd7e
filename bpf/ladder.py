# SPDX-License-Identifier: GPL-2.0-or-later
"""Climbs one probe's ladder: the first rung that the kernel accepts wins, every one before it keeps
a reason.

The tuner's programs and the kernel come in as a protocol, so that ladders are tested without either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bpftune.bpf.hooks import unavailable
from bpftune.bpf.rungs import MODERN_KINDS
from bpftune.ipc.control import HookStatus
from bpftune.ipc.declaration import Hook, Poll, Probe
from bpftune.ipc.errors import BpfError, HookRefused

LEGACY_REASON = "legacy mode"


class Attacher(Protocol):
    def attach(self, probe: Probe, rung: int, hook: Hook) -> int:
        """Load and attach; the link's descriptor. Raises BpfError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Footing:
    """Where a probe ended up."""

    probe: Probe
    hook: Hook | None
    """None: no rung was accepted."""
    refused: dict[str, str]
    link_fd: int | None = None
    """None for a poll rung, and when no rung was accepted."""

    @property
    def status(self) -> HookStatus:
        return HookStatus(
            probe=self.probe.name,
            scenarios=self.probe.scenarios,
            hook=str(self.hook) if self.hook is not None else None,
            refused=self.refused,
        )

    @property
    def poll(self) -> Poll | None:
        """The counter to read: beside a hook only one that follows the hook's events, at the poll rung
        any, and then all the time."""
        poll = self.probe.poll
        if poll is None or self.hook is None:
            return None
        if self.hook.kind == "poll":
            return poll.unprompted
        return poll if poll.follows else None


def climb(probe: Probe, attacher: Attacher, *, legacy: bool) -> Footing:
    """Attach `probe` by its best rung. Never raises for a rung that is refused."""
    ladder = probe.ladder
    refused: dict[str, str] = {}
    for rung, hook in enumerate(ladder):
        if hook.kind == "poll":
            return Footing(probe=probe, hook=hook, refused=refused)
        if legacy and hook.kind in MODERN_KINDS and _has_older(ladder[rung + 1 :]):
            refused[str(hook)] = LEGACY_REASON
            continue
        reason = unavailable(hook)
        if reason is None:
            try:
                link_fd = attacher.attach(probe, rung, hook)
            except HookRefused as error:
                reason = error.cause
            except BpfError as error:
                reason = str(error)
            else:
                return Footing(probe=probe, hook=hook, refused=refused, link_fd=link_fd)
        refused[str(hook)] = reason
    return Footing(probe=probe, hook=None, refused=refused)


def _has_older(rungs: Sequence[Hook]) -> bool:
    return any(hook.kind not in MODERN_KINDS for hook in rungs)
