"""Model folders: what is saved comes back the same, and whatever else is found in one is refused in one line."""

from __future__ import annotations

import json
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


def edit(path: Path, **changes: Any) -> None:
    """Change a JSON file; None removes a key."""
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}), encoding="utf-8")


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


def test_starting_from_a_class_that_has_no_task_here(classifier: Model, folder: Path, refused: Refused) -> None:
    edit(folder / "config.json", architectures=["BertForNextSentencePrediction"])
    (folder / "bothways.json").unlink()
    refused(folder, "config.json", "BertForNextSentencePrediction", "bothways finetune TASK --model")
    assert start_from(folder, PretrainTask(None)).told == [
        "left out: classifier",
        "starts from random: heads.masked, heads.masked.dense, heads.masked.norm",
    ]


# ---------------------------------------- config.json


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_file(file: str, folder: Path, refused: Refused) -> None:
    (folder / file).unlink()
    refused(folder, str(folder), file)


@pytest.mark.parametrize("file", ["config.json", "bothways.json"])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "not JSON"),
        (b'{"a": ', "not JSON"),
        (b"\xff\xfe{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "an object in braces was wanted, found list"),
        (b'"x"', "found str"),
        (b" " * ((8 << 20) + 1), "8,388,609 bytes; more than 8,388,608 is refused"),
    ],
    ids=range(7),
)
def test_json_that_is_none(file: str, content: bytes, text: str, folder: Path, refused: Refused) -> None:
    (folder / file).write_bytes(content)
    refused(folder, file, text)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model_type": "roberta"}, "model_type is 'roberta'; Bothways reads BERT models"),
        ({"model_type": ["bert"]}, "model_type is ['bert']"),
        ({"position_embedding_type": "relative_key"}, 'position_embedding_type must be "absolute"'),
        ({"is_decoder": True}, "is_decoder is set"),
        ({"hidden_size": "8"}, "hidden_size is '8'; it must be a whole number"),
        ({"hidden_size": True}, "hidden_size is True; it must be a whole number"),
        ({"hidden_size": 8.0}, "hidden_size is 8.0; it must be a whole number"),
        ({"hidden_size": 7}, "hidden_size 7 does not split into 2 attention heads"),
        ({"hidden_size": -8}, "hidden_size is -8; it must be a whole number from 1"),
        ({"hidden_size": 16}, "has shape (24, 8), but (24, 16) was wanted"),
        ({"hidden_size": 1 << 24}, "has shape (24, 8), but (24, 16777216) was wanted"),
        ({"hidden_size": 1 << 60}, "hidden_size is 1152921504606846976; it must be"),
        ({"vocab_size": 10_000_000}, "has shape (24, 8), but (10000000, 8) was wanted"),
        ({"vocab_size": 19}, "the vocabulary has 20 pieces, but config.json says vocab_size 19"),
        ({"num_hidden_layers": 1}, "does not belong to a BERT of 1 layers; is num_hidden_layers"),
        ({"num_hidden_layers": 3}, "encoder.layer.2.attention.self.query.weight"),
        (
            {"num_hidden_layers": 1_000_000},
            "num_hidden_layers is 1000000 in config.json, but there are only 41 weights",
        ),
        ({"intermediate_size": 13}, "intermediate.dense.weight has shape (12, 8), but (13, 8)"),
        ({"max_position_embeddings": 512}, "position_embeddings.weight has shape (16, 8), but (512, 8)"),
        ({"hidden_act": "swish"}, "hidden_act is 'swish'; known are gelu"),
        ({"hidden_act": ["gelu"]}, "hidden_act is ['gelu']; it must be a name"),
        ({"hidden_dropout_prob": "0.1"}, "hidden_dropout_prob is '0.1'; it must be a number"),
        ({"hidden_dropout_prob": 2}, "hidden_dropout_prob is 2; a probability to drop lies in [0, 1)"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan"),
        ({"num_labels": 10**12}, "num_labels is 1000000000000; it must be a whole number from 1 to 65,536"),
    ],
    ids=str,
)
def test_a_config_that_does_not_fit(changes: dict[str, Any], text: str, folder: Path, refused: Refused) -> None:
    edit(folder / "config.json", **changes)
    refused(folder, str(folder), text)


@pytest.mark.parametrize(
    ("id2label", "text"),
    [
        ({"0": "a", "2": "b", "3": "c"}, "id2label"),
        ({"1": "a", "2": "b", "3": "c"}, "id2label"),
        ({"zero": "a", "1": "b", "2": "c"}, "id2label"),
        ({"0": "a", "1": "a", "2": "c"}, "two labels are called 'a'; give each a name of its own"),
        ({"0": "a", "1": "b"}, "classifier.weight has shape (3, 8), but (2, 8) was wanted"),
    ],
    ids=str,
)
def test_odd_label_names_of_a_foreign_model(
    id2label: dict[str, str], text: str, folder: Path, refused: Refused
) -> None:
    (folder / "bothways.json").unlink()
    edit(folder / "config.json", id2label=id2label)
    refused(folder, str(folder), text)


def test_a_foreign_classifier(folder: Path) -> None:
    (folder / "bothways.json").unlink()
    task = load(folder).task
    assert isinstance(task, ClassifyTask)
    assert (task.labels, task.kind) == (LABELS, "one")
    edit(folder / "config.json", problem_type="multi_label_classification")
    assert load(folder).task.to_dict()["kind"] == "several"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": 2}, "format 2 is not 1; update Bothways"),
        ({"format": None}, "format None is not 1"),
        ({"task": "classifi"}, "task is 'classifi'"),
        ({"task": "juggle", "juggle": {}}, "there is no task 'juggle'"),
        ({"task": ["classify"]}, "task is ['classify']"),
        ({"classify": None}, "task is 'classify', which the file doesn't describe"),
        ({"classify": {}}, "classify has no '"),
        ({"classify": {"kind": "one", "labels": 5, "settings": {}}}, "can't be restored"),
        ({"classify": {"kind": "one", "labels": LABELS, "settings": {"colour": 1}}}, "can't be restored"),
        ({"classify": {"kind": "one", "labels": ["a", "a", "b"], "settings": {}}}, "two labels are called 'a'"),
    ],
    ids=str,
)
def test_a_task_that_does_not_fit(changes: dict[str, Any], text: str, folder: Path) -> None:
    edit(folder / "bothways.json", **changes)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(folder / "bothways.json") in str(caught.value)
    assert text in str(caught.value)


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
