"""Memory that is mapped from a file and not needed for now, given back to the system."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import numpy as np
from torch import Tensor

PAGES = Path("/proc/self/pagemap")
NOT_HERE, OF_A_FILE = 0b000, 0b101  # a page's three highest bits: here, swapped out, a file's
MADV_DONTNEED = 4


def let_go(weight: Tensor) -> None:
    """Give back what memory a weight has that is mapped from a file; whoever reads it again gets it from there.

    For one that has been laid out anew elsewhere. Only on Linux, and only if no page of it was changed since it was
    mapped: what is not the file's own is kept, and so is all other memory.

    Reference: the kernel's Documentation/admin-guide/mm/pagemap.rst; madvise(2).
    """
    if weight.device.type != "cpu":
        return
    first = -(-weight.data_ptr() // mmap.PAGESIZE)
    count = (weight.data_ptr() + weight.nbytes) // mmap.PAGESIZE - first
    if count < 1:
        return
    try:
        with PAGES.open("rb") as file:
            file.seek(8 * first)
            states = np.frombuffer(file.read(8 * count), dtype=np.uint64) >> np.uint64(61)
        advise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):  # another system, or one that does not tell
        return
    if len(states) == count and np.isin(states, (NOT_HERE, OF_A_FILE)).all():
        advise(ctypes.c_void_p(first * mmap.PAGESIZE), ctypes.c_size_t(count * mmap.PAGESIZE), MADV_DONTNEED)
