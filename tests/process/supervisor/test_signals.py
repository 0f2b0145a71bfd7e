# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
import signal

from bpftune.supervisor.loop import Loop
from bpftune.supervisor.signals import Signals


def test_a_signal_is_handled_on_the_loop() -> None:
    loop = Loop()
    before = signal.getsignal(signal.SIGUSR1)
    signals = Signals(loop, {signal.SIGUSR1: loop.stop})
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.run()
    signals.close()
    assert signal.getsignal(signal.SIGUSR1) is before
