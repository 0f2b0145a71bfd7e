# SPDX-License-Identifier: GPL-2.0-or-later
"""A policy's state records by netns cookie, and what of them the supervisor has not seen yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from bpftune.ipc.messages import SavedState


class StateRecords:
    def __init__(self, state_type: type[msgspec.Struct], log: Callable[[str], None]) -> None:
        self._type = state_type
        self._log = log
        self._encoder = msgspec.msgpack.Encoder()
        self._states: dict[int, Any] = {}
        self._saved: dict[int, bytes] = {}

    @property
    def by_cookie(self) -> Mapping[int, Any]:
        return self._states

    def restore(self, saved: SavedState) -> None:
        """Take over what an earlier worker learned, if it fits the present record."""
        try:
            state = msgspec.msgpack.decode(saved.record, type=self._type)
        except (msgspec.DecodeError, RecursionError) as error:
            self._log(f"state of namespace {saved.netns_cookie} is dropped, it does not decode: {error}")
            return
        self._states[saved.netns_cookie] = state
        self._saved[saved.netns_cookie] = saved.record

    def get(self, cookie: int) -> Any:
        """The namespace's record, a new one the first time."""
        if cookie not in self._states:
            self._states[cookie] = self._type()
        return self._states[cookie]

    def take_changes(self, cookie: int) -> list[SavedState]:
        """The record, if its bytes differ from those last handed out."""
        record = self._encoder.encode(self._states[cookie])
        if self._saved.get(cookie) == record:
            return []
        self._saved[cookie] = record
        return [SavedState(netns_cookie=cookie, record=record)]

    def forget(self, cookie: int) -> None:
        self._states.pop(cookie, None)
        self._saved.pop(cookie, None)
