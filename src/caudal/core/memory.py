"""What a process keeps of memory that it no longer uses."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3


def give_back_blocks(size: int) -> bool:
    """Have glibc give blocks of `size` bytes or more back to the system when they are freed.

    Left alone it learns from the first large block that is freed to keep the next ones, for each thread:
    hashing passwords with 19 MiB each would so cost an idle API 40 MB for ever. False where malloc is not
    glibc's; see mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, size))
