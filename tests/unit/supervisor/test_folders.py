# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpftune.supervisor import folders as folders_module
from bpftune.supervisor.folders import TunerFolders
from bpftune.supervisor.loop import Loop

TOML = """
name = "{name}"
description = "d"
probes = []
[[tunables]]
name = "{tunable}"
scope = "netns"
[[scenarios]]
id = "s"
name = "n"
tunable = "{tunable}"
why = "w"
reason = "r"
"""


def make(directory: Path, name: str, tunable: str = "net.core.somaxconn") -> Path:
    folder = directory / name
    folder.mkdir(parents=True)
    (folder / "tuner.toml").write_text(TOML.format(name=name, tunable=tunable))
    (folder / "probe.bpf.c").write_text("")
    (folder / "policy.py").write_text("")
    return folder


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    make(tmp_path / "shipped", "ours", "net.core.rmem_max")
    return tmp_path / "shipped"


@pytest.fixture
def added(tmp_path: Path) -> Path:
    (tmp_path / "added").mkdir(mode=0o755)
    return tmp_path / "added"


def folders(shipped: Path, added: Path) -> TunerFolders:
    return TunerFolders(shipped, [added], owner_uid=os.getuid())


def refusal(shipped: Path, added: Path) -> str:
    scan = folders(shipped, added).scan()
    assert list(scan.accepted) == ["ours"]
    (text,) = scan.refused.values()
    return text


def test_shipped_and_added_folders_are_accepted(shipped: Path, added: Path) -> None:
    make(added, "theirs")
    scan = folders(shipped, added).scan()
    assert list(scan.accepted) == ["ours", "theirs"]
    assert not scan.refused


def test_an_unchanged_folder_compares_equal_and_a_changed_one_does_not(shipped: Path, added: Path) -> None:
    folder = make(added, "theirs")
    before = folders(shipped, added).scan()
    assert folders(shipped, added).scan() == before
    (folder / "policy.py").write_text("# changed\n")
    assert folders(shipped, added).scan() != before


def test_a_module_of_the_policy_is_a_part_of_the_folder(shipped: Path, added: Path) -> None:
    theirs = make(added, "theirs")
    (theirs / "memory.py").write_text("x = 1\n")
    before = folders(shipped, added).scan()
    (theirs / "memory.py").write_text("x = 12\n")
    assert folders(shipped, added).scan() != before


def test_a_writable_file_is_refused(shipped: Path, added: Path) -> None:
    (make(added, "theirs") / "policy.py").chmod(0o664)
    assert "writable by group or others" in refusal(shipped, added)


def test_a_writable_directory_above_is_refused(shipped: Path, added: Path) -> None:
    make(added, "theirs")
    added.chmod(0o777)
    assert "writable by group or others" in refusal(shipped, added)


def test_a_symbolic_link_is_refused(shipped: Path, added: Path, tmp_path: Path) -> None:
    (added / "theirs").symlink_to(make(tmp_path / "elsewhere", "theirs"))
    assert "symbolic link" in refusal(shipped, added)


def test_a_linked_file_is_refused(shipped: Path, added: Path, tmp_path: Path) -> None:
    folder = make(added, "theirs")
    (folder / "policy.py").rename(tmp_path / "policy.py")
    (folder / "policy.py").symlink_to(tmp_path / "policy.py")
    assert "symbolic link" in refusal(shipped, added)


def test_another_owner_is_refused(shipped: Path, added: Path) -> None:
    make(added, "theirs")
    scan = TunerFolders(shipped, [added], owner_uid=os.getuid() + 1).scan()
    assert "belongs to uid" in next(iter(scan.refused.values()))


def test_a_tunable_has_one_owner(shipped: Path, added: Path) -> None:
    make(added, "theirs", "net.core.rmem_max")
    assert "belongs to tuner 'ours'" in refusal(shipped, added)


def test_a_name_has_one_owner(shipped: Path, added: Path) -> None:
    make(added, "ours")
    assert "already loaded" in refusal(shipped, added)


def test_an_incomplete_folder_is_refused(shipped: Path, added: Path) -> None:
    (make(added, "theirs") / "policy.py").unlink()
    assert "policy.py: No such file" in refusal(shipped, added)


def test_a_name_that_is_no_utf_8_is_refused_in_words_that_a_message_can_carry(
    shipped: Path, added: Path
) -> None:
    (added / os.fsdecode(b"n\xff")).mkdir()
    text = refusal(shipped, added)
    assert rf"{added}/n\xff" in text
    assert text.encode()


def test_a_folder_that_goes_while_it_is_looked_through_is_refused(
    shipped: Path, added: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(added, "theirs")

    def vanish(path: Path, pattern: str) -> Iterator[Path]:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{path}/below")

    monkeypatch.setattr(Path, "glob", vanish)
    monkeypatch.setattr(Path, "rglob", vanish)
    scan = folders(shipped, added).scan()
    assert "theirs/below: No such file" in scan.refused[added / "theirs"]


def test_a_directory_made_later_is_noticed_step_by_step(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders_module, "SETTLE_S", 0.0)
    directory = tmp_path / "lib/bpftune/tuners"
    watched, loop = folders(shipped, directory), Loop()
    found: list[list[str]] = []
    watched.watch(loop, lambda: found.append([*watched.scan().accepted]))
    try:
        for step in (directory.parent.parent, directory.parent, directory):
            step.mkdir(mode=0o755)
            loop.run_once(1000)
        assert len(found) == 3
        make(directory, "theirs")
        while "theirs" not in found[-1]:
            loop.run_once(1000)
    finally:
        watched.close()


def test_a_directory_made_before_a_rescan_is_watched_from_then_on(
    shipped: Path, added: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders_module, "SETTLE_S", 0.0)
    watched, loop = folders(shipped, added), Loop()
    noticed: list[str] = []
    watched.watch(loop, lambda: noticed.append("changed"))
    try:
        folder = make(added, "theirs")
        watched.scan()
        loop.run_once(1000)
        noticed.clear()
        (folder / "policy.py").write_text("x = 1\n")
        loop.run_once(1000)
        assert noticed
    finally:
        watched.close()
