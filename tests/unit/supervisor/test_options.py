# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's command line: every option, and one line for wrong use."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpftune.ipc.errors import UsageError
from bpftune.supervisor.options import Options, check_paths, parse_options


def test_nothing_given_means_the_defaults() -> None:
    options = parse_options([])

    assert options == Options()
    assert (options.learning_rate, options.shift, options.mode) == (4, 2, "auto")
    assert (options.state_dir, options.run_dir) == (Path("/var/lib/bpftune"), Path("/run/bpftune"))


def test_every_short_option() -> None:
    options = parse_options(
        ["-a", "x", "-a", "y", "-c", "/cg", "-d", "-l", "/a", "-l", "/b", "-L", "-r", "0", "-R", "-s", "-S"]
    )

    assert options == Options(
        allow=("x", "y"),
        cgroup=Path("/cg"),
        debug=True,
        libdirs=(Path("/a"), Path("/b")),
        legacy=True,
        learning_rate=0,
        rollback=True,
        stderr=True,
        support=True,
    )
    assert options.shift == 6


def test_every_long_option() -> None:
    options = parse_options(
        [
            "--allow=x", "--cgroup=/cg", "--debug", "--daemon", "--libdir=/a", "--legacy",
            "--learning-rate=3", "--rollback", "--dry-run", "--state-dir=/s", "--run-dir=/r",
            "--adopt-sysctl-d",
        ]
    )  # fmt: skip

    assert options == Options(
        allow=("x",),
        cgroup=Path("/cg"),
        debug=True,
        daemon=True,
        libdirs=(Path("/a"),),
        legacy=True,
        learning_rate=3,
        rollback=True,
        dry_run=True,
        state_dir=Path("/s"),
        run_dir=Path("/r"),
        adopt_sysctl_d=True,
    )
    assert options.mode == "observe"


def test_relative_directories_survive_a_change_of_directory() -> None:
    assert parse_options(["-l", "here"]).libdirs == (Path.cwd() / "here",)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["-r", "5"], "'5' is not one of 0, 1, 2, 3, 4"),
        (["-r", "-1"], "learning-rate"),
        (["-r", "fast"], "'fast' is not one of"),
        (["-l"], "expected one argument"),
        (["-l", ""], "a directory is needed"),
        (["-l", "/x/\udcff"], r"'/x/\xff' is not UTF-8"),
        (["-a", "../x"], "not the name of a tuner"),
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--dry"], "unrecognized arguments: --dry"),
        (["start"], "unrecognized arguments: start"),
        (["-D", "-s"], "exclude each other"),
        (["-D", "-S"], "exclude each other"),
    ],
)
def test_wrong_use_is_one_line(argv: list[str], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_options(argv)

    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("argv", "shown"), [(["-V"], "bpftune 0."), (["-h"], "--adopt-sysctl-d")])
def test_help_and_version_end_with_0(argv: list[str], shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_options(argv)

    assert caught.value.code == 0
    assert shown in capsys.readouterr().out


def test_help_fits_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        parse_options(["--help"])

    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_directories_must_be_there(tmp_path: Path) -> None:
    check_paths(Options(libdirs=(tmp_path,)))
    with pytest.raises(UsageError, match=r"cannot use -l/--libdir .*: not a directory"):
        check_paths(Options(libdirs=(tmp_path / "missing",)))


def test_a_cgroup_must_be_of_the_cgroup2_tree(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot use -c/--cgroup .*: not a directory of the cgroup2 tree"):
        check_paths(Options(cgroup=tmp_path))
    (tmp_path / "cgroup.controllers").touch()
    check_paths(Options(cgroup=tmp_path))
