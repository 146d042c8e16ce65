"""Restrictions of a child: on memory, disks, rights to write, and further bytes on any disk."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.torture.sandbox import EXECUTED, fork

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_MOUNTS, _PRIVATE, _READ_ONLY_AGAIN = 0x00020000, 0x40000 | 0x4000, 0x20 | 0x1
_CAPABILITIES_3 = 0x20080522
_RUNNING = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pty.spawn")


@contextmanager
def limited_memory(size: int) -> Iterator[None]:
    """Let this process take only so many bytes more while the block runs."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)


class Watch:
    """Note on stderr if anything is executed or called; off until its context is entered."""

    def __init__(self) -> None:
        self._on = False
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: Any) -> None:
        if self._on and event in _RUNNING:
            os.write(2, f"\n{EXECUTED} {event}\n".encode())

    def __enter__(self) -> None:
        self._on = True

    def __exit__(self, *_: object) -> None:
        self._on = False


def own_disk(place: Path, size: int | None) -> None:
    """Give this process, and no other, a disk in memory at a folder: of so many bytes, or one to read only.

    Raises:
        OSError: the system does not allow it.
    """
    if _LIBC.unshare(_NEW_MOUNTS) or _LIBC.mount(b"none", b"/", None, _PRIVATE, None):
        raise OSError(ctypes.get_errno(), "no mounts of one's own")
    options = b"size=%d" % (size if size is not None else 1 << 20)
    if _LIBC.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, options):
        raise OSError(ctypes.get_errno(), "no disk in memory")
    if size is None and _LIBC.mount(None, os.fsencode(place), None, _READ_ONLY_AGAIN, None):
        raise OSError(ctypes.get_errno(), "no disk to read only")


def may_mount(folder: Path) -> bool:
    """Return whether this process may have disks of its own; asked in a child."""
    place = folder / "mount"
    place.mkdir(parents=True, exist_ok=True)
    child = fork(lambda: own_disk(place, 1 << 20), folder / "mount.txt").wait(10)
    return child.code == 0


def without_privileges() -> None:
    """Give up root's right to write where the permissions do not allow it.

    Raises:
        OSError: the system does not allow it.
    """
    head = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITIES_3, 0))
    nothing = ctypes.create_string_buffer(24)
    if os.geteuid() == 0 and _LIBC.capset(head, nothing):
        raise OSError(ctypes.get_errno(), "root keeps its rights")


WRITING = {
    "x86_64": (0xC000003E, 317, (1, 18, 20, 77, 285, 296)),
    "aarch64": (0xC00000B7, 277, (64, 68, 66, 46, 47, 70)),
}
"""Processor -> its number; the call seccomp; write, pwrite64, writev, ftruncate, fallocate and pwritev."""


def exceed_quota() -> None:
    """From now on, refuse all writes of this process but those to stdout and stderr: EDQUOT, as by a quota.

    A filter of system calls (seccomp) does so, for writes of libraries in C, C++ and Rust too.

    Raises:
        OSError: the system does not allow it.
    """
    machine, seccomp, calls = WRITING[platform.machine()]
    load, jump_equal, jump_greater, answer = 0x20, 0x15, 0x25, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EDQUOT
    # Other calls are allowed; of those that write, the first argument, the file, decides.
    tests = len(calls)
    program = [
        (load, 0, 0, 4),
        (jump_equal, 1, 0, machine),
        (answer, 0, 0, allow),
        (load, 0, 0, 0),
        *((jump_equal, tests - place, 0, call) for place, call in enumerate(calls)),
        (answer, 0, 0, allow),
        (load, 0, 0, 16),
        (jump_greater, 1, 0, 2),
        (answer, 0, 0, allow),
        (answer, 0, 0, refuse),
    ]
    packed = b"".join(struct.pack("HBBI", *step) for step in program)
    steps = ctypes.create_string_buffer(packed)
    filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(steps)))
    _LIBC.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, which filters ask for
    if _LIBC.syscall(seccomp, 1, 1, filter_):  # of all threads
        raise OSError(ctypes.get_errno(), "no filter of system calls")
