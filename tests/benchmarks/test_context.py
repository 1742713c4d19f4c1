"""The comparison of contexts, in small: what each model sees, what is kept, and all of it in one table, once."""

from __future__ import annotations

import gzip
import json
import lzma
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import context

# As the script itself imports them: `context` has put their folder on the path.
from _context_models import BATCH, EQUAL, KINDS, LENGTH, Size, _order, _Sentences, packed, trained  # isort: skip
from _context_probe import LONGEST, Task, _features, _records, probe  # isort: skip

from bothways.data.vocabulary import learn_tokenizer
from bothways.text.tokenizer import Tokenizer

WORDS = {"en": ["the", "film", "was", "good", "bad", "day"], "zh": ["电影", "很", "好", "坏", "天气", "今天"]}
SIZE = Size(width=64, layers=2)
CONTEXTUAL = ["two LSTMs", "left to right", "BERT"]


def row(kind: str, language: str, draw: random.Random) -> dict:
    words = draw.choices(WORDS[language], k=6)
    text = (" " if language == "en" else "").join(words)
    label = draw.choice(["yes", "no"])
    return {
        "text": {"text": text, "label": label},
        "pair": {"text_a": text, "text_b": text[::-1], "label": label},
        "sense": {"text_a": text, "text_b": text, "label": label, "index_a": 1, "index_b": 2},
        "words": {"tokens": words, "tags": ["B-PER" if draw.random() < 0.3 else "O" for _ in words]},
        "characters": {"words": words},
    }[kind]


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw = random.Random(0)
    for language, tasks in context.TASKS.items():
        monkeypatch.setitem(context.TEXT, language, language)
        (tmp_path / language).mkdir()
        for part in ("train-00", "train-01", "dev"):
            with lzma.open(tmp_path / language / f"{part}.txt.xz", "wt", encoding="utf-8") as file:
                file.writelines(row("text", language, draw)["text"] + "\n" for _ in range(200))
        for task in tasks:
            for path in task.files(tmp_path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with gzip.open(path, "wt", encoding="utf-8") as file:
                    file.writelines(json.dumps(row(task.kind, language, draw)) + "\n" for _ in range(12))
    return tmp_path


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    (tmp_path / "words.txt").write_text("the film was good bad day\n" * 50, encoding="utf-8")
    return learn_tokenizer([tmp_path / "words.txt"], 100)


def pieces(tokenizer: Tokenizer, sequences: int, length: int = LENGTH) -> np.ndarray:
    ids = np.random.default_rng(0).integers(int(tokenizer.special.sum()), tokenizer.size, (sequences, length))
    ids[:, 0], ids[:, -1] = tokenizer.cls_id, tokenizer.sep_id
    return ids


@pytest.mark.parametrize("name", CONTEXTUAL)
def test_training_drops_nothing_out(name: str, tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    model, tokens = KINDS[name].make(tokenizer, SIZE), packed(list(pieces(tokenizer, 4, 20)))
    with torch.no_grad():
        learning = model.train().vectors(tokens), model.vectors(tokens)
        still = model.eval().vectors(tokens)
    assert torch.equal(*learning)
    torch.testing.assert_close(learning[0], still)


@pytest.mark.parametrize(("name", "back", "forth"), [("two LSTMs", 32, 32), ("left to right", 0, 64), ("BERT", 64, 64)])
def test_which_side_is_seen(name: str, back: int, forth: int, tokenizer: Tokenizer) -> None:
    """How many of a vector's numbers change with a piece behind it (`back`), and before it."""
    torch.manual_seed(0)
    model, ids = KINDS[name].make(tokenizer, SIZE).eval(), pieces(tokenizer, 1, 20)[0]
    other = ids.copy()
    other[10] = ids[10] + 1 if ids[10] + 1 < tokenizer.size else ids[10] - 1
    with torch.no_grad():
        changed = model.vectors(packed([ids])) != model.vectors(packed([other]))
    assert abs(int(changed[5].sum()) - back) <= 2
    assert abs(int(changed[15].sum()) - forth) <= 2


def test_lstms_read_a_sequence_alike_in_any_company(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    model = KINDS["two LSTMs"].make(tokenizer, SIZE).eval()
    ids = pieces(tokenizer, 4, 12)
    sequences = [ids[0, :5], ids[1, :9], ids[2, :9], ids[3]]
    with torch.no_grad():
        together = model.vectors(packed(sequences))
        alone = torch.cat([model.vectors(packed([one])) for one in sequences])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("size", [Size(width=128, layers=2), Size(width=256, layers=4)])
def test_lstms_weigh_as_much_as_the_transformers(size: Size, tokenizer: Tokenizer) -> None:
    lstms, bert = (
        sum(weight.numel() for module in KINDS[name].make(tokenizer, size).layers() for weight in module.parameters())
        for name in ("two LSTMs", "BERT")
    )
    assert lstms == pytest.approx(bert, rel=0.06)


def test_what_is_told_of_a_model_is_kept_with_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    ids = pieces(tokenizer, 40)
    for name in ["untrained BERT", *CONTEXTUAL]:
        path = tmp_path / f"{name}.safetensors"
        model, told = trained(name, ids, tokenizer, SIZE, budget=BATCH * LENGTH, seed=0, path=path)
        again, known = trained(name, ids, tokenizer, SIZE, budget=BATCH * LENGTH, seed=0, path=path)
        assert known == told
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
        read = BATCH * LENGTH * (name != "untrained BERT")
        assert (told["tokens"], told["epochs"]) == (read, round(read / LENGTH / 40, 3))
        assert told["predicted"] == pytest.approx(
            {"two LSTMs": 2, "left to right": 1, "BERT": 0.15}.get(name, 0) * read, rel=0.1
        )
        assert 0 < told["layers"] < told["parameters"]
        assert not list(tmp_path.glob(".*part*"))


def test_equal_predictions_are_as_many() -> None:
    masked = KINDS[EQUAL].reads * 0.15 * (LENGTH - 2)
    assert masked == pytest.approx(LENGTH - 1)


def test_word2vec_reads_what_the_others_read(tokenizer: Tokenizer) -> None:
    ids = pieces(tokenizer, 5)
    sentences = _Sentences(ids, 8, seed=3)
    order = _order(5, seed=3)
    wanted = [[str(piece) for piece in ids[next(order)][1:-1]] for _ in range(8)]
    assert list(sentences) == wanted
    assert list(sentences) == wanted, "gensim reads it twice"


def test_long_texts_are_read_to_their_end(tokenizer: Tokenizer) -> None:
    model = KINDS["BERT"].make(tokenizer, SIZE).eval()
    words = ["film", "day"] * LONGEST
    made = _features(model, tokenizer, "words", [{"tokens": words}, {"tokens": words[:3]}])
    assert [len(own) for own in made] == [2 * LONGEST, 3]
    assert np.isfinite(made[0]).all()
    alone = _features(model, tokenizer, "words", [{"tokens": words[:LONGEST]}])[0]
    np.testing.assert_allclose(made[0][:LONGEST], alone, atol=1e-5)


def test_few_records_are_of_the_whole_file(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "train.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"label": label}) + "\n" for label in ["yes"] * 100 + ["no"] * 100)
    found = _records(tmp_path / "train.jsonl.gz", 50)
    assert len(found) == 50
    assert 15 < sum(record["label"] == "yes" for record in found) < 35
    assert found == _records(tmp_path / "train.jsonl.gz", 50)
    assert len(_records(tmp_path / "train.jsonl.gz", None)) == 200


def test_the_majority_needs_no_model(tokenizer: Tokenizer, tmp_path: Path) -> None:
    task = Task("pairs", "pair", "pairs", ("accuracy", "mcc"))
    (tmp_path / "pairs").mkdir()
    for path in task.files(tmp_path):
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps({"label": label}) + "\n" for label in "1101")
    assert probe(None, tokenizer, task, tmp_path, limit=None, seed=0) == {"scores": {"accuracy": 0.75, "mcc": 0.0}}


def test_a_row_cut_by_a_kill_harms_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    context._append(path, {"task": "a"})
    context._append(path, {"task": "b"})
    path.write_bytes(path.read_bytes()[:-4])
    assert context._rows(path) == [{"task": "a"}]
    context._append(path, {"task": "b"})
    assert context._rows(path) == [{"task": "a"}, {"task": "b"}]
    with pytest.raises(ValueError, match="JSON"):
        context._append(path, {"loss": float("nan")})


def test_the_table_has_means_deviations_and_differences_seed_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "TASKS", {"en": [Task("sense", "sense", "wic", ("accuracy",))]})
    cost = {"tokens": 2e6, "epochs": 1.5, "predicted": 3e5, "parameters": 2e6, "layers": 1e6, "seconds": 9.0}
    rows = [{"model": "BERT", "seed": seed, **cost} for seed in (0, 1)]
    for name, scores in {"majority": [0.5], "word2vec": [0.6, 0.8], "BERT": [0.7, 0.9]}.items():
        rows += [
            {"model": name, "seed": n, "task": "sense", "scores": {"accuracy": own}} for n, own in enumerate(scores)
        ]
    lines = context.table({"en": rows}, ["majority", "word2vec", "BERT"]).splitlines()
    assert lines[2:] == [
        "| majority | 50.0 |  |  |  |  |  |",
        "| word2vec | 70.0 ± 14.1 |  |  |  |  |  |",
        "| BERT | 80.0 ± 14.1 | 2.00 | 1.50 | 0.30 | 2.00 (1.00) | 9 |",
        "| BERT less word2vec | +10.0 ± 0.0 |  |  |  |  |  |",
    ]


@pytest.mark.slow
def test_one_command_compares_all(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--shared", str(shared), "--tokens", "4096", "--quick", "--threads", "1", "--out", str(shared / "out")]
    assert context.main([*words, "--vocab", "200"]) == 0
    first, out = capsys.readouterr().out, shared / "out" / "quick"
    told = (out / "context.md").read_text(encoding="utf-8")
    assert told in first
    heads, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in told.splitlines()]
    columns = [
        f"{language} {task.name}, {measure}"
        for language, own in context.TASKS.items()
        for task in own
        for measure in task.measures
    ]
    assert heads[1 : 1 + len(columns)] == columns
    scores = {cells[0]: [float(cell) for cell in cells[1 : 1 + len(columns)]] for cells in rows}
    assert list(scores)[:2] == ["majority", "untrained BERT"]
    for name in ("untrained BERT", *CONTEXTUAL[:-1]):
        for at, ahead in enumerate(scores[f"BERT less {name}"]):
            assert ahead == pytest.approx(scores["BERT"][at] - scores[name][at], abs=0.11)
    assert (out / "context.png").is_file()

    assert context.main([*words, "--vocab", "200"]) == 0
    again = capsys.readouterr().out
    assert "sentiment: " not in again, "what was scored is not scored again"
    assert told in again, "nor is anything that was told lost"

    # Other text makes everything anew.
    with lzma.open(shared / "en" / "train-02.txt.xz", "wt", encoding="utf-8") as file:
        file.write("another film\n" * 20)
    assert context.main([*words, "--languages", "en"]) == 0
    assert capsys.readouterr().out.count("sentiment: ") == 1 + sum(name in scores for name in list(KINDS)[:-1])
    assert len(list((out / "en").glob("vocab-*"))) == 2
