# SPDX-License-Identifier: GPL-2.0-or-later
"""The ladders of the shipped tuners on this kernel: each probe has a hook, and the best that there is.

On a distribution's kernel, which accepts every type of program, a rung may be refused for one reason
only: the kernel lacks the symbol, as its own list of symbols says, one of its arguments, or a reason
for drops that it would have to show.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bpftune.bpf.kernelfs import read_pmu_type
from bpftune.bpf.rungs import MODERN_KINDS
from bpftune.bpf.source import make_unit
from bpftune.bpf.unit import Flavour, Object
from bpftune.ipc.declaration import Declaration
from bpftune.ipc.declaration_file import load_declaration
from bpftune.supervisor.supervisor import CACHE_DIR
from tests.kernel.bpf.rig import ROOT, Rig, compile_once, opened, read_source
from tests.kernel.daemon import BPFTUNE
from tests.requirements import (
    EVERY_RUNG,
    is_locked_down,
    refused_by_lockdown,
    require_kernel_memory,
    require_rung,
)
from tests.waiting import SCALE

FOLDERS = sorted(path.parent for path in (ROOT / "tuners").glob("*/tuner.toml"))
NAMES = [folder.name for folder in FOLDERS]
LESS_THAN_FULLY = re.compile(r"^\S+ +\S+ +(none(?!\n +inactive)|k(ret)?probe:|poll)", re.MULTILINE)
"""A row of -S whose probe is needed and has no hook of a running kernel's own types"""


@pytest.fixture(scope="module")
def state(compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory that collects what these tests compile."""
    directory = tmp_path_factory.mktemp("state")
    shutil.copytree(compiled, directory / CACHE_DIR)
    return directory


@pytest.fixture(scope="module")
def cache(state: Path) -> Path:
    return state / CACHE_DIR


@contextmanager
def loaded(folder: Path, cache: Path, *, legacy: bool = False) -> Iterator[tuple[Rig, Declaration]]:
    source = read_source(folder)
    with opened(cache, legacy=legacy) as rig:
        assert rig.bpf.load([source]) == {}
        yield rig, source.declaration


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_every_probe_has_a_hook_and_none_was_passed_over(folder: Path, cache: Path) -> None:
    with loaded(folder, cache) as (rig, declaration):
        statuses = {status.probe: status for status in rig.bpf.attach(declaration.name)}
        ladders = {probe.name: [str(hook) for hook in probe.ladder] for probe in declaration.probes}

    for probe, ladder in ladders.items():
        status = statuses[probe]
        if (declaration.name, probe) in refused_by_lockdown():
            assert (status.hook, list(status.refused)) == (None, ladder)
        else:
            assert status.hook is not None, f"{probe}: {status.refused}"
            assert list(status.refused) == ladder[: ladder.index(status.hook)]


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_no_rung_is_refused_but_for_a_symbol_that_is_not_there(folder: Path, cache: Path) -> None:
    with loaded(folder, cache) as (rig, declaration):
        rig.bpf.attach(declaration.name)
        statuses = rig.bpf.survey(declaration.name)

    refused = {hook: why for status in statuses for hook, why in status.refused.items()}
    print("\n".join(f"{hook}: {why}" for hook, why in refused.items()))
    wrong = {
        hook: why
        for hook, why in refused.items()
        if not (is_missing(hook) or lacks_argument(why) or lacks_constant(why))
    }
    require_rung(not wrong, "; ".join(f"{hook}: {why}" for hook, why in wrong.items()))


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_legacy_mode_does_without_modern_hooks_where_there_are_older(folder: Path, cache: Path) -> None:
    with loaded(folder, cache, legacy=True) as (rig, declaration):
        statuses = {status.probe: status for status in rig.bpf.attach(declaration.name)}
        ladders = {probe.name: probe.ladder for probe in declaration.probes}

    for probe, ladder in ladders.items():
        older = [hook for hook in ladder if hook.kind not in MODERN_KINDS]
        if older and (EVERY_RUNG or older[-1].kind == "poll"):
            assert statuses[probe].hook in [str(hook) for hook in older], statuses[probe]


def test_where_the_kernel_gives_no_reason_for_drops_the_backlog_is_polled() -> None:
    folder = ROOT / "tuners/net_buffer"
    declaration = load_declaration(folder)
    units = [make_unit(declaration, folder, flavour, machine=os.uname().machine) for flavour in Flavour]

    built = compile_once([replace(unit, enums={}) for unit in units])

    refused = {entry: why for one in built if isinstance(one, Object) for entry, why in one.refusals.items()}
    (drop,) = (probe for probe in declaration.probes if probe.name == "drop")
    assert refused == {
        f"drop__{rung}": "this kernel has no SKB_DROP_REASON_CPU_BACKLOG"
        for rung in range(len(drop.ladder) - 1)
    }
    assert drop.ladder[-1].kind == "poll"


def test_kprobes_are_used_when_forced(cache: Path) -> None:
    require_rung(read_pmu_type("kprobe") is not None, "no kprobes in this kernel")
    require_kernel_memory()
    with loaded(ROOT / "tuners/tcp_buffer", cache, legacy=True) as (rig, declaration):
        statuses = {status.probe: status for status in rig.bpf.attach(declaration.name)}

    assert statuses["receive"].hook == "kprobe:tcp_rcv_space_adjust"


@pytest.mark.parametrize("arguments", [(), ("-L",)], ids=["fully", "legacy"])
def test_support_tells_the_truth(state: Path, arguments: tuple[str, ...]) -> None:
    """A locked-down kernel refuses programs that have nothing below them: then it is less than fully."""
    done = subprocess.run(
        [BPFTUNE, "-S", *arguments, "--state-dir", state],
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * SCALE,
    )

    assert done.returncode == 0
    if arguments and is_locked_down():
        assert done.stderr.startswith("bpftune: new network namespaces are noticed late: ")
    else:
        assert done.stderr == ""
    words, per_netns, _, _, *table = done.stdout.splitlines()
    is_less = bool(arguments) or bool(LESS_THAN_FULLY.search("\n".join(table)))
    assert words == ("bpftune works in legacy mode" if is_less else "bpftune works fully")
    assert not is_less or arguments or not EVERY_RUNG
    assert per_netns == "bpftune supports per-netns policy (via netns cookie)"
    assert {line.split()[0] for line in table if not line.startswith(" ")} == set(NAMES)


def lacks_argument(why: str) -> bool:
    """A tracepoint that on this kernel has fewer arguments than the probe takes from it."""
    return "invalid bpf_context access" in why or "the probe wants argument" in why


def lacks_constant(why: str) -> bool:
    """One that the probe declares to need."""
    return why.startswith("this kernel has no SKB_DROP_REASON_")


def is_missing(hook: str) -> bool:
    """By /proc/kallsyms, which says what the kernel's BTF and tracefs must agree with."""
    kind, _, target = hook.partition(":")
    name = target.partition("(")[0].rpartition("/")[2]
    symbol = f"__tracepoint_{name}" if kind in ("tp_btf", "raw_tp", "tracepoint") else name
    return not re.search(rf" {symbol}(\t|$)", Path("/proc/kallsyms").read_text(), re.MULTILINE)
