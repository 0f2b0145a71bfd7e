# SPDX-License-Identifier: GPL-2.0-or-later
"""The `bpftune` command: parses its line, checks what must be there, runs the daemon or -S."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bpftune.bpf.runtime import Bpf, ProbeSource
from bpftune.ipc.control import HookStatus
from bpftune.ipc.declaration import Declaration
from bpftune.ipc.errors import BpftuneError, NotSupported
from bpftune.supervisor.applicability import inactive_reason, unused_hooks
from bpftune.supervisor.arrivals import require_accepted
from bpftune.supervisor.background import Background
from bpftune.supervisor.directories import make_directory
from bpftune.supervisor.folders import LOCAL_DIR, SHIPPED_DIR, TunerFolders
from bpftune.supervisor.options import Options, check_paths, parse_options
from bpftune.supervisor.privileges import check_privileges
from bpftune.supervisor.supervisor import CACHE_DIR, Supervisor
from bpftune.supervisor.support import NETNS_LINE, Support, format_hook_table, judge_support
from bpftune.supervisor.watchers import Watchers

KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")


def run(argv: Sequence[str]) -> int:
    """Returns the exit code; every error of ours is one line on stderr."""
    try:
        options = parse_options(argv)
        check_paths(options)
        if options.support:
            return print_support(options)
        check_machine()
        return serve(options)
    except BpftuneError as error:
        warn(str(error))
        return error.exit_code


def serve(options: Options) -> int:
    background = Background() if options.daemon else None
    supervisor = Supervisor(options)
    try:
        supervisor.start()
        if background is not None:
            background.ready()
        return supervisor.run()
    finally:
        supervisor.close()


def check_machine(kernel_btf: Path = KERNEL_BTF) -> None:
    """What nothing works without. Raises NotPermitted or NotSupported."""
    check_privileges()
    if not kernel_btf.exists():
        raise NotSupported(f"this kernel has no BTF: {kernel_btf} is missing (CONFIG_DEBUG_INFO_BTF)")


def print_support(options: Options) -> int:
    """`bpftune -S`: attach every probe for a moment and tell what became of it."""
    try:
        check_machine()
        hooks = attach_once(options)
    except NotSupported:
        print(Support.NONE)
        raise
    support = judge_support(hooks)
    print("\n".join([support, NETNS_LINE, "", *format_hook_table(hooks)]))
    return NotSupported.exit_code if support is Support.NONE else 0


def attach_once(options: Options) -> dict[str, list[HookStatus]]:
    make_directory(options.state_dir, mode=0o700)
    scan = TunerFolders(SHIPPED_DIR, (LOCAL_DIR, *options.libdirs)).scan()
    for why in scan.refused.values():
        warn(why)
    require_accepted(options.allow, scan)
    sources = [
        ProbeSource(declaration=folder.declaration, folder=folder.path)
        for name, folder in scan.accepted.items()
        if not options.allow or name in options.allow
    ]
    bpf = Bpf(
        cache_dir=options.state_dir / CACHE_DIR,
        shift=options.shift,
        log=warn,
        legacy=options.legacy,
        dry_run=True,  # a survey acts on nobody's connections
        cgroup=options.cgroup,
    )
    try:
        failures = Watchers(bpf, warn, legacy=options.legacy).load_with(sources)
        for name, error in failures.items():
            warn(f"tuner '{name}' is left out: {error}")
        loaded = [source.declaration for source in sources if source.declaration.name not in failures]
        return {declaration.name: _attach(bpf, declaration) for declaration in loaded}
    finally:
        bpf.close()


def warn(text: str) -> None:
    print(f"bpftune: {text}", file=sys.stderr)


def _attach(bpf: Bpf, declaration: Declaration) -> list[HookStatus]:
    reason = inactive_reason(declaration)
    if reason is not None:
        return unused_hooks(bpf.hooks(declaration.name), reason)
    bpf.attach(declaration.name)
    return bpf.survey(declaration.name)
