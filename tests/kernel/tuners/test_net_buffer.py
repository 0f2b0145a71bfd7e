# SPDX-License-Identifier: GPL-2.0-or-later
"""net_buffer on a real kernel: a flood is sent on one CPU and steered (RPS) to another one's backlog."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import sysctl_guard
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import Pair, read_sysctl, sysctl_path
from tests.kernel.traffic import PYTHON
from tests.requirements import require
from tests.waiting import wait_for

BACKLOG = "net.core.netdev_max_backlog"
FLOW_LIMIT = "net.core.flow_limit_cpu_bitmap"
BUDGET = "net.core.netdev_budget"
USECS = "net.core.netdev_budget_usecs"

FLOOD = str(Path(__file__).with_name("flood.py"))
PORT = 5301
SENDING_CPU = 0
RECEIVING_CPU = 1
FLOW_LIMIT_COLUMN = 10

BACKLOG_PACKETS = 64
QUIET_S = 4


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    """The test may set the global limits; they are put back."""
    require((os.cpu_count() or 1) >= 2, "needs two CPUs")
    keys = (BACKLOG, FLOW_LIMIT, BUDGET, USECS)
    require(all(sysctl_path(key).exists() for key in keys), "needs flow limits and RPS in the kernel")
    before = sysctl_guard.read(keys)
    yield
    sysctl_guard.restore(before)


@contextlib.contextmanager
def flood(veth: Pair) -> Iterator[None]:
    """From a to b; what b receives is queued to RECEIVING_CPU by SENDING_CPU."""
    steering = f"/sys/class/net/{veth.device}/queues/rx-0/rps_cpus"
    veth.b.run("sh", "-c", f"echo {1 << RECEIVING_CPU:x} > {steering}")
    with veth.b.running(PYTHON, FLOOD, "receive", veth.b_ipv4, str(PORT)) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "listening\n"
        with veth.a.running(PYTHON, FLOOD, "send", veth.b_ipv4, str(PORT), str(SENDING_CPU)):
            yield


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """Tasks that want RECEIVING_CPU for themselves."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen(
                ["taskset", "-c", str(RECEIVING_CPU), "sh", "-c", "while :; do :; done"]
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def softnet(cpu: int, column: int) -> int:
    rows = [line.split() for line in Path("/proc/net/softnet_stat").read_text().splitlines()]
    return int(rows[cpu][column], 16)


def write(key: str, value: int) -> None:
    sysctl_path(key).write_text(str(value))


def limit(key: str) -> int:
    return int(read_sysctl(key))


def scenarios(daemon: Daemon) -> list[str]:
    return [change["scenario"] for change in daemon.ctl("history")["changes"]]


def test_backlog_drops_raise_the_backlog_and_limit_flows(veth: Pair, start_daemon: StartDaemon) -> None:
    write(BACKLOG, BACKLOG_PACKETS)
    sysctl_path(FLOW_LIMIT).write_text("0")
    daemon = start_daemon("--allow", "net_buffer")
    limited = softnet(SENDING_CPU, FLOW_LIMIT_COLUMN)

    with flood(veth):
        daemon.wait_line(rf"change {BACKLOG} from \({BACKLOG_PACKETS}\) -> \(80\)")
        wait_for(
            lambda: int(read_sysctl(FLOW_LIMIT).replace(",", ""), 16) >> SENDING_CPU & 1,
            10,
            "the bit of the CPU that had to drop",
        )
        # The kernel itself says whose bit it is: that CPU has dropped packets of the large flow since.
        wait_for(lambda: softnet(SENDING_CPU, FLOW_LIMIT_COLUMN) > limited, 20, "flow limit in effect")

    assert limit(BACKLOG) >= 80
    assert {"backlog_drops", "backlog_flow_limit"} <= set(scenarios(daemon))


def test_squeezes_raise_budget_and_usecs_together(veth: Pair, start_daemon: StartDaemon) -> None:
    write(BUDGET, 1)
    usecs = limit(USECS)
    daemon = start_daemon("--allow", "net_buffer")

    with flood(veth):
        daemon.wait_line(rf"change {BUDGET} from \(1\) -> ", timeout_s=20)
        daemon.wait_line(rf"change {USECS} from \({usecs}\) -> ")

    assert limit(BUDGET) > 1
    assert usecs < limit(USECS) <= 20_000


def test_tasks_that_wait_shrink_both(veth: Pair, start_daemon: StartDaemon) -> None:
    write(BUDGET, 1)
    daemon = start_daemon("--allow", "net_buffer")

    with flood(veth), contextlib.ExitStack() as crowd:
        wait_for(lambda: limit(BUDGET) >= 3, 30, "a first growth", interval_s=0.1)
        crowd.enter_context(hogs(1))
        wait_for(lambda: limit(BUDGET) >= 4, 30, "a second growth", interval_s=0.1)
        crowd.enter_context(hogs(5))
        line = daemon.wait_line(rf"{BUDGET} in global ns: growth stops: .*waiting tasks", timeout_s=60)
        budget = daemon.wait_line(rf"change {BUDGET} from \((\d+)\) -> \((\d+)\)")
        usecs = daemon.wait_line(rf"change {USECS} from \((\d+)\) -> \((\d+)\)")

    assert "correlation" in line.string
    assert int(budget[1]) > int(budget[2]) >= 1
    assert 20_000 >= int(usecs[1]) > int(usecs[2])
    assert "budget_growth_delays" in scenarios(daemon)


def test_nothing_is_polled_while_nothing_comes_in(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--allow", "net_buffer")
    (load,) = [status for status in daemon.tuner("net_buffer")["hooks"] if status["probe"] == "load"]
    require(load["hook"] != "poll", "needs the tracepoint napi_poll")

    def slept_through() -> bool:
        before, end = wake_ups(daemon.pid), time.monotonic() + QUIET_S
        wait_for(lambda: time.monotonic() > end, QUIET_S + 1, "time to pass", interval_s=0.5)
        return wake_ups(daemon.pid) - before < QUIET_S - 1

    wait_for(slept_through, 40, "fewer wake-ups than a poll per second makes")


def wake_ups(pid: int) -> int:
    """How often the process went to sleep of its own accord."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("voluntary_ctxt_switches:")[2].split()[0])
