# SPDX-License-Identifier: GPL-2.0-or-later
"""What the machines are booted for: the kernel tests, shared by two of them, and the service tests."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tests.vm.machine import Job

KERNEL_LIMIT_S = 2400
OTHER_LIMIT_S = 900
TIME_SCALE = "10"
TEST_LIMIT_S = "600"
"""Of one test; pyproject.toml's is for a machine ten times as fast."""

PREPARE = "modprobe --all tun tcp_bbr tcp_htcp tcp_dctcp\n"
"""Nothing asks for these by itself where no udev runs and any namespace may use what is there only."""

PROGRAMS = "/mnt/share/programs"
"""What one machine compiled, the others need not; see tests/kernel/conftest.py"""
TAKE_PROGRAMS = f"[ ! -d {PROGRAMS} ] || (mkdir -p /var/lib/bpftune && cp -a {PROGRAMS} /var/lib/bpftune/)\n"

SAME_ON_EVERY_KERNEL = (
    "test_building_blocks.py",
    "test_command_line.py",
    "test_control.py",
    "test_crashes.py",
    "test_damage.py",
    "test_folders.py",
    "test_idle.py",
    "test_kill_rounds.py",
    "test_lifecycle.py",
    "test_refusals.py",
    "test_rollback.py",
    "supervisor/test_rivals.py",
    "supervisor/test_strategies.py",
)
"""Of tests/kernel, left out here unless asked for: what they test is user space, or times that an emulated
processor does not have; `make test` runs them, and tests/vm/service starts, kills and stops the service."""

PACKAGE = "package"
"""The job that wants two Debian packages in the shared folder, the second newer than the first"""

FOREIGN = {
    "ipv6_disabled": ("ipv6.disable=1",),
    "hybrid_cgroups": (
        "systemd.unified_cgroup_hierarchy=0",
        "systemd.legacy_systemd_cgroup_controller=0",
        "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",  # Debian 13 would refuse
    ),
}
"""tests/vm/foreign/test_<name>.py -> the kernel's command line for it"""

_BOOT = f"""
if ! systemctl --quiet is-enabled bpftune; then
	{TAKE_PROGRAMS}	PIP_NO_INDEX=1 PIP_FIND_LINKS=/opt/wheels tools/install '' /usr/local || exit
	echo 'net.core.netdev_max_backlog = 1234' >/etc/sysctl.d/90-boot.conf
	systemctl enable bpftune || exit
	touch "$VM_RESULTS/reboot"
	systemctl reboot
	sleep infinity
fi
"""


def all_jobs(*, lockdown: str, only: str, every: bool, arguments: Sequence[str]) -> list[Job]:
    """The long ones first. `only` is the beginning of a name; `every` module of the kernel tests."""
    left_out = () if every else SAME_ON_EVERY_KERNEL
    jobs = kernel_jobs(lockdown, [*(f"--ignore=tests/kernel/{module}" for module in left_out), *arguments])
    jobs.append(_job("service", lockdown, TAKE_PROGRAMS + _pytest("tests/vm/service", *arguments)))
    jobs.append(_job(PACKAGE, lockdown, _pytest("tests/vm/package", *arguments)))
    jobs.append(_job("boot", lockdown, _BOOT + _pytest("tests/vm/boot", *arguments), may_reboot=True))
    for name, options in FOREIGN.items():
        script = _pytest(f"tests/vm/foreign/test_{name}.py", *arguments)
        jobs.append(_job(f"foreign-{name.replace('_', '-')}", lockdown, script, options))
    return [job for job in jobs if job.name.startswith(only)]


def by_hand(script: str, *, lockdown: str) -> Job:
    """Whatever somebody wants to try."""
    return _job("by-hand", lockdown, f'PATH="$PWD/.venv/bin:$PATH"\n{script}\n')


def kind_of(job: Job) -> str:
    """What the report counts it under."""
    return f"{job.name.partition('-')[0]} tests"


def kernel_jobs(lockdown: str, arguments: Sequence[str]) -> list[Job]:
    """Two machines that share tests/kernel, module by module."""
    script = PREPARE + _pytest("-p", "tests.vm.claims", "tests/kernel", *arguments)
    environment = _environment(lockdown)
    return [
        Job(
            name=f"kernel-{order}",
            script=script,
            environment={**environment, "VM_ORDER": order},
            kernel_options=_lockdown(lockdown),
            limit_s=KERNEL_LIMIT_S,
        )
        for order in ("forward", "reversed")
    ]


def _job(
    name: str, lockdown: str, script: str, options: tuple[str, ...] = (), *, may_reboot: bool = False
) -> Job:
    return Job(
        name=name,
        script=PREPARE + script,
        environment=_environment(lockdown),
        kernel_options=(*_lockdown(lockdown), *options),
        limit_s=OTHER_LIMIT_S,
        may_reboot=may_reboot,
    )


def _pytest(*arguments: str) -> str:
    fixed = ("--verbose", "--color=no", "--no-summary", "-p", "tests.vm.failures", "-p", "no:cacheprovider")
    # xunit1: the other one has no place for what tests record.
    limit = ("-o", f"timeout={TEST_LIMIT_S}", "-o", "junit_family=xunit1")
    report = '--junitxml="$VM_RESULTS/report.xml"'
    words = shlex.join([*fixed, *limit, *arguments])
    journal = 'journalctl --boot --no-pager >"$VM_RESULTS/journal"'
    return f".venv/bin/python -m pytest {words} {report}\ncode=$?\n{journal}\nexit $code\n"


def _environment(lockdown: str) -> dict[str, str]:
    whole = "0" if lockdown else "1"
    return {
        "BPFTUNE_TESTS_TIME_SCALE": TIME_SCALE,
        "BPFTUNE_TESTS_STRICT": whole,
        "BPFTUNE_TESTS_EVERY_RUNG": whole,
        "BPFTUNE_TESTS_PROGRAMS": PROGRAMS,
    }


def _lockdown(lockdown: str) -> tuple[str, ...]:
    return (f"lockdown={lockdown}",) if lockdown else ()
