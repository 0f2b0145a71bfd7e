# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftune.ipc.declaration import Format, Scope, Tunable
from bpftune.ipc.errors import TunableError, TunableMissing
from bpftune.supervisor.tunables import (
    format_value,
    parse_cpumask,
    parse_integers,
    parse_value,
    read_tunable,
    write_text,
    write_tunable,
)

RMEM = Tunable(name="net.ipv4.tcp_rmem", scope=Scope.NETNS, width=3)
MASK = Tunable(name="net.core.flow_limit_cpu_bitmap", scope=Scope.GLOBAL, format=Format.CPUMASK)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    path = tmp_path / "sys/net/ipv4/tcp_rmem"
    path.parent.mkdir(parents=True)
    path.write_text("4096\t131072\t6291456\n")
    return tmp_path


def test_reading_keeps_the_text_byte_for_byte(proc: Path) -> None:
    reading = read_tunable(RMEM, proc_root=proc)
    assert reading.value == (4096, 131072, 6291456)
    assert reading.text == "4096\t131072\t6291456"


def test_writing(proc: Path) -> None:
    write_tunable(RMEM, (1, 2, 3), proc_root=proc)
    assert read_tunable(RMEM, proc_root=proc).value == (1, 2, 3)


@pytest.mark.parametrize(("name", "text"), [(RMEM.name, "\N{REPLACEMENT CHARACTER}"), ("net.x\0y", "1")])
def test_what_cannot_be_written_is_an_error_of_ours(proc: Path, name: str, text: str) -> None:
    with pytest.raises(TunableError, match="cannot write"):
        write_text(name, text, proc_root=proc)


def test_a_sysctl_that_this_kernel_lacks(tmp_path: Path) -> None:
    with pytest.raises(TunableMissing, match=r"cannot read net\.ipv4\.tcp_rmem: No such file"):
        read_tunable(RMEM, proc_root=tmp_path)
    with pytest.raises(TunableMissing, match="cannot write"):
        write_tunable(RMEM, (1, 2, 3), proc_root=tmp_path)


def test_any_other_error_keeps_its_errno(tmp_path: Path) -> None:
    (tmp_path / "sys/net/ipv4/tcp_rmem").mkdir(parents=True)
    with pytest.raises(TunableError, match="Is a directory") as caught:
        write_tunable(RMEM, (1, 2, 3), proc_root=tmp_path)
    assert caught.value.errno == 21
    assert not isinstance(caught.value, TunableMissing)


@pytest.mark.parametrize("text", ["", "1 2", "1 2 3 4", "1 2 x", "1.0 2 3", "1 2 3\x00"])
def test_another_number_of_fields_is_an_error(text: str) -> None:
    with pytest.raises(TunableError):
        parse_value(RMEM, text)


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("0", 0),
        ("f\n", 15),
        ("00000001,00000000", 1 << 32),
        ("3,1,80000000", (3 << 64) | (1 << 32) | 1 << 31),
    ],
)
def test_cpumask(text: str, mask: int) -> None:
    assert parse_cpumask(text) == (mask,)


@pytest.mark.parametrize("text", ["", "g", "123456789", "1,,2", ",1", "1 2", "-1"])
def test_not_a_cpumask(text: str) -> None:
    assert parse_cpumask(text) == ()


@given(st.integers(min_value=0, max_value=1 << 600))
def test_cpumask_comes_back(mask: int) -> None:
    assert parse_value(MASK, format_value(MASK, (mask,))) == (mask,)
    assert all(len(group) == 8 for group in format_value(MASK, (mask,)).split(","))


@given(st.tuples(*[st.integers(min_value=-(1 << 63), max_value=1 << 64)] * 3))
def test_integers_come_back(value: tuple[int, int, int]) -> None:
    assert parse_value(RMEM, format_value(RMEM, value) + "\n") == value


@given(st.text(max_size=40))
def test_parsers_never_raise_anything_else(text: str) -> None:
    for tunable in (RMEM, MASK):
        try:
            parse_value(tunable, text)
        except TunableError:
            continue
    assert isinstance(parse_integers(text), tuple)
