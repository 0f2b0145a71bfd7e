# SPDX-License-Identifier: GPL-2.0-or-later
"""One boot of a cached machine under QEMU, with one job to do in it.

campaign.py calls it. QEMU emulates (TCG) even where there is /dev/kvm: inside of another virtual
machine, as in most CI, KVM is there and yet fails halfway through a boot. The disk is thrown away with
the boot; the guest has no network. Job, output and exit code pass through a shared folder (9p), see
guest/bpftune-vm for the other side.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.vm.image import Image

ACCELERATOR = "tcg,thread=single"
"""Both processors of a machine take turns on one of ours. With a thread for each, QEMU 7.2 may translate an
instruction that the other one is just patching, and goes on with the breakpoint that was there for a moment:
the guest then stands still for ever, in syscall_trace_enter() for one. Two machines at once fill two of our
processors either way, and are quicker in this."""
CPU = "max,-erms,-fsrm"
"""Without string instructions that are said to be fast: the kernel would copy with `rep movsb`, which TCG
does byte by byte, at a quarter of the speed."""
BOOT_LIMIT_S = 180
"""Until the guest has taken its job; a boot takes 10 to 20 s on an idle host."""
KERNEL_OPTIONS = (
    *("console=ttyS0", "quiet", "loglevel=5", "panic=-1", "softlockup_panic=1", "audit=0"),
    *("no5lvl", "mitigations=off", "tsc=reliable", "net.ifnames=0", "systemd.show_status=0"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one machine is booted for. `name` is made of a-z, 0-9 and -."""

    name: str
    script: str
    """For bash, as root, in the folder that holds the project and its .venv"""
    kernel_options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    limit_s: float
    may_reboot: bool = False
    """A job that leaves the file `reboot` in its folder and reboots is run again."""
    memory_mib: int = 4096
    """Taken from the host as the guest uses it. With half of it the kernel's limit on UDP memory comes
    before the largest buffers that tests fill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """`exit_code` is None when the job did not come to its end; `why` says so."""

    exit_code: int | None
    why: str
    seconds: float


class Machine:
    """A running guest. `share` is a folder that several machines may have in common."""

    def __init__(self, image: Image, job: Job, share: Path) -> None:
        self.job = job
        self.folder = share / job.name
        self._seen_bytes = 0
        self._prepare()
        self._started_s = time.monotonic()
        with (self.folder / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command_line(image, share),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self.folder)},
                start_new_session=True,
            )

    def read_lines(self) -> list[str]:
        """Complete lines of output since the last call; what is left of them once it has ended."""
        with (self.folder / "output").open("rb") as output:
            output.seek(self._seen_bytes)
            new = output.read()
        if self._process.poll() is None:
            new = new[: new.rfind(b"\n") + 1]
        self._seen_bytes += len(new)
        return new.decode(errors="replace").splitlines()

    def poll(self) -> Ended | None:
        """How it ended, once it has; a machine past its limit is ended here."""
        seconds = time.monotonic() - self._started_s
        if self._process.poll() is not None:
            code = self._exit_code()
            return Ended(exit_code=code, why="" if code is not None else self._last_words(), seconds=seconds)
        for limit_s, what, is_over in (
            (BOOT_LIMIT_S, "boot", not (self.folder / "state").exists()),
            (self.job.limit_s, "run", True),
        ):
            if is_over and seconds > limit_s:
                self.stop()
                why = f"did not {what} within {limit_s:g} s\n{self._last_words()}"
                return Ended(exit_code=None, why=why, seconds=seconds)
        return None

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _prepare(self) -> None:
        self.folder.mkdir()
        (self.folder / "job").write_text(self.job.script)
        (self.folder / "output").touch()
        lines = (f"{name}={shlex.quote(value)}\n" for name, value in self.job.environment.items())
        (self.folder / "environment").write_text("".join(lines))

    def _command_line(self, image: Image, share: Path) -> list[str]:
        options = (*KERNEL_OPTIONS, f"bpftune_vm={self.job.name}", *self.job.kernel_options)
        return [
            *("qemu-system-x86_64", "-name", self.job.name, "-machine", "q35,usb=off,vmport=off"),
            *("-accel", ACCELERATOR, "-cpu", CPU, "-smp", "2"),
            *("-m", str(self.job.memory_mib), "-nodefaults", "-no-user-config"),
            *(() if self.job.may_reboot else ("-no-reboot",)),
            *("-display", "none", "-monitor", "none", "-nic", "none"),
            *("-serial", f"file:{self.folder / 'console'}"),
            *("-kernel", str(image.vmlinux), "-initrd", str(image.initrd), "-append", " ".join(options)),
            *("-drive", f"file={image.disk},format=raw,if=none,id=disk,snapshot=on,cache=unsafe"),
            *("-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci"),
            *("-fsdev", f"local,id=share,path={share},multidevs=remap,security_model=none"),
            *("-device", "virtio-9p-pci,fsdev=share,mount_tag=share"),
        ]

    def _exit_code(self) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            return int((self.folder / "exit-code").read_text())
        return None

    def _last_words(self) -> str:
        """The ends of the guest's console and of what QEMU itself said."""
        lines: list[str] = []
        for name in ("console", "qemu.log"):
            with contextlib.suppress(OSError):
                text = (self.folder / name).read_text(errors="replace")
                lines += [f"{name}: {line}" for line in text.splitlines()[-15:]]
        return "\n".join(lines) or "the machine said nothing"
