# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon: makes its parts, joins them, starts them in order and takes them down in order.

Everything it does is done by a part; a rule or a format never belongs here.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack

import zmq

from bpftune.bpf.runtime import Bpf
from bpftune.supervisor.announcer import Announcer
from bpftune.supervisor.arrivals import Arrivals
from bpftune.supervisor.collector import SummaryCollector
from bpftune.supervisor.control_server import ControlServer
from bpftune.supervisor.counters import Counters
from bpftune.supervisor.decision import Decisions
from bpftune.supervisor.directories import make_directory, require_passage
from bpftune.supervisor.ending import Ending
from bpftune.supervisor.equipment import Equipment
from bpftune.supervisor.event_stream import EventStream
from bpftune.supervisor.folders import LOCAL_DIR, SHIPPED_DIR, TunerFolders
from bpftune.supervisor.forkserver import ForkServer
from bpftune.supervisor.known_values import KnownValues
from bpftune.supervisor.ledger import Ledger
from bpftune.supervisor.lock import InstanceLock
from bpftune.supervisor.log_sinks import open_sink
from bpftune.supervisor.logger import Logger, Priority
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.memory import Memory
from bpftune.supervisor.mirror import Mirror
from bpftune.supervisor.namespaces import Namespaces
from bpftune.supervisor.netns import NetnsRegistry
from bpftune.supervisor.notify import ServiceNotifier
from bpftune.supervisor.options import Options
from bpftune.supervisor.overrides import Overrides
from bpftune.supervisor.quantities import Quantities
from bpftune.supervisor.reactions import Reactions
from bpftune.supervisor.repeats import Repeats
from bpftune.supervisor.requests import Requests
from bpftune.supervisor.rivals import find_rivals
from bpftune.supervisor.rollback import Rollback
from bpftune.supervisor.roster import Roster
from bpftune.supervisor.router import Router
from bpftune.supervisor.scheduling import ask_for_short_slices
from bpftune.supervisor.signals import Signals
from bpftune.supervisor.status import Parts, status_line, support_of
from bpftune.supervisor.support import NETNS_LINE
from bpftune.supervisor.sysctl_d import AdministratorSettings, read_sysctl_d
from bpftune.supervisor.sysctl_judge import SysctlJudge
from bpftune.supervisor.tuner_host import TunerHost
from bpftune.supervisor.watchers import Watchers

CACHE_DIR = "programs"
GOODBYE_MS = 200
"""How long replies and the last log lines may take to leave."""


class Supervisor:
    """One daemon: made, `start`ed, `run`, and closed, whatever happened before."""

    def __init__(self, options: Options) -> None:
        """Raises BpftuneError when it cannot run here."""
        self._options = options
        self._started_ns = time.monotonic_ns()
        self._exit_code = 0
        self._cleanup = ExitStack()
        try:
            self._open()
        except BaseException:
            self._cleanup.close()
            raise

    def start(self) -> None:
        """Attach everything that can be attached and take requests."""
        self._settle_past()
        self._bpf.set_supervisor(os.getpid())
        self._arrivals.load(self._options.allow)
        self._loop.watch(self._bpf.fileno(), self._consume)
        self._control.serve(self._requests.answer)
        self._folders.watch(self._loop, self._rescan)
        self._logger.notice(support_of(self._parts).value)
        self._logger.notice(NETNS_LINE)
        for rival in self._parts.rivals:
            self._logger.warning(rival)
        self._notifier.ready(status_line(self._parts))

    def run(self) -> int:
        """Serve until told to stop; returns the exit code."""
        self._loop.run()
        return self._exit_code

    def close(self) -> None:
        self._cleanup.close()

    def _open(self) -> None:
        options = self._options
        make_directory(options.state_dir, mode=0o700)
        make_directory(options.run_dir, mode=0o755)
        self._cleanup.callback(InstanceLock(options.run_dir).release)
        ask_for_short_slices()
        self._loop = Loop()
        # Early, so that a signal during the start is answered after it, and closed late, so that a second
        # one does not disturb the end.
        handlers = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop, signal.SIGHUP: self._rescan}
        self._cleanup.callback(Signals(self._loop, handlers).close)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # Closes the sockets of workers that did not end in time as well: `term` would wait for them.
        self._cleanup.callback(self._context.destroy, linger=GOODBYE_MS)
        self._open_log()
        self._notifier = ServiceNotifier(self._loop)
        self._forkserver = ForkServer(
            loop=self._loop, log=lambda text, priority: self._logger.log(Priority(priority), text)
        )
        self._cleanup.callback(self._forkserver.close)
        require_passage(options.run_dir, self._forkserver.account)
        self._forkserver.start()
        self._open_state()
        self._open_tuning()
        self._open_namespaces()
        self._open_tuners()
        self._open_service()

    def _open_log(self) -> None:
        stream = EventStream(context=self._context, run_dir=self._options.run_dir)
        self._cleanup.callback(stream.close)
        self._logger = Logger(
            open_sink(stderr=self._options.stderr),
            loop=self._loop,
            publish=stream.publish,
            debug=self._options.debug,
        )
        self._cleanup.callback(self._logger.close)
        self._announcer = Announcer(self._logger)

    def _open_state(self) -> None:
        """What is known: namespaces, the ledger, the programs, the tuners."""
        self._registry = NetnsRegistry()
        self._cleanup.callback(self._registry.close)
        self._ledger = Ledger(self._options.state_dir)
        self._cleanup.callback(self._ledger.close)
        self._bpf = Bpf(
            cache_dir=self._options.state_dir / CACHE_DIR,
            shift=self._options.shift,
            log=self._logger.info,
            legacy=self._options.legacy,
            dry_run=self._options.dry_run,
            cgroup=self._options.cgroup,
        )
        self._cleanup.callback(self._bpf.close)
        self._watchers = Watchers(self._bpf, self._logger.warning, legacy=self._options.legacy)
        self._folders = TunerFolders(SHIPPED_DIR, (LOCAL_DIR, *self._options.libdirs))
        self._cleanup.callback(self._folders.close)
        self._roster = Roster(
            bpf=self._bpf,
            load=self._watchers.load_with,
            allow=self._options.allow,
            warn=self._logger.warning,
            notice=self._logger.notice,
        )
        self._known = KnownValues(Mirror(self._bpf, self._roster).noted)

    def _open_tuning(self) -> None:
        """What decides, and what follows from it."""
        self._reactions = Reactions(
            announcer=self._announcer,
            bpf=self._bpf,
            roster=self._roster,
            registry=self._registry,
            not_entered=self._not_entered,
        )
        self._overrides = Overrides(
            ledger=self._ledger,
            registry=self._registry,
            listener=self._reactions,
            warn=self._logger.warning,
        )
        self._judge = SysctlJudge(
            loop=self._loop,
            registry=self._registry,
            overrides=self._overrides,
            known=self._known,
            ledger=self._ledger,
            declarations=lambda: [tuner.declaration for tuner in self._roster],
            warn=self._logger.warning,
        )
        adopt = self._options.adopt_sysctl_d
        self._decisions = Decisions(
            registry=self._registry,
            ledger=self._ledger,
            overrides=self._overrides,
            quantities=Quantities(registry=self._registry, memory=Memory()),
            settings=AdministratorSettings({}) if adopt else read_sysctl_d(),
            known=self._known,
            listener=self._reactions,
            stale_seen=self._judge.stale_seen,
            dry_run=self._options.dry_run,
        )
        self._rollback = Rollback(ledger=self._ledger, registry=self._registry, known=self._known)

    def _open_namespaces(self) -> None:
        """Who forgets what, when one is gone."""
        self._namespaces = Namespaces(
            loop=self._loop,
            registry=self._registry,
            forget=[
                self._forget_in_tuners,
                self._judge.forget,
                self._overrides.forget,
                self._decisions.forget,
                self._known.forget,
                self._ledger.forget,
                self._registry.forget,
            ],
            warn=self._logger.warning,
            debug=self._logger.debug,
        )
        self._cleanup.callback(self._namespaces.close)

    def _open_tuners(self) -> None:
        """What brings tuners, events to them, and to their workers what these ask for."""
        counters = Counters(registry=self._registry)
        self._host = TunerHost(
            bpf=self._bpf,
            roster=self._roster,
            decisions=self._decisions,
            counters=counters,
            registry=self._registry,
            announcer=self._announcer,
            logger=self._logger,
            namespace_missing=self._namespaces.suspect,
            state_changed=self._tell_service_manager,
            all_failed=self._give_up,
            dry_run=self._options.dry_run,
        )
        self._router = Router(
            roster=self._roster,
            registry=self._registry,
            overrides=self._overrides,
            repeats=Repeats(loop=self._loop, counters=counters),
            new_namespace=self._namespaces.suspect,
            debug=self._logger.debug,
        )
        self._router.add_watcher(self._watchers.sysctl, self._judge.handle)
        for declaration in self._watchers.netns:
            self._router.add_watcher(declaration, self._namespaces.created)
        self._arrivals = Arrivals(
            folders=self._folders,
            roster=self._roster,
            equipment=self._equip(),
            bpf=self._bpf,
            ledger=self._ledger,
            decisions=self._decisions,
            overrides=self._overrides,
            reactions=self._reactions,
            logger=self._logger,
        )

    def _open_service(self) -> None:
        """What answers bpftune-ctl, and ends it all."""
        options = self._options
        self._parts = Parts(
            options=options,
            started_ns=self._started_ns,
            bpf=self._bpf,
            roster=self._roster,
            registry=self._registry,
            ledger=self._ledger,
            overrides=self._overrides,
            decisions=self._decisions,
            forkserver=self._forkserver,
            rivals=find_rivals(),
        )
        collector = SummaryCollector(self._roster)
        self._requests = Requests(
            parts=self._parts,
            rollback=self._rollback,
            namespaces=self._namespaces,
            collector=collector,
            log=self._logger.notice,
        )
        self._ending = Ending(
            loop=self._loop,
            notifier=self._notifier,
            parts=self._parts,
            collector=collector,
            consume=self._consume,
            rollback=self._rollback if options.rollback else None,
            logger=self._logger,
        )
        self._control = ControlServer(
            loop=self._loop, context=self._context, run_dir=options.run_dir, error=self._logger.error
        )
        self._cleanup.callback(self._control.close)

    def _equip(self) -> Equipment:
        return Equipment(
            options=self._options,
            loop=self._loop,
            context=self._context,
            forkserver=self._forkserver,
            owner=self._host,
            ledger=self._ledger,
            registry=self._registry,
            decisions=self._decisions,
            roster=self._roster,
            reactions=self._reactions,
            announcer=self._announcer,
            route=self._router.route,
            warn=self._logger.warning,
        )

    def _settle_past(self) -> None:
        """Finish or undo what a killed supervisor left half done."""
        if self._ledger.set_aside is not None:
            self._logger.error(self._ledger.set_aside)
        self._registry.discover()
        # Those that ended meanwhile are known by now only to the ledger, which is to forget them.
        for cookie, inum in self._ledger.namespaces().items():
            self._registry.learn(cookie, inum)
        self._namespaces.sweep()
        for change in self._ledger.recover(self._rollback.read_cell):
            self._logger.notice(f"change {change.id} of {change.tunable} was interrupted: {change.outcome}")

    def _rescan(self) -> None:
        if not self._ending.begun:
            self._arrivals.rescan()
            self._tell_service_manager()

    def _tell_service_manager(self) -> None:
        self._notifier.status(lambda: status_line(self._parts))

    def _not_entered(self, text: str) -> None:
        self._logger.debug(text)
        self._namespaces.suspect()

    def _consume(self) -> None:
        self._bpf.consume(self._router.route)

    def _forget_in_tuners(self, cookie: int) -> None:
        for tuner in self._roster:
            tuner.forget(cookie)
            self._bpf.forget(cookie, tuner.name)

    def _give_up(self) -> None:
        self._logger.error("no tuner works any more: ending, so that the service manager can act")
        self._exit_code = 1
        self._stop()

    def _stop(self) -> None:
        self._ending.begin()
