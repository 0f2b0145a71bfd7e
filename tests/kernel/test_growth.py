# SPDX-License-Identifier: GPL-2.0-or-later
"""Growth that does not pay is taken back, stops, and decays once nobody needs it: as `explain` tells it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.kernel import third_party
from tests.kernel.closing import MAX_TW_BUCKETS, SMALL_LIMIT, closing, limit_time_wait
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import Namespace
from tests.kernel.third_party import NAME
from tests.waiting import wait_for

MEASURED = 100
"""Amount per round of the events, whatever the limit."""


@pytest.fixture
def daemon(daemon_directory: Path, netns: Namespace, start_daemon: StartDaemon) -> Daemon:
    third_party.put_sizing(daemon_directory / "tuners")
    limit_time_wait(netns)
    started = start_daemon("-l", str(daemon_directory / "tuners"), "-a", NAME)
    started.wait_active()
    return started


def changes(daemon: Daemon, scenario: str) -> list[Any]:
    """Oldest first."""
    found = [one for one in daemon.ctl("history")["changes"] if one["scenario"] == scenario]
    return sorted(found, key=lambda one: one["id"])


def explain(daemon: Daemon, change: Any) -> Any:
    return daemon.ctl("explain", str(change["id"]))


def test_growth_that_does_not_pay_is_taken_back_stops_and_decays(daemon: Daemon, netns: Namespace) -> None:
    with closing(netns):
        (taken_back,) = wait_for(
            lambda: changes(daemon, "time_wait_unpaid"), 20, "the last step is taken back"
        )
        first, second = changes(daemon, "time_wait_near_limit")
        check_taken_back(daemon, first, second, taken_back)
        check_stopped(daemon, second)

    decayed = wait_for(lambda: changes(daemon, "time_wait_idle"), 10, "what is idle decays")[0]

    wait_for(lambda: netns.read_sysctl(MAX_TW_BUCKETS) == str(SMALL_LIMIT), 15, "it is back where it was")
    explained = explain(daemon, decayed)
    assert decayed["old"] == taken_back["new"]
    assert explained["change"]["evidence"]["idle_s"] >= 1
    assert explained["text"] == [f"{MAX_TW_BUCKETS} is back at what the administrator had: ({SMALL_LIMIT})."]
    assert daemon.ctl("verify")["differences"] == []


def check_taken_back(daemon: Daemon, first: Any, second: Any, taken_back: Any) -> None:
    assert first["old"] == [SMALL_LIMIT]
    assert second["old"] == first["new"]
    assert (taken_back["old"], taken_back["new"]) == (second["new"], second["old"])
    explained = explain(daemon, taken_back)
    evidence = explained["change"]["evidence"]
    assert explained["why"] == "Two steps in a row made no difference."
    assert (evidence["amount_per_round"], evidence["amount_per_round_before"]) == (MEASURED, MEASURED)


def check_stopped(daemon: Daemon, second: Any) -> None:
    """It says so where the step that came to nothing is explained, and events move nothing any more."""
    said, _ = explain(daemon, second)["text"]
    assert said == (
        "Said of it: growth stops: the last two steps changed the amount per round trip by +0.0 % and"
        " +0.0 %, less than the 5 % each has to bring; the last one is taken back."
    )
    assert "growth stops" in daemon.run_ctl("explain", str(second["id"])).stdout
    before = daemon.tuner(NAME)
    wait_for(lambda: daemon.tuner(NAME)["events_in"] >= before["events_in"] + 40, 10, "events go on")
    assert daemon.tuner(NAME)["changes"] == before["changes"] == 3
