# SPDX-License-Identifier: GPL-2.0-or-later
"""The bpftune-ctl command: ask the daemon, show the answer, end with the code that tells how it went.

0 done, 1 failed or bad news, 2 wrong use, 3 bpftune is not running, 4 not permitted, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence

import msgspec

from bpftune.ctl.arguments import Arguments, Verb, parse_arguments
from bpftune.ctl.client import ask
from bpftune.ctl.follow import follow_events
from bpftune.ctl.output import ReaderGone, make_encodable, stdout_fd, write_error, write_lines
from bpftune.ctl.render_changes import render_event
from bpftune.ctl.rendering import exit_code, render
from bpftune.ctl.requests import EXCHANGES
from bpftune.ctl.screen import detect_screen
from bpftune.ipc.control import Failure, Reply
from bpftune.ipc.errors import BpftuneError, NotRunning, ProtocolError

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    make_encodable()
    try:
        arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    except BpftuneError as error:
        write_error(str(error))
        return error.exit_code
    try:
        return _follow(arguments) if arguments.follow else _ask(arguments)
    except BpftuneError as error:
        return _fail(_as_failure(error, arguments.verb), arguments)
    except KeyboardInterrupt:
        return INTERRUPTED


def _ask(arguments: Arguments) -> int:
    exchange = EXCHANGES[arguments.verb]
    reply = ask(exchange.build(arguments), run_dir=arguments.run_dir, timeout_s=arguments.timeout_s)
    if isinstance(reply, Failure):
        return _fail(reply, arguments)
    if not isinstance(reply, exchange.reply):
        raise ProtocolError(f"cannot use the answer: {type(reply).__name__} to '{arguments.verb}'")
    with contextlib.suppress(ReaderGone):
        _show(reply, arguments)
    return exit_code(reply)


def _show(reply: Reply, arguments: Arguments) -> None:
    if arguments.json:
        write_lines([format_json(reply)])
    else:
        write_lines(render(reply, arguments, detect_screen(stdout_fd(), os.environ, time.time())))


def _follow(arguments: Arguments) -> int:
    """Ctrl-C, or a reader that had enough, is the way to end it: success."""
    try:
        for event in follow_events(arguments.run_dir):
            if arguments.json:
                write_lines([msgspec.json.encode(event).decode()])
            else:
                write_lines(render_event(event, detect_screen(stdout_fd(), os.environ, time.time())))
    except (KeyboardInterrupt, ReaderGone):
        pass
    return 0


def _fail(failure: Failure, arguments: Arguments) -> int:
    """The message on stderr; with --json the failure as an object on stdout too."""
    write_error(failure.message)
    if arguments.json:
        with contextlib.suppress(ReaderGone, BpftuneError):  # the message was already written
            write_lines([format_json(failure)])
    return exit_code(failure)


def _as_failure(error: BpftuneError, verb: Verb) -> Failure:
    message = str(error)
    if isinstance(error, NotRunning) and verb is Verb.SUPPORT:
        message += "; 'bpftune -S' tells without it"
    return Failure(kind=error.kind, message=message, value=error.value, exit_code=error.exit_code)


def format_json(reply: Reply) -> str:
    """One object, its keys in the order of the record, indented for people."""
    return msgspec.json.format(msgspec.json.encode(reply), indent=2).decode()


if __name__ == "__main__":
    sys.exit(main())
