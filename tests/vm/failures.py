# SPDX-License-Identifier: GPL-2.0-or-later
"""pytest plugin: what failed is told at once, with everything that is known about it.

A machine that is ended at its time limit never gets to pytest's own summary. Loaded with
`-p tests.vm.failures`.
"""

from __future__ import annotations

import pytest


class Teller:
    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.write_line("")
            self._terminal.write_line(report.longreprtext)
            for title, text in report.sections:
                self._terminal.write_line(f"--- {title}\n{text}")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        config.pluginmanager.register(Teller(terminal))
