# SPDX-License-Identifier: GPL-2.0-or-later
"""Global tunables as probes see them: kept equal to what the supervisor last saw or wrote.

KnownValues tells it of every value, whoever wrote it. A namespace's own tunables need no mirror: probes
read them in struct net.
"""

from __future__ import annotations

from collections.abc import Iterable

from bpftune.bpf.runtime import Bpf
from bpftune.ipc.messages import GLOBAL, Value
from bpftune.supervisor.roster import Tuner


class Mirror:
    def __init__(self, bpf: Bpf, tuners: Iterable[Tuner]) -> None:
        self._bpf = bpf
        self._tuners = tuners

    def noted(self, cookie: int, tunable: str, value: Value) -> None:
        if cookie != GLOBAL:
            return
        for tuner in self._tuners:
            declared = tuner.declaration.tunables_by_name.get(tunable)
            if declared is not None and declared.mirror:
                self._bpf.write_mirror(tuner.name, tunable, value)
