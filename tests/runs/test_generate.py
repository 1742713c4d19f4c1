"""`python -m runs.generate` on a small world: every kind of set, a peer that trains for a moment, samples, the page."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from runs import generate, plan, transformers_writer
from runs.results import ResultsPlan
from runs.rows import Rows
from runs.writers import WRITERS, copied, lead, likest, nearest
from runs.writing_samples import SAMPLES
from runs.writing_sets import SETS, WritingSet

from bothways.cli.main import main as command
from bothways.data.record import IN_MEMORY, Record
from bothways.infer.predictor import load
from bothways.models.model import fresh, save
from bothways.nn.encoder import EncoderConfig
from bothways.text.tokenizer import Tokenizer

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PAIRS = [
    {"source": "i see", "target": "我看"},
    {"source": "i eat", "target": "我吃"},
    {"source": "you see", "target": "你看"},
    {"source": "you eat", "target": "你吃"},
    {"source": "i see you", "target": "我看你"},
    {"source": "you see me", "target": "你看我"},
]
ASKED = [
    {
        "question": "谁看你？",
        "context": "今天我吃。我看你。",
        "answers": {"text": ["我", "我看你", "我"], "answer_start": [5, 5, 5]},
    }
]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "i", "see", "eat", "you", "me", *"我你看吃谁今天，。？"]
FLAGS = ("--batching.max-length", "16", "--generate.decoding.max-length", "6")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Threads cost more than they give in so small a network."""
    torch.set_num_threads(1)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data, a small model, two sets; runs are made in this process and written down."""
    for folder, rows in (("zh/pairs", PAIRS), ("zh/asked", ASKED * 6), ("en", [])):
        (tmp_path / "shared" / folder).mkdir(parents=True)
        for split in ("train", "dev", "test"):
            with gzip.open(tmp_path / "shared" / folder / f"{split}.jsonl.gz", "wt", encoding="utf-8") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = Tokenizer.from_vocab(WORDS)
    shape = EncoderConfig(
        vocab_size=tokenizer.size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
    )
    save(fresh(shape, tokenizer, None), tmp_path / "small")
    answers: dict[str, Any] = {"flags": (*FLAGS, "--generate.long", "first"), "kind": "answers", "max_length": 12}
    sets = [
        WritingSet("pairs", "generate", "zh/pairs", ("bleu", "chrf"), flags=FLAGS, max_length=16),
        WritingSet("asked", "generate", "zh/asked", ("rougeL", "f1", "em"), **answers),
    ]
    monkeypatch.setattr(generate, "SETS", sets)
    own = tuple((row["source"], row["target"]) for row in PAIRS[:3])
    monkeypatch.setattr(generate, "SAMPLES", {"pairs": own, "asked": own})

    def run(*words: str, module: str) -> float:
        with (tmp_path / "calls").open("a") as calls:
            calls.write(f"{module} {' '.join(words)}\n")
        assert (command if module == "bothways" else transformers_writer.main)([*words]) == 0
        return 1.0

    monkeypatch.setattr(plan, "bothways", run)
    return tmp_path


def make(world: Path, *more: str) -> tuple[list[dict[str, Any]], str, list[str]]:
    """The rows, the page, and what was run so far."""
    words = ["--shared", world / "shared", "--work", world / "work", "--rows", world / "rows.jsonl"]
    words += ["--page", world / "page.md", "--start", world / "small", "--minutes", "0.0002", *more]
    assert generate.main(list(map(str, words))) == 0
    calls = (world / "calls").read_text().splitlines() if (world / "calls").exists() else []
    return Rows(world / "rows.jsonl").all(), (world / "page.md").read_text(encoding="utf-8"), calls


def test_a_set_is_measured_beside_baselines_and_told(world: Path) -> None:
    rows, page, calls = make(world, "--without-peer", "--decoders", "copy", "share")
    assert [row["measure"] for row in rows] == ["baseline"] * 2 + ["dev", "test"] * 2 + ["baseline"] * 2 + [
        "dev",
        "test",
    ] * 2
    assert [call.split("--generate.decoder ")[1].split()[0] for call in calls] == ["copy", "share"] * 2
    pairs = next(row for row in rows if row["measure"] == "test")
    assert pairs["start"] == "small, copy"
    assert {"bleu", "chrf", "rougeL", "perplexity", "records", "tokens_dropped"} <= set(pairs["tests"]["test"])
    assert any("tok:zh" in one for one in pairs["signatures"])
    assert [one["chrf"] for one in pairs["samples"]] == sorted(one["chrf"] for one in pairs["samples"])
    assert {one["source"] for one in pairs["samples"]} == {row["source"] for row in PAIRS[:3]}
    left = (world / "work" / "samples.md").read_text(encoding="utf-8")
    assert left.count("\n## ") + 1 == 4
    assert left.count("| chrF |") == 4
    asked = rows[-1]
    assert {"em", "f1", "rougeL"} <= set(asked["tests"]["test"])
    assert asked["tests"]["test"]["tokens_dropped"] > 0
    assert "## Translation" in page
    assert "| small, share | 0.0005 | 1 |" in page
    assert "0.0002 minutes of steps" in page
    assert f"| pairs | test | the source itself | – | – | {rows[0]['tests']['test']['bleu']:.2f} |" in page
    assert "| chrF | source | reference | written |" in page
    assert make(world, "--without-peer", "--decoders", "copy", "share") == (rows, page, calls)
    assert make(world, "--write", "--minutes", "30") == (rows, page, calls)  # as long as they were learnt
    told = make(world, "--sets", "pairs", "--minutes", "0.0003", "--without-peer")[1]
    assert "0.0003 minutes of steps" in told
    assert "0.0002 minutes of steps" in told  # the other set's rows stay
    kept = (world / "rows.jsonl").read_text()
    (world / "rows.jsonl").write_text(kept.replace('"zh/', '"en/'))
    with pytest.raises(SystemExit, match=r"no row in .* was learnt as the sets are now, so the page would be empty"):
        make(world, "--write")
    assert (world / "page.md").read_text(encoding="utf-8") == told


def test_every_set_has_samples_of_our_own() -> None:
    assert set(SAMPLES) == {data.name for data in SETS}
    assert all(len(pairs) == 5 and all(map(all, pairs)) for pairs in SAMPLES.values())


def test_transformers_learns_the_same_for_as_long(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a slow machine the first steps fall where the clock's rate is 0; how it goes is tested below.
    monkeypatch.setattr(transformers_writer.Clock, "rate", lambda self, step: 1.0)
    rows, page, calls = make(world, "--sets", "pairs", "--keep", "--minutes", "0.004")
    assert [call.split(" finetune")[0] for call in calls] == ["bothways", "runs.transformers_writer"]
    ours, theirs = (call.split(" finetune ")[1] for call in calls)
    seconds = {row["start"]: row["steps_seconds"] for row in rows if row["measure"] == "dev"}
    minutes = f"--minutes {seconds['small, copy'] / 60:g}"  # as long as the steps of Bothways took, not as was planned
    assert ours.replace("small, copy", "").replace("--minutes 0.004", minutes) == theirs.replace(
        "small, copy, by transformers", ""
    )
    assert "the steps took 0.0 (small, copy), " in page
    theirs = next(row for row in rows if row.get("start") == "small, copy, by transformers" and row["measure"] == "dev")
    assert theirs["dev"]["steps"] >= 1
    assert theirs["steps_seconds"] >= seconds["small, copy"]
    assert "| small, copy, by transformers | 0.0005 | 1 |" in page
    (folder,) = (world / "work" / "runs" / "pairs" / "small, copy, by transformers").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["log.jsonl", "model"]
    before, after = load(world / "small"), load(folder)
    names = dict(before.model.network.encoder.named_parameters())
    name = next(name for name in names if "layers" in name and name.endswith("weight") and names[name].ndim == 2)
    assert not names[name].equal(dict(after.model.network.encoder.named_parameters())[name]), "it has learnt"
    assert after.model.task is not None


def test_the_rate_follows_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    time = SimpleNamespace(now=0.0, monotonic=lambda: time.now)
    monkeypatch.setattr(transformers_writer, "time", time)
    clock = transformers_writer.Clock(1.0, 0.1)
    clock.begin()
    for time.now, rate in ((0.0, 0), (3.0, 0.5), (6.0, 1), (33.0, 0.5), (60.0, 0), (70.0, 0)):
        assert clock.rate(0) == pytest.approx(rate)
    time.now = 30.0
    with clock.paused():
        time.now = 90.0
    assert clock.share == pytest.approx(0.5)


def test_what_is_written_without_a_model() -> None:
    def records(*sources: str, **more: Any) -> list[Record]:
        return [Record({"source": one, "target": f"<{one}>", **more}, IN_MEMORY, n) for n, one in enumerate(sources, 1)]

    train = records("今天天气很好", "the bridge was built", "他在睡觉")
    assert copied(None, train, records("a b")) == [{"text": "a b"}]
    assert lead(None, train, records("一句。两句。", "Dr. Li came. He left.", "x")) == [
        {"text": "一句。"}, {"text": "Dr. Li came."}, {"text": "x"},
    ]  # fmt: skip
    assert nearest(None, train, records("天气好", "a bridge built", "睡觉")) == [
        {"text": "<今天天气很好>"}, {"text": "<the bridge was built>"}, {"text": "<他在睡觉>"},
    ]  # fmt: skip
    asked = records("x", question="谁写了它？", context="天很蓝。它是鲁迅写的。")
    assert likest(None, train, asked) == [{"text": "它是鲁迅写的。"}]


def test_records_of_the_sets(tmp_path: Path) -> None:
    assert len({data.name for data in SETS}) == len(SETS) == 12
    assert {data.kind for data in SETS} == set(WRITERS) == set(generate.TITLES)
    back = next(data for data in SETS if data.name == "ted_zh_en")
    assert back.record({"source": "a", "target": "一"}) == {"target": "a", "source": "一"}
    answers = next(data for data in SETS if data.kind == "answers").record(ASKED[0])
    assert (answers["source"], answers["target"]) == ("谁看你？ 今天我吃。我看你。", ["我", "我看你"])
    plan = ResultsPlan(tmp_path, tmp_path, Rows(tmp_path / "rows"), 1, quick=False)
    one = replace(SETS[0], minutes=30.0)
    assert plan.learnt(one)["minutes"] == 30.0
    assert "minutes" not in plan.learnt(SETS[0])


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="no real data beside the checkout")
def test_every_file_is_there() -> None:
    files = {part.file for data in SETS for part in data.parts().values()}
    assert [file for file in sorted(files) if not (SHARED / f"{file}.jsonl.gz").is_file()] == []
