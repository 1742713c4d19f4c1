"""Cores really available: the machine's, or what the control groups around this process leave of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothways.data import cores

OUTER, INNER = "slice/cpu.max", "slice/bothways.service/cpu.max"
SERVICE = "0::/slice/bothways.service\n"
V1 = "5:memory:/elsewhere\n4:cpu,cpuacct:/docker/abc\n"


@pytest.mark.parametrize(
    ("own", "files", "wanted"),
    [
        (None, {}, 8),
        (None, {"cpu.max": "max 100000\n"}, 8),
        (None, {"cpu.max": "150000 100000\n"}, 2),
        (None, {"cpu.max": "20000 100000"}, 1),
        (None, {"cpu.max": "9000000 100000"}, 8),
        (None, {"cpu.max": "garbage"}, 8),
        (None, {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        (None, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        # systemd's CPUQuota=: the outermost group has no file of its own
        (SERVICE, {INNER: "200000 100000\n"}, 2),
        (SERVICE, {OUTER: "max 100000", INNER: "max 100000"}, 8),
        (SERVICE, {"slice/other.service/cpu.max": "100000 100000\n"}, 8),
        # the smallest on the way counts, wherever it stands
        (SERVICE, {OUTER: "300000 100000", INNER: "500000 100000"}, 3),
        (SERVICE, {OUTER: "500000 100000", INNER: "300000 100000"}, 3),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),  # a container that sees its own group alone
        ("0::/../../neighbour\n", {"cpu.max": "400000 100000\n", "neighbour/cpu.max": "100000 100000"}, 4),
        ("1:name=systemd:/\n0::/a\n", {"unified/a/cpu.max": "600000 100000\n"}, 6),  # both versions side by side
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "250000", "cpu/docker/abc/cpu.cfs_period_us": "100000"}, 3),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 3),
        (V1, {"memory/elsewhere/cpu.max": "100000 100000", "cpu.max": "100000 100000"}, 8),
        ("no such line\n", {"cpu.max": "100000 100000"}, 8),
    ],
    ids=str,
)
def test_cores_really_available(
    own: str | None, files: dict[str, str], wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = tmp_path / "groups"
    for name, content in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(content)
    if own is not None:
        (tmp_path / "own").write_text(own)
    monkeypatch.setattr(cores, "CGROUPS", groups)
    monkeypatch.setattr(cores, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert cores.available_cores() == wanted


def test_without_affinity_the_machine_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "CGROUPS", tmp_path)
    monkeypatch.delattr(cores.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 6)
    assert cores.available_cores() == 6
    monkeypatch.setattr(cores.os, "cpu_count", lambda: None)
    assert cores.available_cores() == 1
