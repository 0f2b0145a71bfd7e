# SPDX-License-Identifier: GPL-2.0-or-later
"""`bpftune` as typed: what each wrong line costs, -S, -D, and who may not run it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.kernel import third_party
from tests.kernel.daemon import BPFTUNE, BPFTUNE_CTL
from tests.waiting import SCALE

NOBODY = 65534


@pytest.fixture
def places(daemon_directory: Path) -> list[str]:
    return ["--state-dir", str(daemon_directory / "state"), "--run-dir", str(daemon_directory / "run")]


def bpftune(*arguments: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BPFTUNE, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * SCALE,
        stdin=subprocess.DEVNULL,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        cwd="/",
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["-s", "-r", "9"],
            r"argument -r/--learning-rate: '9' is not one of 0, 1, 2, 3, 4; see 'bpftune --help'",
        ),
        (["-s", "-l", "/nowhere"], "cannot use -l/--libdir /nowhere: not a directory"),
        (["-s", "-c", "/proc"], "cannot use -c/--cgroup /proc: not a directory of the cgroup2 tree"),
        (["-D", "-s"], "-D/--daemon and -s/--stderr exclude each other: a daemon has no stderr"),
        (["-s", "--frobnicate"], "unrecognized arguments: --frobnicate; see 'bpftune --help'"),
    ],
    ids=["rate", "libdir", "cgroup", "both", "unknown"],
)
def test_wrong_use_is_2_and_one_line(places: list[str], arguments: list[str], told: str) -> None:
    done = bpftune(*places, *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"bpftune: {told}\n"


def test_allowing_a_tuner_that_does_not_exist_is_2_and_names_the_near_one(places: list[str]) -> None:
    done = bpftune("-s", *places, "-a", "tcp_bufer")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == "bpftune: no tuner 'tcp_bufer'; did you mean 'tcp_buffer'?"


@pytest.mark.parametrize("flag", ["--state-dir", "--run-dir"])
def test_a_directory_that_cannot_be_is_one_line(places: list[str], tmp_path: Path, flag: str) -> None:
    (tmp_path / "file").touch()

    done = bpftune("-s", *places, flag, str(tmp_path / "file" / "below"))

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"bpftune: cannot make directory {tmp_path}/file/below: Not a directory\n"


def test_a_run_directory_too_deep_for_sockets_is_one_line(places: list[str], daemon_directory: Path) -> None:
    deep = daemon_directory / ("d" * 90)

    done = bpftune("-s", *places, "--run-dir", str(deep))

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"bpftune: cannot listen at {deep}/events.sock: File name too long\n"


def test_a_run_directory_that_workers_cannot_reach_is_one_line(places: list[str], tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)

    done = bpftune("-s", *places, "--run-dir", str(private / "run"))

    assert (done.returncode, done.stdout) == (1, "")
    told = done.stderr.splitlines()[-1]
    assert told.startswith(f"bpftune: cannot use {private}/run: workers, user '")
    assert "may not enter /" in told


@pytest.mark.parametrize("arguments", [["-s"], ["-S"], ["-D"]])
def test_who_is_not_root_is_told_so(places: list[str], arguments: list[str]) -> None:
    done = bpftune(*places, *arguments, user=NOBODY)

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == "bpftune: bpftune needs root: it loads BPF programs and writes sysctls\n"


def test_support_tells_the_hook_of_every_scenario(places: list[str], daemon_directory: Path) -> None:
    third_party.put_example(daemon_directory / "tuners")

    done = bpftune("-S", *places, "-l", str(daemon_directory / "tuners"))

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] in ("bpftune works fully", "bpftune works in legacy mode")
    assert lines[1] == "bpftune supports per-netns policy (via netns cookie)"
    rows = [line.split() for line in lines[3:] if not line.startswith(" ")]
    assert rows[0] == ["tuner", "scenario", "hook", "in", "use"]
    assert ["time_wait", "time_wait_near_limit", "tp_btf:inet_sock_set_state"] in rows
    assert {"neigh_table", "tcp_buffer"} <= {row[0] for row in rows}
    assert not (daemon_directory / "run").exists()


def test_support_says_why_a_folder_is_left_out(places: list[str], daemon_directory: Path) -> None:
    folder = third_party.put_example(daemon_directory / "tuners")
    folder.chmod(0o777)

    done = bpftune("-S", *places, "-l", str(daemon_directory / "tuners"))

    assert done.returncode == 0
    assert re.fullmatch(rf"bpftune: .*{re.escape(str(folder))}.*\n", done.stderr), done.stderr
    assert "time_wait" not in done.stdout


def test_legacy_support_says_why_the_better_hooks_are_not_used(places: list[str]) -> None:
    done = bpftune("-S", "-L", *places)

    lines = done.stdout.splitlines()
    assert lines[0] in ("bpftune works in legacy mode", "bpftune is not supported")
    assert done.returncode == (0 if lines[0].endswith("mode") else 69)
    assert [line for line in lines if line.strip().startswith("not tp_btf:")]


WITHOUT_CGROUP2 = """
for place in $(awk '$(NF - 2) == "cgroup2" {print $5}' /proc/self/mountinfo); do umount -l "$place"; done
exec "$@"
"""


@pytest.mark.parametrize("arguments", [("-S",), ("-s",)])
def test_where_an_administrator_cannot_be_seen_nothing_is_supported(
    places: list[str], arguments: tuple[str, ...]
) -> None:
    """Without cgroup2 nobody tells us of sysctl writes."""
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", WITHOUT_CGROUP2, "sh", BPFTUNE, *arguments, *places],
        capture_output=True,
        text=True,
        check=False,
        timeout=30 * SCALE,
    )

    assert done.returncode == 69
    assert "cannot watch sysctl writes: cgroup:sysctl: cgroup2 is not mounted" in done.stderr
    assert done.stdout == ("bpftune is not supported\n" if arguments == ("-S",) else "")


@contextlib.contextmanager
def background(places: list[str]) -> Iterator[int]:
    """The pid of a daemon that -D left running; it ends with the block."""
    done = bpftune("-D", *places)
    try:
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        yield int(pid_file(places).read_text())
    finally:
        end_background(places)


def end_background(places: list[str]) -> None:
    with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
        process = psutil.Process(int(pid_file(places).read_text()))
        process.terminate()
        process.wait(10 * SCALE)


def pid_file(places: list[str]) -> Path:
    return Path(places[-1], "bpftune.pid")


def test_daemon_returns_when_it_works_and_says_why_when_it_cannot(places: list[str]) -> None:
    with background(places) as pid:
        # No waiting: whoever typed it may go on at once.
        asked = subprocess.run(
            [BPFTUNE_CTL, *places[2:], "status", "--json"], capture_output=True, text=True, check=False
        )
        process = psutil.Process(pid)
        assert asked.returncode == 0
        assert f'"pid": {pid}' in asked.stdout
        assert (process.cwd(), process.terminal(), os.getsid(pid)) == ("/", None, pid)
        assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)} == {"/dev/null"}

        second = bpftune("-D", *places)

    assert (second.returncode, second.stdout) == (1, "")
    told = f"bpftune: bpftune is already running as pid {pid} ({pid_file(places)})\n"
    assert second.stderr == told


def test_daemon_with_a_wrong_tuner_fails_as_in_the_foreground(places: list[str]) -> None:
    done = bpftune("-D", *places, "-a", "tcp_bufer")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "bpftune: no tuner 'tcp_bufer'; did you mean 'tcp_buffer'?\n"
