"""What a run settles before it begins, and what it measures once it is over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import bothways
from bothways.infer import devices
from bothways.train.log import read_log


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that may use one core of a machine for which PyTorch starts two threads."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(devices, "available_cores", lambda: 1)
    for settled in (devices.settle_threads, devices.settle_cpu):
        settled.cache_clear()
    yield
    for settled in (devices.settle_threads, devices.settle_cpu):
        settled.cache_clear()


def threads_of(run: Any) -> int:
    (told,) = [entry["hardware"]["threads"] for entry in read_log(run.folder / "log.jsonl") if "hardware" in entry]
    return told


def test_training_has_no_more_threads_than_cores(tiny, tmp_path, one_core) -> None:
    """Without dev records nothing else would settle them: they are answered by an engine."""
    settings: dict[str, Any] = {"model": str(tiny.model), "quiet": True}
    assert torch.get_num_threads() == 2
    run = bothways.finetune("classify", train=tiny.train, out=tmp_path / "tuned", epochs=1, **settings)
    assert threads_of(run) == 1
    torch.set_num_threads(2)
    devices.settle_threads.cache_clear()
    corpus = {"max_length": 24, "workers": 1}
    run = bothways.pretrain(text=tiny.text, out=tmp_path / "pretrained", steps=1, corpus=corpus, **settings)
    assert threads_of(run) == 1


def test_threads_that_are_asked_for_stay(one_core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    devices.settle_threads()
    assert torch.get_num_threads() == 2
