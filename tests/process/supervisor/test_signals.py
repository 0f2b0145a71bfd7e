# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from bpftune.supervisor.loop import Loop
from bpftune.supervisor.signals import Signals


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_is_handled_on_the_loop() -> None:
    loop = Loop()
    signals = Signals(loop, {signal.SIGUSR1: loop.stop})

    os.kill(os.getpid(), signal.SIGUSR1)
    loop.run()

    signals.close()


def test_a_signal_after_the_end_is_ignored() -> None:
    Signals(Loop(), {signal.SIGUSR1: lambda: None}).close()

    os.kill(os.getpid(), signal.SIGUSR1)
