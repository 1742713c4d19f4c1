"""Comparing two models or runs on the same records: `evaluate --against` and `finetune --against`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bothways.infer.comparing import seeds_of

FIELDS = ["difference", "low", "high", "p", "first", "second", "verdict"]


@pytest.fixture(scope="module")
def seeds(made, command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run with two seeds, compared with the one that is there, and what it printed."""
    out = tmp_path_factory.mktemp("against") / "run"
    told = command(
        *("finetune", "classify", "--model", made.pretrained, "--train", made.train, "--dev", made.dev),
        *("--epochs", 1, "--batch", 8, "--seeds", 2, "--against", made.finetuned, "--out", out),
    )
    assert told.code == 0, told.err
    return out, told.out


def test_a_model_is_no_better_than_itself(made, command):
    words = ("evaluate", made.finetuned, "--data", made.dev, "--against", made.finetuned / "model")
    scores = json.loads(command(*words, "--json").out)
    against = scores["against"]
    assert against["model"] == str(made.finetuned / "model")
    assert (against["seeds"], against["model_seeds"]) == (1, 1)
    assert list(against["accuracy"]) == FIELDS
    assert against["accuracy"]["first"] == pytest.approx(scores["accuracy"])
    assert [against["accuracy"][name] for name in ("difference", "low", "high", "p")] == [0, 0, 0, 1]
    lines = command(*words).out.splitlines()
    assert [line.split()[0] for line in lines[-7:]] == FIELDS
    assert lines[-1] == f"    {'verdict':24} no significant difference"


def test_a_run_with_seeds_is_compared_by_their_means(made, command, seeds):
    out, printed = seeds
    values = [float(value) for value in re.search(r"accuracy_seeds +(.+)", printed)[1].split()]
    verdicts = re.findall(r"verdict +(.+)", printed)
    assert len(verdicts) == 1
    told = command("evaluate", out, "--data", made.dev, "--against", made.finetuned, "--json")
    against = json.loads(told.out)["against"]
    assert (against["seeds"], against["model_seeds"]) == (2, 1)
    assert against["accuracy"]["first"] == pytest.approx(sum(values) / 2, abs=1e-4)
    assert against["accuracy"]["verdict"] == verdicts[0]
    back = json.loads(command("evaluate", made.finetuned, "--data", made.dev, "--against", out, "--json").out)
    assert back["against"]["accuracy"]["difference"] == pytest.approx(-against["accuracy"]["difference"])


def test_each_seed_of_a_run_is_found_in_order(tmp_path: Path):
    for number in (10, 9, 2):
        (tmp_path / f"seed-{number}" / "model").mkdir(parents=True)
        (tmp_path / f"seed-{number}" / "model" / "config.json").touch()
    (tmp_path / "seed-11").mkdir()  # it was stopped
    assert [Path(folder).name for folder in seeds_of(tmp_path)] == ["seed-2", "seed-9", "seed-10"]
    assert seeds_of("some/name") == ["some/name"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--against", "{pretrained}"], "{pretrained}/model: this model was pre-trained but has no task yet"),
        (["--against", "/nowhere"], "/nowhere: there is no such model folder"),
        (["--against", "{finetuned}", "--precision", "all"], "--against compares in one precision, found --precision"),
    ],
)
def test_evaluate_says_what_cannot_be_compared(words: list[str], text: str, made, command):
    names = {"pretrained": made.pretrained, "finetuned": made.finetuned}
    told = command("evaluate", made.finetuned, "--data", made.dev, *(word.format(**names) for word in words))
    assert told.code == 2
    assert told.err.startswith(f"bothways: error: {text.format(**names)}")
    assert told.err.count("\n") == 1


def test_models_of_two_tasks_are_not_compared(made, command, tmp_path: Path):
    rows = [{"text_a": row, "text_b": "a day", "text": row, "label": row[:4]} for row in ("good film", "poor town") * 4]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = tmp_path / "pair"
    words = ("finetune", "pair", "--model", made.pretrained, "--train", data, "--epochs", 1, "--out", out)
    assert command(*words).code == 0
    told = command("evaluate", out, "--data", data, "--against", made.finetuned)
    text = f"{made.finetuned}: a model for classify, wanted one for pair: two of one task can be compared"
    wrong = f"bothways: error: {text}\n"
    assert (told.code, told.err.splitlines(keepends=True)[-1]) == (2, wrong)
    again = command(*words[:-1], tmp_path / "other", "--dev", data, "--against", made.finetuned)
    assert (again.code, again.err) == (2, wrong)
    nothing = command(*words[:-1], tmp_path / "other", "--against", out)
    assert nothing.err == "bothways: error: --against compares on the dev records, and there are none; give --dev\n"
    assert not (tmp_path / "other").exists()


def test_what_can_not_be_compared_is_told_before_anything_is_scored(
    made, command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bothways.infer.predictor.Predictor.score", lambda *_, **__: pytest.fail("it was scored"))
    told = command("evaluate", made.finetuned, "--data", made.dev, "--against", made.pretrained)
    assert told.code != 0
    assert "this model was pre-trained but has no task yet" in told.err
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(f'{{"text_a": "{n}", "text_b": "b"}}\n' for n in range(4)), encoding="utf-8")
    out = tmp_path / "vectors"
    words = ("--model", made.pretrained, "--train", data, "--dev", data, "--against", made.pretrained, "--out", out)
    told = command("finetune", "embed", *words)
    assert (
        told.err == "bothways: error: models for embed can't be compared record by record: the task has no such score\n"
    )
    assert not out.exists()
    told = command("evaluate", made.finetuned, "--data", made.dev, "--split", "dev")
    assert "--split is for a folder to rank" in told.err
