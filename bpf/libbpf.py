# SPDX-License-Identifier: GPL-2.0-or-later
"""libbpf.so.1 through ctypes: the few calls that create, load, attach and read.

Loader, hooks and ring call this. Every function takes and returns plain numbers and bytes, and
raises OSError with the kernel's errno. It does not know tuners, caches or ladders.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
from functools import cache

LOG_BYTES = 1 << 20
MAX_NAME_BYTES = 15
_LICENSE = b"GPL"

SampleCallback = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.c_void_p, ct.c_size_t)


class VerifierError(OSError):
    """The kernel did not take a program; `log` is the verifier's, empty when it did not come to it."""

    def __init__(self, code: int, log: str) -> None:
        super().__init__(code, os.strerror(code))
        self.log = log


class _MapOptions(ct.Structure):
    """struct bpf_map_create_opts."""

    _fields_ = (
        ("sz", ct.c_size_t),
        ("btf_fd", ct.c_uint32),
        ("btf_key_type_id", ct.c_uint32),
        ("btf_value_type_id", ct.c_uint32),
        ("btf_vmlinux_value_type_id", ct.c_uint32),
        ("inner_map_fd", ct.c_uint32),
        ("map_flags", ct.c_uint32),
        ("map_extra", ct.c_uint64),
        ("numa_node", ct.c_uint32),
        ("map_ifindex", ct.c_uint32),
    )


class _ProgramOptions(ct.Structure):
    """struct bpf_prog_load_opts."""

    _fields_ = (
        ("sz", ct.c_size_t),
        ("attempts", ct.c_int),
        ("expected_attach_type", ct.c_int),
        ("prog_btf_fd", ct.c_uint32),
        ("prog_flags", ct.c_uint32),
        ("prog_ifindex", ct.c_uint32),
        ("kern_version", ct.c_uint32),
        ("attach_btf_id", ct.c_uint32),
        ("attach_prog_fd", ct.c_uint32),
        ("attach_btf_obj_fd", ct.c_uint32),
        ("fd_array", ct.c_void_p),
        ("func_info", ct.c_void_p),
        ("func_info_cnt", ct.c_uint32),
        ("func_info_rec_size", ct.c_uint32),
        ("line_info", ct.c_void_p),
        ("line_info_cnt", ct.c_uint32),
        ("line_info_rec_size", ct.c_uint32),
        ("log_level", ct.c_uint32),
        ("log_size", ct.c_uint32),
        ("log_buf", ct.c_void_p),
    )


@cache
def library() -> ct.CDLL:
    """Loaded once, silenced: what it would print reaches the log through errors instead."""
    lib = ct.CDLL("libbpf.so.1", use_errno=True)
    lib.libbpf_set_print.argtypes = [ct.c_void_p]
    lib.libbpf_set_print.restype = ct.c_void_p
    lib.libbpf_set_print(None)
    u32, pointer, text = ct.c_uint32, ct.c_void_p, ct.c_char_p
    signatures: dict[str, list[type]] = {
        "bpf_map_create": [ct.c_int, text, u32, u32, u32, pointer],
        "bpf_map_lookup_elem": [ct.c_int, pointer, pointer],
        "bpf_map_update_elem": [ct.c_int, pointer, pointer, ct.c_uint64],
        "bpf_map_delete_elem": [ct.c_int, pointer],
        "bpf_map_get_next_key": [ct.c_int, pointer, pointer],
        "bpf_prog_load": [ct.c_int, text, text, text, ct.c_size_t, pointer],
        "bpf_raw_tracepoint_open": [text, ct.c_int],
        "bpf_link_create": [ct.c_int, ct.c_int, ct.c_int, pointer],
        "bpf_iter_create": [ct.c_int],
        "btf__add_int": [pointer, text, ct.c_size_t, ct.c_int],
        "btf__add_array": [pointer, ct.c_int, ct.c_int, u32],
        "btf__add_struct": [pointer, text, u32],
        "btf__add_field": [pointer, text, ct.c_int, u32, u32],
        "btf__load_into_kernel": [pointer],
        "btf__fd": [pointer],
        "btf__free": [pointer],
        "ring_buffer__consume": [pointer],
        "ring_buffer__epoll_fd": [pointer],
        "ring_buffer__free": [pointer],
    }
    for name, argument_types in signatures.items():
        getattr(lib, name).argtypes = argument_types
    lib.btf__new_empty.restype = pointer
    lib.btf__free.restype = None
    lib.ring_buffer__new.argtypes = [ct.c_int, SampleCallback, pointer, pointer]
    lib.ring_buffer__new.restype = pointer
    lib.ring_buffer__free.restype = None
    return lib


def possible_cpus() -> int:
    """How many values a per-CPU map has per key."""
    return _checked(library().libbpf_num_possible_cpus())


def create_map(
    *,
    name: str,
    type_number: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int,
    btf_fd: int = 0,
    key_type_id: int = 0,
    value_type_id: int = 0,
) -> int:
    options = _MapOptions(
        sz=ct.sizeof(_MapOptions),
        map_flags=flags,
        btf_fd=btf_fd,
        btf_key_type_id=key_type_id,
        btf_value_type_id=value_type_id,
    )
    return _checked(
        library().bpf_map_create(
            type_number, _object_name(name), key_size, value_size, max_entries, ct.byref(options)
        )
    )


def lookup(map_fd: int, key: bytes, value_size: int) -> bytes | None:
    value = ct.create_string_buffer(value_size)
    result = library().bpf_map_lookup_elem(map_fd, key, value)
    if result < 0 and _errno(result) == errno.ENOENT:
        return None
    _checked(result)
    return value.raw


def update(map_fd: int, key: bytes, value: bytes) -> None:
    _checked(library().bpf_map_update_elem(map_fd, key, value, 0))


def delete(map_fd: int, key: bytes) -> None:
    """Deleting what is not there is fine."""
    result = library().bpf_map_delete_elem(map_fd, key)
    if result < 0 and _errno(result) != errno.ENOENT:
        _checked(result)


def keys(map_fd: int, key_size: int, *, most: int) -> list[bytes]:
    """The keys of a hash map, `most` at most. One that is deleted meanwhile sends the kernel back to
    the first, so some may come twice."""
    found: list[bytes] = []
    key = None
    following = ct.create_string_buffer(key_size)
    while len(found) < most and library().bpf_map_get_next_key(map_fd, key, following) == 0:
        key = following.raw
        found.append(key)
    return found


def load_program(*, name: str, program_type: int, attach_type: int, code: bytes, attach_btf_id: int) -> int:
    """Raises VerifierError. The log is asked for only after a refusal: making it is slow."""
    options = _ProgramOptions(
        sz=ct.sizeof(_ProgramOptions),
        attempts=5,
        expected_attach_type=attach_type,
        attach_btf_id=attach_btf_id,
    )
    descriptor = _load(name, program_type, code, options)
    if descriptor >= 0:
        return descriptor
    code_number = _errno(descriptor)
    log = ct.create_string_buffer(LOG_BYTES)
    options.log_level, options.log_size = 1, LOG_BYTES
    options.log_buf = ct.addressof(log)
    descriptor = _load(name, program_type, code, options)
    if descriptor >= 0:
        return descriptor
    raise VerifierError(code_number, log.value.decode(errors="replace"))


def open_raw_tracepoint(program_fd: int, name: str | None) -> int:
    """A link; `name` None: the tracepoint that the program was loaded for."""
    return _checked(
        library().bpf_raw_tracepoint_open(name.encode() if name is not None else None, program_fd)
    )


def create_link(program_fd: int, target_fd: int, attach_type: int) -> int:
    return _checked(library().bpf_link_create(program_fd, target_fd, attach_type, None))


def create_iterator(link_fd: int) -> int:
    return _checked(library().bpf_iter_create(link_fd))


def load_value_btf(value_size: int) -> tuple[int, int, int]:
    """A BTF object for socket storage, which the kernel wants described: its descriptor, and the
    type ids of an int key and of a struct of `value_size` bytes."""
    lib = library()
    handle = lib.btf__new_empty()
    if not handle:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    try:
        signed = 1
        key = _checked(lib.btf__add_int(handle, b"int", 4, signed))
        byte = _checked(lib.btf__add_int(handle, b"u8", 1, 0))
        array = _checked(lib.btf__add_array(handle, key, byte, value_size))
        value = _checked(lib.btf__add_struct(handle, b"value", value_size))
        _checked(lib.btf__add_field(handle, b"bytes", array, 0, 0))
        _checked(lib.btf__load_into_kernel(handle))
        return os.dup(lib.btf__fd(handle)), key, value
    finally:
        lib.btf__free(handle)


def _load(name: str, program_type: int, code: bytes, options: _ProgramOptions) -> int:
    descriptor: int = library().bpf_prog_load(
        program_type, _object_name(name), _LICENSE, code, len(code) // 8, ct.byref(options)
    )
    return descriptor


def _object_name(name: str) -> bytes:
    return name.encode()[:MAX_NAME_BYTES]


def _checked(result: int) -> int:
    if result < 0:
        code = _errno(result)
        raise OSError(code, os.strerror(code))
    return result


def _errno(result: int) -> int:
    """libbpf 1.x returns -errno and sets errno; some calls only the former."""
    return -result if result < -1 else ct.get_errno() or -result
