# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftune.ipc.messages import Netns, Table
from bpftune.ipc.record import Row
from bpftune.tuners.tcp_conn.policy import (
    ALGORITHMS,
    CONGESTION_CONTROL,
    NAMED_NS,
    PATHS_SHOWN,
    REMOTES_NAMED,
    TcpConn,
    uses,
)

if TYPE_CHECKING:
    from tests.unit.tuners.conftest import FakeKernel

MakeKernel = Callable[..., "FakeKernel"]
PROBE = Path(__file__).parents[3] / "tuners" / "tcp_conn" / "probe.bpf.c"
VECTORS = ("used", "greedy", "moved", "measured", "rtt_us", "min_rtt_us", "rate", "max_rate")
ELSEWHERE = Netns(cookie=5, name="blue")


def octets(address: str) -> tuple[int, ...]:
    packed = IPv6Address(address).packed if ":" in address else IPv4Address(address).packed
    return tuple(packed.ljust(16, b"\0"))


def row(
    address: str = "192.0.2.1",
    *,
    connections: int = 10,
    prefix_bits: int = 0,
    best: tuple[int, int] = (10_000, 1000),
    **by_algorithm: dict[str, int],
) -> Row:
    """`best` is the RTT in us and the rate; `by_algorithm` names elements, algorithm by algorithm."""
    vectors = {name: [0] * 16 for name in VECTORS}
    for algorithm, values in by_algorithm.items():
        for name, value in values.items():
            vectors[name][ALGORITHMS.index(algorithm)] = value
    return Row(
        {
            "netns_cookie": ELSEWHERE.cookie,
            "family": 6 if ":" in address else 4,
            "prefix_bits": prefix_bits,
            "ifindex": 3,
            "connections": connections,
            "best_rtt_us": best[0],
            "best_rate": best[1],
        },
        {"address": octets(address), **{name: tuple(values) for name, values in vectors.items()}},
    )


def tables(*rows: Row) -> tuple[Table, Table]:
    totals, paths = TcpConn().map_tables({"paths": rows}, {ELSEWHERE.cookie: ELSEWHERE})
    return totals, paths


def cells(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, one, strict=True)) for one in table.rows]


@pytest.fixture
def kernel(make_kernel: MakeKernel) -> FakeKernel:
    return make_kernel("tcp_conn", TcpConn(), {})


def moved(
    kernel: FakeKernel, remote: str, *, old: str = "cubic", connections: int = 1, dry: bool = False
) -> None:
    kernel.send(
        "lossy_connection",
        {"family": 6 if ":" in remote else 4, "connections": connections, "dry_run": int(dry)},
        remote=octets(remote),
        old=tuple(old.encode().ljust(16, b"\0")),
    )


@pytest.mark.parametrize("remote", ["192.0.2.1", "2001:db8::1"])
def test_a_move_is_told_with_its_remote(kernel: FakeKernel, remote: str) -> None:
    moved(kernel, remote, connections=7)

    (note,) = kernel.notes
    assert note.text == (
        f"Due to retransmits of more than 1/64 change {CONGESTION_CONTROL} from (cubic) -> (bbr)"
        f" for remote {remote}"
    )
    assert (note.tunable, note.acts) == (CONGESTION_CONTROL, 7)
    assert kernel.proposals == []


def test_in_a_dry_run_it_would_have_been_moved(kernel: FakeKernel) -> None:
    moved(kernel, "192.0.2.1", dry=True)
    assert "would change" in kernel.notes[0].text


def test_an_algorithm_without_a_name_here_is_another_one(kernel: FakeKernel) -> None:
    moved(kernel, "192.0.2.1", old="")
    assert "from (other) -> (bbr)" in kernel.notes[0].text


def test_equal_moves_read_the_same_so_that_the_log_can_fold_them(kernel: FakeKernel) -> None:
    moved(kernel, "192.0.2.1", connections=1)
    moved(kernel, "192.0.2.1", connections=300)
    assert kernel.notes[0].text == kernel.notes[1].text


def test_many_remotes_do_not_fill_the_log(kernel: FakeKernel) -> None:
    for number in range(1000):
        moved(kernel, f"10.0.{number >> 8}.{number & 255}")
        kernel.now_ns += 1_000_000_000
    moved(kernel, "10.0.0.1")

    assert len({note.text for note in kernel.notes}) == REMOTES_NAMED + 1
    assert kernel.notes[REMOTES_NAMED].text.endswith("(bbr) for further remotes")
    assert kernel.notes[-1].text.endswith("for remote 10.0.0.1")
    assert sum(note.acts for note in kernel.notes) == 1001


def test_other_remotes_are_named_after_a_while(kernel: FakeKernel) -> None:
    for number in range(REMOTES_NAMED + 1):
        moved(kernel, f"10.0.0.{number}")
    kernel.now_ns += NAMED_NS
    moved(kernel, "10.0.9.9")
    assert kernel.notes[-1].text.endswith("for remote 10.0.9.9")


def test_algorithms_are_numbered_alike_in_c_and_python() -> None:
    each = re.findall(r"each\((\d+), NAME\(([^)]*)\)\)", PROBE.read_text())
    names = ["".join(re.findall(r"'(\w)'", letters)) for _, letters in each]
    assert names == list(ALGORITHMS[:-1])
    assert [int(number) for number, _ in each] == list(range(len(names)))


def test_cost_is_what_is_missing_of_the_best_time_and_rate() -> None:
    measured = {"used": 4, "measured": 4}
    shown = row(
        cubic={**measured, "rtt_us": 15_000, "rate": 1000},
        bbr={**measured, "rtt_us": 10_000, "rate": 750},
        htcp={**measured, "rtt_us": 20_000, "rate": 0},
    )
    assert {use.algorithm: use.cost for use in uses(shown)} == {"cubic": 0.5, "bbr": 0.25, "htcp": 2.0}


def test_nothing_measured_is_no_cost() -> None:
    (use,) = uses(row(cubic={"used": 1}))
    assert use.cost is None
    _, paths = tables(row(cubic={"used": 1}))
    assert [cells(paths)[0][column] for column in ("cost", "min RTT ms", "max Mbit/s")] == ["-"] * 3


def test_totals_are_over_all_paths() -> None:
    totals, _ = tables(
        row(cubic={"used": 5, "moved": 2}, bbr={"used": 2}),
        row("10.0.0.0", cubic={"used": 1}, bbr={"used": 9}),
    )
    assert totals.rows == [["bbr", 11, 0], ["cubic", 6, 2]]


@pytest.mark.parametrize(
    ("address", "prefix_bits", "expected"),
    [
        ("192.0.2.1", 0, "via 192.0.2.1"),
        ("192.0.2.0", 24, "192.0.2.0/24"),
        ("2001:db8::", 64, "2001:db8::/64"),
        ("2001:db8::1", 0, "via 2001:db8::1"),
        ("fe80::1", 0, "via fe80::1%3"),
    ],
)
def test_a_path_is_a_gateway_or_a_network(address: str, prefix_bits: int, expected: str) -> None:
    _, paths = tables(row(address, prefix_bits=prefix_bits, cubic={"used": 1}))
    assert cells(paths)[0]["path"] == expected


def test_a_row_says_all_there_is_to_say() -> None:
    _, paths = tables(
        row(
            cubic={
                "used": 8,
                "greedy": 2,
                "measured": 3,
                "rtt_us": 10_000,
                "min_rtt_us": 10_250,
                "rate": 500,
                "max_rate": 1250,
            }
        )
    )
    assert cells(paths) == [
        {
            "netns": "blue",
            "path": "via 192.0.2.1",
            "algorithm": "cubic",
            "cost": 0.5,
            "count": 8,
            "greedy %": 25.0,
            "min RTT ms": 10.25,
            "max Mbit/s": 10.0,
        }
    ]


def test_an_unknown_namespace_is_shown_by_its_cookie() -> None:
    _, paths = TcpConn().map_tables({"paths": [row(cubic={"used": 1})]}, {})
    assert cells(paths)[0]["netns"] == "cookie 5"


def test_only_the_busiest_paths_are_shown_and_that_is_said() -> None:
    many = [row(f"10.0.{i}.0", connections=i, cubic={"used": 1}) for i in range(PATHS_SHOWN + 5)]
    totals, paths = tables(*many)

    assert paths.title.endswith(f"(the busiest of {len(many)})")
    assert len(paths.rows) == PATHS_SHOWN
    assert cells(paths)[0]["path"] == f"via 10.0.{PATHS_SHOWN + 4}.0"
    assert totals.rows == [["cubic", len(many), 0]]


@given(st.lists(st.lists(st.integers(0, 2**32 - 1), min_size=16, max_size=16), min_size=8, max_size=8))
def test_whatever_the_kernel_counted_makes_a_table(elements: list[list[int]]) -> None:
    vectors = {name: tuple(values) for name, values in zip(VECTORS, elements, strict=True)}
    shown = row()
    shown.vectors.update(vectors)
    totals, paths = tables(shown)

    assert len(totals.rows) == len(paths.rows) == sum(used > 0 for used in vectors["used"])
    assert all(use.cost is None or use.cost >= 0 for use in uses(shown))


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_names_are_the_same_bytes_on_every_machine(byte_order: Literal["little", "big"]) -> None:
    """The probe compares a name of 8 letters with what the kernel holds, as one number."""
    source = PROBE.read_text().replace("\\\n", "")
    macros = re.findall(r"#define NAME\(a, b, c, d, e, f, g, h\) NUMBER\(([a-h, ]+)\)", source)
    packed = re.search(r"#define NUMBER\(a, b, c, d, e, f, g, h\)(.*)", source)
    assert packed is not None
    letters = dict(zip("abcdefgh", b"cubic\0\0\0", strict=True))
    order = macros[byte_order == "big"].split(", ")
    given = {name: letters[letter] for name, letter in zip("abcdefgh", order, strict=True)}

    number = eval(packed[1].replace("(u64)", "").strip(), given)

    assert number.to_bytes(8, byte_order) == b"cubic\0\0\0"


def test_no_map_drops_what_is_in_use_on_a_machine_with_many_cpus() -> None:
    """LOCAL_FREE_TARGET in kernel/bpf/bpf_lru_list.c: so many free elements a CPU holds back."""
    tables = re.findall(r'BPF_TABLE\("lru_hash", [^;]*, (\w+), (\d+)\);', PROBE.read_text())
    assert [name for name, _ in tables] == ["remotes"]
    assert all(int(entries) >= 128 * 128 for _, entries in tables)
