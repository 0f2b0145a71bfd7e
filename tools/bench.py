# SPDX-License-Identifier: GPL-2.0-or-later
"""`make bench`: what bpftune costs and how fast it decides, measured here, as a markdown table.

Uses the kernel tests' building blocks. It works in namespaces of its own and with state and run
directories of its own; every daemon that it starts rolls its changes back. Root only. Other load on
the machine spoils the figures, so the method column says what each one rests on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.kernel import bpf_objects, namespaces, traffic
from tests.kernel.daemon import Daemon, running
from tests.kernel.namespaces import Namespace, Pair
from tests.waiting import wait_for

TOO_SMALL = "4096 65536 131072"
IPERF3_PORT = "5202"
CONNECTIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How often and how long each figure is measured."""

    cold_starts: int = 3
    warm_starts: int = 7
    idle_s: int = 60
    receivers: int = 20
    settle_s: float = 5
    throughput_rounds: int = 7
    throughput_s: int = 3


QUICK = Effort(
    cold_starts=1, warm_starts=2, idle_s=5, receivers=2, settle_s=1, throughput_rounds=1, throughput_s=1
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    name: str
    aim: str
    measured: str
    method: str


def measure_starts(effort: Effort, directory: Path) -> list[Figure]:
    """From exec to READY=1, which is sent when every probe is attached."""
    cold = [start_ms(directory / f"cold{number}") for number in range(effort.cold_starts)]
    warm = [start_ms(directory / "cold0") for _ in range(effort.warm_starts)]
    return [
        Figure(
            name="start to attached, warm cache",
            aim="",
            measured=f"{statistics.median(warm):.0f} ms",
            method=f"exec to READY=1, median of {len(warm)}",
        ),
        Figure(
            name="start to attached, cold cache",
            aim="",
            measured=f"{statistics.median(cold):.0f} ms",
            method=f"the same in a new state directory, median of {len(cold)}",
        ),
    ]


def start_ms(directory: Path) -> float:
    daemon = Daemon("--rollback", directory=directory)
    try:
        return daemon.wait_ready(60) / 1e6
    finally:
        daemon.close()


def measure_idle(effort: Effort, directory: Path) -> list[Figure]:
    """Memory and wake-ups of all processes while nothing happens; systemd is not there to be told."""
    with running("--rollback", directory=directory / "idle", notify=False) as daemon:
        wait_for(lambda: daemon.run_ctl("status").returncode == 0, 30, "daemon answers", 0.1)
        wait_for(lambda: is_settled(daemon), 30, "every worker is ready", 0.1)
        processes = processes_of(daemon)
        pss_bytes = sum(process.memory_full_info().pss for process in processes)
        idle = measure_wakeups("wake-ups, idle", effort, daemon)
    return [
        Figure(
            name="memory of all processes, idle",
            aim="< 45 MB",
            measured=f"{pss_bytes / 1e6:.1f} MB in {len(processes)} processes",
            method="sum of PSS in /proc/PID/smaps_rollup",
        ),
        idle,
    ]


def processes_of(daemon: Daemon) -> list[psutil.Process]:
    supervisor = psutil.Process(daemon.pid)
    return [supervisor, *supervisor.children(recursive=True)]


def measure_wakeups(name: str, effort: Effort, daemon: Daemon) -> Figure:
    processes = processes_of(daemon)
    before = voluntary_switches(processes)
    time.sleep(effort.idle_s)
    switches = voluntary_switches(processes) - before
    return Figure(
        name=name,
        aim="0-2 per minute",
        measured=f"{switches * 60 / effort.idle_s:.0f} per minute",
        method=f"voluntary context switches of all threads in {effort.idle_s} s",
    )


def is_settled(daemon: Daemon) -> bool:
    return all(tuner["state"] != "starting" for tuner in daemon.ctl("status")["tuners"])


def voluntary_switches(processes: list[psutil.Process]) -> int:
    """Over all threads: a helper thread of a library that wakes up counts too."""
    total = 0
    for process in processes:
        for status in Path(f"/proc/{process.pid}/task").glob("*/status"):
            with contextlib.suppress(OSError):
                lines = status.read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))
    return total


def measure_decisions(effort: Effort, directory: Path) -> list[Figure]:
    """From the timestamp that BPF takes to the sysctl written, of real changes under real traffic."""
    with contextlib.ExitStack() as stack:
        # Written before bpftune looks: later it would be an administrator's doing, and end the tuning.
        pairs = [stack.enter_context(held_back()) for _ in range(effort.receivers)]
        daemon = stack.enter_context(
            running("--allow", "tcp_buffer", "--rollback", directory=directory / "decisions")
        )
        for far in pairs:
            provoke_growth(far)
        latencies_us = sorted(daemon.tuner("tcp_buffer")["write_latency_us"])
        time.sleep(effort.settle_s)
        calm = measure_wakeups("wake-ups after the traffic", effort, daemon)
    measured = "no change was made"
    if latencies_us:
        p50, p99 = percentile(latencies_us, 50), percentile(latencies_us, 99)
        measured = f"p50 {p50 / 1000:.2f} ms, p99 {p99 / 1000:.2f} ms"
    return [
        Figure(
            name="BPF timestamp to value written",
            aim="p50 < 1 ms",
            measured=measured,
            method=f"{len(latencies_us)} changes, bulk TCP into receivers with a too small tcp_rmem",
        ),
        calm,
    ]


@contextlib.contextmanager
def held_back() -> Iterator[Pair]:
    """Two namespaces with a long path between them, whose receiving end has a too small tcp_rmem."""
    with namespaces.distant_pair() as far:
        far.b.write_sysctl("net.ipv4.tcp_rmem", TOO_SMALL)
        yield far


def provoke_growth(far: Pair) -> None:
    """New connections, one after another: each makes use of the limit raised so far."""
    with traffic.receiver(far.b, far.b_ipv4) as to:
        for _ in range(CONNECTIONS):
            traffic.send(far.a, to, seconds=1.5)


def percentile(ordered: list[int], percent: int) -> int:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def measure_throughput(effort: Effort, directory: Path) -> list[Figure]:
    """iperf3 over a veth, rounds with and without the daemon in turn so that drift hits both."""
    with_bps: list[float] = []
    without_bps: list[float] = []
    with namespaces.pair() as veth, iperf3_server(veth.b):
        iperf3_bps(veth, effort.throughput_s)  # the first run warms caches and the CPU up
        for _ in range(effort.throughput_rounds):
            without_bps.append(iperf3_bps(veth, effort.throughput_s))
            with running("--rollback", directory=directory / "throughput"):
                with_bps.append(iperf3_bps(veth, effort.throughput_s))
        programs = measure_programs(veth, effort, directory)
    ratio = statistics.median(with_bps) / statistics.median(without_bps)
    return [
        Figure(
            name="iperf3 throughput with bpftune / without",
            aim=">= 0.99",
            measured=f"{ratio:.3f}",
            method=f"medians of {len(with_bps)} runs of {effort.throughput_s} s each, interleaved, over veth",
        ),
        programs,
    ]


def measure_programs(veth: Pair, effort: Effort, directory: Path) -> Figure:
    """What the BPF programs take of that; apart, since counting it is not free either."""
    with (
        running("--rollback", directory=directory / "throughput") as daemon,
        bpf_objects.program_statistics(),
    ):
        iperf3_bps(veth, effort.throughput_s)
        times = bpf_objects.run_times(daemon.pid)
    each = [f"{one.name} {one.total_ns / one.runs:.0f} ns x {one.runs}" for one in times]
    share = sum(one.total_ns for one in times) / (effort.throughput_s * 1e9)
    return Figure(
        name="BPF programs during iperf3",
        aim="",
        measured=f"{share:.2%} of one CPU: {', '.join(each)}",
        method=f"kernel.bpf_stats_enabled, one run of {effort.throughput_s} s",
    )


@contextlib.contextmanager
def iperf3_server(where: Namespace) -> Iterator[None]:
    argv = where.command("iperf3", "--server", "--port", IPERF3_PORT)
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL) as server:
        try:
            wait_for(lambda: where.run("ss", "-Hltn", f"sport = :{IPERF3_PORT}"), 5, "iperf3 listens")
            yield
        finally:
            server.send_signal(signal.SIGTERM)


def iperf3_bps(veth: Pair, seconds: int) -> float:
    printed = veth.a.run(
        "iperf3", "--client", veth.b_ipv4, "--port", IPERF3_PORT, "--time", str(seconds), "--json"
    )
    result: dict[str, Any] = json.loads(printed)
    return float(result["end"]["sum_received"]["bits_per_second"])


MEASUREMENTS: dict[str, Callable[[Effort, Path], list[Figure]]] = {
    "start": measure_starts,
    "idle": measure_idle,
    "decisions": measure_decisions,
    "throughput": measure_throughput,
}


def table(figures: list[Figure]) -> str:
    rows = [f"| {figure.name} | {figure.measured} | {figure.aim} | {figure.method} |" for figure in figures]
    return "\n".join(["| figure | measured | aim | how |", "|---|---|---|---|", *rows])


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--quick", action="store_true", help="few rounds: a check of the tool, not a figure")
    parser.add_argument("--only", action="append", choices=list(MEASUREMENTS), help="default: all")
    given = parser.parse_args()
    if os.geteuid() != 0:
        print("make: the bench needs root: sudo make bench", file=sys.stderr)
        return 1
    effort = QUICK if given.quick else Effort()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed bpftune has its bytecode
    directory = Path(tempfile.mkdtemp(prefix="bpftune-bench-"))
    directory.chmod(0o711)  # workers, which are not root, reach their sockets through it
    figures: list[Figure] = []
    try:
        for name in given.only or MEASUREMENTS:
            print(f"measuring: {name}", file=sys.stderr, flush=True)
            figures.extend(MEASUREMENTS[name](effort, directory))
    finally:
        shutil.rmtree(directory)
    print(f"Linux {platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}\n")
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
