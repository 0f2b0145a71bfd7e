# SPDX-License-Identifier: GPL-2.0-or-later
"""The check for processes left behind sees orphans, and ends them."""

from __future__ import annotations

import subprocess

from tests import leftovers
from tests.waiting import wait_for


def test_an_orphan_is_found_and_ended() -> None:
    before = leftovers.descendants()
    done = subprocess.run(
        ["sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True
    )
    orphan = int(done.stdout)

    wait_for(lambda: orphan in leftovers.descendants(), 5, "the orphan is seen")
    leftovers.kill({orphan})

    assert not leftovers.settle(lambda: leftovers.descendants() - before)


def test_a_child_without_the_mark_is_another_run_s() -> None:
    with subprocess.Popen(["sleep", "60"], env={}) as child:
        try:
            assert child.pid not in leftovers.descendants()
        finally:
            child.kill()
