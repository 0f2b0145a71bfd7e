# SPDX-License-Identifier: GPL-2.0-or-later
"""Tuner folders as an administrator would drop them into -l: the worked example and variants of it.

The variants keep its probe and declaration, so that closing.py is traffic for all of them, and
have a policy that shows what a test wants to know.
"""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs/example_tuner/time_wait"
NAME = "time_wait"

_POLICY_HEAD = """
import msgspec
from bpftune.ipc.messages import Table
from bpftune.tuners.base import Decision, Policy

LIMIT = "net.ipv4.tcp_max_tw_buckets"

class State(msgspec.Struct):
    events: int = 0

class Variant(Policy[State]):
    State = State
"""

COUNTING = """
def on_event(self, event, situation, state):
    state.events += 1
    return Decision()

def tables(self, states):
    return [Table(title="counted", columns=["events"], rows=[[sum(one.events for one in states.values())]])]
"""
"""Remembers how many events it has seen, and tells in the summary."""

SEESAW = """
def on_event(self, event, situation, state):
    view = situation.tunables[LIMIT]
    wanted = view.original[0] + (view.current == view.original)
    return Decision(proposals=[situation.propose(LIMIT, (wanted,), "time_wait_near_limit", {})])
"""
"""Writes at every event."""

GROWING = """
def on_event(self, event, situation, state):
    wanted = situation.tunables[LIMIT].current[0] + 1
    numbers = {"time_wait": event["time_wait"]}
    return Decision(proposals=[situation.propose(LIMIT, (wanted,), "time_wait_near_limit", numbers)])
"""
"""One more at every event, and never back: without events nothing changes."""

GREEDY = """
def on_event(self, event, situation, state):
    return len(bytearray(300 << 20))
"""
"""Takes 300 MiB, less than a worker may have by itself, at every event."""

CRASHING = """
def on_event(self, event, situation, state):
    raise RuntimeError("this policy is broken")
"""


SIZING = """
import msgspec
from bpftune.tuners import evidence
from bpftune.tuners.base import Decision, Policy
from bpftune.tuners.evidence import Sample
from bpftune.tuners.growth import Limit, Reading, Regulator, expire, react, settle, wake_ns
from bpftune.tuners.steps import grow

evidence.IDLE_NS = 1_000_000_000
LIMIT = Limit(
    tunable="net.ipv4.tcp_max_tw_buckets",
    field=0,
    near="time_wait_near_limit",
    unpaid="time_wait_unpaid",
    idle="time_wait_idle",
)

class State(msgspec.Struct):
    limit: Regulator = msgspec.field(default_factory=Regulator)
    heard_ns: int = 0

class Sizing(Policy[State]):
    State = State

    def on_event(self, event, situation, state):
        decision = Decision()
        sample = Sample(amount=500.0, rounds=5.0, start_ns=state.heard_ns, end_ns=event.time_ns)
        reading = Reading(
            time_ns=event.time_ns,
            need=grow(situation.tunables[LIMIT.tunable].current[0], situation.shift),
            enough=0,
            ceiling=1 << 20,
            growable=True,
            amount_per_round=100.0,
            sample=sample if state.heard_ns else None,
            rtt_us=0,
            numbers={"time_wait": event["time_wait"]},
        )
        state.heard_ns = event.time_ns
        react(LIMIT, reading, situation, state.limit, decision)
        return self.finish(decision, situation, state)

    def on_outcome(self, outcome, situation, state):
        settle(LIMIT, outcome, situation, state.limit)
        return self.finish(Decision(), situation, state)

    def on_timer(self, situation, state):
        decision = Decision()
        expire(LIMIT, situation, state.limit, decision)
        return self.finish(decision, situation, state)

    def finish(self, decision, situation, state):
        decision.wake_at_ns = wake_ns(LIMIT, situation, state.limit)
        return decision
"""
"""Grows as tcp_buffer does, by evidence that says that nothing is ever gained; idle is what is idle
for a second."""

UNPAID_SCENARIO = """
[[scenarios]]
id = "time_wait_unpaid"
name = "more TIME-WAIT connections bought nothing"
tunable = "net.ipv4.tcp_max_tw_buckets"
why = "Two steps in a row made no difference."
reason = "TIME-WAIT growth that did not pay"
"""


def put_sizing(directory: Path) -> Path:
    folder = put_example(directory)
    (folder / "policy.py").write_text(SIZING)
    declaration = folder / "tuner.toml"
    declaration.write_text(declaration.read_text() + UNPAID_SCENARIO)
    return folder


def put_example(directory: Path) -> Path:
    """A copy of the worked example in `directory`."""
    directory.mkdir(mode=0o755, exist_ok=True)
    return Path(shutil.copytree(EXAMPLE, directory / NAME, ignore=shutil.ignore_patterns("__pycache__")))


def put_variant(directory: Path, policy: str) -> Path:
    """The example with a policy class that has the methods of `policy`."""
    folder = put_example(directory)
    (folder / "policy.py").write_text(policy_source(policy))
    return folder


def policy_source(methods: str) -> str:
    return _POLICY_HEAD + textwrap.indent(textwrap.dedent(methods), "    ")
