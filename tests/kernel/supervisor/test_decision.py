# SPDX-License-Identifier: GPL-2.0-or-later
"""The decision path on real sysctls, in throwaway namespaces."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpftune.ipc.control import Change
from bpftune.ipc.declaration import Declaration, Scenario, Scope, Tunable
from bpftune.ipc.messages import GLOBAL, Netns, Outcome, Proposal, Status, Value
from bpftune.supervisor.decision import Decisions
from bpftune.supervisor.known_values import KnownValues
from bpftune.supervisor.ledger import Ledger
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.memory import Memory
from bpftune.supervisor.netns import NetnsRegistry
from bpftune.supervisor.overrides import Overrides
from bpftune.supervisor.quantities import Device, Quantities
from bpftune.supervisor.rollback import Rollback
from bpftune.supervisor.sysctl_d import AdministratorSettings
from bpftune.supervisor.sysctl_judge import SysctlJudge
from bpftune.supervisor.sysctl_write import SysctlWrite
from tests.kernel.namespaces import Namespace, Pair, namespace
from tests.waiting import SCALE, wait_for

RMEM = "net.ipv4.tcp_rmem"
THRESH = Tunable(name="net.ipv4.neigh.default.gc_thresh3", scope=Scope.GLOBAL, cap="max(256, prefix_hosts*4)")
DECLARATION = Declaration(
    name="example",
    description="d",
    tunables=[
        Tunable(
            name=RMEM,
            scope=Scope.NETNS,
            width=3,
            cap=["65536", "1048576", "min(2147483647, memory_bytes)"],
            floor=["0", "0", "field1"],
            moves=[2],
        ),
        Tunable(name="net.ipv4.no_such_sysctl", scope=Scope.NETNS),
    ],
    scenarios=[Scenario(id="full", name="n", tunable=RMEM, why="w", reason="r")],
    probes=[],
)


class Machine:
    """Everything behind a proposal, on this machine."""

    def __init__(self, directory: Path, *, dry_run: bool = False) -> None:
        self.changes: list[Change] = []
        self.off: list[str] = []
        self.loop = Loop()
        self.registry = NetnsRegistry()
        self.ledger = Ledger(directory / "state")
        self.known = KnownValues()
        self.overrides = Overrides(
            ledger=self.ledger, registry=self.registry, listener=self, warn=pytest.fail
        )
        self.quantities = Quantities(registry=self.registry, memory=Memory())
        self.judge = SysctlJudge(
            loop=self.loop,
            registry=self.registry,
            overrides=self.overrides,
            known=self.known,
            ledger=self.ledger,
            declarations=lambda: [DECLARATION],
            warn=pytest.fail,
        )
        self.decisions = Decisions(
            registry=self.registry,
            ledger=self.ledger,
            overrides=self.overrides,
            quantities=self.quantities,
            settings=AdministratorSettings({}),
            known=self.known,
            listener=self,
            stale_seen=self.judge.stale_seen,
            dry_run=dry_run,
        )
        self.rollback = Rollback(ledger=self.ledger, registry=self.registry, known=self.known)

    def close(self) -> None:
        self.ledger.close()
        self.registry.close()

    def changed(self, change: Change, tunable: Tunable) -> None:
        self.changes.append(change)

    def cap_reached(self, tuner: str, outcome: Outcome, netns: Netns, cap: Value) -> None:
        pass

    def turned_off(self, tuner: str, override: object, writer: object) -> None:
        self.off.append(tuner)

    def turned_on(self, tuner: str, netns: Netns) -> None:
        pass

    def set_max(self, cookie: int, maximum: int) -> Outcome:
        view = self.decisions.view(DECLARATION, cookie)
        current = view.tunables[RMEM].current if view else (0, 0, 0)
        return self.propose(cookie, current, (*current[:2], maximum))

    def propose(self, cookie: int, expected: Value, new: Value) -> Outcome:
        return self.decisions.apply(
            DECLARATION,
            Proposal(
                tunable=RMEM, netns_cookie=cookie, expected=expected, new=new, scenario="full", reason="r"
            ),
        )


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.close()


def test_a_change_in_one_namespace_only(machine: Machine, netns: Namespace) -> None:
    before = Path("/proc/sys/net/ipv4/tcp_rmem").read_bytes()
    with namespace("other") as other:
        elsewhere = other.read_sysctl(RMEM)
        outcome = machine.set_max(machine.registry.resolve(netns.name).cookie, 7_000_000)
        assert outcome.status is Status.APPLIED
        assert netns.read_sysctl(RMEM).split()[2] == "7000000"
        assert other.read_sysctl(RMEM) == elsewhere
    assert Path("/proc/sys/net/ipv4/tcp_rmem").read_bytes() == before
    assert machine.changes[0].netns.name == netns.name


def test_views_leave_out_what_the_kernel_lacks(machine: Machine, netns: Namespace) -> None:
    view = machine.decisions.view(DECLARATION, machine.registry.resolve(netns.name).cookie)
    assert view is not None
    assert list(view.tunables) == [RMEM]
    assert view.memory_bytes > 0


def test_rollback_in_every_namespace_byte_for_byte(machine: Machine, tmp_path: Path) -> None:
    with namespace("a") as a, namespace("b") as b:
        texts = [raw(one) for one in (a, b)]
        for one in (a, b):
            machine.set_max(machine.registry.resolve(one.name).cookie, 7_000_000)
        machine.ledger.close()
        again = Machine(tmp_path)
        restored = again.rollback.run("all", list, dry_run=False)
        again.close()
        assert [one.outcome for one in restored] == ["restored", "restored"]
        assert [raw(one) for one in (a, b)] == texts


def raw(netns: Namespace) -> bytes:
    with netns.entered():
        return Path("/proc/sys/net/ipv4/tcp_rmem").read_bytes()


def test_a_namespace_that_vanishes_in_between(machine: Machine) -> None:
    with namespace("gone") as netns:
        cookie = machine.registry.resolve(netns.name).cookie
        assert machine.set_max(cookie, 7_000_000).status is Status.APPLIED
    wait_for(lambda: machine.registry.gone() == [cookie], 5, "the namespace is gone")
    outcome = machine.propose(cookie, (1, 2, 3), (1, 2, 4))
    assert outcome.status is Status.STALE
    assert outcome.why == f"network namespace {cookie} is gone"
    assert machine.decisions.view(DECLARATION, cookie) is None
    (restored,) = machine.rollback.run("all", list, dry_run=False)
    assert restored.outcome == "left: its namespace is gone"
    assert restored.netns.name == netns.name


def test_a_value_that_the_kernel_refuses(machine: Machine, netns: Namespace) -> None:
    """tcp_rmem takes nothing below 1; its declaration here would let 0 pass."""
    cookie = machine.registry.resolve(netns.name).cookie
    current = tuple(map(int, netns.read_sysctl(RMEM).split()))
    tunable = Tunable(name=RMEM, scope=Scope.NETNS, width=3)
    lenient = Declaration(
        name="example", description="d", tunables=[tunable], scenarios=DECLARATION.scenarios, probes=[]
    )
    proposal = Proposal(
        tunable=RMEM,
        netns_cookie=cookie,
        expected=current,
        new=(*current[:2], 0),
        scenario="full",
        reason="r",
    )
    outcome = machine.decisions.apply(lenient, proposal)
    assert (outcome.status, outcome.current) == (Status.FAILED, current)
    assert outcome.why == f"cannot write {RMEM}: Invalid argument"
    assert machine.ledger.changes(1)[0].outcome == "failed"


def test_a_judged_write_in_a_namespace_first_heard_of(machine: Machine, netns: Namespace) -> None:
    with netns.entered():
        cookie = NetnsRegistry().initial.cookie
    netns.run("sysctl", "-qw", f"{RMEM}=4096 65536 131072")
    machine.judge.judge(
        SysctlWrite(
            time_ns=time.monotonic_ns(),
            netns_cookie=cookie,
            netns_inum=netns.inum,
            pid=0,
            uid=0,
            comm="sysctl",
            key="net/ipv4/tcp_rmem",
            new="4096 65536 131072",
            current="4096\t131072\t6291456\n",
            file_pos=0,
        )
    )
    assert machine.overrides.is_off("example", cookie)
    assert not machine.overrides.is_off("example", GLOBAL)
    assert machine.overrides.of("example")[0].netns.name == netns.name


def test_hosts_on_a_device_of_another_namespace(machine: Machine, veth: Pair) -> None:
    cookie = machine.registry.resolve(veth.a.name).cookie
    ifindex = int(veth.a.run("cat", f"/sys/class/net/{veth.device}/ifindex"))
    device = Device(netns_cookie=cookie, ifindex=ifindex)
    assert machine.quantities.bounds(THRESH, original=(1,), current=(1,), device=device).cap == (1024,)
    anywhere = Device(netns_cookie=GLOBAL, ifindex=0)
    assert machine.quantities.bounds(THRESH, original=(1,), current=(1,), device=anywhere).cap[0] >= 1024


def test_a_decision_takes_well_under_a_millisecond(machine: Machine, netns: Namespace) -> None:
    cookie = machine.registry.resolve(netns.name).cookie
    machine.set_max(cookie, 7_000_000)
    current = (*machine.set_max(cookie, 7_000_001).current[:2],)
    took = []
    for maximum in range(7_000_001, 7_000_201):
        start = time.perf_counter_ns()
        outcome = machine.propose(cookie, (*current, maximum), (*current, maximum + 1))
        took.append(time.perf_counter_ns() - start)
        assert outcome.status is Status.APPLIED
    assert sorted(took)[len(took) // 2] < 1_000_000 * SCALE
