"""Memory that tensors on the CPU have freed, kept for the next ones."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def keep_freed_memory() -> bool:
    """Have the process keep what it frees from now on, as torch keeps the memory of a GPU. Returns whether it does.

    A training step frees hundreds of megabytes and takes them again. In between glibc gives them back to the system,
    which hands them out anew page by page, microseconds each: up to an eighth of the step. Only glibc can be told to
    stop; elsewhere nothing changes. The process grows to the most that it needs at a time, and stays there.
    """
    if sys.platform != 'linux':
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
