# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftune.supervisor.sysctl_d import (
    Line,
    normalize_key,
    parse_sysctl_conf,
    read_all_sysctl_d,
    read_sysctl_d,
)

RMEM = "net.ipv4.tcp_rmem"


def put(root: Path, file: str, text: str) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)


def found(root: Path, name: str = RMEM) -> tuple[str, str] | None:
    setting = read_sysctl_d(root).find(name)
    return (setting.value, setting.file) if setting else None


def test_nothing_there(tmp_path: Path) -> None:
    assert found(tmp_path) is None


@pytest.mark.parametrize("file", ["/etc/sysctl.d/a.conf", "/run/sysctl.d/a.conf", "/etc/sysctl.conf"])
def test_where_the_administrator_sets_it(tmp_path: Path, file: str) -> None:
    put(tmp_path, file[1:], "# comment\n; another\n\n net.ipv4.tcp_rmem = 1 2 3 \n")
    assert found(tmp_path) == ("1 2 3", file)


def test_the_distribution_does_not_count(tmp_path: Path) -> None:
    put(tmp_path, "usr/lib/sysctl.d/50-default.conf", f"{RMEM}=1 2 3\n")
    assert found(tmp_path) is None
    setting = read_all_sysctl_d(tmp_path).find(RMEM)
    assert setting is not None
    assert setting.value == "1 2 3", "but sysctl --system applies it"


def test_only_conf_files_count(tmp_path: Path) -> None:
    put(tmp_path, "etc/sysctl.d/README", f"{RMEM}=1 2 3\n")
    assert found(tmp_path) is None


def test_a_file_in_etc_masks_the_one_in_run(tmp_path: Path) -> None:
    put(tmp_path, "run/sysctl.d/a.conf", f"{RMEM}=1 2 3\n")
    (tmp_path / "etc/sysctl.d").mkdir(parents=True)
    (tmp_path / "etc/sysctl.d/a.conf").symlink_to("/dev/null")
    assert found(tmp_path) is None


def test_later_files_win_by_name_whatever_the_folder(tmp_path: Path) -> None:
    put(tmp_path, "etc/sysctl.d/10.conf", f"{RMEM}=1 1 1\n")
    put(tmp_path, "run/sysctl.d/20.conf", f"{RMEM}=2 2 2\n")
    assert found(tmp_path) == ("2 2 2", "/run/sysctl.d/20.conf")


def test_a_leading_dash_only_says_that_failing_is_fine(tmp_path: Path) -> None:
    put(tmp_path, "etc/sysctl.d/a.conf", f"-{RMEM} = 1 2 3\n")
    assert found(tmp_path) == ("1 2 3", "/etc/sysctl.d/a.conf")


def test_globs_reach_no_further_than_a_dot(tmp_path: Path) -> None:
    put(tmp_path, "etc/sysctl.d/a.conf", "net.ipv4.tcp_* = 1\nnet.*.gc_thresh3 = 9\n")
    assert found(tmp_path) == ("1", "/etc/sysctl.d/a.conf")
    assert found(tmp_path, "net.ipv4.neigh.default.gc_thresh3") is None


def test_a_key_of_its_own_wins_over_a_later_glob(tmp_path: Path) -> None:
    put(tmp_path, "etc/sysctl.d/a.conf", f"{RMEM} = 1\n")
    put(tmp_path, "etc/sysctl.d/b.conf", "net.ipv4.* = 2\n")
    assert found(tmp_path) == ("1", "/etc/sysctl.d/a.conf")
    assert found(tmp_path, "net.ipv4.tcp_wmem") == ("2", "/etc/sysctl.d/b.conf")


def test_a_key_excluded_from_globs(tmp_path: Path) -> None:
    put(tmp_path, "etc/sysctl.d/a.conf", f"net.ipv4.* = 2\n-{RMEM}\n")
    assert found(tmp_path) is None
    assert found(tmp_path, "net.ipv4.tcp_wmem") is not None


def test_lines_without_an_equals_sign_mean_nothing() -> None:
    assert parse_sysctl_conf("net.ipv4.tcp_rmem 1 2 3\n= 5\n") == []
    assert parse_sysctl_conf("a.b==c") == [Line(key="a/b", value="=c")]


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.tcp_rmem", "net/ipv4/tcp_rmem"),
        ("net/ipv4/tcp_rmem", "net/ipv4/tcp_rmem"),
        ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("/net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("vm", "vm"),
    ],
)
def test_dots_and_slashes(key: str, path: str) -> None:
    assert normalize_key(key) == path


@given(st.text(max_size=200))
def test_any_text_parses(text: str) -> None:
    assert all(line.key for line in parse_sysctl_conf(text))
