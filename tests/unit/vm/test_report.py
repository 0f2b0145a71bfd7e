# SPDX-License-Identifier: GPL-2.0-or-later
"""What the report of `make test-vm` says, and that nothing that went wrong is missing from it."""

from __future__ import annotations

from pathlib import Path

from tests.vm.campaign import Done
from tests.vm.machine import Ended, Job
from tests.vm.report import Tally, tally

PASSED = '<testcase classname="tests.kernel.test_a" name="test_one"/>'
FAILED = (
    '<testcase classname="tests.kernel.test_a" name="test_two">'
    '<failure message="assert 1 == 2&#10;more"/></testcase>'
)
SKIPPED = '<testcase classname="a" name="b"><skipped message="no netem in this kernel"/></testcase>'
LEFT_BEHIND = '<testcase classname="a" name="c"><error message="processes left behind"/></testcase>'


def done(
    folder: Path, name: str, cases: str | None, *, exit_code: int | None = 0, collected: int | None = None
) -> Done:
    (folder / name).mkdir()
    if cases is not None:
        (folder / name / "report.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    if collected is not None:
        (folder / name / "collected").write_text(str(collected))
    ended = Ended(exit_code=exit_code, why="" if exit_code is not None else "did not boot", seconds=61.4)
    return Done(job=Job(name=name, script="", limit_s=1), ended=ended, folder=folder / name)


def lines(*those: Done) -> list[str]:
    return tally("kernel tests", those).lines()


def test_two_machines_are_counted_together(tmp_path: Path) -> None:
    said = lines(
        done(tmp_path, "a", PASSED + SKIPPED, collected=4),
        done(tmp_path, "b", PASSED + SKIPPED, collected=4),
    )

    assert said == [
        "  kernel tests     2 passed, 0 failed, 2 skipped in 61 s",
        "    skipped 2: no netem in this kernel",
    ]


def test_failures_and_errors_are_named_with_their_first_line(tmp_path: Path) -> None:
    said = lines(done(tmp_path, "a", FAILED + LEFT_BEHIND, exit_code=1))

    assert said[1:] == [
        "    failed: tests.kernel.test_a::test_two: assert 1 == 2",
        "    failed: a::c: processes left behind",
    ]


def test_a_machine_without_a_report_is_a_failure(tmp_path: Path) -> None:
    assert tally("t", [done(tmp_path, "a", None, exit_code=None)]).failed == ["machine a: did not boot"]
    assert tally("t", [done(tmp_path, "b", None, exit_code=3)]).failed == [
        "machine b: no report, exit code 3"
    ]


def test_an_exit_code_that_no_test_explains_is_a_failure(tmp_path: Path) -> None:
    assert tally("t", [done(tmp_path, "a", PASSED, exit_code=4)]).failed == ["machine a: exit code 4"]


def test_tests_that_no_machine_ran_are_a_failure(tmp_path: Path) -> None:
    both = [done(tmp_path, "a", PASSED, collected=3), done(tmp_path, "b", PASSED, collected=3)]

    assert tally("t", both).failed == ["only 2 of 3 tests were run"]


def test_a_machine_for_which_no_test_was_left_is_none(tmp_path: Path) -> None:
    """The other one was quicker: pytest ends with 5 when it ran nothing."""
    both = [
        done(tmp_path, "a", PASSED, collected=1),
        done(tmp_path, "b", "", exit_code=5, collected=1),
    ]

    assert tally("t", both).failed == []


def test_nothing_at_all_is_no_success() -> None:
    assert Tally(title="t").lines() == ["  t                0 passed, 0 failed, 0 skipped in 0 s"]
    assert tally("t", []).failed == ["no test was run"]
