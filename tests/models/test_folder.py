"""Model folders: written whole or not at all, the same when loaded, and found wherever they are."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from bothways.batch import Example, Piece, Read, pack
from bothways.errors import ModelError
from bothways.models.model import Model, fresh, load, save, start_from
from bothways.models.sizes import SIZES, sized
from bothways.nn.encoder import EncoderConfig
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.pretraining import PretrainTask
from bothways.text.tokenizer import Tokenizer

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", *"今天气很好"]
CONFIG = EncoderConfig(
    vocab_size=24,  # more than the tokenizer has, as in padded vocabularies
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=16,
)
Refused = Callable[..., str]
LABELS = ["bad", "good", "so so"]


def reweigh(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the weights."""
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    change(weights)
    safetensors.torch.save_file(weights, folder / "model.safetensors")


def scores(model: Model) -> dict[str, torch.Tensor]:
    heads = list(model.network.heads)
    ids = np.array([2, 5, 6, 15, 3])
    reads = {head: Read(np.array([0]), np.array([1])) for head in heads}
    with torch.no_grad():
        return model.network.eval()(pack([Example((Piece(ids),), reads)]))


# ---------------------------------------- there and back


@pytest.mark.parametrize(
    "task",
    [
        None,
        PretrainTask("next"),
        PretrainTask("order"),
        PretrainTask(None),
        ClassifyTask(ClassifySettings(long="mean"), "one", LABELS, [1.0, 2.0, 0.5]),
        ClassifyTask(ClassifySettings(threshold=0.3), "several", LABELS),
        ClassifyTask(ClassifySettings(), "number", ["number"]),
    ],
    ids=["bare", "next", "order", "masked", "one", "several", "number"],
)
def test_what_is_saved_comes_back(task: Any, tmp_path: Path) -> None:
    model = fresh(CONFIG, Tokenizer.from_vocab(VOCABULARY, lowercase=False), task)
    folder = save(model, tmp_path / "deep" / "model", card="# A card\n")
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "bothways.json", "README.md"):
        assert (folder / file).is_file()
    assert [path.name for path in folder.parent.iterdir()] == ["model"], "nothing else is left"
    again = load(folder)
    assert (again.config, again.folder, again.told) == (model.config, folder, [])
    assert again.tokenizer.vocabulary == VOCABULARY
    assert not again.tokenizer.lowercase
    state = model.network.state_dict()
    assert again.network.state_dict().keys() == state.keys()
    for name, weight in again.network.state_dict().items():
        assert torch.equal(weight, state[name])
    assert all(parameter.requires_grad for parameter in again.network.parameters())
    assert again.task is None if task is None else type(again.task) is type(task)
    assert again.task is None or again.task.to_dict() == task.to_dict()
    for name, score in scores(again).items():
        torch.testing.assert_close(score, scores(model)[name])


def test_without_a_pooler(tmp_path: Path) -> None:
    model = fresh(CONFIG, Tokenizer.from_vocab(VOCABULARY), None, pooler=False)
    again = load(save(model, tmp_path / "model"))
    assert again.network.encoder.pooler is None
    assert again.parameters == model.parameters


def test_a_loaded_model_outlives_its_folder(folder: Path) -> None:
    model = load(folder)
    before = scores(model)["label"]
    (folder / "model.safetensors").write_bytes(b"")
    assert torch.equal(scores(model)["label"], before)


def test_the_rights_of_files_are_the_users_usual_ones(original: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    for path in original.iterdir():
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask, path


def test_a_run_folder_holds_its_model(folder: Path) -> None:
    assert load(folder.parent).folder == folder


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_googles(name: str) -> None:
    config = sized(name, 100)
    assert (config.num_hidden_layers, config.hidden_size) == SIZES[name]
    assert config.hidden_size == 64 * config.num_attention_heads
    assert config.intermediate_size == 4 * config.hidden_size


# ---------------------------------------- starting from


def test_starting_from_another_task_keeps_the_encoder(folder: Path) -> None:
    torch.manual_seed(1)
    model = start_from(folder, ClassifyTask(ClassifySettings(), "one", ["x", "y"]))
    assert model.told == ["left out: heads.label.linear", "starts from random: heads.label.linear"]
    for name, weight in load(folder).network.encoder.state_dict().items():
        assert torch.equal(model.network.encoder.state_dict()[name], weight)
    weight = model.network.heads["label"].linear.weight
    assert weight.shape == (2, 8)
    assert 0 < float(weight.detach().abs().max()) <= 0.04
    scores(model)["label"].numpy()


def test_starting_from_one_without_a_pooler(folder: Path, refused: Refused) -> None:
    reweigh(folder, lambda weights: [weights.pop(name) for name in list(weights) if "pooler" in name])
    refused(folder, "bert.pooler.dense.weight and 1 more is missing")
    task = ClassifyTask(ClassifySettings(), "one", LABELS)
    torch.manual_seed(1)
    model = start_from(folder, task)
    assert model.told == ["starts from random: encoder.pooler.dense"]
    torch.manual_seed(1)
    for name, weight in start_from(folder, task).network.state_dict().items():
        assert torch.equal(weight, model.network.state_dict()[name]), "the run's seed decides"


# ---------------------------------------- places


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "a/b/c", "no such model", "~/x", "", "a\x00b"])
def test_no_such_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.chdir(tmp_path)
    refused(name, "there is no such model folder" if name else "config.json is missing")


def test_a_file_instead_of_a_folder(folder: Path, refused: Refused) -> None:
    refused(folder / "model.safetensors", "is a file; a model is a folder with config.json")


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize(
    ("name", "setting"), [("bert-base-nowhere", "HF_HUB_OFFLINE"), ("someone/bert-base", "HF_ENDPOINT")]
)
def test_a_hub_name_without_a_network(name: str, setting: str, tmp_path: Path) -> None:
    """In a process of its own, for huggingface_hub reads its settings once."""
    value = "1" if setting == "HF_HUB_OFFLINE" else f"http://127.0.0.1:{closed_port()}"
    environment = {**os.environ, "HF_HOME": str(tmp_path), setting: value}
    code = "import sys; from bothways.models.hub import locate; locate(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, name],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"bothways.errors.ModelError: {name}: no such folder here, and the hub can't be reached;")
    assert "set HF_ENDPOINT to a mirror" in last


# ---------------------------------------- saving


def test_a_folder_that_holds_something_is_left_alone(classifier: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelError, match="exists already; give another folder, or remove it first"):
        save(classifier, out)
    with pytest.raises(ModelError, match="exists already"):
        save(classifier, out / "thesis.txt")
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("thesis.txt", "years of work")]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_filled(classifier: Model, tmp_path: Path) -> None:
    assert load(save(classifier, tmp_path)).folder == tmp_path


def test_a_full_disk_leaves_nothing_half_written(classifier: Model, tmp_path: Path) -> None:
    """A limit on a file's size stands for the full disk."""
    model, (soft, hard) = classifier, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large.*model\.safetensors"):
            save(model, tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "bothways.json", "README.md"])
def test_a_save_that_is_stopped_leaves_nothing(
    classifier: Model, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bothways.models import model as module

    def stop(path: Path, *_: Any) -> None:
        if path.name == file:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "sync", stop)
    with pytest.raises(KeyboardInterrupt):
        save(classifier, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
