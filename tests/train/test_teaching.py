"""A teacher asked for its vectors: of texts and of words, by itself and as a part of several tasks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.toys import bothways, labelled, write_records

from bothways import finetune, load
from bothways.batch import Example, Piece, Read, pack
from bothways.data.finetuning import ExampleSource
from bothways.data.records import read_records
from bothways.errors import BothwaysError
from bothways.models.model import fresh, save, start_from
from bothways.nn.encoder import EncoderConfig
from bothways.tasks.embed import HEAD, EmbedSettings, EmbedTask
from bothways.text.tokenizer import Tokenizer
from bothways.train.teaching import Teachers

QUICK = {"epochs": 12, "batch": 8, "optim": {"lr": 5e-3, "dropout": 0.0}}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, tiny) -> Path:
    """Another model with a vocabulary of its own, of letters: most words are several pieces to it."""
    torch.manual_seed(1)
    letters = [chr(one) for one in range(ord("a"), ord("z") + 1)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *letters, *(f"##{one}" for one in letters)]
    config = EncoderConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    return save(fresh(config, Tokenizer.from_vocab(vocabulary), None), tmp_path_factory.mktemp("teacher") / "model")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, tiny) -> Path:
    """One whose vectors have other numbers of numbers."""
    torch.manual_seed(2)
    config = replace(load(tiny.model).model.config, hidden_size=48)
    made = fresh(config, load(tiny.model).model.tokenizer, None)
    return save(made, tmp_path_factory.mktemp("wide") / "model")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_records(tmp_path / "texts.jsonl", [{"text": row["text"]} for row in labelled(24, 3)])


def near(model: Path, teacher: Path, texts: list[str], level: str) -> float:
    """The mean cosine of the two models' vectors."""
    found = []
    for one in (model, teacher):
        vectors = load(one, device="cpu", precision="float32").embed(texts, level=level)
        rows = vectors if level == "sentence" else np.concatenate([parts.vectors for parts in vectors])
        found.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return float((found[0] * found[1]).sum(1).mean())


@pytest.mark.parametrize("level", ["sentence", "word"])
def test_vectors_go_to_the_teachers(tiny, teacher: Path, texts: Path, tmp_path: Path, level: str):
    shown = [row["text"] for row in labelled(24, 3)]
    asked = {"teacher": str(teacher), "taught": level}
    settings = QUICK | {"model": str(tiny.model), "precision": "float32", "quiet": True}
    run = finetune("embed", train=texts, dev=texts, out=tmp_path / "run", embed=asked, **settings)
    before, after = (near(one, teacher, shown, level) for one in (tiny.model, run.folder / "model"))
    assert after > 0.6 > before
    assert run.scores["cosine"] == pytest.approx(after, abs=0.02)
    alone = load(run.folder, device="cpu").evaluate(texts)  # without its teacher they are plain texts
    assert "uniformity" in alone


def test_a_part_of_several_tasks_has_one_too(tiny, teacher: Path, texts: Path, tmp_path: Path):
    tasks = {
        "mood": {"task": "classify", "train": str(tiny.train), "dev": str(tiny.dev)},
        "words": {
            "task": "embed",
            "train": str(texts),
            "settings": {"teacher": str(teacher), "taught": "word"},
        },
    }
    settings = QUICK | {"model": str(tiny.model), "precision": "float32", "quiet": True}
    run = finetune("multi", out=tmp_path / "run", tasks=tasks, **settings)
    shown = [row["text"] for row in labelled(24, 3)]
    assert near(run.folder / "model", teacher, shown, "word") > near(tiny.model, teacher, shown, "word") + 0.3


@pytest.mark.parametrize("level", ["sentence", "word"])
def test_a_teacher_of_another_width_teaches_how_alike_things_are(tiny, wide: Path, texts: Path, tmp_path: Path, level):
    asked = {"teacher": str(wide), "taught": level}
    run = finetune("embed", train=texts, dev=texts, out=tmp_path / "run", model=str(tiny.model), embed=asked, **QUICK)
    assert run.scores["spearman"] > 0.5


def test_it_is_asked_once_for_all_seeds_and_not_of_a_finished_run(tiny, teacher: Path, texts: Path, tmp_path: Path):
    gone = tmp_path / "teacher"
    shutil.copytree(teacher, gone)
    told = bothways(
        *("finetune", "embed", "--train", texts, "--dev", texts, "--out", tmp_path / "run", "--model", tiny.model),
        *("--embed.teacher", gone, "--embed.taught", "word", "--epochs", "1", "--seeds", "2"),
    )
    assert told.code == 0, told.err
    assert told.err.count(f"asking {gone} for the vectors of 24 texts, word by word") == 2  # to train on, and dev
    shutil.rmtree(gone)
    again = bothways(
        *("finetune", "embed", "--train", texts, "--dev", texts, "--out", tmp_path / "run", "--model", tiny.model),
        *("--embed.teacher", gone, "--embed.taught", "word", "--epochs", "1", "--seeds", "2", "--resume"),
    )
    assert again.code == 0, again.err
    saved = (tmp_path / "run" / "model" / "bothways.json").read_text(encoding="utf-8")
    assert "teacher" not in saved.replace('"kind": "words"', "")  # the path of a folder here says nothing elsewhere


def test_dev_may_be_of_another_kind(tiny, teacher: Path, texts: Path, tmp_path: Path):
    pairs = [{"text_a": "great film", "text_b": "lovely film"}, {"text_a": "a day", "text_b": "in town"}]
    dev = write_records(tmp_path / "pairs.jsonl", pairs)
    for level in ("sentence", "word"):
        asked = {"teacher": str(teacher), "taught": level}
        settings = QUICK | {"epochs": 1, "model": str(tiny.model)}
        run = finetune("embed", train=texts, dev=dev, out=tmp_path / level, embed=asked, **settings)
        assert run.scores["candidates"] == 2


def test_a_blank_text_on_dev_is_told_and_left_out(tiny, teacher: Path, texts: Path, tmp_path: Path):
    blank = write_records(tmp_path / "blank.jsonl", [{"text": " "}, {"text": "great film"}])
    part = {"task": "embed", "train": str(texts), "dev": str(blank)}
    tasks = {
        "mood": {"task": "classify", "train": str(tiny.train), "dev": str(tiny.dev)},
        "words": part | {"settings": {"teacher": str(teacher), "taught": "word"}},
    }
    run = finetune("multi", out=tmp_path / "run", tasks=tasks, **(QUICK | {"epochs": 1, "model": str(tiny.model)}))
    assert {"mood.accuracy", "words.cosine"} <= run.scores.keys()


def test_the_last_bits_of_its_vectors_are_not_what_a_run_is_known_by():
    def example(vectors: np.ndarray, ids: list[int]) -> Example:
        read = Read(np.arange(2), np.ones(2, dtype=int), labels=vectors, weight=2.0)
        return Example((Piece(np.array(ids)),), {"vector": read})

    def known(vectors: np.ndarray, ids: tuple[int, ...] = (1, 2)) -> str:
        return ExampleSource([example(vectors, [*ids])], seed=0).hash()

    asked = np.array([[0.1], [0.2]], dtype=np.float16)
    assert known(asked) == known(np.nextafter(asked, np.float16(1))) != known(asked, (1, 3))
    given = asked.astype(np.float32)  # of a file: another one is another file
    assert known(given) != known(given + 1e-6)


def test_a_words_weight_is_that_of_any_other_however_a_step_is_split(tiny, teacher: Path, texts: Path):
    records = [record for _, record in zip(range(6), read_records(texts), strict=False)]
    task = EmbedTask.learn(records, EmbedSettings(teacher=str(teacher), taught="word"))
    known = Teachers(task, "cpu").taught(records, lambda line: None)
    model = start_from(tiny.model, task)
    encoded = task.encode(known, model.tokenizer, max_length=32, labelled=True)
    examples = [example for one in encoded for example in one.examples]

    def loss(several: list[Example]) -> tuple[float, float]:
        batch = pack(several)
        with torch.no_grad():
            return float(task.losses(model.network.eval()(batch), batch)[HEAD]), batch.targets[HEAD].weight

    parts = [loss(examples[:1]), loss(examples[1:])]
    whole, weight = loss(examples)
    assert weight == sum(len(record.fields["text"].split()) for record in records)
    assert sum(part for part, _ in parts) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "rows", "message"),
    [
        ({"taught": "word"}, [{"text": "a"}], "no teacher is named"),
        ({"teacher": "TEACHER"}, [{"text_a": "a", "text_b": "b"}], "rows.jsonl:1: embed.teacher gives vectors"),
        ({"teacher": "TEACHER"}, [{"text": "a", "vector": [1.0]}], "rows.jsonl:1: embed.teacher gives vectors"),
        ({"teacher": "nowhere/at/all"}, [{"text": "good"}], "nowhere/at/all"),
        ({"teacher": "TEACHER", "taught": "word"}, [{"text": " "}], "none of the 1 training records"),
        ({"teacher": "TEACHER", "taught": "word"}, [{"tokens": ["good"]}], "rows.jsonl:1: .*text"),
        ({"teacher": "TEACHER", "taught": "word"}, [{"text": "a b", "tokens": ["good"]}], "rows.jsonl:1: .*stand in"),
        ({"teacher": "TEACHER", "taught": "word"}, [{"text": "good", "translation": "a"}], "no words that the teacher"),
        ({"teacher": "TEACHER", "taught": "word", "pooling": "cls"}, [{"text": "good"}], "found embed.pooling cls"),
    ],
)
def test_mistakes(tiny, teacher: Path, tmp_path: Path, settings, rows, message):
    train = write_records(tmp_path / "rows.jsonl", rows)
    asked = {name: str(teacher) if value == "TEACHER" else value for name, value in settings.items()}
    with pytest.raises(BothwaysError, match=message):
        finetune("embed", train=train, out=tmp_path / "run", model=str(tiny.model), embed=asked)
    assert not (tmp_path / "run").exists()
