# SPDX-License-Identifier: GPL-2.0-or-later
"""bpf/kernelfs.py on recorded files."""

from __future__ import annotations

from pathlib import Path

from bpftune.bpf.kernelfs import find_cgroup_root, parse_mounts, read_pmu_type, read_retprobe_bit

HYBRID = """\
23 27 0:22 / /sys rw,relatime - sysfs sysfs rw
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 master:1 - cgroup2 cgroup2 rw
42 31 0:38 /system.slice /mnt/part rw,relatime - cgroup2 cgroup2 rw
43 31 0:40 / /mnt/with\\040blank rw,relatime - tracefs tracefs rw
"""


def test_the_cgroup_root_is_found_where_it_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(HYBRID)

    assert find_cgroup_root(tmp_path / "mountinfo") == Path("/sys/fs/cgroup/unified")


def test_a_mount_of_a_part_is_no_root() -> None:
    assert parse_mounts(HYBRID, "cgroup2") == [Path("/sys/fs/cgroup/unified")]


def test_escaped_paths_are_unescaped() -> None:
    assert parse_mounts(HYBRID, "tracefs") == [Path("/mnt/with blank")]


def test_without_cgroup2_there_is_no_root(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(HYBRID.splitlines()[0])

    assert find_cgroup_root(tmp_path / "mountinfo") is None


def test_a_pmu_is_there_or_not(tmp_path: Path) -> None:
    (tmp_path / "kprobe" / "format").mkdir(parents=True)
    (tmp_path / "kprobe" / "type").write_text("8\n")
    (tmp_path / "kprobe" / "format" / "retprobe").write_text("config:0\n")

    assert read_pmu_type("kprobe", tmp_path) == 8
    assert read_retprobe_bit(tmp_path) == 0
    assert read_pmu_type("uprobe", tmp_path) is None
