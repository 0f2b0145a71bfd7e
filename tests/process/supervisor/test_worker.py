# SPDX-License-Identifier: GPL-2.0-or-later
"""Workers that die, hang, lie or shout, and what the supervisor makes of it."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from bpftune.ipc.control import TunerState
from bpftune.ipc.messages import Forget, Table
from bpftune.supervisor.worker import NOTES_PER_S, Worker
from tests.process.rig import ANSWER_WITHIN_S, GROW, Rig
from tests.waiting import SCALE

POISON = 666

SENSITIVE = f"""
def on_event(self, event, situation, state):
    if event["used"] == {POISON}:
        raise RuntimeError("poisoned")
    state.events += 1
    note = situation.note("net.test.size", "full", f"event {{state.events}}")
    return Decision(notes=[note])
"""

LOOPING = """
def on_event(self, event, situation, state):
    return self.circle_for_ever()

def circle_for_ever(self):
    while True:
        pass
"""


def _answer(rig: Rig, worker: Worker, used: int = 5) -> None:
    before = len(rig.desk.answers)
    rig.event(worker, used=used)
    rig.until(lambda: len(rig.desk.answers) > before, "an answer")


def _kill(worker: Worker, number: signal.Signals) -> None:
    assert worker.pid is not None
    os.kill(worker.pid, number)


def test_a_proposal_is_made_from_the_view_and_its_outcome_is_learned(rig: Rig) -> None:
    worker = rig.active("echo")
    _answer(rig, worker, used=5)
    _answer(rig, worker, used=7)
    first, second = (answer.proposals[0] for answer in rig.desk.answers)
    assert (first.expected, first.new) == ((100,), (105,))
    assert (second.expected, second.new) == ((105,), (112,))
    assert second.evidence == {"events": 2, "outcomes": 1}


def test_counters_come_with_every_event(rig: Rig) -> None:
    counting = """
    def on_event(self, event, situation, state):
        return Decision(notes=[situation.note("net.test.size", "full", f"lost {situation.counters}")])
    """
    worker = rig.active("counting", counting)
    rig.desk.counters["lost"] = 3
    _answer(rig, worker)
    rig.desk.counters["lost"] = 4
    _answer(rig, worker)
    assert rig.desk.notes == ["lost {'lost': 3}", "lost {'lost': 4}"]


def test_sigkill_under_way_costs_no_state_and_nobody_else(rig: Rig) -> None:
    victim, other = rig.active("victim"), rig.active("other")
    other_pid = other.pid
    for _ in range(3):
        _answer(rig, victim)
    _kill(victim, signal.SIGSTOP)
    rig.event(victim)
    _kill(victim, signal.SIGKILL)
    since = time.monotonic()
    rig.until(lambda: len(rig.desk.answers) == 4, "the event under way is answered by the new worker")
    assert time.monotonic() - since < 1.0 * SCALE
    assert rig.desk.answers[-1].proposals[0].evidence["events"] == 4
    assert (victim.state, victim.restarts) == (TunerState.ACTIVE, 1)
    assert rig.desk.logged("killed by SIGKILL")
    assert (other.pid, other.restarts) == (other_pid, 0)


def test_events_that_come_while_it_restarts_wait_and_merge(rig: Rig) -> None:
    worker = rig.active("echo")
    _kill(worker, signal.SIGKILL)
    rig.until(lambda: worker.state is TunerState.RESTARTING, "its end was noticed")
    for used in (1, 2, 3):
        rig.event(worker, cookie=1, used=used)
    rig.event(worker, cookie=2, used=4)
    rig.until(lambda: len(rig.desk.answers) == 2, "one answer per namespace")
    assert rig.desk.values == {1: 103, 2: 104}
    assert (worker.events_in, worker.events_merged, worker.events_dropped) == (4, 2, 0)


def test_a_stopped_worker_shows_its_stack_and_is_replaced(rig: Rig) -> None:
    worker = rig.active("echo")
    _kill(worker, signal.SIGSTOP)
    rig.event(worker)
    rig.until(lambda: rig.desk.answers, "the new worker answers")
    assert rig.desk.logged("did not answer event 1 within")
    assert rig.desk.logged("in _serve")
    assert worker.restarts == 1


def test_a_worker_that_stood_still_with_us_gets_its_time_again(rig: Rig) -> None:
    worker = rig.active("echo")
    _kill(worker, signal.SIGSTOP)
    rig.event(worker)
    time.sleep(ANSWER_WITHIN_S + 1.1)
    rig.loop.run_once(0)
    _kill(worker, signal.SIGCONT)
    rig.until(lambda: rig.desk.answers, "its answer")
    assert worker.restarts == 0
    assert not rig.desk.logged("did not answer")


def test_an_endless_loop_is_aborted_with_its_python_stack(rig: Rig) -> None:
    worker = rig.active("looper", LOOPING)
    rig.event(worker)
    rig.until(lambda: worker.restarts, "it was restarted")
    assert rig.desk.logged("in circle_for_ever")
    assert rig.desk.logged("killed by SIGABRT")


def test_a_worker_that_ignores_the_abort_is_killed(rig: Rig) -> None:
    deaf = """
    def on_event(self, event, situation, state):
        import faulthandler, signal
        faulthandler.disable()
        signal.signal(signal.SIGABRT, signal.SIG_IGN)
        while True:
            pass
    """
    worker = rig.active("deaf", deaf)
    rig.event(worker)
    rig.until(lambda: worker.restarts, "it was restarted")
    assert rig.desk.logged("killed by SIGKILL")


def test_a_worker_hung_before_it_is_ready_is_replaced(rig: Rig) -> None:
    worker = rig.worker("sleeper", "import time\ntime.sleep(1000)")
    rig.until(lambda: worker.restarts, "it was restarted")
    assert rig.desk.logged("did not start within")


def test_a_crash_loop_ends_in_failed_until_restarted(rig: Rig) -> None:
    broken = """
    def on_timer(self, situation, state):
        raise RuntimeError("broken from the start")
    """
    worker = rig.worker("broken", broken, changed=[1])
    rig.until(lambda: worker.state is TunerState.FAILED, "it failed", timeout_s=20)
    assert worker.restarts == 5
    assert "exit code 1" in worker.why
    assert rig.desk.logged("broken from the start")
    rig.event(worker)
    assert worker.events_dropped == 1
    worker.restart()
    assert worker.state is TunerState.RESTARTING
    rig.until(lambda: worker.pid, "a new process")


def test_a_policy_that_cannot_be_loaded_fails_at_once_and_says_where(rig: Rig) -> None:
    worker = rig.worker("unusable", "raise RuntimeError('no good')")
    rig.until(lambda: worker.state is TunerState.FAILED, "it failed")
    assert re.search(r"unusable: policy.py, line \d+: RuntimeError: no good$", worker.why)
    assert worker.restarts == 0
    assert not rig.desk.logged("worker (pid")


def test_a_restart_on_request_keeps_state_and_is_no_crash(rig: Rig) -> None:
    worker = rig.active("echo")
    _answer(rig, worker)
    before = worker.pid
    worker.restart()
    rig.until(lambda: worker.pid not in (None, before) and worker.state is TunerState.ACTIVE, "restarted")
    _answer(rig, worker)
    assert rig.desk.answers[-1].proposals[0].evidence["events"] == 2
    assert not rig.desk.logged("starting it again")


def test_a_poisoned_event_is_skipped_after_two_deaths(rig: Rig) -> None:
    worker = rig.active("sensitive", SENSITIVE)
    _answer(rig, worker)
    rig.event(worker, used=POISON)
    rig.event(worker, cookie=2)
    rig.until(lambda: len(rig.desk.answers) == 2, "the event after the poison")
    assert worker.restarts == 2
    assert worker.events_dropped == 1
    assert rig.desk.logged(POISON.to_bytes(4, "little").hex())
    assert rig.desk.logged("RuntimeError: poisoned")


def test_state_that_no_longer_fits_is_dropped_with_a_line(rig: Rig) -> None:
    worker = rig.active("echo")
    _answer(rig, worker)
    policy = rig.folders / "echo" / "policy.py"
    policy.write_text(policy.read_text().replace("events: int = 0", "events: str = ''", 1))
    worker.restart()
    rig.until(lambda: rig.desk.logged("is dropped, it does not decode"), "the line")


def test_state_that_no_worker_starts_with_is_dropped(rig: Rig) -> None:
    moody = (
        GROW
        + "\ndef on_timer(self, situation, state):\n    return Decision() if not state.events else None\n"
    )
    worker = rig.active("moody", moody)
    _answer(rig, worker)
    _kill(worker, signal.SIGKILL)
    rig.until(lambda: rig.desk.logged("no worker could start with its saved state"), "the line")
    rig.until(lambda: worker.state is TunerState.ACTIVE, "a worker without the state")


def test_garbage_on_its_connection_ends_it_and_nothing_else(rig: Rig) -> None:
    # The policy finds its own socket and writes past ZeroMQ.
    vandal = """
    def on_event(self, event, situation, state):
        import os, stat
        for fd in range(3, 64):
            try:
                if stat.S_ISSOCK(os.fstat(fd).st_mode):
                    os.write(fd, b"\\xff" * 4096)
            except OSError:
                pass
        return Decision()
    """
    worker, other = rig.active("vandal", vandal), rig.active("other")
    rig.event(worker)
    rig.until(lambda: worker.restarts, "it was restarted")
    _answer(rig, other)


def test_a_message_that_is_none_ends_its_sender(rig: Rig) -> None:
    liar = """
    def on_event(self, event, situation, state):
        import gc, zmq
        socket = next(o for o in gc.get_referrers(zmq.Socket) if type(o) is zmq.Socket)
        socket.send(b"\\xc1 not msgpack")
        return Decision()
    """
    worker = rig.active("liar", liar)
    rig.event(worker)
    rig.until(lambda: worker.restarts, "it was restarted")
    assert rig.desk.logged("cannot decode message")


def test_a_policy_that_never_comes_to_rest_is_ended(rig: Rig) -> None:
    restless = """
    def on_event(self, event, situation, state):
        size = situation.tunables["net.test.size"].current[0]
        return Decision(proposals=[situation.propose("net.test.size", (size + 1,), "full", {})])

    def on_outcome(self, outcome, situation, state):
        return self.on_event(None, situation, state)
    """
    worker = rig.active("restless", restless)
    rig.event(worker)
    rig.until(lambda: worker.restarts, "it was restarted")
    assert rig.desk.logged("nobody asked for")


def test_a_flood_of_output_is_thinned_and_blocks_nothing(rig: Rig) -> None:
    talker = """
    def on_event(self, event, situation, state):
        for number in range(20000):
            print("line", number, "\\x1b[31m")
        print("x" * 5000)
        return Decision(notes=[situation.note("net.test.size", "full", "done")])
    """
    worker = rig.active("talker", talker, answer_within_s=10)
    rig.event(worker)
    rig.until(lambda: rig.desk.notes, "it comes to its end")
    rig.until(lambda: rig.desk.logged("lines dropped"), "what was dropped is told")
    assert len(rig.desk.lines) < 200
    assert rig.desk.logged("line 0 \\x1b[31m")
    assert worker.restarts == 0


def test_a_wish_for_a_wake_up_is_granted(rig: Rig) -> None:
    sleepy = """
    def on_event(self, event, situation, state):
        return Decision(wake_at_ns=situation.now_ns)

    def on_timer(self, situation, state):
        return Decision(notes=[situation.note("net.test.size", "full", "awake")])
    """
    worker = rig.active("sleepy", sleepy)
    rig.event(worker)
    rig.until(lambda: rig.desk.notes == ["awake"], "the timer's note")
    assert rig.desk.answers[-1].seq == 0


def test_a_forgotten_namespace_starts_over(rig: Rig) -> None:
    worker = rig.active("echo")
    _answer(rig, worker)
    _answer(rig, worker)
    worker.forget(1, state=True)
    rig.desk.values.clear()
    _answer(rig, worker)
    proposal = rig.desk.answers[-1].proposals[0]
    assert (proposal.expected, proposal.evidence["events"]) == ((100,), 1)


def test_only_who_knows_a_namespace_is_told_to_forget_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = rig.active("echo")
    _answer(rig, worker)
    sent: list[object] = []
    monkeypatch.setattr(worker._life, "send", lambda message, **_: sent.append(message))
    worker.forget(2, state=True)
    assert sent == []
    worker.forget(1, state=False)
    worker.forget(1, state=True)
    worker.forget(1, state=True)
    assert sent == [Forget(netns_cookie=1, state=False), Forget(netns_cookie=1, state=True)]


def test_changed_values_reach_the_worker_with_the_next_event(rig: Rig) -> None:
    worker = rig.active("echo")
    _answer(rig, worker)
    rig.desk.values[1] = 5000
    worker.invalidate(1)
    _answer(rig, worker)
    assert rig.desk.answers[-1].proposals[0].expected == (5000,)


def test_the_summary_outlives_the_worker(rig: Rig) -> None:
    summing = (
        GROW
        + """
def tables(self, states):
    from bpftune.ipc.messages import Table
    return [Table(title="events", columns=["netns", "n"], rows=[[c, s.events] for c, s in states.items()])]
"""
    )
    worker = rig.active("echo", summing)
    _answer(rig, worker)
    heard: list[list[Table]] = []
    worker.summarize(heard.append)
    rig.until(lambda: heard, "a summary")
    assert heard[0][0].rows == [[1, 1]]
    _answer(rig, worker)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.summarize(heard.append)
    rig.until(lambda: len(heard) == 2, "the summary of the next worker")
    assert heard[1][0].rows == [[1, 2]], "made from the saved state"
    worker.stop()
    rig.until(lambda: worker.pid is None, "stopped")
    worker.summarize(heard.append)
    assert heard[2] == heard[1], "the last one known"


def test_notes_come_no_faster_than_anybody_reads(rig: Rig) -> None:
    chatty = """
    def on_event(self, event, situation, state):
        return Decision(notes=[situation.note("net.test.size", "full", "hear me")] * 64)
    """
    worker = rig.active("chatty", chatty)
    began_ns = time.monotonic_ns()
    for _ in range(10):
        _answer(rig, worker)
    passed_s = (time.monotonic_ns() - began_ns) / 1e9
    assert NOTES_PER_S <= len(rig.desk.notes) <= NOTES_PER_S * (1 + passed_s)
    assert rig.desk.logged("notes are dropped: more than 256 in 1 s") or len(rig.desk.notes) == 640
    assert worker.restarts == 0


def test_stop_ends_the_process_and_events_are_dropped(rig: Rig) -> None:
    worker = rig.active("echo")
    pid = worker.pid
    worker.stop()
    rig.until(lambda: worker.state is TunerState.INACTIVE and worker.pid is None, "stopped")
    assert not Path(f"/proc/{pid}").exists()
    rig.event(worker)
    assert worker.events_dropped == 1


def test_a_dead_fork_server_is_replaced_and_its_workers_with_it(rig: Rig) -> None:
    first, second = rig.active("first"), rig.active("second")
    _answer(rig, first)
    before = rig.forkserver.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    rig.until(lambda: first.restarts and second.restarts, "both were restarted")
    _answer(rig, first)
    assert rig.desk.answers[-1].proposals[0].evidence["events"] == 2
    assert rig.forkserver.pid not in (None, before)
    assert rig.desk.logged("fork server ended (killed by SIGKILL)")


def test_a_stopped_fork_server_cannot_hide_a_death(rig: Rig) -> None:
    worker = rig.active("echo")
    assert rig.forkserver.pid is not None
    os.kill(rig.forkserver.pid, signal.SIGSTOP)
    _kill(worker, signal.SIGKILL)
    rig.event(worker)
    rig.until(lambda: rig.desk.answers, "the new worker answers")
    assert rig.desk.logged("it did not report the end of pid")
