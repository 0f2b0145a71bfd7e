# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftune.ipc.codec import MAX_MESSAGE_BYTES, to_supervisor, to_worker
from bpftune.ipc.control import RestartRequest, StatusReply, requests
from bpftune.ipc.errors import ProtocolError
from bpftune.ipc.messages import Answer, Deliver, Netns, Proposal, Stop


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


@given(st.binary(max_size=200))
def test_no_bytes_break_a_codec(data: bytes) -> None:
    for codec in (to_worker, to_supervisor, requests):
        try:
            codec.decode(data)
        except ProtocolError as error:
            assert "cannot decode" in str(error)  # noqa: PT017 - most inputs raise, a few may be valid


def test_reply_tags_are_the_verbs() -> None:
    assert StatusReply.__struct_config__.tag == "status"
