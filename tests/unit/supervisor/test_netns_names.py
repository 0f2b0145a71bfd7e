# SPDX-License-Identifier: GPL-2.0-or-later
"""A recorded /proc: hard links to one file are processes in one namespace."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from bpftune.supervisor.netns_names import Described, NetnsNames


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    root: Path

    @property
    def names(self) -> NetnsNames:
        return NetnsNames(
            run_netns=self.root / "netns",
            proc_root=self.root / "proc",
            nsfs_device=self.root.stat().st_dev,
        )

    def namespace(self, name: str) -> Path:
        path = self.root / name
        path.touch()
        return path

    def process(self, pid: int, comm: str, inside: Path) -> None:
        folder = self.root / "proc" / str(pid)
        (folder / "ns").mkdir(parents=True)
        (folder / "comm").write_text(f"{comm}\n")
        os.link(inside, folder / "ns" / "net")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "netns").mkdir()
    (tmp_path / "proc").mkdir()
    return Tree(root=tmp_path)


def test_the_process_given_goes_first(tree: Tree) -> None:
    inside = tree.namespace("a")
    for pid, comm in ((7, "init"), (8, "nginx")):
        tree.process(pid, comm, inside)
    inum = inside.stat().st_ino
    assert tree.names.describe({inum: 8}) == {inum: Described(name="pid 8 (nginx)", pid=8)}


def test_one_that_has_ended_is_replaced_by_another_inside(tree: Tree) -> None:
    inside = tree.namespace("a")
    tree.process(9, "redis", inside)
    inum = inside.stat().st_ino
    assert tree.names.describe({inum: 8}) == {inum: Described(name="pid 9 (redis)", pid=9)}


def test_a_name_of_ip_netns_lasts(tree: Tree) -> None:
    inside = tree.namespace("netns/blue")
    tree.process(9, "redis", inside)
    inum = inside.stat().st_ino
    assert tree.names.describe({inum: 9}) == {inum: Described(name="blue", lasting=True)}


def test_many_at_once_are_one_pass_over_proc(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    inums = {}
    for pid in range(1, 51):
        inside = tree.namespace(f"ns{pid}")
        tree.process(pid, "pause", inside)
        inums[inside.stat().st_ino] = 1000 + pid
    empty = tree.namespace("empty").stat().st_ino
    listed: list[str] = []
    listdir = os.listdir

    def count(path: str) -> list[str]:
        listed.append(path)
        return listdir(path)

    names = tree.names
    names.named(0)
    monkeypatch.setattr(os, "listdir", count)
    found = names.describe({**inums, empty: 0})
    assert found.pop(empty) == Described(name=f"inode {empty}")
    assert {described.name for described in found.values()} == {f"pid {pid} (pause)" for pid in range(1, 51)}
    assert listed == [str(tree.root / "proc")]


def test_a_name_that_is_no_utf_8_is_shown_escaped_and_found_as_it_is(tree: Tree) -> None:
    inside = tree.namespace(os.fsdecode(b"netns/n\xff"))
    inum = inside.stat().st_ino
    assert tree.names.named(inum) == r"n\xff"
    assert tree.names.describe({inum: 0}) == {inum: Described(name=r"n\xff", lasting=True)}
    assert next(tree.names.paths(inum, 0)) == str(inside)
    assert [path for found, path, _ in tree.names.all() if found == inum] == [str(inside)]


def test_run_netns_that_is_no_directory_has_no_names(tree: Tree) -> None:
    names = tree.names
    inum = tree.namespace("netns/blue").stat().st_ino
    assert names.named(inum) == "blue"
    (tree.root / "netns/blue").unlink()
    (tree.root / "netns").rmdir()
    (tree.root / "netns").touch()
    assert names.named(inum) is None
