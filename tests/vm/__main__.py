# SPDX-License-Identifier: GPL-2.0-or-later
"""`make test-vm`: the kernel tests and the service tests on a distribution's kernel, and their report.

    python -m tests.vm [--suite bookworm|trixie] [--lockdown confidentiality] [-- PYTEST ARGUMENTS]
    python -m tests.vm --run 'uname -a; bpftune -S'

Exit code 0 when nothing failed. The machines' results stay in build/vm.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.vm import jobs
from tests.vm.campaign import ROOT, build_packages, pack_project, run_jobs
from tests.vm.image import ready_image
from tests.vm.report import tally


def main() -> int:
    options = _parse()
    # As on Ctrl-C, so that no machine stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    since = time.monotonic()
    try:
        image = ready_image(options.suite)
    except subprocess.CalledProcessError:
        return 1
    share = _fresh(
        ROOT
        / "build/vm"
        / "-".join(filter(None, (options.suite, options.lockdown, options.only, "run" * bool(options.run))))
    )
    pack_project(share)
    if options.run:
        (tried,) = run_jobs(image, [jobs.by_hand(options.run, lockdown=options.lockdown)], share, _say)
        return 1 if tried.ended.exit_code is None else tried.ended.exit_code
    wanted = jobs.all_jobs(
        lockdown=options.lockdown, only=options.only, every=options.every, arguments=options.pytest
    )
    if any(job.name == jobs.PACKAGE for job in wanted):
        build_packages(share)
    done = run_jobs(image, wanted, share, _say)
    title = f"Debian {options.suite}, Linux {image.kernel}" + (
        f", lockdown={options.lockdown}" * bool(options.lockdown)
    )
    print(f"\n{title}")
    tallies = [
        tally(kind, [one for one in done if jobs.kind_of(one.job) == kind])
        for kind in dict.fromkeys(jobs.kind_of(one.job) for one in done)
    ]
    for one in tallies:
        print("\n".join(one.lines()))
    if not options.every and any(jobs.kind_of(job) == "kernel tests" for job in wanted):
        print(
            f"  left out, the same on every kernel: {' '.join(jobs.SAME_ON_EVERY_KERNEL)} (EVERY=1: run them)"
        )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (
        f"{time.monotonic() - since:.0f} s in all, {used.ru_utime + used.ru_stime:.0f} s of processor time"
    )
    print(f"  {spent}; journals and reports are in {share}")
    return 1 if any(one.failed for one in tallies) else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description="Test under QEMU.")
    parser.add_argument("--suite", default="bookworm", help="Debian release [bookworm]")
    parser.add_argument("--lockdown", default="", choices=("", "integrity", "confidentiality"))
    parser.add_argument(
        "--only", default="", metavar="NAME", help="of the machines: kernel, service, package, boot, foreign"
    )
    parser.add_argument("--every", action="store_true", help="also what is the same on every kernel")
    parser.add_argument("--run", default="", metavar="SCRIPT", help="boot one machine for this and no tests")
    parser.add_argument("pytest", nargs="*", help="passed to pytest")
    return parser.parse_args()


def _fresh(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def _say(line: str) -> None:
    print(f"test-vm: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
