"""Questions made from raw text, and the deeper encoder that learns from them."""

from __future__ import annotations

import json
import lzma
import random
from pathlib import Path

import pytest
from runs import cloze, deepen

from bothways.config.toml import from_toml
from bothways.data.record import Record
from bothways.models.model import fresh, load, save
from bothways.nn.encoder import EncoderConfig
from bothways.tasks.multi import MultiSettings
from bothways.tasks.pretraining import PretrainTask
from bothways.tasks.qa import QaSettings, QaTask
from bothways.text.files import SPECIALS
from bothways.text.tokenizer import Tokenizer

TOWNS = ["Avenford", "Bramley", "Corvale", "Dunmere", "Elstow", "Farnholt"]
RIVERS = ["Wend", "Isker", "Tavor", "Lomo", "Quill", "Ostra"]
CITIES = ["临江", "白石", "青田", "云岭", "东湖", "南山"]


def english(draw: random.Random) -> str:
    town, other, river = draw.choice(TOWNS), draw.choice(TOWNS), draw.choice(RIVERS)
    return "\n".join(
        [
            f"{town} lies on the {river} river, north of {other}. The {river} river floods {town} in early spring.",
            f"In {draw.randint(1500, 1900)} the mayor of {town} built a stone bridge over the {river} river.",
            f"Merchants from {other} crossed the stone bridge every autumn with wool and salt.",
            f"A museum of wool and salt opened in {town} after the stone bridge was closed to merchants.",
        ]
    )


def chinese(draw: random.Random) -> str:
    city, other = draw.choice(CITIES), draw.choice(CITIES)
    return (
        f"{city}市位于长江北岸，东面与{other}市相邻。每年春天，长江的洪水都会淹没{city}市的老城区。\n"
        f"{draw.randint(1500, 1900)}年，{city}市的商人在长江上修建了一座石桥。"
        f"后来石桥被洪水冲毁，商人只好乘船前往{other}市。\n"
        f"如今{city}市的博物馆里保存着石桥的照片和商人的账本。"
    )


@pytest.fixture(autouse=True)
def few_common_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toy texts have hardly any others."""
    monkeypatch.setattr(cloze, "COMMON", 8)


@pytest.fixture(params=["zh", "en"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, bool]:
    draw, write = random.Random(0), chinese if request.param == "zh" else english
    with lzma.open(tmp_path / "train-00.txt.xz", "wt", encoding="utf-8") as file:
        file.write("\n\n".join(write(draw) for _ in range(400)) + "\n")
    return tmp_path, request.param == "zh"


def test_questions_can_be_learnt_from(folder: tuple[Path, bool]) -> None:
    where, is_chinese = folder
    made = list(cloze.questions(where, count=60, chinese=is_chinese))
    assert made == list(cloze.questions(where, count=60, chinese=is_chinese)), "not drawn by its seed"
    QaTask.learn([Record(row, "made.jsonl", 1) for row in made], QaSettings())  # refuses misplaced answers
    assert len(made) == 60
    answered = [row for row in made if row["answers"]["text"]]
    assert 0 < len(made) - len(answered) < 20
    for row in answered:
        [asked], [start] = row["answers"]["text"], row["answers"]["answer_start"]
        assert row["context"][start : start + len(asked)] == asked
        assert row["context"].count(asked) == 1
        assert row["question"].endswith("？" if is_chinese else "?")
    found = sum(row["answers"]["text"][0].lower() in row["question"].lower() for row in answered)
    assert found < len(answered) / 10, "questions hold what they ask for"


def test_most_questions_share_words_with_their_passage(folder: tuple[Path, bool]) -> None:
    where, is_chinese = folder
    for row in cloze.questions(where, count=40, chinese=is_chinese):
        if row["answers"]["text"]:
            pieces = row["question"] if is_chinese else row["question"].rstrip("?").split()
            assert sum(piece in row["context"] for piece in pieces) >= cloze.IN_COMMON, row


def test_all_is_written_that_finetune_multi_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(1)
    for language, (name, *_) in cloze.RAW.items():
        place = tmp_path / "shared" / name
        place.mkdir(parents=True)
        with lzma.open(place / "train-00.txt.xz", "wt", encoding="utf-8") as file:
            file.write("\n\n".join((chinese if language == "zh" else english)(draw) for _ in range(60)) + "\n")
    monkeypatch.setattr(cloze, "read_records", lambda path: [])
    monkeypatch.setattr(cloze, "DEV", {"questions": 5, "text": 6})
    words = [tmp_path / "out", "--shared", tmp_path / "shared", "--questions", 20, "--characters", 3000]
    assert cloze.main(list(map(str, words))) == 0
    rows = {
        name: [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").read_text("utf-8").splitlines()]
        for name in ("train", "dev")
    }
    assert [row["task"] for row in rows["dev"]].count("questions") == 2 * 5
    assert [row["task"] for row in rows["dev"]].count("masked") == 6
    assert {row["task"] for row in rows["train"]} == {"masked", "questions"}
    assert set(from_toml(MultiSettings, tmp_path / "out" / "tasks.toml").tasks) == {"masked", "questions"}


def test_a_deeper_encoder_is_a_mean_and_what_stands_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.from_vocab([*SPECIALS, "cat", "dog"])
    shape = {"vocab_size": tokenizer.size, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    for name, layers in (("ours", 2), ("theirs", 4)):
        config = EncoderConfig(num_hidden_layers=layers, **shape)
        save(fresh(config, tokenizer, PretrainTask(None) if name == "ours" else None), tmp_path / name)
    monkeypatch.setattr(deepen, "minilm", lambda: tmp_path / "theirs")
    assert deepen.main([str(tmp_path / "made"), "--model", str(tmp_path / "ours"), "--layers", "3"]) == 0
    ours, theirs, made = (load(tmp_path / name).network.state_dict() for name in ("ours", "theirs", "made"))
    for key, weight in made.items():
        if "encoder.layers.2." in key:
            wanted = theirs[key]
        elif "encoder.layers." in key:
            wanted = 0.3 * ours[key] + (1 - 0.3) * theirs[key]
        else:
            wanted = ours[key]
        assert weight.equal(wanted), key
    assert "".join(key for key in made if "heads" in key), "the masked-LM head is lost"
