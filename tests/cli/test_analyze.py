"""`bothways analyze`: which words are the model's and which are texts, lines to read, JSON lines, colour, mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from bothways.cli.analyze import Analyze, lines
from bothways.data.record import Record
from bothways.errors import ConfigError
from bothways.models.model import fresh, save
from bothways.nn.encoder import EncoderConfig
from bothways.tasks.multi import MultiSettings, MultiTask, Part
from bothways.text.tokenizer import Tokenizer

SIGNS = "abcdefghijklmnopqrstuvwxyz我在北京好坏。"
FOUND: dict[str, Any] = {
    "text": "我在北京\x1b[2J好。",
    "language": "zh",
    "words": [
        {"text": "我", "start": 0, "end": 1, "pos": "PRON"},
        {"text": "北京", "start": 2, "end": 4, "pos": "PROPN"},
    ],
    "entities": [{"text": "北京", "start": 2, "end": 4, "label": "LOC", "score": 0.9}],
    "sentiment": {"label": "positive", "score": 0.934},
    "tokens": {"kept": 6, "dropped": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of random heads."""
    torch.manual_seed(0)
    given = [
        {"task": "words", "words": ["我", "在", "北京"]},
        {"task": "zh_pos", "tokens": ["我", "北京"], "tags": ["PRON", "PROPN"]},
        {"task": "sentiment", "text": "好", "label": "positive"},
        {"task": "sentiment", "text": "坏", "label": "negative"},
    ]
    parts = {"words": Part("segment"), "zh_pos": Part("tag"), "sentiment": Part("classify")}
    task = MultiTask.learn([Record(one, "<records>", at) for at, one in enumerate(given, 1)], MultiSettings(parts))
    tokenizer = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *SIGNS])
    config = EncoderConfig(
        vocab_size=tokenizer.size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    path = tmp_path_factory.mktemp("analyze") / "model"
    save(fresh(config, tokenizer, task), path)
    return path


def test_json_is_a_line_a_text(folder: Path, command: Any, tmp_path: Path) -> None:
    texts = ["我在北京。", "a b 好"]
    told = command("analyze", folder, *texts, "--json")
    assert (told.code, told.err) == (0, "")
    found = [json.loads(line) for line in told.out.splitlines()]
    assert [one["text"] for one in found] == texts
    assert [set(one) for one in found] == [{"text", "language", "words", "sentiment", "tokens"}] * 2
    data, out = tmp_path / "texts.jsonl", tmp_path / "out.jsonl"
    data.write_text("".join(json.dumps({"body": text}) + "\n" for text in texts), encoding="utf-8")
    told = command("analyze", folder, "--data", data, "--columns.text", "body", "--out", out)
    assert (told.code, told.out) == (0, f"2 texts analysed in {out}\n")
    assert [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] == found


def test_lines_to_read_are_plain_where_nobody_looks(folder: Path, command: Any) -> None:
    told = command("analyze", folder, "我在北京。", "好")
    assert (told.code, told.err) == (0, "")
    assert "\x1b" not in told.out
    first, second = told.out.split("\n\n")
    assert first.splitlines()[0] == "words"
    assert "/PRO" in first
    assert second.splitlines()[::2] == ["words", "sentiment"]


def test_the_dictionary_is_heeded(folder: Path, command: Any, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("我在\n京。\n", encoding="utf-8")
    told = command("analyze", folder, "我在北京。", "--json", "--dictionary", own, "--vector")
    found = json.loads(told.out)
    assert [word["text"] for word in found["words"]] == ["我在", "北", "京。"]
    assert len(found["vector"]) == 16
    words = {
        bonus: [
            word["text"] for word in json.loads(command("analyze", folder, "我在北京。", "--json", *bonus).out)["words"]
        ]
        for bonus in ((), ("--dictionary", own, "--bonus", 0))
    }
    assert len({*map(tuple, words.values())}) == 1, "a bonus of nothing leaves the words to the model"


@pytest.mark.parametrize(("colour", "marks"), [(True, True), (False, False)])
def test_colour_and_nothing_that_steers_the_terminal(colour: bool, marks: bool) -> None:
    console = Console(
        force_terminal=colour, no_color=not colour, width=100, color_system="standard" if colour else None
    )
    with console.capture() as captured:
        for name, text in lines(FOUND):
            console.print(name, text)
    said = captured.get()
    assert ("\x1b[" in said) == marks
    assert "\x1b[2J" not in said
    assert "\\x1b[2J" in said.replace("\x1b[0m", "")
    if not colour:
        assert said.splitlines() == [
            "text 我在北京[LOC]\\x1b[2J好。",
            "words 我/PRON  北京/PROPN",
            "entities 北京 LOC (2-4)",
            "sentiment positive 93 %",
            "tokens 2 of 8 could not be read",
        ]


def test_what_is_the_model_and_what_are_texts(folder: Path) -> None:
    for given, wanted in (
        (["好"], ("builtin", ["好"])),
        (["一", "二"], ("builtin", ["一", "二"])),
        (["builtin", "好"], ("builtin", ["好"])),
        ([str(folder), "好", "坏"], (str(folder), ["好", "坏"])),
        (["out/no-such-run", "好"], ("out/no-such-run", ["好"])),
        (["owner/name", "好"], ("owner/name", ["好"])),
        (["his/her"], ("builtin", ["his/her"])),
        (["https is fine / really", "好"], ("builtin", ["https is fine / really", "好"])),
    ):
        assert Analyze(given).parted == wanted
    assert Analyze(["elsewhere"], data=Path("x.jsonl")).parted == ("elsewhere", [])
    assert Analyze(data=Path("x.jsonl")).parted == ("builtin", [])
    for given in ([], [str(folder)], ["builtin"]):
        with pytest.raises(ConfigError, match=r'what is to be analysed\? give a text: bothways analyze \[DIR\] "…"'):
            Analyze(given)
    with pytest.raises(ConfigError, match="give texts, or a file by --data F"):
        Analyze(["a", "b"], data=Path("x.jsonl"))


def test_a_model_without_heads_is_one_line(made: Any, command: Any) -> None:
    told = command("analyze", made.pretrained, "好")
    assert (told.code, told.out) == (2, "")
    assert told.err.count("\n") == 1
    assert "has no head that finds words, tags or labels (it was only pre-trained); analyse with one" in told.err
    told = command("analyze", "no/such-folder-here", "好")
    assert told.code == 2
    assert told.err.count("\n") == 1


def test_convert_writes_one_head(folder: Path, command: Any, tmp_path: Path) -> None:
    told = command("convert", folder, tmp_path / "pos", "--head", "zh_pos")
    assert told.code == 0, told.err
    config = json.loads((tmp_path / "pos" / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForTokenClassification"]
    assert config["id2label"] == {"0": "PRON", "1": "PROPN"}
    assert not (tmp_path / "pos" / "heads.safetensors").exists()
    told = command("convert", folder, tmp_path / "other", "--head", "zh_po")
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert "there is no head 'zh_po'; there are words, zh_pos, sentiment; did you mean zh_pos?" in told.err
