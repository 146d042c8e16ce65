"""Freed memory of the C library: kept for later allocations, or returned to the system."""

from __future__ import annotations

import contextlib
import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # glibc's malloc.h
PAD = 64 * 2**20  # bytes by which the heap grows


def keep_pages() -> bool:
    """Let this process keep the memory that it frees; return whether the C library is glibc and allows it.

    By default glibc returns every large block at once, and the next one of that size costs a page
    fault for each 4 kB: a tenth of an update on the CPU.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(*pair) == 1 for pair in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, PAD)))


def give_back_pages() -> None:
    """Return the memory that this process has freed to the system, where the C library is glibc."""
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):  # other C libraries have no such call
        ctypes.CDLL(None).malloc_trim(0)
