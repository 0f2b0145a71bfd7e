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

CRASHING = """
def on_event(self, event, situation, state):
    raise RuntimeError("this policy is broken")
"""


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
