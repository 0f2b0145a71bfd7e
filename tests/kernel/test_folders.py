# SPDX-License-Identifier: GPL-2.0-or-later
"""Tuner folders that come, change and go in -l while the daemon runs, and those it must not touch."""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import third_party
from tests.kernel.closing import MAX_TW_BUCKETS, closing, limit_time_wait
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon, running
from tests.kernel.namespaces import Namespace
from tests.kernel.third_party import COUNTING, EXAMPLE, NAME, SEESAW, policy_source
from tests.waiting import wait_for

NOBODY = 65534


@pytest.fixture
def libdir(daemon_directory: Path) -> Path:
    directory = daemon_directory / "tuners"
    directory.mkdir(mode=0o755)
    return directory


@pytest.fixture
def limited(netns: Namespace) -> Namespace:
    limit_time_wait(netns)
    return netns


@pytest.fixture
def daemon(libdir: Path, limited: Namespace, start_daemon: StartDaemon) -> Daemon:
    started = start_daemon("-l", str(libdir))
    started.wait_active()
    return started


@pytest.fixture(scope="module")
def busy(machine_restored: None) -> Iterator[Daemon]:
    """One daemon that has to refuse one folder after another."""
    with tempfile.TemporaryDirectory(prefix="bpftune-test-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        (directory / "tuners").mkdir(mode=0o755)
        with running("-l", str(directory / "tuners"), directory=directory) as daemon:
            daemon.wait_active()
            yield daemon


def refusals(daemon: Daemon) -> list[str]:
    refused: list[str] = daemon.ctl("status")["refused_folders"]
    return refused


def drop_in(libdir: Path, make: Callable[[Path], Path]) -> Path:
    """Make the folder aside and move it in at once, as careful administrators do."""
    aside = libdir.parent / "aside"
    folder = make(aside).rename(libdir / NAME)
    aside.rmdir()
    return folder


def wait_gone(daemon: Daemon) -> None:
    wait_for(lambda: NAME not in daemon.tuners(), 5, "the tuner is gone")


def others(daemon: Daemon) -> dict[str, Any]:
    return {name: (one["state"], one["pid"]) for name, one in daemon.tuners().items() if name != NAME}


def test_a_folder_dropped_in_is_loaded_works_and_goes(
    daemon: Daemon, libdir: Path, limited: Namespace
) -> None:
    before = others(daemon)

    folder = drop_in(libdir, third_party.put_example)

    daemon.wait_line(rf"tuner '{NAME}' was added from {folder}")
    with closing(limited):
        daemon.wait_line(
            rf"Due to closing connections about to be forgotten early change {MAX_TW_BUCKETS} from \(40\)"
        )
    status = daemon.wait_active()[NAME]
    assert status["folder"] == str(folder)
    assert [hook["hook"] for hook in status["hooks"]] == ["tp_btf:inet_sock_set_state"]
    raised = limited.read_sysctl(MAX_TW_BUCKETS)
    assert int(raised) > 40

    shutil.rmtree(folder)

    daemon.wait_line(rf"tuner '{NAME}' is gone")
    wait_gone(daemon)
    assert others(daemon) == before
    assert limited.read_sysctl(MAX_TW_BUCKETS) == raised
    done = daemon.ctl("rollback")["restored"]
    assert [(one["tunable"], one["outcome"]) for one in done] == [(MAX_TW_BUCKETS, "restored")]
    assert limited.read_sysctl(MAX_TW_BUCKETS) == "40"


def test_a_folder_copied_in_file_by_file_is_loaded_once_complete(daemon: Daemon, libdir: Path) -> None:
    folder = libdir / NAME
    folder.mkdir()
    for name in ("tuner.toml", "probe.bpf.c", "policy.py"):
        shutil.copy(EXAMPLE / name, folder)

    daemon.wait_line(rf"tuner '{NAME}' was added")

    assert daemon.wait_active()[NAME]["restarts"] == 0
    assert refusals(daemon) == []


def test_a_changed_policy_is_taken_over(daemon: Daemon, libdir: Path, limited: Namespace) -> None:
    folder = drop_in(libdir, third_party.put_example)
    pid = wait_for(lambda: new_pid(daemon, set()), 5, "it has a worker")

    (folder / "policy.py").write_text(policy_source(COUNTING))

    wait_for(lambda: new_pid(daemon, {pid}), 5, "it has another worker")
    with closing(limited):
        wait_for(lambda: daemon.tuner(NAME)["events_in"] >= 3, 5, "events")
    assert "counted" in [table["title"] for table in daemon.ctl("summary")["tables"]]
    assert daemon.tuner(NAME)["changes"] == 0


def test_a_replaced_folder_is_loaded_anew(daemon: Daemon, libdir: Path) -> None:
    """Also when it comes to that before the worker of the one before is ready."""
    before = others(daemon)
    folder = drop_in(libdir, third_party.put_example)
    pids: set[int] = set()
    for policy in (COUNTING, SEESAW, COUNTING):
        pids.add(wait_for(lambda: new_pid(daemon, pids), 5, "it has a worker"))
        shutil.rmtree(folder)
        drop_in(libdir, functools.partial(third_party.put_variant, policy=policy))
    wait_for(lambda: new_pid(daemon, pids), 5, "it has the last worker")
    daemon.wait_active()

    assert others(daemon) == before


def new_pid(daemon: Daemon, before: set[int]) -> int:
    """The worker's process, unless it is one from before or not there yet."""
    pid: int | None = daemon.tuners().get(NAME, {}).get("pid")
    return 0 if pid is None or pid in before else pid


def test_a_tuner_that_is_not_allowed_is_left_out(
    libdir: Path, limited: Namespace, start_daemon: StartDaemon
) -> None:
    third_party.put_example(libdir)

    daemon = start_daemon("-l", str(libdir), "-a", NAME)

    assert daemon.wait_active().keys() == {NAME}


def writable_by_group(folder: Path) -> None:
    folder.chmod(0o775)


def file_writable_by_others(folder: Path) -> None:
    (folder / "policy.py").chmod(0o666)


def of_another_user(folder: Path) -> None:
    os.chown(folder / "probe.bpf.c", NOBODY, NOBODY)


def linked_file(folder: Path) -> None:
    policy = folder / "policy.py"
    policy.unlink()
    policy.symlink_to(EXAMPLE / "policy.py")


def linked_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(EXAMPLE)


def without_policy(folder: Path) -> None:
    (folder / "policy.py").unlink()


def broken_toml(folder: Path) -> None:
    (folder / "tuner.toml").write_text('name = "time_wait\n')


def wrong_toml(folder: Path) -> None:
    text = (folder / "tuner.toml").read_text()
    (folder / "tuner.toml").write_text(text.replace('scope = "netns"', 'scope = "everywhere"'))


def tunable_of_another(folder: Path) -> None:
    text = (folder / "tuner.toml").read_text()
    (folder / "tuner.toml").write_text(text.replace(MAX_TW_BUCKETS, "net.ipv4.tcp_moderate_rcvbuf"))


def broken_c(folder: Path) -> None:
    text = (folder / "probe.bpf.c").read_text()
    (folder / "probe.bpf.c").write_text(text.replace("return 0;", "return nothing;"))


REFUSED = [
    (writable_by_group, r"is writable by group or others"),
    (file_writable_by_others, r"policy\.py is writable by group or others"),
    (of_another_user, r"probe\.bpf\.c belongs to uid 65534, not 0"),
    (linked_file, r"policy\.py is a symbolic link"),
    (linked_folder, r"time_wait is a symbolic link"),
    (without_policy, r"policy\.py: No such file or directory"),
    (broken_toml, r"tuner\.toml: .* \(at line 1, column \d+\)"),
    (wrong_toml, r"everywhere.*scope"),
    (tunable_of_another, r"net\.ipv4\.tcp_moderate_rcvbuf belongs to tuner 'tcp_buffer'"),
    (broken_c, r"cannot compile the probes of 'time_wait': .*error: .*nothing"),
]


@pytest.mark.parametrize(("spoil", "why"), REFUSED, ids=[spoil.__name__ for spoil, _ in REFUSED])
def test_a_folder_that_cannot_be_accepted_is_one_line_and_disturbs_nobody(
    busy: Daemon, spoil: Callable[[Path], None], why: str
) -> None:
    """Said once, however often the directory is looked through."""
    libdir = busy.state_dir.parent / "tuners"
    before = others(busy)
    said = len(busy.lines)

    def make_spoilt(aside: Path) -> Path:
        folder = third_party.put_example(aside)
        spoil(folder)
        return folder

    folder = drop_in(libdir, make_spoilt)

    busy.wait_line(why)
    (refused,) = refusals(busy)
    assert re.search(why, refused)
    nearby = libdir / f"nearby_{spoil.__name__}"
    nearby.mkdir()
    busy.wait_line(rf"{nearby.name}: tuner\.toml: No such file or directory")
    assert len(refusals(busy)) == 2
    assert len([line for line in busy.lines[said:] if re.search(why, line)]) == 1
    assert others(busy) == before

    nearby.rmdir()
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)
    wait_for(lambda: not refusals(busy), 5, "nothing is refused any more")


def test_a_refused_folder_is_accepted_once_it_is_mended(daemon: Daemon, libdir: Path) -> None:
    folder = drop_in(libdir, third_party.put_example)
    folder.chmod(0o777)
    daemon.wait_line("time_wait is writable by group or others")
    wait_gone(daemon)

    folder.chmod(0o755)

    wait_for(lambda: new_pid(daemon, set()), 5, "it has a worker")
    assert refusals(daemon) == []


def test_a_policy_that_cannot_be_loaded_is_one_line_and_disturbs_nobody(daemon: Daemon, libdir: Path) -> None:
    before = others(daemon)
    said = len(daemon.lines)

    folder = drop_in(libdir, lambda aside: third_party.put_variant(aside, "def on_event(self:\n"))

    why = rf"cannot accept tuner folder {folder}: policy\.py, line \d+: SyntaxError: '\(' was never closed"
    daemon.wait_line(rf"tuner '{NAME}' failed: {why}; 'bpftune-ctl restart {NAME}' tries again")
    status = daemon.tuner(NAME)
    assert (status["state"], status["restarts"]) == ("failed", 0)
    assert re.fullmatch(why, status["why"])
    assert len([line for line in daemon.lines[said:] if "SyntaxError" in line]) == 1
    assert others(daemon) == before

    shutil.copy(EXAMPLE / "policy.py", folder)

    wait_for(lambda: new_pid(daemon, set()), 5, "it has a worker")
    assert daemon.wait_active()[NAME]["restarts"] == 0


def test_a_libdir_that_is_not_roots_alone_gives_nothing(
    libdir: Path, limited: Namespace, start_daemon: StartDaemon
) -> None:
    third_party.put_example(libdir)
    libdir.chmod(0o777)

    daemon = start_daemon("-l", str(libdir))

    assert NAME not in daemon.wait_active()
    (refused,) = refusals(daemon)
    assert f"{libdir} is writable by group or others" in refused
