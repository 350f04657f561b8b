"""How much memory a process may hold, and how much of what it frees it keeps."""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGE_BYTES, KEPT_BYTES = 32 * 2**20, 256 * 2**20  # of arrays that are given back at once; of others, that are not


def held_data() -> int:
    """Data of this process, bytes, as RLIMIT_DATA counts them (``VmData``, proc(5)): what it reserved, touched or not.
    0 where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmData:"):
                return 1024 * int(line.split()[1])
    return 0


def limit_memory(most: int) -> None:
    """Data that this process may take besides what it holds now, bytes; beyond it work ends with a MemoryError, not
    with the machine's. What a copy holds at first it shares with the program that it is a copy of."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = held_data() + most
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def keep_freed_memory(most: int = KEPT_BYTES) -> None:
    """Let arrays take the memory of those before them. By itself the C library gives it back to the system after each
    piece of work, which then clears every page of it for the next one: a twentieth of all that a run does."""
    with suppress(OSError, AttributeError):  # only glibc has this
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, min(LARGE_BYTES, most))
        library.mallopt(M_TRIM_THRESHOLD, most)
