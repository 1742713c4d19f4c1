"""Weights of a folder: each one needed, in its shape and no other, from files that are whole, and nothing unpickled."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from bothways.errors import ModelError
from bothways.models.conversion import Layers, renames
from bothways.models.model import load, save, start_from
from bothways.models.weights import MAX_HEADER, read_tensors
from bothways.tasks.pretraining import PretrainTask

Refused = Callable[..., str]
NAMES = [
    name for rename in renames(Layers(2), "BertForSequenceClassification", prefixed=True) for name in rename.theirs
]


def reweigh(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the weights."""
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    change(weights)
    safetensors.torch.save_file(weights, folder / "model.safetensors")


def test_tensors_are_copies_however_often_the_file_is_opened_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "model.safetensors"
    wanted = safetensors.torch.load(path.read_bytes())
    for at_once in (1, 10_000, 1 << 30):
        monkeypatch.setattr("bothways.models.weights.COPIED_AT_ONCE", at_once)
        found = read_tensors(path)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    path.write_bytes(bytes(path.stat().st_size))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def lies_in(tensor: torch.Tensor, path: Path) -> bool:
    """Whether the tensor is the file itself as memory."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, _, name = line.partition(" ")
        begin, end = (int(number, 16) for number in place.split("-"))
        if name.endswith(str(path)) and begin <= tensor.data_ptr() < end:
            return True
    return False


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="no list of what is mapped")
def test_weights_are_mapped_where_that_is_wanted(original: Path, folder: Path) -> None:
    path = folder / "model.safetensors"
    wanted, content = load(original).network.state_dict(), path.read_bytes()
    assert not any(lies_in(weight, path) for weight in load(folder).network.parameters())
    assert not any(lies_in(weight, path) for weight in start_from(folder, PretrainTask(None)).network.parameters())
    weights = load(folder, mapped=True).network.state_dict()
    mapped = {name for name, weight in weights.items() if lies_in(weight, path)}
    assert mapped == {name for name in weights if ".qkv." not in name}  # those are joined of three

    weights["heads.label.linear.bias"].fill_(7.0)  # for this process alone
    assert path.read_bytes() == content
    new = folder / "new"
    new.write_bytes(bytes(len(content)))
    new.replace(path)
    path.unlink()
    for name in wanted.keys() - {"heads.label.linear.bias"}:
        assert torch.equal(weights[name], wanted[name]), name


def test_training_does_not_mind_what_becomes_of_the_files_it_started_from(folder: Path) -> None:
    path = folder / "model.safetensors"
    wanted = load(folder).network.encoder.state_dict()
    wanted = {name: weight.clone() for name, weight in wanted.items()}
    started = start_from(folder, PretrainTask(None), pooler=False).network.encoder.state_dict()
    path.write_bytes(bytes(path.stat().st_size))
    assert all(torch.equal(weight, wanted[name]) for name, weight in started.items())


# ---------------------------------------- each weight


@pytest.mark.parametrize("name", NAMES)
def test_each_weight_is_needed_in_its_shape(name: str, folder: Path, refused: Refused) -> None:
    def drop(weights: dict[str, torch.Tensor]) -> None:
        dropped.append(weights.pop(name))

    dropped: list[torch.Tensor] = []
    reweigh(folder, drop)
    refused(folder, str(folder), name, "is missing")

    for wrong in (dropped[0].new_zeros(*dropped[0].shape, 1), dropped[0].new_zeros(dropped[0].numel() + 1)):
        reweigh(folder, lambda weights, wrong=wrong: weights.update({name: wrong}))
        refused(folder, str(folder), "self.query" if "self." in name else name, "has shape", str(tuple(wrong.shape)))

    reweigh(folder, lambda weights: weights.update({name: dropped[0]}))
    assert load(folder).told == []


def test_names_are_all_the_weights(original: Path) -> None:
    assert len(NAMES) == len(set(NAMES)) == 5 + 2 * 16 + 2 + 2
    assert set(safetensors.torch.load_file(original / "model.safetensors")) == set(NAMES)


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        ("bert.encoder.layer.2.output.dense.weight", "does not belong to a BERT of 2 layers; is num_hidden_layers"),
        ("roberta.lm_head.weight", "roberta.lm_head.weight does not belong"),
        ("encoder.layer.0.output.dense.weight", "encoder.layer.0.output.dense.weight does not belong"),
    ],
)
def test_a_weight_that_is_no_berts(extra: str, text: str, folder: Path, refused: Refused) -> None:
    reweigh(folder, lambda weights: weights.update({extra: torch.zeros(2, 2)}))
    refused(folder, text)


def test_a_head_of_another_class_is_left_out_and_told(folder: Path) -> None:
    reweigh(folder, lambda weights: weights.update({"cls.seq_relationship.weight": torch.zeros(2, 8)}))
    assert load(folder).told == ["left out: cls.seq_relationship"]


def test_weights_that_are_no_floats(folder: Path, refused: Refused) -> None:
    name = "bert.encoder.layer.0.output.dense.weight"
    reweigh(folder, lambda weights: weights.update({name: weights[name].to(torch.int8)}))
    refused(folder, name, "torch.int8", "floating-point")


def test_an_untied_masked_lm_head(original: Path, tmp_path: Path, refused: Refused) -> None:
    folder = save(start_from(original, PretrainTask(None)), tmp_path / "masked")
    name = "cls.predictions.decoder.weight"
    reweigh(folder, lambda weights: weights.update({name: torch.ones(24, 8)}))
    refused(folder, name, "differs from the word embeddings")


def test_a_label_head_of_another_size_than_its_labels(folder: Path, refused: Refused) -> None:
    """It must not be taken for a head to begin afresh, or predictions would be random."""
    saved = json.loads((folder / "bothways.json").read_text())
    saved["classify"]["labels"] = ["x", "y"]
    (folder / "bothways.json").write_text(json.dumps(saved))
    refused(folder, "classifier.weight has shape (3, 8), but (2, 8) was wanted")


def test_cut_and_corrupted_files(folder: Path, refused: Refused) -> None:
    """Wherever it is cut, and whatever byte of the header flips, the answer is a model or one line."""
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    rng = np.random.default_rng(0)
    for size in [0, 1, 7, 8, 9, header - 1, header, len(whole) - 1, *rng.integers(0, len(whole), 20)]:
        path.write_bytes(whole[:size])
        refused(folder, "model.safetensors", "again")
    messages = []
    for place in [*range(8), *rng.integers(8, header, 60)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            load(folder)
        except ModelError as error:
            messages.append(str(error))
    assert len(messages) > 30, "a few flips, in the free-text part, do no harm"
    assert all(str(folder) in message and "\n" not in message for message in messages)


def test_header_limits(folder: Path, refused: Refused) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{" * 100)
    refused(folder, "not a safetensors file, or it was cut off")
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER + 1) + b"{")
        file.truncate(MAX_HEADER + 100)
    refused(folder, f"the header says it has {MAX_HEADER + 1:,} bytes; more than {MAX_HEADER:,} is refused")


@pytest.mark.parametrize("length", [0x0280, 0x0480, 0x4B50])
def test_a_header_whose_length_looks_like_a_pickle(length: int, folder: Path) -> None:
    """0x80 0x02 begins a pickle, and a header of 640 bytes."""
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    begins = 8 + struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8:begins])
    short = json.dumps(header, separators=(",", ":")).encode()
    padded = short + b" " * (-(len(short) - length) % 65536)
    assert len(padded) % 65536 == length
    path.write_bytes(struct.pack("<Q", len(padded)) + padded + whole[begins:])
    assert load(folder).told == []


@pytest.mark.parametrize("name", ["heads.label.linear.weight", "encoder.pooler.dense.weight", "label.weight"])
def test_heads_of_their_own_file(name: str, folder: Path, refused: Refused) -> None:
    """It holds only what the weights' own file has no place for."""
    path = folder / "heads.safetensors"
    safetensors.torch.save_file({name: torch.zeros(3, 8)}, path)
    refused(folder, str(path), name)
    path.write_bytes(path.read_bytes()[:-1])
    refused(folder, str(path), "again")


# ---------------------------------------- nothing unpickled


class Canary:
    """Opens a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5, "torch"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.safetensors", "model-00001.safetensors"])
def test_a_pickle_stays_unopened(name: str, protocol: Any, folder: Path, tmp_path: Path, refused: Refused) -> None:
    (folder / "model.safetensors").unlink()
    path, canary = folder / name, tmp_path / "sung"
    if protocol == "torch":
        torch.save({"weight": Canary(canary)}, path)
    else:
        path.write_bytes(pickle.dumps(Canary(canary), protocol=protocol))
    if name == "model-00001.safetensors":
        index = {"weight_map": {"bert.pooler.dense.bias": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    wanted = "not a safetensors file" if protocol in (0, 1) and "safetensors" in name else "pickle"
    refused(folder, name, wanted)
    assert not canary.exists()


def test_remote_code_is_not_run(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'sung')!r}, 'w')")
    assert load(folder).told == []
    assert not (tmp_path / "sung").exists()


# ---------------------------------------- shards


def shard(folder: Path, weight_map: Any = None, **more: str) -> Path:
    """Two parts and their index."""
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(weights)}
    for part in set(places.values()):
        chosen = {name: weight for name, weight in weights.items() if places[name] == part}
        safetensors.torch.save_file(chosen, folder / part)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places | more if weight_map is None else weight_map}))
    return index


def test_shards(folder: Path, original: Path, refused: Refused) -> None:
    shard(folder)
    whole = load(original).network.state_dict()
    for name, weight in load(folder).network.state_dict().items():
        assert torch.equal(weight, whole[name])
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(folder, "model.safetensors.index.json", "model-00002-of-00002.safetensors is missing")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", "sub/x.safetensors", ""])
def test_shards_outside_the_folder(name: str, folder: Path, refused: Refused) -> None:
    (folder.parent / "x").write_bytes((folder / "model.safetensors").read_bytes())
    shard(folder, extra=name)
    refused(folder, "model.safetensors.index.json", repr(name) if name not in ("..", "") else "index")


@pytest.mark.parametrize(
    "weight_map", [{}, [], 5, "x", {"a": 5}, {"a": ["x"]}, {"a": 5, "b": "x"}, {"a": None}], ids=str
)
def test_an_index_that_is_none(weight_map: Any, folder: Path, refused: Refused) -> None:
    shard(folder, weight_map)
    refused(folder, "model.safetensors.index.json", "download it again")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"weight_map":' * 20_000], ids=range(6))
def test_an_index_that_is_no_json(content: bytes, folder: Path, refused: Refused) -> None:
    shard(folder).write_bytes(content)
    refused(folder, "model.safetensors.index.json", "download it again")
