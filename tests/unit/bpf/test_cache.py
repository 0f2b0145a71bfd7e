# SPDX-License-Identifier: GPL-2.0-or-later
"""bpf/cache.py under bpf/builder.py, with a compiler that only counts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bpftune.bpf.builder import Builder, Built
from bpftune.bpf.cache import Cache
from bpftune.bpf.unit import Unit
from bpftune.ipc.errors import CompileError
from tests.requirements import require_root
from tests.unit.bpf.made import compiled, unit


@dataclass
class CountingCompiler:
    asked: list[list[str]] = field(default_factory=list)
    broken: frozenset[str] = frozenset()

    def __call__(self, units: Sequence[Unit]) -> list[Built]:
        self.asked.append([each.tuner for each in units])
        return [CompileError("broken") if each.tuner in self.broken else compiled() for each in units]


@dataclass
class Rig:
    directory: Path
    compiler: CountingCompiler = field(default_factory=CountingCompiler)
    lines: list[str] = field(default_factory=list)
    environment: int = 1

    @property
    def entry(self) -> Path:
        return self.directory / "small.typed"

    def build(self, *units: Unit) -> list[Built]:
        """As one start of the program does."""
        self.lines.clear()
        self.compiler.asked.clear()
        cache = Cache(self.directory, self.lines.append)
        builder = Builder(cache, compile_units=self.compiler, environment=lambda: self.environment)
        built = builder.build(units or [unit()])
        cache.close()
        return built


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(directory=tmp_path / "cache")


def test_the_second_start_compiles_nothing(rig: Rig) -> None:
    first = rig.build()
    second = rig.build()

    assert first == second == [compiled()]
    assert rig.compiler.asked == []
    assert rig.lines == []


def test_only_what_is_missing_is_compiled_and_in_one_go(rig: Rig) -> None:
    rig.build(unit("b"))
    rig.build(unit("a"), unit("b"), unit("c"))

    assert rig.compiler.asked == [["a", "c"]]


def test_a_unit_that_does_not_compile_costs_the_others_nothing(rig: Rig) -> None:
    rig.compiler.broken = frozenset({"b"})
    a, b, c = rig.build(unit("a"), unit("b"), unit("c"))

    assert (a, c) == (compiled(), compiled())
    assert isinstance(b, CompileError)
    rig.build(unit("a"), unit("b"), unit("c"))
    assert rig.compiler.asked == [["b"]], "a failure is not kept: the next start tries again"


def flip_a_byte(entry: Path) -> None:
    data = bytearray(entry.read_bytes())
    data[-20] ^= 1
    entry.write_bytes(data)


def change_the_key(entry: Path) -> None:
    magic, version, key, rest = entry.read_bytes().split(b" ", 3)
    entry.write_bytes(b" ".join((magic, version, key[::-1], rest)))


def become_a_symlink(entry: Path) -> None:
    target = entry.with_suffix(".elsewhere")
    entry.rename(target)
    entry.symlink_to(target)


def become_a_fifo(entry: Path) -> None:
    entry.unlink()
    os.mkfifo(entry)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (flip_a_byte, "damaged"),
    "truncated": (lambda entry: entry.write_bytes(entry.read_bytes()[:-30]), "damaged"),
    "cut in the header": (lambda entry: entry.write_bytes(entry.read_bytes()[:20]), "foreign"),
    "empty": (lambda entry: entry.write_bytes(b""), "foreign"),
    "not ours": (lambda entry: entry.write_bytes(b"\x80\x04\x95 a pickle"), "foreign"),
    "a later format": (
        lambda entry: entry.write_bytes(entry.read_bytes().replace(b"cache 2", b"cache 3")),
        "foreign",
    ),
    "other key": (change_the_key, "stale"),
    "writable by others": (lambda entry: entry.chmod(0o666), "others may write"),
    "symlink": (become_a_symlink, "a symbolic link"),
    "fifo": (become_a_fifo, "foreign"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_bad_entry_is_rebuilt_with_one_log_line(rig: Rig, name: str) -> None:
    damage, said = DAMAGE[name]
    rig.build()
    damage(rig.entry)

    assert rig.build() == [compiled()]
    assert rig.compiler.asked == [["small"]]
    assert len(rig.lines) == 1
    assert said in rig.lines[0]
    assert str(rig.entry) in rig.lines[0]
    rig.build()
    assert rig.lines == [], "what was rebuilt is good"
    assert rig.compiler.asked == []


def test_another_kernel_makes_an_entry_stale_and_takes_its_place(rig: Rig) -> None:
    rig.build()
    rig.environment = 2
    rig.build()

    assert len(rig.lines) == 1
    assert "stale" in rig.lines[0]
    assert [entry.name for entry in rig.directory.iterdir()] == ["small.typed"]


def test_another_source_makes_an_entry_stale(rig: Rig) -> None:
    rig.build()
    rig.build(unit(body="int b;"))

    assert rig.compiler.asked == [["small"]]


def test_directory_and_entries_are_their_owners_alone(rig: Rig) -> None:
    rig.build()

    assert rig.directory.stat().st_mode & 0o777 == 0o700
    assert rig.entry.stat().st_mode & 0o777 == 0o600


def test_leftovers_of_a_killed_writer_go(rig: Rig) -> None:
    rig.build()
    (rig.directory / "small.typed.123.new").write_bytes(b"half")
    rig.build()

    assert [entry.name for entry in rig.directory.iterdir()] == ["small.typed"]


def test_a_directory_that_others_write_to_is_not_used(rig: Rig) -> None:
    rig.directory.mkdir()
    rig.directory.chmod(0o777)

    assert rig.build() == [compiled()]
    assert len(rig.lines) == 1
    assert "others may write" in rig.lines[0]
    assert list(rig.directory.iterdir()) == []


def test_a_symlink_is_no_directory_to_use(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    rig.directory.symlink_to(tmp_path / "elsewhere")

    assert rig.build() == [compiled()]
    assert len(rig.lines) == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_another_owners_directory_is_not_used(rig: Rig) -> None:
    require_root()
    rig.directory.mkdir(mode=0o700)
    os.chown(rig.directory, 65534, 65534)

    assert rig.build() == [compiled()]
    assert len(rig.lines) == 1
    assert "uid 65534" in rig.lines[0]


def test_a_directory_that_cannot_be_made_costs_only_the_cache(rig: Rig, tmp_path: Path) -> None:
    rig.directory = tmp_path / "file" / "cache"
    (tmp_path / "file").write_text("in the way")

    assert rig.build() == [compiled()]
    assert len(rig.lines) == 1
