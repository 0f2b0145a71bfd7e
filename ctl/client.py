# SPDX-License-Identifier: GPL-2.0-or-later
"""One request, one reply, over the daemon's control socket."""

from __future__ import annotations

from pathlib import Path

import zmq

from bpftune.ctl.reachability import check_daemon
from bpftune.ipc.control import CONTROL_SOCKET, Reply, Request, replies, requests
from bpftune.ipc.errors import BpftuneError


class NoAnswer(BpftuneError):
    """The daemon is there but silent. What a changing verb did is not known then."""


def ask(request: Request, *, run_dir: Path, timeout_s: float) -> Reply:
    """Send `request`, return what was answered, a Failure included.

    Raises NotRunning, NotPermitted, NoAnswer, or ProtocolError for an answer that cannot be read.
    """
    path = run_dir / CONTROL_SOCKET
    check_daemon(path)
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(f"ipc://{path}")
        dealer.send(requests.encode(request))
        if not dealer.poll(int(timeout_s * 1000)):
            check_daemon(path)
            raise NoAnswer(f"no answer from bpftune within {timeout_s:g} s; --timeout waits longer")
        return replies.decode(b"".join(dealer.recv_multipart()))
