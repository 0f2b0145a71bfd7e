# SPDX-License-Identifier: GPL-2.0-or-later
"""What the machines' test runs came to: counts, reasons of skips, first lines of failures.

__main__.py calls it with the folders that the machines left. A run that wrote no report, or whose
machines together ran fewer tests than they collected, is a failure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from tests.vm.campaign import Done

XML = "report.xml"
NOTHING_RUN = 5
"""pytest's exit code; the other machine may have been quicker."""


@dataclass(kw_only=True)
class Tally:
    """The results of one kind of tests, over all machines that ran it."""

    title: str
    passed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    seconds: float = 0

    def add_report(self, xml: str) -> int:
        """How many tests were in it."""
        cases = list(ElementTree.fromstring(xml).iter("testcase"))
        for case in cases:
            self._add_case(case)
        return len(cases)

    def lines(self) -> list[str]:
        counts = f"{self.passed} passed, {len(self.failed)} failed, {self.skipped.total()} skipped"
        reasons = [f"    skipped {count}: {reason}" for reason, count in sorted(self.skipped.items())]
        failures = [f"    failed: {failure}" for failure in self.failed]
        return [f"  {self.title:<16} {counts} in {self.seconds:.0f} s", *reasons, *failures]

    def _add_case(self, case: ElementTree.Element) -> None:
        name = f"{case.get('classname', '')}::{case.get('name', '')}".lstrip(":")
        problems = [*case.iter("failure"), *case.iter("error")]
        if problems:
            self.failed.append(f"{name}: {_first_line(problems[0].get('message', ''))}")
        elif (skip := case.find("skipped")) is not None:
            self.skipped[_first_line(skip.get("message", ""))] += 1
        else:
            self.passed += 1


def tally(title: str, done: Sequence[Done]) -> Tally:
    """The results of machines that shared one run of pytest, or had one each."""
    found = Tally(title=title, seconds=max((one.ended.seconds for one in done), default=0))
    ran, collected = 0, 0
    for one in done:
        ran += _add(found, one)
        collected = max(collected, _collected(one.folder))
    if ran < collected and not found.failed:
        found.failed.append(f"only {ran} of {collected} tests were run")
    if not ran and not found.failed:
        found.failed.append("no test was run")
    return found


def _add(found: Tally, one: Done) -> int:
    xml = one.folder / XML
    if not xml.exists():
        words = one.ended.why or f"no report, exit code {one.ended.exit_code}"
        found.failed.append(f"machine {one.job.name}: {words}")
        return 0
    before = len(found.failed)
    ran = found.add_report(xml.read_text())
    if one.ended.exit_code not in (0, NOTHING_RUN) and len(found.failed) == before:
        found.failed.append(f"machine {one.job.name}: exit code {one.ended.exit_code}")
    return ran


def _collected(folder: Path) -> int:
    path = folder / "collected"
    return int(path.read_text()) if path.exists() else 0


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
