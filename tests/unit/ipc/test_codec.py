# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bpftune.ipc.codec import MAX_MESSAGE_BYTES, to_supervisor, to_worker
from bpftune.ipc.control import RestartRequest, StatusReply, requests
from bpftune.ipc.errors import ProtocolError
from bpftune.ipc.messages import MOST, Answer, Deliver, Netns, Note, Proposal, Stop


def test_messages_survive_the_way() -> None:
    deliver = Deliver(seq=3, record=b"\0\1", netns=Netns(cookie=1, inum=2, name="x", initial=True))
    assert to_worker.decode(to_worker.encode(deliver)) == deliver
    mask = Proposal(
        tunable="a.b",
        netns_cookie=0,
        expected=(1,),
        new=(2**300,),
        scenario="s",
        reason="r",
        evidence={"x": 0.5},
    )
    answer = Answer(seq=3, proposals=[mask])
    assert to_supervisor.decode(to_supervisor.encode(answer)) == answer


NOTE = Note(tunable="a.b", netns_cookie=0, scenario="s", text="x" * 400)
PROPOSAL = Proposal(
    tunable="a.b",
    netns_cookie=0,
    expected=(1,),
    new=(2,),
    scenario="s",
    reason="r",
    evidence={f"e{n}": n for n in range(MOST)},
)


def test_an_answer_as_large_as_it_may_be() -> None:
    answer = Answer(seq=1, proposals=[PROPOSAL] * MOST, notes=[NOTE] * MOST)
    assert to_supervisor.decode(to_supervisor.encode(answer)) == answer


@pytest.mark.parametrize(
    "answer",
    [
        Answer(seq=1, proposals=[PROPOSAL] * (MOST + 1)),
        Answer(seq=1, notes=[NOTE] * (MOST + 1)),
        Answer(seq=1, notes=[replace(NOTE, text="x" * 401)]),
        Answer(seq=1, proposals=[replace(PROPOSAL, reason="x" * 401)]),
        Answer(seq=1, proposals=[replace(PROPOSAL, evidence={**PROPOSAL.evidence, "more": 1})]),
        Answer(seq=1, proposals=[replace(PROPOSAL, evidence={"x" * 129: 1})]),
        Answer(seq=1, proposals=[replace(PROPOSAL, new=(1,) * 9)]),
    ],
)
def test_a_larger_answer_is_refused(answer: Answer) -> None:
    with pytest.raises(ProtocolError):
        to_supervisor.decode(to_supervisor.encode(answer))


def test_a_kind_of_the_other_direction_is_refused() -> None:
    with pytest.raises(ProtocolError):
        to_supervisor.decode(to_worker.encode(Stop()))


def test_an_oversized_message_is_refused_unread() -> None:
    with pytest.raises(ProtocolError, match="bytes"):
        to_worker.decode(b"\0" * (MAX_MESSAGE_BYTES + 1))


def test_an_unknown_verb_is_refused() -> None:
    with pytest.raises(ProtocolError):
        requests.decode(b'{"type": "selfdestruct"}')
    assert requests.decode(requests.encode(RestartRequest(tuner="x"))) == RestartRequest(tuner="x")


def test_text_that_is_no_utf_8_is_refused() -> None:
    for codec, message in (
        (requests, RestartRequest(tuner="x")),
        (to_supervisor, Answer(seq=1, notes=[replace(NOTE, text="x")])),
    ):
        data = codec.encode(message)
        with pytest.raises(ProtocolError, match=r"cannot decode message: .*utf-8"):
            codec.decode(data.replace(b'"x"', b'"\xff"'))


@given(st.binary(max_size=200))
def test_no_bytes_break_a_codec(data: bytes) -> None:
    for codec in (to_worker, to_supervisor, requests):
        try:
            codec.decode(data)
        except ProtocolError as error:
            assert "cannot decode" in str(error)  # noqa: PT017 - most inputs raise, a few may be valid


def test_reply_tags_are_the_verbs() -> None:
    assert StatusReply.__struct_config__.tag == "status"
