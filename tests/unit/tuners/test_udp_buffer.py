# SPDX-License-Identifier: GPL-2.0-or-later
"""udp_buffer against modelled receivers: grows for bursts, stops for slow readers, gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from bpftune.ipc.messages import Status
from bpftune.ipc.record import Event
from bpftune.tuners.evidence import IDLE_NS
from bpftune.tuners.steps import grow
from bpftune.tuners.udp_buffer.policy import DEFAULT, HANDOVER_NS, MEMORY, SIZED, Kind, UdpBuffer

if TYPE_CHECKING:
    from tests.unit.tuners.conftest import FakeKernel

MakeKernel = Callable[..., "FakeKernel"]
MS = 1_000_000
INTERVAL_NS = 25 * MS
RMEM_MAX, RMEM_DEFAULT, UDP_MEM = SIZED.limit.tunable, DEFAULT.limit.tunable, MEMORY.tunable
CAP = 256 << 20
VALUES = {RMEM_MAX: (212_992,), RMEM_DEFAULT: (212_992,), UDP_MEM: (100, 130, 200)}


def kernel_of(make_kernel: MakeKernel) -> FakeKernel:
    return make_kernel("udp_buffer", UdpBuffer(), VALUES, cap=CAP)


@dataclass(kw_only=True)
class Receiver:
    """An application in one namespace; `reopen` is when it takes notice of a new limit."""

    kernel: FakeKernel
    cookie: int = 7
    kind: Kind = DEFAULT
    arrivals: int = 1000
    reads: int = 500
    """Datagrams per report interval."""
    size: int = 0

    def reopen(self) -> Receiver:
        self.size = self.kernel.values[self.kind.limit.tunable][0]
        return self

    def report(self, *, drops: int | None = None, burst: int = 0) -> None:
        self.kernel.now_ns += INTERVAL_NS
        numbers = {
            "sk_rcvbuf": self.size * self.kind.bytes_per_unit,
            "drops": self.arrivals - self.reads if drops is None else drops,
            "received": self.reads,
            "interval_ns": INTERVAL_NS,
            "burst_bytes": burst,
        }
        deliver(self.kernel, self.kind.limit.short, numbers, self.cookie)


def deliver(kernel: FakeKernel, scenario: str, numbers: dict[str, int], cookie: int) -> None:
    event = Event(scenario, kernel.now_ns, cookie, 0, numbers, {})
    kernel._take(kernel.policy.on_event(event, kernel.situation(), kernel.state))


def memory_event(kernel: FakeKernel, *, drops: int = 500, received: int = 500) -> None:
    kernel.now_ns += INTERVAL_NS
    numbers = {"allocated_pages": 101, "drops": drops, "received": received, "interval_ns": INTERVAL_NS}
    deliver(kernel, MEMORY.short, numbers, 7)


def test_a_burst_gets_the_room_it_needs(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)

    Receiver(kernel=kernel).reopen().report(burst=900_000)

    assert kernel.values[RMEM_DEFAULT] == (212_992 + 900_000,)
    assert kernel.values[RMEM_MAX] == (212_992,)


def test_without_a_whole_burst_it_is_one_step(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)

    Receiver(kernel=kernel).reopen().report()

    assert kernel.values[RMEM_DEFAULT] == (212_992 + 212_992 // 4,)


def test_a_size_that_was_asked_for_counts_for_rmem_max(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)

    Receiver(kernel=kernel, kind=SIZED).reopen().report(burst=400_000)

    assert kernel.values[RMEM_MAX] == (212_992 + 200_000,), "the kernel doubles what is asked for"
    assert kernel.values[RMEM_DEFAULT] == (212_992,)


def test_a_size_of_its_own_below_the_limit_is_not_ours(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)

    for size in (60_000, 10_000_000):
        Receiver(kernel=kernel, kind=SIZED, size=size).report(burst=1_000_000)

    assert kernel.proposals == []


def test_older_sockets_say_nothing_about_a_growth(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    old = Receiver(kernel=kernel).reopen()

    for _ in range(400):
        old.report()

    assert len(kernel.changes) == 1, "10 s of losses at the old size buy no second growth"
    assert [note.scenario for note in kernel.notes] == [DEFAULT.limit.short]
    assert "keep their buffers" in kernel.notes[0].text


def test_older_sockets_are_known_however_far_the_limit_went(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    old = Receiver(kernel=kernel).reopen()

    old.report(burst=9_000_000)
    old.report()

    assert len(kernel.changes) == 1
    assert "keep their buffers" in kernel.notes[0].text


def test_older_sockets_keep_a_growth_from_being_idle(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    old = Receiver(kernel=kernel).reopen()
    old.report()
    grown = kernel.values[RMEM_DEFAULT]

    for _ in range(10):
        kernel.run_until(kernel.now_ns + IDLE_NS // 2)
        old.report()

    assert kernel.values[RMEM_DEFAULT] == grown


def test_growth_goes_on_while_it_prevents_losses(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    receiver = Receiver(kernel=kernel).reopen()

    for _ in range(2000):
        receiver.reopen()
        if receiver.size >= 1_500_000:
            break
        receiver.report(drops=1 + 500 * 212_992 // receiver.size)

    assert receiver.size >= 1_500_000


def test_a_reader_that_is_too_slow_stops_growth(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    receiver = Receiver(kernel=kernel)

    for _ in range(4000):
        receiver.reopen().report()

    history = kernel.history(RMEM_DEFAULT)
    assert len(history) == 4, history
    assert history[3] == history[1] < history[2], "the last useless step is taken back"
    assert "growth stops" in kernel.notes[-1].text


def test_few_losses_are_no_evidence_yet(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    receiver = Receiver(kernel=kernel)

    for _ in range(40):
        receiver.reopen().report(drops=2)

    assert len(kernel.changes) == 1


def test_another_namespace_does_not_judge(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    subject = Receiver(kernel=kernel)
    subject.reopen().report()
    other = Receiver(kernel=kernel, cookie=8)

    for _ in range(20):
        subject.reopen().report()
        other.reopen().report(drops=1)

    assert kernel.state.default.witness == 7
    assert kernel.state.default.shortage.tally.successes == kernel.state.default.shortage.tally.failures


def test_a_namespace_that_nothing_helps_does_not_stop_others(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    slow = Receiver(kernel=kernel)
    for _ in range(4000):
        slow.reopen().report()
    kept = kernel.values[RMEM_DEFAULT][0]

    Receiver(kernel=kernel, cookie=8).reopen().report(burst=5_000_000)
    slow.reopen().report(burst=9_000_000)

    assert kernel.values[RMEM_DEFAULT] == (kept + 5_000_000,)


def test_what_did_not_help_one_namespace_may_help_another(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    slow = Receiver(kernel=kernel)
    for _ in range(4000):
        slow.reopen().report()
    *_, taken_back, kept = kernel.history(RMEM_DEFAULT)
    other = Receiver(kernel=kernel, cookie=8)

    for _ in range(4000):
        other.reopen().report(drops=1 + 500 * kept // other.size)

    assert kernel.values[RMEM_DEFAULT][0] > 2 * taken_back
    assert kernel.history(RMEM_DEFAULT)[4] == grow(taken_back, kernel.shift), "not the same again"


def test_namespaces_that_nothing_helps_do_not_make_it_swing(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    for cookie in (7, 8, 9):
        slow = Receiver(kernel=kernel, cookie=cookie)
        for _ in range(4000):
            slow.reopen().report()

    values = kernel.history(RMEM_DEFAULT)
    assert len(values) > 6
    assert not [at for at in range(len(values) - 3) if values[at : at + 2] == values[at + 2 : at + 4]]


def test_a_namespace_that_was_quiet_is_heard_again(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    slow = Receiver(kernel=kernel)
    for _ in range(4000):
        slow.reopen().report()

    kernel.run_until(kernel.now_ns + 20 * IDLE_NS)
    assert kernel.values == kernel.originals
    slow.reopen().report(burst=1_000_000)

    assert kernel.values[RMEM_DEFAULT] == (1_212_992,)


def test_another_namespace_may_follow(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    Receiver(kernel=kernel).reopen().report()
    other = Receiver(kernel=kernel, cookie=8)
    kernel.now_ns += HANDOVER_NS

    for _ in range(100):
        other.reopen().report()

    assert kernel.state.default.witness == 8
    assert len(kernel.changes) >= 2


def test_idle_growth_is_given_back_step_by_step(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    Receiver(kernel=kernel).reopen().report(burst=900_000)
    top = kernel.values[RMEM_DEFAULT][0]

    kernel.run_until(kernel.now_ns + IDLE_NS + 1000 * MS)
    assert kernel.values[RMEM_DEFAULT][0] == top - (top >> 2)
    kernel.run_until(kernel.now_ns + 40 * IDLE_NS)

    assert kernel.values == kernel.originals
    assert kernel.wake_at_ns is None


def test_what_decayed_is_taken_again_when_it_is_needed(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    receiver = Receiver(kernel=kernel).reopen()
    receiver.report()
    kernel.run_until(kernel.now_ns + 2 * IDLE_NS)
    assert kernel.history(RMEM_DEFAULT) == [212_992, 266_240, 212_992]

    receiver.reopen().report()

    assert kernel.values[RMEM_DEFAULT] == (266_240,)
    assert kernel.notes == []
    kernel.run_until(kernel.now_ns + 2 * IDLE_NS - 1000 * MS)
    assert kernel.values[RMEM_DEFAULT] == (266_240,), "and kept for longer"


def test_udp_mem_grows_as_a_whole(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)

    memory_event(kernel)

    assert kernel.values[UDP_MEM] == (125, 162, 250)


def test_udp_mem_that_buys_nothing_is_taken_back(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)

    for _ in range(4000):
        memory_event(kernel)

    history = kernel.history(UDP_MEM)
    assert history == [100, 125, 156, 125]


def test_the_cap_is_told_once(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("udp_buffer", UdpBuffer(), VALUES, cap=212_992)
    receiver = Receiver(kernel=kernel)

    for _ in range(50):
        receiver.reopen().report()

    assert kernel.proposals == []
    assert len(kernel.notes) == 1
    assert "as far as it may go" in kernel.notes[0].text


def test_observing_says_each_value_once(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    kernel.status = Status.OBSERVED

    for _ in range(50):
        Receiver(kernel=kernel).reopen().report()

    assert len(kernel.proposals) == 1


def test_a_refused_proposal_is_not_repeated_at_once(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    kernel.status = Status.REFUSED

    for _ in range(50):
        Receiver(kernel=kernel).reopen().report()

    assert len(kernel.proposals) == 1


def test_what_sysctl_d_sets_is_left_alone(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    kernel.adopted = False

    Receiver(kernel=kernel).reopen().report()
    memory_event(kernel)

    assert kernel.proposals == []


def test_a_missing_tunable_is_no_error(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("udp_buffer", UdpBuffer(), {RMEM_MAX: (212_992,)})

    Receiver(kernel=kernel, size=212_992).report()

    assert kernel.proposals == []


steps = st.tuples(
    st.sampled_from([SIZED, DEFAULT, None]),
    st.integers(7, 9),
    st.booleans(),
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.integers(0, 1 << 30),
    st.sampled_from([0, 0, 0, 2000, IDLE_NS // MS + 2000, 5 * IDLE_NS // MS]),
    st.sampled_from(list(Status)),
)


@settings(max_examples=200, deadline=None)
@given(stream=st.lists(steps, max_size=60), shift=st.integers(2, 6))
def test_any_stream_of_events_is_survived(
    make_kernel: MakeKernel,
    stream: list[tuple[Kind | None, int, bool, int, int, int, int, Status]],
    shift: int,
) -> None:
    kernel = kernel_of(make_kernel)
    kernel.shift = shift
    sockets: dict[tuple[str, int], Receiver] = {}
    causes: list[int] = []
    for kind, cookie, reopens, drops, received, burst, pause_ms, status in stream:
        kernel.status = status
        kernel.run_until(kernel.now_ns + pause_ms * MS)
        causes += [0] * (len(kernel.applied) - len(causes))
        if kind is None:
            memory_event(kernel, drops=drops, received=received)
            causes += [7] * (len(kernel.applied) - len(causes))
            continue
        receiver = sockets.setdefault(
            (kind.limit.tunable, cookie), Receiver(kernel=kernel, kind=kind, cookie=cookie).reopen()
        )
        if reopens:
            receiver.reopen()
        receiver.reads = received
        receiver.report(drops=drops, burst=burst)
        causes += [cookie] * (len(kernel.applied) - len(causes))
    for tunable, values in VALUES.items():
        for field, original in enumerate(values):
            history = kernel.history(tunable, field)
            assert min(history) == original
            assert max(history) <= CAP
    for limit in (SIZED.limit, DEFAULT.limit, MEMORY):
        assert not kernel.swings(limit.tunable, limit.idle, causes=causes)
    kernel.status = Status.APPLIED
    kernel.run_until(kernel.now_ns + 100_000 * IDLE_NS)
    assert kernel.values == kernel.originals
