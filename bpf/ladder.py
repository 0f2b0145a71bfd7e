# SPDX-License-Identifier: GPL-2.0-or-later
"""Climbs one probe's ladder: the first rung that the kernel accepts wins, every one before it keeps
a reason.

The tuner's programs and the kernel come in as a protocol, so that ladders are tested without either.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    """None for a poll rung, when no rung was accepted, and while the probe is not attached."""
    resting: bool = False
    """Not attached at present."""

    @property
    def status(self) -> HookStatus:
        return HookStatus(
            probe=self.probe.name,
            scenarios=self.probe.scenarios,
            hook=str(self.hook) if self.hook is not None else None,
            refused=self.refused,
            resting=self.resting,
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
        outcome = _try_rung(probe, attacher, rung, hook)
        if isinstance(outcome, int):
            return Footing(probe=probe, hook=hook, refused=refused, link_fd=outcome)
        refused[str(hook)] = outcome
    return Footing(probe=probe, hook=None, refused=refused)


def survey(footing: Footing, attacher: Attacher) -> Footing:
    """Also try the rungs below the one in use, each for a moment: which of them does this kernel refuse?"""
    refused = dict(footing.refused)
    for rung, hook in enumerate(footing.probe.ladder):
        if hook.kind == "poll" or hook == footing.hook or str(hook) in refused:
            continue
        outcome = _try_rung(footing.probe, attacher, rung, hook)
        if isinstance(outcome, int):
            os.close(outcome)
        else:
            refused[str(hook)] = outcome
    return replace(footing, refused=refused)


def _try_rung(probe: Probe, attacher: Attacher, rung: int, hook: Hook) -> int | str:
    """The link's descriptor, or why there is none."""
    reason = unavailable(hook)
    if reason is not None:
        return reason
    try:
        return attacher.attach(probe, rung, hook)
    except HookRefused as error:
        return error.cause
    except BpfError as error:
        return str(error)


def _has_older(rungs: Sequence[Hook]) -> bool:
    return any(hook.kind not in MODERN_KINDS for hook in rungs)
