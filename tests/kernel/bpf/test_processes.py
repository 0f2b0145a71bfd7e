# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process that loaded programs has mapped, and what it leaves behind when it is killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bpftune.bpf.fingerprint import SYSTEM_PYTHON
from tests.kernel import bpf_objects
from tests.kernel.bpf.rig import ROOT, WATCH_NETNS_CALLS, WATCH_SYSCTL, opened, read_source
from tests.requirements import require_kernel_memory
from tests.waiting import wait_for

HOLDER = f"""
import signal, sys
from pathlib import Path
from bpftune.bpf.runtime import Bpf, ProbeSource
from bpftune.ipc.declaration_file import load_declaration
folders = [Path({str(WATCH_SYSCTL)!r}), Path({str(WATCH_NETNS_CALLS)!r})]
sources = [ProbeSource(declaration=load_declaration(folder), folder=folder) for folder in folders]
bpf = Bpf(cache_dir=Path(sys.argv[1]), shift=2, log=print)
assert bpf.load(sources) == {{}}
for source in sources:
    assert all(status.hook for status in bpf.attach(source.declaration.name))
print("attached", flush=True)
signal.pause()
"""
COMPILER_LIBRARIES = re.compile(r"/lib(LLVM|bcc|clang)[^/]*$", re.MULTILINE)


class Holder:
    """A process that holds both watchers attached."""

    def __init__(self, cache: Path, python: str = sys.executable) -> None:
        require_kernel_memory()
        self.process = subprocess.Popen(
            [python, "-c", HOLDER, str(cache)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": python_path()},
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().strip()

    @property
    def maps(self) -> str:
        return Path(f"/proc/{self.process.pid}/maps").read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def python_path() -> str:
    """The system's interpreter has no msgspec: it borrows this one's packages."""
    packages = [path for path in sys.path if path.endswith("site-packages")]
    return os.pathsep.join([str(ROOT / "src"), *packages])


@pytest.mark.parametrize("python", [sys.executable, SYSTEM_PYTHON], ids=["venv", "system"])
def test_the_compiler_is_never_mapped_cold_or_warm(tmp_path: Path, python: str) -> None:
    for cache_state in ("cold", "warm"):
        holder = Holder(tmp_path / "cache", python)
        try:
            assert holder.said == "attached", cache_state
            assert "libbpf.so.1" in holder.maps
            assert not COMPILER_LIBRARIES.findall(holder.maps), cache_state
        finally:
            holder.kill()


def test_sigkill_leaves_no_program_link_or_map(tmp_path: Path) -> None:
    holder = Holder(tmp_path / "cache")
    try:
        held = bpf_objects.held(holder.process.pid)
        kinds = [kind for kind, _ in held]
        assert kinds.count("prog") == kinds.count("link") == 4
        assert bpf_objects.existing(held) == held
    finally:
        holder.kill()

    wait_for(lambda: not bpf_objects.existing(held), 3, "all objects are gone")


def test_close_leaves_no_descriptor(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with opened(tmp_path / "cache") as rig:
        rig.load(WATCH_SYSCTL, WATCH_NETNS_CALLS)

    assert sorted(os.listdir("/proc/self/fd")) == before


def test_no_mount_is_left(tmp_path: Path) -> None:
    """Tracepoint ids come from tracefs, which is not mounted everywhere."""
    before = Path("/proc/self/mountinfo").read_text()
    with opened(tmp_path / "cache") as rig:
        rig.load(WATCH_NETNS_CALLS)
        during = Path("/proc/self/mountinfo").read_text()

    assert during == before


def test_a_damaged_entry_is_rebuilt_and_works(tmp_path: Path) -> None:
    with opened(tmp_path / "cache") as rig:
        rig.load(WATCH_NETNS_CALLS)
    entry = tmp_path / "cache" / "watch_netns_calls.typed"
    entry.write_bytes(entry.read_bytes()[:-100])

    with opened(tmp_path / "cache") as rig:
        rig.load(WATCH_NETNS_CALLS)
        assert [line.partition(": ")[2] for line in rig.lines] == [
            "damaged, its checksum does not match; rebuilding it"
        ]
        assert rig.bpf.hooks("watch_netns_calls")[0].hook is not None
    with opened(tmp_path / "cache") as rig:
        assert rig.bpf.load([read_source(WATCH_NETNS_CALLS)]) == {}
        assert rig.lines == []
