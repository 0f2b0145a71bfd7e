# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine lacks is a skip on a laptop and a failure in CI."""

from __future__ import annotations

import pytest

from tests import requirements


def test_what_is_met_goes_on() -> None:
    requirements.require(True, "never shown")


def test_lacking_is_a_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "STRICT", False)

    with pytest.raises(pytest.skip.Exception, match="needs a moon"):
        requirements.require(None, "needs a moon")


def test_lacking_is_a_failure_under_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "STRICT", True)

    with pytest.raises(pytest.fail.Exception, match="needs a moon"):
        requirements.require(None, "needs a moon")


def test_what_this_kernel_is_too_old_for_is_a_skip_in_ci_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "STRICT", True)
    monkeypatch.setattr(requirements, "kernel_version", lambda release: (6, 1))

    with pytest.raises(pytest.skip.Exception, match=r"needs a comet: in Linux 6\.18 and later"):
        requirements.require_since((6, 18), False, "needs a comet")
    with pytest.raises(pytest.fail.Exception, match="needs a comet"):
        requirements.require_since((6, 1), False, "needs a comet")


def test_a_refused_hook_is_a_failure_where_none_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "EVERY_RUNG", False)
    with pytest.raises(pytest.skip.Exception, match="no kprobes"):
        requirements.require_rung(False, "no kprobes")

    monkeypatch.setattr(requirements, "EVERY_RUNG", True)
    with pytest.raises(pytest.fail.Exception, match="no kprobes"):
        requirements.require_rung(False, "no kprobes")


@pytest.mark.parametrize(
    ("release", "version"), [("6.1.0-1-amd64", (6, 1)), ("6.12.9", (6, 12)), ("7.0-rc1", (7, 0))]
)
def test_versions_of_kernels(release: str, version: tuple[int, int]) -> None:
    assert requirements.kernel_version(release) == version
