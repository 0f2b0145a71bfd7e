# SPDX-License-Identifier: GPL-2.0-or-later
"""Some of a tuner's probes attached, others not, and changed while events pour in.

Every probe here has the same hook, a socket that begins to listen, and tells the backlog it was
given: listening with 1, 2, 3, ... gives each event a number, so that what is lost or doubled shows.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bpftune.ipc.record import Event
from tests.kernel import bpf_objects
from tests.kernel.bpf.rig import Rig, make_tuner, opened
from tests.kernel.namespaces import Namespace

EVENTS = 3000
PAUSE_S = 0.0005
SWITCHES_AT_LEAST = 20
HOOK = "tp_btf:inet_sock_set_state"
LISTENING = """
PROBE(%s, struct sock *sk, int old_state, int new_state)
{
	struct event_seen e = { .probe = %d };

	if (new_state != BPF_TCP_LISTEN || bpf_get_current_pid_tgid() >> 32 != %d)
		return 0;
	e.number = READ(sk, sk_max_ack_backlog);
	SEND_ALWAYS(seen, READ(sk, __sk_common.skc_net.net), &e);
	return 0;
}
"""
EACH_LISTENER = """
PROBE_CTX(%s, struct bpf_iter__tcp *ctx)
{
	struct event_seen e = { .probe = %d };
	struct sock_common *skc = ctx->sk_common;

	if (skc && READ(skc, skc_state) == BPF_TCP_LISTEN)
		SEND_ALWAYS(seen, READ(skc, skc_net.net), &e);
	return 0;
}
"""
ITERATED = 'bpf_iter__tcp = ["sk_common"]\nsock_common = ["skc_net.net", "skc_state"]'
STRUCTS = 'sock = ["__sk_common", "sk_max_ack_backlog"]\nsock_common = ["skc_net.net"]'
WITNESS, FIRST, SECOND, ALWAYS = range(4)
PROBES = {"witness": {"only": WITNESS}, "choosy": {"first": FIRST, "second": SECOND, "always": ALWAYS}}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """Two tuners, `witness` and `choosy`, with all their probes attached."""
    with opened(tmp_path / "cache") as made:
        for tuner, probes in PROBES.items():
            folder = make_tuner(
                tmp_path,
                tuner,
                hooks={probe: [HOOK] for probe in probes},
                source="".join(LISTENING % (*probe, os.getpid()) for probe in probes.items()),
                fields=("u32 probe", "u32 number"),
                structs=STRUCTS,
            )
            made.load(folder)
        yield made


def listen(netns: Namespace, numbers: Collection[int], pause_s: float = 0) -> None:
    with netns.entered():
        for number in numbers:
            with socket.create_server(("127.0.0.1", 0), backlog=number):
                time.sleep(pause_s)


@contextmanager
def listening(netns: Namespace) -> Iterator[threading.Thread]:
    """EVENTS numbered events, made by another thread; all are made when the block has ended."""
    netns.write_sysctl("net.core.somaxconn", str(EVENTS))
    thread = threading.Thread(target=listen, args=(netns, range(1, EVENTS + 1), PAUSE_S))
    thread.start()
    try:
        yield thread
    finally:
        thread.join()


def links() -> set[int]:
    return {number for kind, number in bpf_objects.held(os.getpid()) if kind == "link"}


def numbers(events: list[Event], *probes: int) -> Counter[int]:
    return Counter(event["number"] for event in events if event["probe"] in probes)


def test_only_what_is_wanted_fires(rig: Rig, netns: Namespace) -> None:
    for wanted, firing in ((["second"], {SECOND}), (["first", "always"], {FIRST, ALWAYS}), ([], set())):
        hooks = rig.bpf.attach("choosy", wanted)
        listen(netns, [1])

        assert {event["probe"] for event in rig.events()} == {WITNESS, *firing}
        assert [one.probe for one in hooks if not one.resting] == sorted(
            wanted, key=list(PROBES["choosy"]).index
        )
        assert all(one.hook == HOOK for one in hooks)


def test_links_that_stay_are_not_touched(rig: Rig) -> None:
    rig.bpf.attach("choosy", ["first", "always"])
    before = links()
    rig.bpf.attach("choosy", ["second", "always"])
    after = links()

    assert (len(before - after), len(after - before)) == (1, 1)
    assert not bpf_objects.existing({("link", number) for number in before - after})
    rig.bpf.attach("choosy", ["second", "always"])
    assert links() == after


def test_every_ladder_is_climbed_the_first_time(tmp_path: Path, netns: Namespace) -> None:
    with opened(tmp_path / "cache") as rig:
        folder = make_tuner(
            tmp_path,
            "choosy",
            hooks={"first": [HOOK], "second": ["tp_btf:no_such_event", HOOK]},
            source=LISTENING % ("first", 1, os.getpid()) + LISTENING % ("second", 2, os.getpid()),
            fields=("u32 probe", "u32 number"),
            structs=STRUCTS,
        )
        rig.load(folder)
        hooks = rig.bpf.attach("choosy", ["first"])

        assert [(one.hook, one.resting) for one in hooks] == [(HOOK, False), (HOOK, True)]
        assert list(hooks[1].refused) == ["tp_btf:no_such_event"]
        assert rig.bpf.attach("choosy", ["second"])[1].refused == hooks[1].refused


def test_a_switch_loses_no_event_of_anyone(rig: Rig, netns: Namespace) -> None:
    """The witness sees each event once. So does the probe that stays, and of the two that take turns
    there is always one: for a moment they overlap, never is there none."""
    rig.bpf.attach("choosy", ["first", "always"])
    events: list[Event] = []
    switches = 0
    with listening(netns) as thread:
        while thread.is_alive():
            rig.bpf.attach("choosy", ["second" if switches % 2 == 0 else "first", "always"])
            switches += 1
            events += rig.events()
    events += rig.events()

    each_once = Counter(range(1, EVENTS + 1))
    assert switches >= SWITCHES_AT_LEAST
    assert rig.bpf.ring_dropped() == 0
    assert numbers(events, WITNESS) == each_once
    assert numbers(events, ALWAYS) == each_once
    assert numbers(events, FIRST, SECOND).keys() == each_once.keys()
    assert numbers(events, FIRST).total() > 0
    assert numbers(events, SECOND).total() > 0


def test_an_iterator_runs_when_it_is_attached_and_when_it_is_asked_to(
    tmp_path: Path, netns: Namespace
) -> None:
    probes = {"first": FIRST, "second": SECOND}
    folder = make_tuner(
        tmp_path,
        "sockets",
        hooks={probe: ["iter:tcp"] for probe in probes},
        source="".join(EACH_LISTENER % probe for probe in probes.items()),
        fields=("u32 probe", "u32 number"),
        structs=ITERATED,
    )
    with opened(tmp_path / "cache") as rig, netns.entered(), socket.create_server(("127.0.0.1", 0)):
        rig.load(folder)
        rig.bpf.detach("sockets")
        rig.events()

        def run(act: Callable[[], object]) -> set[int]:
            act()
            return {event["probe"] for event in rig.events()}

        assert run(lambda: rig.bpf.attach("sockets", ["first"])) == {FIRST}
        assert run(lambda: rig.bpf.attach("sockets", ["first", "second"])) == {SECOND}
        assert run(lambda: rig.bpf.run_iterators("sockets", ["first"])) == {FIRST}
        assert run(lambda: rig.bpf.attach("sockets", ["second"])) == set()
        assert run(lambda: rig.bpf.run_iterators("sockets")) == {SECOND}
