# SPDX-License-Identifier: GPL-2.0-or-later
"""Real workers that are asked what their strategies are worth, and told which one is active."""

from __future__ import annotations

import os
import signal

import pytest

from bpftune.ipc.control import TunerState
from bpftune.supervisor.worker import Worker
from tests.process.rig import Rig

COUNTING = """
def on_event(self, event, situation, state):
    state.events += 1
    return Decision(notes=[situation.note("net.test.size", "full", situation.strategy or "none")])

def evaluate(self, strategy, states, now_ns):
    assert now_ns > 0
    return {result}
"""
BY_EVENTS = COUNTING.format(result="len(strategy) + sum(state.events for state in states.values())")

Values = dict[str, float | None]


class Asked:
    """What became of one evaluation."""

    def __init__(self, worker: Worker) -> None:
        self.results: list[Values | None] = []
        worker.evaluate(self.results.append)


def evaluated(rig: Rig, worker: Worker) -> Values | None:
    asked = Asked(worker)
    rig.until(lambda: asked.results, "an evaluation")
    return asked.results[0]


def noted(rig: Rig, worker: Worker) -> str:
    """The strategy that the policy was told with an event made now."""
    before = len(rig.desk.notes)
    rig.event(worker)
    rig.until(lambda: len(rig.desk.notes) > before, "a note")
    return rig.desk.notes[-1]


def kill(worker: Worker, number: signal.Signals = signal.SIGKILL) -> None:
    assert worker.pid is not None
    os.kill(worker.pid, number)


def test_all_strategies_are_evaluated_from_the_states(rig: Rig) -> None:
    worker = rig.active("choosy", BY_EVENTS)
    assert evaluated(rig, worker) == {"calm": 4, "eager": 5}

    noted(rig, worker)
    assert evaluated(rig, worker) == {"calm": 5, "eager": 6}


@pytest.mark.parametrize("result", ['float("nan")', 'float("inf")', '-float("inf")'])
def test_what_is_no_finite_number_arrives_as_none(rig: Rig, result: str) -> None:
    worker = rig.active("choosy", COUNTING.format(result=f'{result} if strategy == "calm" else 1'))

    assert evaluated(rig, worker) == {"calm": None, "eager": 1}
    assert worker.restarts == 0


def test_a_worker_that_is_not_there_cannot_tell(rig: Rig) -> None:
    worker = rig.active("choosy", BY_EVENTS)
    kill(worker)
    rig.until(lambda: worker.state is TunerState.RESTARTING, "its end was noticed")

    assert Asked(worker).results == [None]
    rig.until(lambda: worker.state is TunerState.ACTIVE, "it is there again")
    assert evaluated(rig, worker) == {"calm": 4, "eager": 5}


def test_a_worker_that_dies_over_it_could_not_tell(rig: Rig) -> None:
    worker = rig.active("choosy", COUNTING.format(result="1 / 0"))

    assert evaluated(rig, worker) is None
    assert rig.desk.logged("ZeroDivisionError")
    rig.until(lambda: worker.state is TunerState.ACTIVE, "it is there again")


def test_a_worker_that_hangs_over_it_is_replaced(rig: Rig) -> None:
    worker = rig.active("choosy", BY_EVENTS)
    kill(worker, signal.SIGSTOP)

    assert evaluated(rig, worker) is None
    assert rig.desk.logged("it did not answer evaluation 1 within")


def test_the_policy_knows_the_active_strategy_over_a_restart(rig: Rig) -> None:
    worker = rig.active("choosy", BY_EVENTS)
    assert noted(rig, worker) == "none"

    worker.use("eager")
    assert noted(rig, worker) == "eager"

    kill(worker)
    rig.until(lambda: worker.restarts == 1 and worker.state is TunerState.ACTIVE, "it is there again")
    assert noted(rig, worker) == "eager"
    assert evaluated(rig, worker) == {"calm": 7, "eager": 8}, "the states survived"


def test_a_strategy_chosen_while_it_is_away_is_known_at_its_return(rig: Rig) -> None:
    worker = rig.active("choosy", BY_EVENTS)
    kill(worker)
    rig.until(lambda: worker.state is TunerState.RESTARTING, "its end was noticed")
    worker.use("calm")

    assert noted(rig, worker) == "calm"
