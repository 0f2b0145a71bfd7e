# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of the state directory that are damaged, foreign or missing: one line each, and it works."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel import third_party
from tests.kernel.closing import MAX_TW_BUCKETS, SMALL_LIMIT, closing, limit_time_wait
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import Namespace
from tests.kernel.third_party import NAME
from tests.waiting import wait_for


@pytest.fixture
def start(daemon_directory: Path, netns: Namespace, start_daemon: StartDaemon) -> Callable[[], Daemon]:
    third_party.put_example(daemon_directory / "tuners")
    limit_time_wait(netns)

    def started() -> Daemon:
        daemon = start_daemon("-l", str(daemon_directory / "tuners"))
        daemon.wait_active()
        return daemon

    return started


def raise_limit(daemon: Daemon, where: Namespace) -> int:
    """Let it change something; what the limit is then."""
    before = daemon.tuner(NAME)["changes"]
    with closing(where):
        wait_for(lambda: daemon.tuner(NAME)["changes"] > before, 10, "a change")
    return int(where.read_sysctl(MAX_TW_BUCKETS))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def link(path: Path) -> None:
    elsewhere = path.parent.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def lose_pages(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xa5" * (len(data) - 4096))


def replace_by_another(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE visitors (name TEXT)")
    connection.close()


def open_to_others(path: Path) -> None:
    path.chmod(0o666)


DAMAGE: dict[Callable[[Path], None], str] = {
    cut: "damaged, its checksum does not match",
    flip: "damaged, its checksum does not match",
    empty: "foreign, not made by this version of bpftune",
    link: "foreign, a symbolic link",
    open_to_others: "others may write to it (mode 666)",
}
"""What is done to an entry, and what is said of it."""


def test_cached_programs_that_cannot_be_trusted_are_rebuilt_with_one_line_each(
    start_daemon: StartDaemon, daemon_directory: Path
) -> None:
    programs = daemon_directory / "state/programs"
    start_daemon().stop()
    entries = dict(zip(sorted(programs.iterdir()), DAMAGE, strict=False))
    assert len(entries) == len(DAMAGE)
    for entry, damage in entries.items():
        damage(entry)

    daemon = start_daemon()

    assert sorted(line for line in daemon.lines if "cache" in line) == sorted(
        f"bpftune: cannot use cache entry {entry}: {DAMAGE[damage]}; rebuilding it"
        for entry, damage in entries.items()
    )
    assert daemon.wait_active().keys() >= {"neigh_table", "tcp_buffer"}
    daemon.stop()
    assert not [line for line in start_daemon().lines if "cache" in line]


def test_without_its_cache_directory_it_starts_all_the_same(
    start_daemon: StartDaemon, daemon_directory: Path
) -> None:
    programs = daemon_directory / "state/programs"
    start_daemon("-a", "tcp_buffer").stop()
    shutil.rmtree(programs)
    programs.write_text("not a directory")

    daemon = start_daemon("-a", "tcp_buffer")

    (line,) = [line for line in daemon.lines if "cache" in line]
    assert line.startswith(f"bpftune: cannot use cache {programs}: ")
    assert daemon.wait_active().keys() == {"tcp_buffer"}


@pytest.mark.parametrize("damage", [lose_pages, replace_by_another])
def test_a_ledger_that_cannot_be_read_is_set_aside_and_rollback_says_what_it_cannot_know(
    start: Callable[[], Daemon], netns: Namespace, daemon_directory: Path, damage: Callable[[Path], None]
) -> None:
    ledger = daemon_directory / "state/ledger.db"
    first = start()
    raised = raise_limit(first, netns)
    assert first.stop().exit_code == 0
    damage(ledger)
    spoilt = ledger.read_bytes()

    second = start()

    (line,) = [line for line in second.lines if "ledger" in line]
    assert line.startswith(f"bpftune: cannot use ledger {ledger}: ")
    (aside,) = ledger.parent.glob("ledger.db.broken-*")
    assert line.endswith(f"; set aside as {aside.name}, started a new one")
    assert aside.read_bytes() == spoilt
    check_rollback_is_frank(second, netns, raised, aside.name)

    # Also of a later start within this boot: the knowledge does not come back.
    assert second.stop().exit_code == 0
    third = start()
    assert not [line for line in third.lines if "ledger" in line]
    assert aside.name in third.ctl("rollback", "--dry-run")["unknown"]


def check_rollback_is_frank(daemon: Daemon, where: Namespace, raised: int, aside: str) -> None:
    """What was changed before is left alone and said; what is changed from here on can be put back."""
    done = daemon.ctl("rollback")
    assert done["restored"] == []
    assert aside in done["unknown"]
    assert aside in daemon.run_ctl("rollback", "--dry-run").stdout
    assert where.read_sysctl(MAX_TW_BUCKETS) == str(raised) != str(SMALL_LIMIT)

    assert raise_limit(daemon, where) > raised
    (restored,) = daemon.ctl("rollback")["restored"]
    assert (restored["original"], restored["outcome"]) == ([raised], "restored")
    assert where.read_sysctl(MAX_TW_BUCKETS) == str(raised)
