# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from bpftune.ipc.declaration import Declaration, Scope, Tunable
from bpftune.ipc.messages import GLOBAL, Value
from bpftune.supervisor.folders import TunerFolder
from bpftune.supervisor.known_values import KnownValues
from bpftune.supervisor.mirror import Mirror
from bpftune.supervisor.roster import Tuner

MIRRORED, PLAIN = "net.ipv4.tcp_mem", "net.ipv4.udp_mem"
COOKIE = 4711


class FakeBpf:
    def __init__(self) -> None:
        self.written: list[tuple[str, str, Value]] = []

    def write_mirror(self, tuner: str, tunable: str, value: Value) -> None:
        self.written.append((tuner, tunable, value))


def tuner(name: str, *tunables: Tunable) -> Tuner:
    declaration = Declaration(name=name, description="d", tunables=list(tunables), scenarios=[], probes=[])
    folder = TunerFolder(path=Path("/x"), declaration=declaration, fingerprint=())
    return Tuner(folder=folder, equipper=cast("Any", None))


def test_every_value_of_a_mirrored_tunable_is_passed_on() -> None:
    bpf = FakeBpf()
    tuners = [
        tuner("watching", Tunable(name=MIRRORED, scope=Scope.GLOBAL, width=3, mirror=True)),
        tuner("other", Tunable(name=PLAIN, scope=Scope.GLOBAL, width=3)),
    ]
    known = KnownValues(Mirror(cast("Any", bpf), tuners).noted)
    known.saw(GLOBAL, MIRRORED, (1, 2, 3))
    known.wrote(GLOBAL, MIRRORED, (2, 3, 4))
    known.saw(GLOBAL, MIRRORED, (2, 3, 4))
    known.saw(GLOBAL, PLAIN, (5, 6, 7))
    known.saw(COOKIE, MIRRORED, (8, 9, 10))

    assert bpf.written == [("watching", MIRRORED, value) for value in [(1, 2, 3), (2, 3, 4), (2, 3, 4)]]
