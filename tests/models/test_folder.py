"""Model folders: written whole or not at all, the same when loaded, and found wherever they are."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from tests.models.conftest import CONFIG, LABELS, VOCABULARY

from bothways.batch import Example, Piece, Read, pack
from bothways.errors import ModelError
from bothways.models import hub
from bothways.models.model import Model, count_parameters, fresh, load, save, start_from
from bothways.models.sizes import SIZES, sized
from bothways.nn.decoding_settings import Decoding
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.embed import EmbedSettings, EmbedTask
from bothways.tasks.generate import GenerateTask
from bothways.tasks.generate_settings import GenerateSettings
from bothways.tasks.multi import MultiTask
from bothways.tasks.pretraining import PretrainTask
from bothways.text.tokenizer import Tokenizer

Refused = Callable[..., str]


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
    assert count_parameters(folder) == again.parameters == model.parameters
    assert all(parameter.requires_grad for parameter in again.network.parameters())
    assert again.task is None if task is None else type(again.task) is type(task)
    assert again.task is None or again.task.to_dict() == task.to_dict()
    for name, score in scores(again).items():
        torch.testing.assert_close(score, scores(model)[name])


@pytest.mark.parametrize(
    "task",
    [
        MultiTask({"mood": ClassifyTask(ClassifySettings(), "one", LABELS)}, {"mood": 1.0}),  # heads in another file
        GenerateTask(GenerateSettings(decoder="share")),  # layers that stand in the file twice
        GenerateTask(GenerateSettings(tied=False)),
    ],
    ids=["multi", "shared", "untied"],
)
@pytest.mark.parametrize("compact", [False, True])
def test_parameters_are_counted_alike_with_weights_and_without(task: Any, compact: bool, tmp_path: Path) -> None:
    model = fresh(CONFIG, Tokenizer.from_vocab(VOCABULARY), task)
    folder = save(model, tmp_path / "model", compact=compact)
    assert count_parameters(folder) == load(folder).parameters == model.parameters


def test_parameters_of_a_class_that_can_only_be_started_from(folder: Path, refused: Refused) -> None:
    (folder / "bothways.json").unlink()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["BertForNextSentencePrediction"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    refused(folder, "BertForNextSentencePrediction")
    assert count_parameters(folder) == fresh(CONFIG, Tokenizer.from_vocab(VOCABULARY), None).parameters


def test_half_of_a_surrogate_pair_comes_back(tmp_path: Path) -> None:
    labels = ["bad\ud83d", "\udcffgood \\ud83d"]
    task = MultiTask({"mood": ClassifyTask(ClassifySettings(), "one", labels)}, {"mood": 1.0})
    for number, one in enumerate((task, task.parts["mood"])):
        model = fresh(CONFIG, Tokenizer.from_vocab(VOCABULARY), one)
        folder = save(model, tmp_path / str(number), card="# Of \ud83d\n")
        again = load(folder).task
        assert again is not None
        assert again.to_dict() == one.to_dict()
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"] == {
        "0": labels[0],
        "1": labels[1],
    }


@pytest.mark.parametrize(
    ("task", "length"),
    [
        (None, 16),
        (PretrainTask("next"), 16),
        (EmbedTask(EmbedSettings(max_length=8)), 8),
        (EmbedTask(EmbedSettings()), 16),
    ],
)
def test_the_tokenizer_tells_how_long_a_text_is_read(task: Any, length: int, tmp_path: Path) -> None:
    folder = save(fresh(CONFIG, Tokenizer.from_vocab(VOCABULARY), task), tmp_path / "model")
    told = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert told["model_max_length"] == length


def test_without_a_pooler(tmp_path: Path) -> None:
    model = fresh(CONFIG, Tokenizer.from_vocab(VOCABULARY), None, pooler=False)
    again = load(save(model, tmp_path / "model"))
    assert again.network.encoder.pooler is None
    assert count_parameters(tmp_path / "model") == again.parameters == model.parameters


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


def test_what_it_learnt_from_is_kept_as_hashes(classifier: Model, tmp_path: Path, refused: Refused) -> None:
    assert load(save(classifier, tmp_path / "unknown")).trained_on is None
    classifier.trained_on = np.array([3, 2**63 + 1], dtype=np.uint64)
    folder = save(classifier, tmp_path / "model")
    assert (folder / "training_texts.bin").stat().st_size == 16
    kept = load(folder).trained_on
    assert kept is not None
    assert kept.tolist() == [3, 2**63 + 1]
    assert start_from(folder, ClassifyTask(ClassifySettings(), "one", LABELS)).trained_on is None
    (folder / "training_texts.bin").write_bytes(b"123")
    refused(folder, "training_texts.bin has 3 bytes; wanted 8 a text", "copy it again, or remove it")


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


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("buildin", "builtin"),
        ("Builtin", "builtin"),
        ("out/modle", "out/model"),
        ("out/model1", None),  # not a slip: out/model2 may well be another model's name
        ("otu/model", "out/model"),
        ("./out/modle", "out/model"),
        ("bert-base-cased", None),
        ("bert-base-unkased", "bert-base-uncased"),
        ("/no/such/thing", None),
    ],
)
def test_a_slip_is_not_asked_for_on_the_hub(
    name: str, near: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    def download(name: str, missing: str) -> Path:
        raise ModelError(f"{name}: {missing}, and asked for")

    monkeypatch.setattr(hub, "_download", download)
    monkeypatch.chdir(tmp_path)
    for folder in ("out/model", "out/model2", "bert-base-uncased"):
        (tmp_path / folder).mkdir(parents=True)
    told = refused(name)
    if near is not None:
        assert told == f"{name}: there is no such model folder; did you mean {near}?"
    else:
        assert told.endswith("there is no such model folder" if name.startswith("/") else "and asked for")


def test_a_name_for_the_hub_is_told_with_the_folder_that_is_like_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    import huggingface_hub

    def no_network(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert-base-cased").mkdir()
    refused(
        "bert-base-uncased", "no such folder here (did you mean bert-base-cased?), and the hub can't be reached; check"
    )


def test_a_download_has_the_settings_of_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers keeps them in a file of their own."""
    import huggingface_hub

    task = GenerateTask(GenerateSettings(decoding=Decoding(beams=3, max_length=7)))
    there = save(fresh(CONFIG, Tokenizer.from_vocab(VOCABULARY), task), tmp_path / "there")
    (there / "bothways.json").unlink()

    def snapshot(name: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        (tmp_path / "here").mkdir()
        for path in there.iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, tmp_path / "here")
        return str(tmp_path / "here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    found = load("someone/writer").task
    assert isinstance(found, GenerateTask)
    assert found.settings.decoding == task.settings.decoding


def test_a_repository_that_has_a_pickle_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name: ["config.json", "pytorch_model.bin"])
    refused("someone/old", "someone/old: its only weights on the hub are pytorch_model.bin, a pickle", "safetensors")

    def no_answer(name: str) -> list[str]:
        raise RuntimeError("of no kind that is known")

    monkeypatch.setattr(huggingface_hub, "list_repo_files", no_answer)
    refused("someone/old", "config.json is missing")


def test_a_file_instead_of_a_folder(folder: Path, refused: Refused) -> None:
    refused(folder / "model.safetensors", "is a file; a model is a folder with config.json")


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize(
    ("name", "setting", "told"),
    [
        ("bert-base-nowhere", "HF_HUB_OFFLINE", "HF_HUB_OFFLINE forbids asking the hub; unset it once to download"),
        ("someone/bert-base", "HF_ENDPOINT", "the hub can't be reached; check the name, set HF_ENDPOINT to a mirror"),
    ],
)
def test_a_hub_name_without_a_network(name: str, setting: str, told: str, tmp_path: Path) -> None:
    """In a process of its own, for huggingface_hub reads its settings once."""
    value = "1" if setting == "HF_HUB_OFFLINE" else f"http://127.0.0.1:{closed_port()}"
    others = {name: found for name, found in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment = {**others, "HF_HOME": str(tmp_path), setting: value}
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
    assert last.startswith(f"bothways.errors.ModelError: {name}: no such folder here, ")
    assert told in last


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
    from bothways.data import whole as module

    def stop(path: Path, *_: Any) -> None:
        if path.name == file:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "sync", stop)
    with pytest.raises(KeyboardInterrupt):
        save(classifier, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
