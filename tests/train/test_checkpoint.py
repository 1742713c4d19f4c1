"""Checkpoints: whole or not at all, on the disk, hashed, free of pickles, and good when the disk is full."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickletools
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from bothways.errors import TrainingError
from bothways.models import weights
from bothways.train import checkpoint
from bothways.train.checkpoint import (
    load_checkpoint,
    put_back,
    restore,
    save_checkpoint,
    save_weights,
    saved_checkpoints,
)


class Stepping:
    """A small network that takes a step when asked."""

    def __init__(self, width: int = 4) -> None:
        self.network = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.1, fused=True)
        self.step = 0

    def take(self) -> None:
        self.step += 1
        self.network(torch.full((1, 3), float(self.step))).pow(2).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def save(self, folder: Path, **more: object) -> Path:
        state = {"progress": {"step": self.step}, **more}
        return save_checkpoint(folder, self.network, self.optimizer, state)

    def tensors(self) -> list[torch.Tensor]:
        moments = [value for state in self.optimizer.state.values() for _, value in sorted(state.items())]
        return [value.detach().clone() for value in [*self.network.state_dict().values(), *moments]]


@contextlib.contextmanager
def full_disk(most: int) -> Iterator[None]:
    """No file can grow beyond so many bytes, which fails as a full disk does: in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_was_saved_is_put_back(tmp_path: Path):
    one, other = Stepping(), Stepping()
    for _ in range(3):
        one.take()
    one.save(tmp_path, best={"score": 0.5})
    state, path, told = load_checkpoint(tmp_path)
    assert (state, told) == ({"progress": {"step": 3}, "best": {"score": 0.5}}, [])
    restore(path, other.network, other.optimizer)
    other.step = 3
    one.take()
    other.take()
    assert all(map(torch.equal, one.tensors(), other.tensors()))


def test_what_was_put_back_is_not_the_file(tmp_path: Path):
    """A step taken after a resume must not write into the checkpoint it began from."""
    run = Stepping()
    run.take()
    path = run.save(tmp_path)
    restore(path, run.network, run.optimizer)
    run.take()
    assert load_checkpoint(tmp_path)[2] == []


def test_a_checkpoint_before_the_first_step_has_no_moments(tmp_path: Path):
    run = Stepping()
    path = run.save(tmp_path)
    other = Stepping()
    restore(path, other.network, other.optimizer)
    run.take()
    other.take()
    assert all(map(torch.equal, run.tensors(), other.tensors()))


def test_the_last_two_are_kept(tmp_path: Path):
    run = Stepping()
    for _ in range(4):
        run.take()
        run.save(tmp_path)
    assert [path.name for path in saved_checkpoints(tmp_path)] == ["step-00000003", "step-00000004"]


def test_hashed_and_not_pickled(tmp_path: Path):
    run = Stepping()
    run.take()
    path = run.save(tmp_path)
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    files = {file.name: file.read_bytes() for file in path.iterdir() if file.name != "manifest.json"}
    assert set(files) == {"model.safetensors", "optimizer.safetensors", "state.json"}
    assert manifest == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    for data in files.values():
        with pytest.raises(ValueError):  # noqa: PT011 (pickletools' own words)
            list(pickletools.genops(data))


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_modes_honour_the_umask(umask: int, tmp_path: Path):
    before = os.umask(umask)
    try:
        run = Stepping()
        run.take()
        files = list(run.save(tmp_path).iterdir())
        save_weights(tmp_path / "best.safetensors", run.network)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [*files, tmp_path / "best.safetensors"]}
    assert modes == dict.fromkeys(modes, 0o666 & ~umask)
    assert len(modes) == 5


def test_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every file is fsynced, then the folder, then comes the rename, then the folder above is fsynced."""
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def told_fsync(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def told_rename(self: Path, to: Path) -> Path:
        events.append(f"rename {to.name}")
        return rename(self, to)

    monkeypatch.setattr(os, "fsync", told_fsync)
    monkeypatch.setattr(Path, "rename", told_rename)
    run = Stepping()
    run.take()
    run.save(tmp_path / "checkpoints")
    at = events.index("rename step-00000001")
    files = {"model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}
    assert files | {".step-00000001.part"} <= set(events[:at])
    assert events[at - 1] == ".step-00000001.part"
    assert events[at + 1 :] == ["checkpoints"]


@pytest.mark.parametrize("call", range(1, 9))
def test_an_error_at_any_fsync_leaves_the_old_one(call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = Stepping()
    run.take()
    run.save(tmp_path)
    before = run.tensors()
    run.take()
    left = [call]

    def failing(path: Path) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "sync", failing)
        patch.setattr(weights, "sync", failing)
        with pytest.raises(OSError, match="No space left"):
            run.save(tmp_path)
    state, path, told = load_checkpoint(tmp_path)
    assert told == []
    if call == 8:  # after the rename: the folder's own fsync
        assert state["progress"]["step"] == 2
    else:
        assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000001"]
        restore(path, run.network, run.optimizer)
        assert all(map(torch.equal, run.tensors(), before))
    run.step = 2
    run.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_leaves_the_old_one(tmp_path: Path):
    run = Stepping(width=3000)
    run.take()
    run.save(tmp_path)
    run.take()
    with full_disk(50_000), pytest.raises(OSError, match="File too large") as raised:
        run.save(tmp_path)
    assert raised.value.filename.endswith("model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert load_checkpoint(tmp_path)[0]["progress"]["step"] == 1
    with full_disk(50_000), pytest.raises(OSError, match="File too large"):
        save_weights(tmp_path / "best.safetensors", run.network)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_what_a_kill_left_is_cleared_by_the_next_save(tmp_path: Path):
    for name in (".step-00000007.part", ".best.safetensors.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    run = Stepping()
    run.take()
    run.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_damaged_checkpoint_of_the_same_step_is_written_again(tmp_path: Path):
    run = Stepping()
    run.take()
    path = run.save(tmp_path)
    (path / "state.json").write_text("{}", encoding="utf-8")
    run.save(tmp_path)
    assert load_checkpoint(tmp_path)[2] == []


def test_another_shape_is_refused(tmp_path: Path):
    run, other = Stepping(), Stepping(width=5)
    path = run.save(tmp_path)
    with pytest.raises(TrainingError, match="belongs to a model of another shape; resume with the settings it was beg"):
        restore(path, other.network, other.optimizer)


def test_none_is_one_line(tmp_path: Path):
    with pytest.raises(TrainingError, match="no undamaged checkpoint to resume from; start again without --resume"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("links", [True, False])
def test_the_best_weights_belong_to_the_checkpoint(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As they were when it was saved, though they have been replaced since; also where there are no hard links."""
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links here")))
    run, best = Stepping(), tmp_path / "best.safetensors"
    run.take()
    save_weights(best, run.network)
    first = best.read_bytes()
    path = save_checkpoint(tmp_path, run.network, run.optimizer, {"progress": {"step": 1}}, beside=[best])
    run.take()
    save_weights(best, run.network)
    assert best.read_bytes() != first
    assert load_checkpoint(tmp_path)[2] == []
    put_back(path, best)
    assert best.read_bytes() == first
    put_back(Stepping().save(tmp_path / "other"), best)
    assert not best.exists()


def test_moments_of_another_optimizer_are_refused(tmp_path: Path):
    one, other = Stepping(), Stepping()
    one.take()
    path = one.save(tmp_path)
    matrices = [weight for weight in other.network.parameters() if weight.ndim == 2]
    with pytest.raises(TrainingError, match=r"0\.weight was trained by another optimizer than now"):
        restore(path, other.network, torch.optim.Muon(matrices, lr=0.1))
