# SPDX-License-Identifier: GPL-2.0-or-later
"""A tuner's worker as the rest of the supervisor sees it: it takes events and is there again after a crash.

One event is in the worker's hand at a time, the others wait in a mailbox. Processes come and go
(worker_lifecycle.py); what must survive them is kept here. It never looks into a proposal or a
state record, and never trusts a worker: whoever breaks the protocol is killed and counts as crashed.
"""

from __future__ import annotations

import functools
import syslog
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import zmq
from msgspec.structs import replace

from bpftune.ipc.control import TunerState
from bpftune.ipc.declaration import Declaration
from bpftune.ipc.errors import ProtocolError
from bpftune.ipc.messages import (
    PROTOCOL_VERSION,
    Answer,
    Deliver,
    Evaluation,
    Forget,
    Netns,
    Note,
    Outcome,
    Outcomes,
    Ready,
    Report,
    Start,
    Status,
    Summarize,
    ToSupervisor,
    Unusable,
    UseStrategy,
    View,
)
from bpftune.ipc.record import unpack_header
from bpftune.supervisor.forkserver import ForkServer
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.mailbox import Entry, Mailbox
from bpftune.supervisor.quarantine import Quarantine
from bpftune.supervisor.rate_limit import RateLimit
from bpftune.supervisor.wording import format_where, not_done_line
from bpftune.supervisor.worker_lifecycle import WorkerLifecycle
from bpftune.supervisor.worker_memory import WorkerMemory
from bpftune.supervisor.worker_questions import TakeEvaluation, TakeTables, WorkerQuestions

ANSWER_WITHIN_S = 5.0
KILL_AFTER_S = 1.0
"""A hung worker has this long to write its stack."""

RESTARTED_WITHIN_S = 2.0
"""How long a summary waits for the worker that follows a dead one."""

UNASKED_PER_S = 256
"""Answers to no event. A policy that proposes at every outcome would never come to rest; one that only
learns from an outcome may say so each time."""

NOTES_PER_S = 256
"""Each may become a log line and a remark in the ledger; the others are dropped, and counted in one line."""

STARTS_WITH_STATE = 2
"""Processes in a row that may crash before they are ready; then their state is taken to be the cause."""

_START = "start"


class WorkerOwner(Protocol):
    """What a worker needs of the supervisor."""

    def view(self, tuner: str, netns_cookie: int) -> View | None:
        """The tuner's tunables there, None when the namespace is gone; GLOBAL for the global ones."""

    def read_counters(self, tuner: str, scenario_id: str, netns_cookie: int) -> dict[str, int]:
        """What the namespace counts now of what the scenario names; what it lacks is absent."""

    def decide(self, tuner: str, answer: Answer, scenario_time_ns: int) -> list[Outcome]:
        """Check and apply; `scenario_time_ns` is the event's BPF timestamp, 0 if no event asked."""

    def summarize(self, tuner: str, seq: int) -> Summarize:
        """The request for the tuner's tables, with what it needs to make them."""

    def log_worker(self, tuner: str, text: str, priority: int) -> None: ...

    def state_changed(self, tuner: str) -> None: ...


class Worker:
    def __init__(
        self,
        *,
        declaration: Declaration,
        folder: Path,
        shift: int,
        loop: Loop,
        forkserver: ForkServer,
        context: zmq.Context[zmq.Socket[bytes]],
        run_dir: Path,
        owner: WorkerOwner,
        changed: Iterable[int] = (),
        answer_within_s: float = ANSWER_WITHIN_S,
        kill_after_s: float = KILL_AFTER_S,
    ) -> None:
        """`changed`: the namespaces where an earlier run of this tuner left changes."""
        self.events_in = 0
        self._loop = loop
        self._tuner = declaration.name
        self._shift = shift
        self._owner = owner
        self._read_view = functools.partial(owner.view, self._tuner)
        self._memory = WorkerMemory(changed)
        self._mailbox = Mailbox()
        self._quarantine = Quarantine()
        self._lost = 0
        self._unasked = RateLimit(burst=UNASKED_PER_S, per_s=UNASKED_PER_S)
        self._notes = RateLimit(burst=NOTES_PER_S, per_s=NOTES_PER_S)
        self._outcomes_to_learn = 0
        self._seq = 0
        self._in_hand: Entry | None = None
        self._ready = False
        self._unready_crashes = 0
        self._strategy = ""
        self._life = WorkerLifecycle(
            declaration=declaration,
            folder=folder,
            loop=loop,
            forkserver=forkserver,
            context=context,
            run_dir=run_dir,
            listener=self,
            answer_within_s=answer_within_s,
            kill_after_s=kill_after_s,
        )
        self._questions = WorkerQuestions(
            loop=loop,
            life=self._life,
            request=functools.partial(owner.summarize, self._tuner),
            number=self._next_seq,
            report_within_s=answer_within_s + kill_after_s + RESTARTED_WITHIN_S,
        )

    @property
    def state(self) -> TunerState:
        return self._life.state

    @property
    def why(self) -> str:
        return self._life.why

    @property
    def restarts(self) -> int:
        return self._life.restarts

    @property
    def pid(self) -> int | None:
        return self._life.pid

    @property
    def started_ns(self) -> int:
        """When the present process was made, CLOCK_MONOTONIC; 0 without one."""
        return self._life.started_ns

    @property
    def events_merged(self) -> int:
        return self._mailbox.merged

    @property
    def events_dropped(self) -> int:
        """For lack of room, of a worker or of their namespace; the quarantined ones too."""
        return self._mailbox.dropped + self._lost

    def start(self) -> None:
        """Have a process from now on."""
        self._life.start()

    def restart(self) -> None:
        """Begin anew with a fresh process and a clean record of crashes; learned state is kept."""
        self._life.restart()

    def stop(self) -> None:
        """Ask the process to end, kill it if it does not; `state` is inactive when it is gone."""
        self._life.stop()

    def deliver(self, record: bytes, netns: Netns, scenario_id: str) -> None:
        """Hand the event over, now or when the worker is free; without a worker it is dropped."""
        self.events_in += 1
        if self.state in (TunerState.FAILED, TunerState.INACTIVE):
            self._lost += 1
            return
        self._mailbox.put(Entry(record=record, netns=netns, scenario_id=scenario_id))
        self._hand_out()

    def invalidate(self, netns_cookie: int) -> None:
        """Values changed under the worker: its next event there brings them."""
        self._memory.invalidate(netns_cookie)

    def forget(self, netns_cookie: int, *, state: bool) -> None:
        """The tuner was turned off in a namespace; with `state`, the namespace is gone."""
        known = self._memory.knows(netns_cookie)
        self._memory.forget(netns_cookie, state=state)
        self._mailbox.forget(netns_cookie)
        self._lost += self._quarantine.forget(netns_cookie)
        if self._ready and known:  # else it would wake up for nothing
            self._life.send(Forget(netns_cookie=netns_cookie, state=state))

    def summarize(self, done: TakeTables) -> None:
        """Call `done` once with the tuner's tables.

        A process that dies over it, or is just being started, is waited for: the next one makes the
        tables from the saved state. Without any in time, the last ones known have to do.
        """
        self._questions.tables(done)
        if self.state in (TunerState.FAILED, TunerState.INACTIVE):
            self._questions.settle()

    def use(self, strategy: str) -> None:
        """Tell the policy which strategy is the active one, this process and those after it."""
        self._strategy = strategy
        self._life.send(UseStrategy(strategy=strategy))

    def evaluate(self, done: TakeEvaluation) -> None:
        """Call `done` once: with what the policy finds each strategy worth, or None without a process
        that can tell."""
        self._questions.evaluate(done)

    # From the lifecycle.

    def connected(self) -> None:
        saved, views = self._memory.start(self._read_view)
        start = Start(
            version=PROTOCOL_VERSION,
            tuner=self._tuner,
            shift=self._shift,
            strategy=self._strategy,
            saved=saved,
            views=views,
        )
        self._life.send(start, owing=_START)

    def said(self, message: ToSupervisor) -> None:
        try:
            match message:
                case Answer():
                    self._take_answer(message)
                case Ready():
                    self._take_ready(message)
                case Report():
                    self._questions.take_report(message)
                case Evaluation():
                    self._questions.take_evaluation(message)
                case Unusable():
                    self._life.give_up(message.why)
        except ProtocolError as error:
            self._life.kill(str(error))

    def gone(self, *, crashed: bool) -> None:
        if crashed:
            self._blame()
        else:
            self._quarantine.give_back(self._in_hand)
        self._ready, self._in_hand = False, None
        self._outcomes_to_learn = 0
        self._questions.gone()

    def log(self, text: str, priority: int) -> None:
        self._owner.log_worker(self._tuner, text, priority)

    def state_changed(self) -> None:
        if self.state in (TunerState.FAILED, TunerState.INACTIVE):
            self._mailbox.clear()
            self._questions.settle()
        self._owner.state_changed(self._tuner)

    def _hand_out(self) -> None:
        while self._ready and self._in_hand is None:
            entry = self._quarantine.take() or self._mailbox.take()
            if entry is None:
                return
            views = self._memory.views_to_send(entry.netns.cookie, self._read_view)
            if views is None:
                self._lost += 1
            else:
                self._hand_over(entry, *views)

    def _hand_over(self, entry: Entry, view: View | None, global_view: View | None) -> None:
        self._in_hand = entry
        seq = self._next_seq()
        deliver = Deliver(
            seq=seq,
            record=entry.record,
            netns=entry.netns,
            view=view,
            global_view=global_view,
            counters=self._owner.read_counters(self._tuner, entry.scenario_id, entry.netns.cookie),
        )
        self._life.send(deliver, owing=_answer(seq))

    def _take_ready(self, ready: Ready) -> None:
        if ready.version != PROTOCOL_VERSION or not self._life.paid(_START):
            raise ProtocolError(f"cannot accept Ready of protocol version {ready.version}")
        self._ready = True
        self._unready_crashes = 0
        self._life.ready()
        self._questions.ready()
        self._hand_out()

    def _take_answer(self, answer: Answer) -> None:
        event_time_ns = self._account(answer)
        self._memory.save(answer.saved)
        if answer.proposals or answer.notes:
            outcomes = self._decide(answer, event_time_ns)
            if outcomes:
                self._outcomes_to_learn += len(outcomes)
                self._life.send(Outcomes(outcomes=outcomes))
        self._hand_out()

    def _decide(self, answer: Answer, event_time_ns: int) -> list[Outcome]:
        """A namespace that never had an event for the tuner is none of its business."""
        ours = [one for one in answer.proposals if self._memory.knows(one.netns_cookie)]
        heard = replace(answer, proposals=ours, notes=self._admit(answer.notes))
        decided = self._owner.decide(self._tuner, heard, event_time_ns)
        for one in answer.proposals:
            if not self._memory.knows(one.netns_cookie):
                why = f"no event came from namespace {one.netns_cookie}"
                outcome = Outcome(proposal=one, status=Status.REFUSED, current=one.expected, why=why)
                self.log(not_done_line(outcome), syslog.LOG_DEBUG)
                decided.append(outcome)
        return decided

    def _admit(self, notes: list[Note]) -> list[Note]:
        now_ns = time.monotonic_ns()
        admitted = [note for note in notes if self._notes.allow(now_ns)]
        if len(admitted) < len(notes):
            text = f"{len(notes) - len(admitted)} notes are dropped: more than {NOTES_PER_S} in 1 s"
            self.log(text, syslog.LOG_WARNING)
        return admitted

    def _account(self, answer: Answer) -> int:
        """Settle what the answer is to; returns the event's timestamp, 0 if there was none."""
        if answer.seq == 0:
            self._allow_unasked(answer)
            return 0
        if self._in_hand is None or not self._life.paid(_answer(answer.seq)):
            raise ProtocolError(f"cannot accept answer: event {answer.seq} is not in its hand")
        event, self._in_hand = self._in_hand, None
        self._quarantine.answered()
        return unpack_header(event.record).time_ns

    def _allow_unasked(self, answer: Answer) -> None:
        learned_only = not answer.proposals and not answer.notes
        if learned_only and self._outcomes_to_learn > 0:
            self._outcomes_to_learn -= 1
        elif not self._ready or not self._unasked.allow(time.monotonic_ns()):
            raise ProtocolError(f"cannot accept answers that nobody asked for: {UNASKED_PER_S} in 1 s")

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _blame(self) -> None:
        """Find what a crash was due to, if it is for the second time."""
        poison = self._quarantine.died(self._in_hand)
        if poison is not None:
            self._lost += 1
            self.log(
                f"event of scenario '{poison.scenario_id}' {format_where(poison.netns)} ended two"
                f" workers and is skipped: {poison.record.hex()}",
                syslog.LOG_ERR,
            )
        self._unready_crashes += not self._ready
        if self._unready_crashes >= STARTS_WITH_STATE and (dropped := self._memory.drop_states()):
            self.log(f"no worker could start with its saved state: {dropped} dropped", syslog.LOG_ERR)


def _answer(seq: int) -> str:
    return f"answer event {seq}"
