"""How many cores this process may really use: its affinity, or less where a control group has a quota."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
UNTOLD = "0::/\n1:cpu:/"  # both versions' outermost groups, where the system does not tell this process's own


def available_cores() -> int:
    """Cores that this process may really use, at least 1: a container or a service may have less than its machine."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, math.ceil(min([cores, *_quotas()])))


def _quotas() -> Iterator[float]:
    """Cores' worth of time that control groups allow: this process's own and those around it, for each of them counts.

    Reference: cgroups(7), /proc/pid/cgroup; the kernel's Documentation/admin-guide/cgroup-v2.rst, cpu.max, and for
    version 1 Documentation/scheduler/sched-bwc.rst.
    """
    try:
        told = OWN_GROUPS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        told = UNTOLD
    for line in told.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            roots, files = (CGROUPS, CGROUPS / "unified"), ("cpu.max",)
        elif "cpu" in controllers.split(","):
            roots, files = (CGROUPS / "cpu", CGROUPS / controllers), ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        else:
            continue
        for group in {group for root in roots for group in _way(root, path)}:
            if (quota := _quota(group, files)) is not None:
                yield quota


def _way(root: Path, path: str) -> Iterator[Path]:
    """The outermost group and all below it on the way to `path`; in a container, which sees its own alone, that one."""
    yield root
    names = [name for name in path.split("/") if name]
    for name in names if ".." not in names else []:
        root = root / name
        yield root


def _quota(group: Path, files: tuple[str, ...]) -> float | None:
    """Cores' worth of time that one group allows; None: it has no limit, or there is no such group."""
    try:
        words = " ".join((group / file).read_text(encoding="ascii") for file in files).split()
        allowed, period = float(words[0]), float(words[1])
    except (OSError, ValueError, IndexError):  # no such file, or "max"
        return None
    return allowed / period if allowed > 0 and period > 0 else None
