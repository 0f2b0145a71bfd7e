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
