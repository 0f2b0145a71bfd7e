# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes <-> typed messages. Raw dicts stop here.

Encoding is JSON with a type tag: MessagePack ends at 64 bits, and the CPU mask of a large machine does
not. Anything that is not a known message of a sane size is a ProtocolError, never a guess.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from bpftune.ipc.errors import ProtocolError
from bpftune.ipc.messages import ToSupervisor, ToWorker

MAX_MESSAGE_BYTES = 4 << 20

T = TypeVar("T")


class Codec(Generic[T]):
    """Encodes any message, decodes only the kinds in `union`."""

    def __init__(self, union: type[T] | object, *, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._encoder = msgspec.json.Encoder()
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(union)
        self._max_bytes = max_bytes

    def encode(self, message: msgspec.Struct) -> bytes:
        return self._encoder.encode(message)

    def decode(self, data: bytes) -> T:
        """Raises ProtocolError for oversized, malformed or unknown messages."""
        if len(data) > self._max_bytes:
            raise ProtocolError(
                f"cannot decode message: {len(data)} bytes, at most {self._max_bytes} are accepted"
            )
        try:
            return self._decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"cannot decode message: {error}") from error


to_worker: Codec[ToWorker] = Codec(ToWorker)
to_supervisor: Codec[ToSupervisor] = Codec(ToSupervisor)
