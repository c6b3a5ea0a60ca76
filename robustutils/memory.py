"""Keeping memory between the steps of a computation."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # options of mallopt(3)


def keep_freed_blocks() -> bool:
    """Let the process keep the memory that it frees; returns whether the C library can (glibc on Linux).

    By default glibc hands blocks of more than 32 MiB back to the system as soon as they are freed. A network's
    activations are such blocks, and every attack step would fetch and clear them again: up to half of its time.
    The process then stays as large as it ever was.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_MMAP_MAX, 0) == 1 and mallopt(_TRIM_THRESHOLD, -1) == 1
