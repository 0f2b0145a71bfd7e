# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from bpftune.ipc.control import HIGHEST_CHANGE, HIGHEST_HISTORY, ExplainRequest, HistoryRequest, requests
from bpftune.ipc.errors import ProtocolError


@pytest.mark.parametrize("change", [-1, HIGHEST_CHANGE + 1, 1 << 80])
def test_no_change_that_the_ledger_cannot_count_to(change: int) -> None:
    assert requests.decode(requests.encode(ExplainRequest(change=HIGHEST_CHANGE)))
    with pytest.raises(ProtocolError):
        requests.decode(requests.encode(ExplainRequest(change=change)))


@pytest.mark.parametrize("limit", [-1, HIGHEST_HISTORY + 1, 1 << 80])
def test_history_is_bounded(limit: int) -> None:
    assert requests.decode(requests.encode(HistoryRequest(limit=HIGHEST_HISTORY)))
    with pytest.raises(ProtocolError):
        requests.decode(requests.encode(HistoryRequest(limit=limit)))
