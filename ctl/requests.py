# SPDX-License-Identifier: GPL-2.0-or-later
"""Which request each verb sends, and which reply answers it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bpftune.ctl.arguments import Arguments, Verb
from bpftune.ipc.control import (
    DisableRequest,
    DoneReply,
    EnableRequest,
    ExplainReply,
    ExplainRequest,
    ExportReply,
    ExportRequest,
    HistoryReply,
    HistoryRequest,
    Reply,
    Request,
    RestartRequest,
    RollbackReply,
    RollbackRequest,
    StatusReply,
    StatusRequest,
    SummaryReply,
    SummaryRequest,
    SupportReply,
    SupportRequest,
    TunablesReply,
    TunablesRequest,
    VerifyReply,
    VerifyRequest,
)


class Exchange(NamedTuple):
    build: Callable[[Arguments], Request]
    reply: type[Reply]


EXCHANGES: dict[Verb, Exchange] = {
    Verb.STATUS: Exchange(lambda given: StatusRequest(), StatusReply),
    Verb.TUNERS: Exchange(lambda given: StatusRequest(), StatusReply),
    Verb.TUNABLES: Exchange(lambda given: TunablesRequest(), TunablesReply),
    Verb.SUMMARY: Exchange(lambda given: SummaryRequest(), SummaryReply),
    Verb.EVENTS: Exchange(lambda given: HistoryRequest(limit=given.limit), HistoryReply),
    Verb.HISTORY: Exchange(lambda given: HistoryRequest(limit=given.limit), HistoryReply),
    Verb.EXPLAIN: Exchange(lambda given: ExplainRequest(change=given.change), ExplainReply),
    Verb.RESTART: Exchange(lambda given: RestartRequest(tuner=given.tuner), DoneReply),
    Verb.ENABLE: Exchange(lambda given: EnableRequest(tuner=given.tuner, netns=given.netns), DoneReply),
    Verb.DISABLE: Exchange(lambda given: DisableRequest(tuner=given.tuner, netns=given.netns), DoneReply),
    Verb.ROLLBACK: Exchange(
        lambda given: RollbackRequest(target=given.target, dry_run=given.dry_run), RollbackReply
    ),
    Verb.VERIFY: Exchange(lambda given: VerifyRequest(), VerifyReply),
    Verb.EXPORT: Exchange(lambda given: ExportRequest(), ExportReply),
    Verb.SUPPORT: Exchange(lambda given: SupportRequest(), SupportReply),
}
