"""Compact folders: a quarter of the bytes, weights as near as a rounding, read here and by nobody by mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

import bothways
from bothways.cli.main import main
from bothways.models.model import Model, fresh, load, save
from bothways.models.weights import COMPACT, HEADS, SINGLE
from bothways.nn.encoder import EncoderConfig
from bothways.tasks.pretraining import PretrainTask
from bothways.text.tokenizer import Tokenizer

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
CONFIG = EncoderConfig(
    vocab_size=15,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=16,
    initializer_range=0.2,
)


def test_weights_are_rounded_by_row(classifier: Model, tmp_path: Path):
    folder = save(classifier, tmp_path / "small", compact=True)
    assert not (folder / "model.safetensors").exists()
    own, read = classifier.network.state_dict(), load(folder).network.state_dict()
    assert own.keys() == read.keys()
    for name, weight in own.items():
        if weight.ndim == 2:
            assert ((read[name] - weight).abs() <= weight.abs().amax(1, keepdim=True) / 254 + 1e-9).all()
        else:
            assert torch.equal(read[name], weight.bfloat16().float())
    packed = safetensors.torch.load_file(folder / COMPACT)
    assert sum(w.dtype == torch.int8 for w in packed.values()) == sum(name.endswith(".scale") for name in packed) > 10


def test_a_weight_without_its_scale_is_refused(classifier: Model, tmp_path: Path, refused):
    folder = save(classifier, tmp_path / "small", compact=True)
    packed = safetensors.torch.load_file(folder / COMPACT)
    del packed["classifier.weight.scale"]
    safetensors.torch.save_file(packed, folder / COMPACT)
    refused(folder, COMPACT, "classifier.weight has no scale for each of its rows")


def test_convert_there_and_back(classifier: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save(classifier, tmp_path / "model", card="# A card")
    assert main(["convert", str(tmp_path / "model"), str(tmp_path / "small"), "--to", "compact"]) == 0
    assert main(["convert", str(tmp_path / "small"), str(tmp_path / "plain")]) == 0
    told = capsys.readouterr().out
    assert told.count(f"{classifier.parameters:,} parameters") == 2
    assert (tmp_path / "plain" / "README.md").read_text(encoding="utf-8") == "# A card"
    assert json.loads((tmp_path / "plain" / "config.json").read_text(encoding="utf-8"))["dtype"] == "float32"
    small, plain = (load(tmp_path / name).network.state_dict() for name in ("small", "plain"))
    assert all(torch.equal(plain[name], weight) for name, weight in small.items())


def test_convert_writes_over_nothing(classifier: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save(classifier, tmp_path / "model")
    assert main(["convert", str(tmp_path / "model"), str(tmp_path / "model")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_compact_start_is_fine_tuned_and_made_compact_again(tmp_path: Path):
    """Labels stay, of a model of several tasks too, whose heads lie in a file of their own."""
    texts = {"good": ["a b c", "b a", "c c a", "a"], "bad": ["h i j", "i h", "j j h", "h"]}
    records = [{"text": text, "label": label} for label, given in texts.items() for text in given]
    start = fresh(CONFIG, Tokenizer.from_vocab(VOCABULARY), PretrainTask(None))
    small = save(start, tmp_path / "start", compact=True)
    torch.set_num_threads(1)
    run = bothways.finetune(
        "multi",
        train=[record | {"task": "mood"} for record in records] * 20
        + [{"task": "masked", "text": record["text"]} for record in records],
        out=tmp_path / "run",
        model=str(small),
        tasks={"mood": {"task": "classify"}, "masked": {"task": "masked"}},
        epochs=8,
        device="cpu",
        quiet=True,
        optim={"lr": 1e-2, "dropout": 0.0},
    )
    assert main(["convert", str(run.folder), str(tmp_path / "small"), "--to", "compact", "--quiet"]) == 0
    whole, again = (bothways.load(folder, device="cpu") for folder in (run.folder, tmp_path / "small"))
    given = [record["text"] for record in records]
    for model in (whole, again):
        assert [one["mood"]["label"] for one in model.predict(given)] == [record["label"] for record in records]
    assert whole.fill_mask("a [MASK]") != again.fill_mask("a [MASK]")  # rounded
    sizes = [(folder / name).stat().st_size for folder, name in ((run.model, SINGLE), (tmp_path / "small", COMPACT))]
    assert sizes[1] < sizes[0]
    assert (tmp_path / "small" / HEADS).is_file()
