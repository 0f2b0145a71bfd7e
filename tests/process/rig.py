# SPDX-License-Identifier: GPL-2.0-or-later
"""A supervisor without a kernel below it: a loop, a fork server, and a desk that grants every proposal.

The process tests use it to run real workers over small tuner folders. Nothing here touches a sysctl.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import zmq

from bpftune.ipc.declaration import EventField, load_declaration
from bpftune.ipc.messages import Answer, Netns, Outcome, Status, Summarize, TunableView, View
from bpftune.ipc.record import HEADER, payload_struct
from bpftune.supervisor.forkserver import ForkServer
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.worker import Worker
from tests.waiting import SCALE

T = TypeVar("T")

ANSWER_WITHIN_S = 0.5 * SCALE
KILL_AFTER_S = 0.5 * SCALE
SIZE = "net.test.size"

_DECLARATION = """
name = "{name}"
description = "Made for a test"
[[tunables]]
name = "net.test.size"
scope = "netns"
[[scenarios]]
id = "full"
name = "full"
tunable = "net.test.size"
why = "It is full."
reason = "fullness"
event = ["u32 used"]
[[probes]]
name = "fill"
scenarios = ["full"]
hooks = ["tp_btf:fill"]
"""

_STRATEGIES = """
[[strategies]]
name = "calm"
description = "Made for a test"
timeout_s = 1
probes = []
[[strategies]]
name = "eager"
description = "Made for a test"
timeout_s = 1
probes = ["fill"]
"""

_EVENT_FIELDS = [EventField("u32", "used", 0)]

_POLICY_HEAD = """
import msgspec
from bpftune.tuners.base import Decision, Policy

class State(msgspec.Struct):
    events: int = 0
    outcomes: int = 0

class TestPolicy(Policy[State]):
    State = State
"""

GROW = """
def on_event(self, event, situation, state):
    state.events += 1
    size = situation.tunables["net.test.size"].current[0]
    new = (size + event["used"],)
    evidence = {"events": state.events, "outcomes": state.outcomes}
    return Decision(proposals=[situation.propose("net.test.size", new, "full", evidence)])

def on_outcome(self, outcome, situation, state):
    state.outcomes += 1
"""
"""Proposes to grow by `used`; its evidence tells what it remembers."""


def make_folder(directory: Path, name: str, policy: str) -> Path:
    """A tuner folder whose policy class has the methods of `policy`; it has two strategies if that can
    evaluate them."""
    folder = directory / name
    folder.mkdir(exist_ok=True)
    strategies = _STRATEGIES if "def evaluate" in policy else ""
    (folder / "tuner.toml").write_text(_DECLARATION.format(name=name) + strategies)
    methods = textwrap.indent(textwrap.dedent(policy), "    ")
    (folder / "policy.py").write_text(_POLICY_HEAD + methods)
    return folder


def netns(cookie: int) -> Netns:
    return Netns(cookie=cookie, inum=cookie, name=f"ns{cookie}")


@dataclass(slots=True)
class Desk:
    """The WorkerOwner of the tests: applies everything to a dict and remembers."""

    values: dict[int, int] = field(default_factory=dict)
    """netns cookie -> value of net.test.size"""
    answers: list[Answer] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    """What every namespace counts now."""
    answered_ns: list[int] = field(default_factory=list)

    def view(self, tuner: str, netns_cookie: int) -> View | None:
        if netns_cookie == 0:
            return View(netns=Netns(cookie=0), tunables={}, memory_bytes=1 << 30)
        value = (self.values.setdefault(netns_cookie, 100),)
        tunable = TunableView(original=(100,), current=value, floor=(0,), cap=(1 << 31,))
        return View(netns=netns(netns_cookie), tunables={SIZE: tunable}, memory_bytes=1 << 30)

    def read_counters(self, tuner: str, scenario_id: str, netns_cookie: int) -> dict[str, int]:
        return dict(self.counters)

    def decide(self, tuner: str, answer: Answer, scenario_time_ns: int) -> list[Outcome]:
        self.answered_ns.append(time.monotonic_ns() - scenario_time_ns)
        self.answers.append(answer)
        outcomes = []
        for proposal in answer.proposals:
            self.values[proposal.netns_cookie] = proposal.new[0]
            outcomes.append(Outcome(proposal=proposal, status=Status.APPLIED, current=proposal.new))
        return outcomes

    def summarize(self, tuner: str, seq: int) -> Summarize:
        return Summarize(seq=seq)

    def log_worker(self, tuner: str, text: str, priority: int) -> None:
        self.lines.append(f"{tuner}: {text}")

    def state_changed(self, tuner: str) -> None:
        pass

    def logged(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    @property
    def notes(self) -> list[str]:
        return [note.text for answer in self.answers for note in answer.notes]


class Rig:
    def __init__(self, folders: Path, run_dir: Path) -> None:
        self.folders = folders
        self.run_dir = run_dir
        self.loop = Loop()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.desk = Desk()
        self.workers: list[Worker] = []
        self.forkserver = ForkServer(loop=self.loop, log=self._log)

    def _log(self, text: str, priority: int) -> None:
        self.desk.lines.append(text)

    def worker(
        self,
        name: str,
        policy: str = GROW,
        *,
        changed: Iterable[int] = (),
        answer_within_s: float = ANSWER_WITHIN_S,
    ) -> Worker:
        """A worker that is about to start."""
        folder = make_folder(self.folders, name, policy)
        worker = Worker(
            declaration=load_declaration(folder),
            folder=folder,
            shift=2,
            loop=self.loop,
            forkserver=self.forkserver,
            context=self.context,
            run_dir=self.run_dir,
            owner=self.desk,
            changed=changed,
            answer_within_s=answer_within_s,
            kill_after_s=KILL_AFTER_S,
        )
        self.workers.append(worker)
        worker.start()
        return worker

    def active(self, name: str, policy: str = GROW, *, answer_within_s: float = ANSWER_WITHIN_S) -> Worker:
        worker = self.worker(name, policy, answer_within_s=answer_within_s)
        self.until(lambda: worker.state == "active", f"{name} is active")
        return worker

    def event(self, worker: Worker, cookie: int = 1, used: int = 5) -> None:
        """One BPF record for the worker, made now."""
        worker.deliver(record(cookie, used), netns(cookie), "full")

    def until(self, condition: Callable[[], T], what: str, timeout_s: float = 10) -> T:
        """Serve the loop until `condition` holds, at most for `timeout_s`."""
        deadline = time.monotonic() + timeout_s * SCALE
        while not (result := condition()):
            assert time.monotonic() < deadline, f"not in time: {what}; log: {self.desk.lines}"
            self.loop.run_once(10)
        return result

    def close(self) -> None:
        for worker in self.workers:
            worker.stop()
        self.until(lambda: all(worker.state == "inactive" for worker in self.workers), "all workers ended")
        self.forkserver.close()
        self.context.term()


def record(cookie: int, used: int) -> bytes:
    header = HEADER.pack(time.monotonic_ns(), cookie, cookie, 0, 0, 0, 0)
    return header + payload_struct(_EVENT_FIELDS).pack(used)


@contextlib.contextmanager
def rig(folders: Path) -> Iterator[Rig]:
    """A rig whose run directory the workers' user can reach; pytest's tmp_path is root's alone."""
    run_dir = Path(tempfile.mkdtemp(prefix="bpftune-rig-"))
    run_dir.chmod(0o711)
    try:
        made = Rig(folders, run_dir)
        try:
            yield made
        finally:
            made.close()
    finally:
        shutil.rmtree(run_dir)
