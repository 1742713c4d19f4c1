"""`python -m runs.results` on a small world: rows are measured once, and the page tells them."""

from __future__ import annotations

import gzip
import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from runs import pages, plan, results, sets
from runs.baselines import BASELINES
from runs.rows import Rows
from runs.sets import DataSet, Part, Published

from bothways.cli.main import main as command
from bothways.data.records import read_records
from bothways.infer.predictor import Predictor
from bothways.models.model import fresh, load, save, seed_everything, start_from
from bothways.nn.encoder import EncoderConfig
from bothways.tasks import TRAINABLE, task_class
from bothways.text.tokenizer import Tokenizer

WORDS = ["good", "bad", "film", "town", "day", "dog"]
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
LABELS = DataSet(
    "labels",
    "classify",
    "en/labels",
    ("accuracy", "macro_f1"),
    train=Part("en/labels/train", limit=12),
    dev=Part("en/labels/dev", first=2, without=(1,)),
    tests={"test": Part("en/labels/test"), "other": Part("en/labels/dev")},
    published={"test": Published("BERT-base 90.0", 90.0, "somebody")},
    note="Made up.",
)
NAMES = DataSet("names", "tag", "en/names", ("f1",), columns={"tokens": "words"})
UNMEASURED = DataSet("later", "choice", "zh/later", ("accuracy",))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data, and a small model; runs are counted, and give the model back as it begins."""
    draw = random.Random(0)
    for split, count in (("train", 20), ("dev", 8), ("test", 10)):
        texts = [{"text": f"{draw.choice(WORDS[:2])} {draw.choice(WORDS[2:])}", "label": "x"} for _ in range(count)]
        texts = [{**row, "label": row["text"].split()[0]} for row in texts]
        texts += [{"text": "good film", "label": "good"}, {"text": "bad town", "label": "bad"}]
        words = [{"words": ["dog", "day"], "tags": ["B-X", draw.choice(["O", "I-X"])]} for _ in range(count)]
        for name, rows in (("labels", texts), ("names", words)):
            path = tmp_path / "shared" / "en" / name / f"{split}.jsonl.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            with gzip.open(path, "wt", encoding="utf-8") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
    config = EncoderConfig(
        vocab_size=tokenizer.size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    seed_everything(1)
    save(fresh(config, tokenizer, None), tmp_path / "small")
    for module in (results, pages):
        monkeypatch.setattr(module, "SETS", [LABELS, NAMES, UNMEASURED])

    def bothways(*words: str, module: str) -> float:
        with (tmp_path / "calls").open("a") as calls:
            calls.write(" ".join(words) + "\n")
        untrained(*words)
        return 60.0

    monkeypatch.setattr(plan, "bothways", bothways)
    return tmp_path


def untrained(*words: str) -> None:
    """What a run leaves that learnt nothing."""
    given = dict(pairwise(words))
    kind = task_class(words[1])
    seed_everything(int(given["--seed"]))
    task = kind.learn(list(read_records(Path(given["--train"]))), kind.Settings())
    model, out = start_from(given["--model"], task), Path(given["--out"])
    out.mkdir()
    save(model, out / "model")
    scores = Predictor(model, device="cpu").evaluate(Path(given["--dev"]))
    (out / "log.jsonl").write_text(json.dumps({"finished": scores}) + "\n", encoding="utf-8")


def run(world: Path, *more: str) -> tuple[list[dict[str, Any]], str, list[str]]:
    """The rows, the page, and what was run so far."""
    words = ["--shared", world / "shared", "--work", world / "work", "--rows", world / "rows.jsonl"]
    words += ["--page", world / "page.md", "--start", world / "small", "--seeds", "2", *more]
    assert results.main(list(map(str, words))) == 0
    calls = (world / "calls").read_text().splitlines() if (world / "calls").exists() else []
    return Rows(world / "rows.jsonl").all(), (world / "page.md").read_text(encoding="utf-8"), calls


def test_rows_are_measured_once_and_told(world: Path):
    rows, page, calls = run(world, "--sets", "labels")
    measured = [row["measure"] for row in rows]
    assert {name: measured.count(name) for name in set(measured)} == {"baseline": 3, "dev": 4, "test": 2}
    assert len(calls) == 4  # three rates with the first seed, the best of them with the second
    assert [row["seed"] for row in rows if row["measure"] == "test"] == [0, 1]
    assert not (world / "work" / "runs" / "labels" / "small").exists()

    small = next(line for line in page.splitlines() if "| small |" in line)
    accuracy = [row["tests"]["test"]["accuracy"] for row in rows if row["measure"] == "test"]
    assert f"{50 * sum(accuracy):.2f} ± " in small
    assert small.endswith(f"| {50 * sum(accuracy) - 90:+.1f} |")
    assert "| | | published | | | BERT-base 90.0 |  | |" in page
    note = next(line for line in page.splitlines() if line.startswith("- **labels**"))
    assert note.startswith("- **labels**: train 12 records drawn at random, test 12 records, ")
    assert "1.0 minutes a run, rates tried: 0.0001, 0.0003, 0.001 (small). Made up." in note
    assert note.endswith("Made up. Published (test): BERT-base 90.0, somebody.")
    assert page.rstrip().endswith("Not measured from any model yet: names, later.")

    again = run(world, "--sets", "labels")
    assert again == (rows, page, calls)


def test_a_run_is_one_of_the_command_line(world: Path, monkeypatch: pytest.MonkeyPatch):
    def bothways(*words: str, module: str) -> float:
        assert module == "bothways"
        assert command(list(words)) == 0
        return 1.0

    monkeypatch.setattr(plan, "bothways", bothways)
    rows, page, _ = run(world, "--sets", "labels", "--quick")
    assert [row["measure"] for row in rows] == ["baseline"] * 3 + ["dev", "test"]
    assert "train a few records (--quick), test 12 records" in page


def test_a_row_that_is_missing_is_made_and_no_other(world: Path):
    rows, page, calls = run(world, "--sets", "labels")
    lost = [row for row in rows if (row["measure"], row.get("seed")) == ("test", 1)]
    kept = [json.dumps(row) + "\n" for row in rows if row not in lost]
    (world / "rows.jsonl").write_text("".join(kept), encoding="utf-8")
    more, same, after = run(world, "--sets", "labels")
    assert len(after) == len(calls) + 1  # its model was thrown away
    assert len(more) == len(rows)
    assert [row["tests"]["test"]["accuracy"] for row in more[-1:]] == [lost[0]["tests"]["test"]["accuracy"]]
    assert same == page


def test_other_settings_or_weights_are_other_rows(world: Path, monkeypatch: pytest.MonkeyPatch):
    rows, _, calls = run(world, "--tasks", "tag", "--seeds", "1")
    assert [row["measure"] for row in rows] == ["baseline", "baseline", "dev", "dev", "dev", "test"]
    longer = DataSet("names", "tag", "en/names", ("f1",), columns={"tokens": "words"}, epochs=1)
    for module in (results, pages):
        monkeypatch.setattr(module, "SETS", [longer])
    more, page, after = run(world, "--tasks", "tag", "--seeds", "1")
    assert len(more) == 2 * len(rows)
    assert len(after) == 2 * len(calls)
    assert page.count("| small |") == 1
    assert ", 1 epoch," in page


def test_what_pre_training_is_worth_is_measured_beside_it(world: Path):
    rows, page, calls = run(world, "--sets", "labels", "--untrained", "--rates", "0.01", "--seeds", "1")
    measured = [(row["start"], row["lr"]) for row in rows if row["measure"] == "test"]
    assert measured == [("small", 0.01), ("small-untrained", 0.01)]
    assert len(calls) == 2
    assert "| small-untrained |" in page
    (theirs,), (own,) = (
        {row["weights"] for row in rows if row.get("start") == name} for name in ("small", "small-untrained")
    )
    assert theirs != own
    assert load(world / "small").config == load(world / "work" / f"small-{theirs}-untrained").config


def test_parts_are_what_they_say(world: Path):
    made = results.ResultsPlan(world / "shared", world / "work", Rows(world / "rows.jsonl"), 1, quick=False)
    whole = results.read_records(world / "shared" / "en" / "labels" / "train.jsonl.gz")
    dev = results.read_records(world / "shared" / "en" / "labels" / "dev.jsonl.gz")
    train = made.records(LABELS, "train")
    assert len(train) == 12
    assert [row for row in whole if row in train] == [row for row in whole if row in made.records(LABELS, "train")]
    assert made.records(LABELS, "dev") == dev[3:]  # without line 1, then from the third on
    assert set(made.tests(LABELS)) == {"test", "test_not_in_train", "other", "other_not_in_train"}
    assert made.file(LABELS, "test") == world / "shared" / "en" / "labels" / "test.jsonl.gz"
    assert made.file(LABELS, "train").is_relative_to(world / "work")
    assert "tokens" in made.records(NAMES, "test")[0]


def test_without_a_built_in_model_its_rows_are_skipped_with_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path, capsys):
    monkeypatch.setattr("bothways.models.hub._BUILTIN", tmp_path)
    assert [start.name for start in results.starts(None)] == ["all-MiniLM-L6-v2"]
    told = capsys.readouterr().err
    assert told.startswith("skipped: every row that starts from the built-in model: this build carries no built-in")


def test_only_one_process_writes(tmp_path: Path):
    rows = Rows(tmp_path / "rows.jsonl")
    refused = pytest.raises(SystemExit, match="is being written by another process")
    with rows.only_writer(), refused, Rows(tmp_path / "rows.jsonl").only_writer():
        pass
    with rows.only_writer():
        pass


def test_every_task_of_understanding_has_sets_and_baselines():
    tasks = {data.task for data in sets.SETS}
    assert tasks == set(BASELINES) == set(TRAINABLE) - {"multi", "embed", "generate"}
    assert len({data.name for data in sets.SETS}) == len(sets.SETS) == 38
    assert {name for data in sets.SETS for name in data.metrics} <= set(pages.NAMES)
    assert {data.task for data in sets.SETS if data.language == "zh"} == tasks - {"roles"}
    for data in sets.SETS:
        assert set(data.published) <= set(data.parts()) - {"train", "dev"}


def test_what_is_commonest_is_said_of_all():
    train = [{"tokens": ["a", "b", "c"], "tags": ["D", "N", "N"]}, {"tokens": ["a", "b"], "tags": ["D", "N"]}]
    pairs = [{"text_a": "a", "text_b": "b", "label": label} for label in (1.0, 2.5, 4.0)]
    told = {}
    for name, system, rows in (("tag", "majority", train), ("similarity", "mean", pairs)):
        records, kind = list(read_records(rows)), task_class(name)
        task = kind.learn(records, kind.Settings())
        told[name] = task.metrics(records, BASELINES[name][system](task, records, records))
    assert told["tag"]["token_accuracy"] == 0.6
    assert told["similarity"] == {"pearson": 0.0, "spearman": 0.0}


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="no real data beside the checkout")
def test_every_file_is_there():
    files = {part.file for data in sets.SETS for part in data.parts().values()}
    assert [file for file in sorted(files) if not (SHARED / f"{file}.jsonl.gz").is_file()] == []


def test_rows_of_an_earlier_built_in_model_say_so_until_there_are_others(world: Path):
    rows, _, _ = run(world, "--sets", "labels", "--untrained", "--rates", "0.01", "--seeds", "1")
    named = [
        row | {"start": row["start"].replace("small", "builtin")} if "start" in row else row
        for row in rows
        if row["set"] == "labels"
    ]
    (now,) = {row["weights"] for row in named if row.get("start") == "builtin"}
    learnt = {"labels": named[0]["learnt"]}

    def systems(rows: list[dict[str, Any]], builtin: str | None) -> list[str]:
        page = pages.page(rows, learnt, sets=[LABELS], builtin=builtin)
        assert ("wait to be measured anew" in page) == ("earlier builtin" in page)
        return [line.split(" | ")[2] for line in page.splitlines() if "builtin" in line and line.count("|") > 4]

    assert set(systems(named, now)) == {"builtin", "builtin-untrained"}
    assert set(systems(named, "of today")) == {"earlier builtin", "earlier builtin-untrained"}
    today = [row | {"weights": "of today"} for row in named if row.get("start") == "builtin"]
    # An untrained shape is the one that was built in when it was measured.
    assert set(systems(named + today, "of today")) == {"builtin", "earlier builtin-untrained"}
    assert set(systems(today + named, "of today")) == {"builtin", "builtin-untrained"}
    shapes = [row | {"weights": "of another"} for row in named if row.get("start") == "builtin-untrained"]
    assert set(systems(named + today + shapes, "of today")) == {"builtin", "builtin-untrained"}
